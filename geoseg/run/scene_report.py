"""What became of a scene, for run.json and the terminal; and what is kept of it for runs that find nothing to do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from geoseg.io.files import publish_json, read_json
from geoseg.io.places import Place

MADE = "made.json"
"""Beside the ledger: what the runs that made the published results told of them."""
MAP_STAGES = ("start", "map", "merge")


@dataclass
class SceneReport:
    """What became of a scene, for run.json and the terminal."""

    name: str
    started: str = ""
    status: str = "failed"
    error: str | None = None
    megapixels: float = 0.0
    megapixels_mapped: float = 0.0
    blocks: int = 0
    blocks_found: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)
    miou: float | None = None
    lost: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.took(stage, time.perf_counter() - begin)

    def took(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + seconds, 3)

    def keep(self, scratch: Place, before: dict[str, Any]) -> None:
        """Note how the published results were made. before: the same of the run that made the map, if not this."""
        earlier = {stage: s for stage, s in before.get("seconds", {}).items() if stage in MAP_STAGES}
        made = {
            "seconds": {**earlier, **self.seconds},
            "blocks_found": self.blocks_found if self.blocks else before.get("blocks_found", 0),
            "shares": self.shares or before.get("shares", {}),
            "miou": self.miou,
        }
        publish_json(scratch / MADE, made)

    def recall(self, scratch: Place) -> None:
        """Tell what was told of the results when they were made; there is nothing to add."""
        made = _read(scratch)
        self.seconds, self.shares = made.get("seconds", {}), made.get("shares", {})
        self.miou = made.get("miou")


def take_made(scratch: Place) -> dict[str, Any]:
    """What was kept; it is gone then, until new results are published."""
    made = _read(scratch)
    (scratch / MADE).unlink(missing_ok=True)
    return made


def _read(scratch: Place) -> dict[str, Any]:
    found = read_json(scratch / MADE)
    return found if isinstance(found, dict) else {}
