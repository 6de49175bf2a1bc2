"""`index.html`: the scenes of an output folder as a table that sorts, and where they lie."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from geoseg.errors import GeosegError, SourceError
from geoseg.io.files import publish_bytes
from geoseg.io.places import Place
from geoseg.legend import LandClass
from geoseg.report import pictures
from geoseg.report.charts import stack, swatch
from geoseg.report.facts import (
    INDEX,
    LANDCOVER,
    REPORT,
    RUN,
    SceneFacts,
    dig,
    items,
    number,
    read_object,
    scene_folders,
    text,
)
from geoseg.report.footprints import Footprint, draw_world
from geoseg.report.layers import color_of
from geoseg.report.outlines import short
from geoseg.report.page import render
from geoseg.report.paths import named_only
from geoseg.report.scene import class_shares
from geoseg.report.sections import duration, percent, score
from geoseg.report.views import view_of

MOST_SCENES = 2_000
MOST_THUMBS = 300
THUMB_PX = 96
SHARES_PX = 512
TABLE_CLASSES = 8
STATUS = {
    "done": "mapped", "unchanged": "unchanged", "failed": "failed", "partial": "partial", "postponed": "postponed",
    "waiting": "not begun",
}  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """A line of the index. href: of its report. shares: by class name. place: bbox in WGS 84."""

    name: str
    status: str
    reason: str = ""
    href: str = ""
    thumb: str = ""
    megapixels: float | None = None
    miou: float | None = None
    seconds: float | None = None
    shares: Mapping[str, float] = field(default_factory=dict)
    classes: Sequence[LandClass] = ()
    place: tuple[float, ...] | None = None


def write_index(output: Place) -> Place:
    """Write `output/index.html` from run.json and the scenes' folders; the same input, the same bytes.

    A scene whose folder is damaged is listed with the reason. Raises SourceError where there is no run or run.json is
    damaged, OutputError where the disk refuses.
    """
    path = output / INDEX
    publish_bytes(path, index_page(output))
    return path


def index_page(output: Place) -> bytes:
    """The page of an output folder."""
    run, names = read_run(output)
    rows = {text(row.get("name")): row for row in items(run.get("scenes"))}
    kept = names[:MOST_SCENES]
    scenes = [_scene(output, name, rows.get(name), i < MOST_THUMBS) for i, name in enumerate(kept)]
    scenes = [replace(scene, reason=named_only(scene.reason, run, output)) for scene in scenes]
    classes: dict[str, LandClass] = {}
    for scene in scenes:
        for c in scene.classes:
            classes.setdefault(c.name, c)
    columns = list(classes.values())[:TABLE_CLASSES]
    failed = [{"name": short(s.name), "reason": s.reason} for s in scenes if s.reason]
    left = len(names) - len(kept)
    started = text(run.get("started"))[:10]
    name = output.resolve().name
    lead = [f"{len(names):,} scene{'s' * (len(names) != 1)}", *([f"last run {started}"] if started else [])]
    if model := text(dig(run, "model", "name")):
        lead.append(f"{model} {text(dig(run, 'model', 'version'))}")
    feet = [Footprint(short(s.name), s.href, s.place) for s in scenes if s.place is not None]  # type: ignore[arg-type]
    return render(
        "index.html.j2", "index.js", {}, title=f"{short(name)} – land cover", name=name, lead=" · ".join(lead),
        figures=_figures(scenes), failed=failed, heads=_heads(columns), rows=[_row(s, columns) for s in scenes],
        classes=[{"swatch": swatch(color_of(c)), "name": c.name} for c in columns],
        left_out=f"{left:,} more are not listed." if left else "", world=draw_world(feet, len(scenes)),
    )  # fmt: skip


def read_run(output: Place) -> tuple[dict[str, Any], list[str]]:
    """run.json (empty without one), and the names of all scenes: its own, then those of earlier runs.

    Raises SourceError where there is no run.
    """
    run = read_object(output / RUN)
    names = [text(row.get("name")) for row in items(run.get("scenes"))]
    names += [folder.name for folder in scene_folders(output)]
    names = [name for name in dict.fromkeys(names) if name and name != RUN]
    if not names:
        raise SourceError(
            "holds no results of 'geoseg run': neither a run.json with scenes nor a folder with a map", output
        )
    return run, names


def _scene(output: Place, name: str, row: Mapping[str, Any] | None, with_thumb: bool) -> Scene:
    """What is known of a scene; row: of run.json, None where another run has made it."""
    reason = text(dig(row, "error"))
    status = STATUS.get(text(dig(row, "status")), "failed") if row is not None else "earlier run"
    megapixels = number(dig(row, "megapixels"))
    seconds = _total(dig(row, "seconds"))
    folder = output / name
    if Path(name).name != name or name.startswith(".") or not (folder / LANDCOVER).is_file():
        return Scene(name, status, reason, megapixels=megapixels, seconds=seconds)
    try:
        facts = SceneFacts.read(folder)
        view = view_of(facts.landcover, SHARES_PX)
    except GeosegError as error:
        return Scene(name, "damaged", reason or str(error), megapixels=megapixels, seconds=seconds)
    shares, *_ = class_shares(facts, view)
    miou = number(facts.overall.get("miou"))
    box = (
        [number(side) for side in facts.item.get("bbox", [])]
        if isinstance(facts.item.get("bbox"), list)
        else []
    )
    known = tuple(side for side in box if side is not None)
    small = pictures.thin_out(view, THUMB_PX)
    return Scene(
        name, status, reason,
        href=f"./{quote(os.fsencode(name))}/{REPORT}",
        thumb=pictures.data_uri(pictures.classes(small, facts.legend)) if with_thumb else "",
        megapixels=round(facts.landcover.grid.megapixels, 3), miou=miou, seconds=_total(facts.row.get("seconds")),
        shares={c.name: shares[c.id] for c in facts.legend.classes if c.id in shares},
        classes=facts.legend.classes, place=known if len(known) == 4 else None,
    )  # fmt: skip


def _total(times: Any) -> float | None:
    """Seconds of all stages, None where nothing is known of them."""
    return sum(number(t) or 0.0 for t in times.values()) or None if isinstance(times, dict) else None


def _heads(columns: Sequence[LandClass]) -> list[dict[str, Any]]:
    named = [("scene", "text"), ("status", "text"), ("Mpx", "number"), *((c.name, "number") for c in columns)]
    named += [("mIoU", "number"), ("time", "number")]
    return [{"label": label, "kind": kind, "sorted": False} for label, kind in named]


def _row(scene: Scene, columns: Sequence[LandClass]) -> dict[str, Any]:
    def cell(value: float | None, shown: str) -> dict[str, Any]:
        return {"value": "" if value is None else f"{value:.6g}", "text": shown, "bad": False}

    known = [(c, scene.shares.get(c.name)) for c in columns]
    cells = [
        {"value": scene.status, "text": scene.status, "bad": bool(scene.reason)},
        cell(scene.megapixels or None, f"{scene.megapixels:,.1f}" if scene.megapixels else "–"),
        *(cell(share, percent(share)) for _, share in known),
        cell(scene.miou, score(scene.miou)),
        cell(scene.seconds, "–" if scene.seconds is None else duration(scene.seconds)),
    ]
    mix = stack([(share, color_of(c)) for c, share in known if share is not None and share > 0.001])
    return {
        "name": scene.name, "short": short(scene.name), "href": scene.href, "thumb": scene.thumb, "cells": cells,
        "mix": mix if scene.shares else "",
    }  # fmt: skip


def _figures(scenes: Sequence[Scene]) -> list[dict[str, str]]:
    done = [s for s in scenes if s.href]
    found = [("mapped", f"{len(done):,}"), ("megapixels", f"{sum(s.megapixels or 0 for s in done):,.1f}")]
    if failed := sum(bool(s.reason) for s in scenes):
        found.insert(1, ("failed", f"{failed:,}"))
    scores = [s.miou for s in done if s.miou is not None]
    if scores:
        found.append(("mean of mIoU", score(float(np.mean(scores)))))
    total = sum(s.seconds or 0 for s in scenes)
    if total:
        found.append(("time", duration(total)))
    return [{"label": label, "value": value, "note": ""} for label, value in found]
