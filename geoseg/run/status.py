"""`geoseg status`: how far a run is, or how it ended, from the files of its output folder alone."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

from geoseg.errors import GeosegError, SourceError
from geoseg.io.files import read_json
from geoseg.io.places import Place
from geoseg.run.lease import BEAT_S, read_lease
from geoseg.run.ledger import Ledger
from geoseg.run.pace import limit_text
from geoseg.run.pipeline import LEASE, SUMMARY
from geoseg.run.prepare import SCRATCH

WATCH_S = 2.5 * BEAT_S
"""Long enough for the counter of a lease to rise, if its owner lives."""


@dataclass(frozen=True)
class SceneStatus:
    """state: running, done, partial, failed, waiting, postponed, or stopped (begun, and nobody works on it).

    detail: its stage, share done and bottleneck, or why it failed.
    """

    name: str
    state: str
    detail: str = ""


@dataclass(frozen=True)
class RunStatus:
    """running: whether any scene is being worked on. scenes: those of the last run, then others of the folder."""

    output: str
    started: str | None
    ended: str | None
    running: bool
    scenes: tuple[SceneStatus, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def failed(self) -> bool:
        return any(scene.state in ("failed", "partial") for scene in self.scenes)


def status_of(output: Place, watch_s: float = WATCH_S) -> RunStatus:
    """Look at a folder twice: what moves in between is alive, whatever the clocks of its machines say.

    Raises SourceError for a folder without a run of geoseg.
    """
    scratch = output / SCRATCH
    if not scratch.is_dir() and not (output / SUMMARY).is_file():
        raise SourceError("holds no run of geoseg", output)
    before = _leases(scratch)
    if before:
        time.sleep(watch_s)
    after = _leases(scratch)
    alive = {name: now for name, now in after.items() if name not in before or now != before[name]}
    summary = read_json(output / SUMMARY) or {}
    known = {scene["name"]: scene for scene in summary.get("scenes", [])}
    begun = sorted(path.name for path in scratch.glob("*") if path.is_dir())
    names = [*known, *(name for name in begun if name not in known)]
    return RunStatus(
        str(output), summary.get("started"), summary.get("ended"), bool(alive),
        tuple(_scene(output, name, alive.get(name), known.get(name, {})) for name in names),
    )  # fmt: skip


def format_status(status: RunStatus) -> str:
    """A line for each scene, and one for all."""
    wide = max((len(scene.name) for scene in status.scenes), default=0)
    lines = [f"{scene.name:{wide}}  {scene.state:8} {scene.detail}".rstrip() for scene in status.scenes]
    counts: dict[str, int] = {}
    for scene in status.scenes:
        counts[scene.state] = counts.get(scene.state, 0) + 1
    how = "running" if status.running else f"ended {status.ended}" if status.ended else "not running"
    since = f", started {status.started}" if status.started else ""
    return "\n".join([*lines, f"{', '.join(f'{n} {state}' for state, n in counts.items())}; {how}{since}"])


def _scene(output: Place, name: str, lease: dict[str, Any] | None, known: dict[str, Any]) -> SceneStatus:
    if lease is not None:
        return SceneStatus(name, "running", _progress(lease))
    if known.get("error"):
        return SceneStatus(name, "failed", known["error"])
    if known.get("status") == "partial":
        return SceneStatus(name, "partial", f"{len(known['lost'])} blocks could not be mapped")
    try:
        ledger = Ledger.open(output / SCRATCH / name / "ledger.json")
    except GeosegError as error:
        return SceneStatus(name, "failed", str(error))
    if {"map", "rest"} <= ledger.published.keys():
        return SceneStatus(name, "done")
    if ledger.recipe:
        blocks = sum(1 for _ in (output / SCRATCH / name).glob("blocks-*/r*.tif"))
        state = "postponed" if known.get("status") == "postponed" else "stopped"
        return SceneStatus(name, state, f"{blocks} blocks mapped; the next run goes on")
    return SceneStatus(name, known.get("status", "waiting"))


def _progress(lease: dict[str, Any]) -> str:
    stage, where = lease.get("stage"), f"on {lease.get('host')}"
    if stage == "map" and lease.get("total_mpx"):
        limit = f", {limit_text(lease['bottleneck'])}" if lease.get("bottleneck") else ""
        return f"{stage} {100 * lease['done_mpx'] / lease['total_mpx']:.0f} %{limit} {where}"
    return f"{stage} {where}" if stage else where


def _leases(scratch: Place) -> dict[str, dict[str, Any]]:
    found = {path.parent.name: read_lease(path) for path in scratch.glob(f"*/{LEASE}")}
    return {name: lease for name, lease in found.items() if lease is not None}
