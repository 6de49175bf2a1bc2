"""Regions of a report: what is known of each, for the map's colors, the panel and the table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import shapely

from geoseg.grid.geogrid import GeoGrid
from geoseg.grid.window import Window
from geoseg.legend import LandClass
from geoseg.pixels.burn import apply, burn
from geoseg.report.charts import stack
from geoseg.report.facts import SceneFacts, dig, items, number, pair
from geoseg.report.layers import MapContent, color_of
from geoseg.report.outlines import DrawnRegion, MapFrame, short
from geoseg.report.sections import MOST_CLASSES, percent, score
from geoseg.report.views import view_grid

TABLE_CLASSES = 6
"""Classes with a column of their own."""
MIX_CLASSES = 8
"""Parts of a bar, the largest ones."""


def region_records(facts: SceneFacts, content: MapContent, view: np.ndarray) -> list[dict[str, Any]]:
    """A record for each drawn region: name, box, values by the keys of `measures` and of `per_class`.

    view: land cover of the whole scene, reduced; it stands in where no areas were measured.
    """
    scored = items(facts.metrics.get("regions"))
    by_name = {row.get("region"): row for row in scored}
    grid = view_grid(facts.landcover.grid, view.shape)
    classes = shown_classes(facts, view)
    records = []
    for region in content.regions:
        row = dig(scored, region.index) or {}
        if row.get("region") != region.name:
            row = by_name.get(region.name, {})
        values: dict[str, float | None] = {
            "miou": number(row.get("miou")),
            "accuracy": number(row.get("accuracy")),
            "pixels": number(row.get("pixels")),
        }
        shares, sizes = _shares(facts, region, grid, view, content.frame)
        ends = pair(dig(row, "intervals", "miou"))
        values["hectares"] = sum(sizes.values()) if sizes else None
        for i, c in enumerate(classes):
            values[f"share:{i}"] = shares.get(c.id)
            values[f"hectares:{i}"] = sizes.get(c.id)
            values[f"iou:{i}"] = number(dig(row, "iou", c.name))
        kept = {key: round(value, 6) for key, value in values.items() if value is not None}
        records.append(
            {"name": short(region.name), "box": list(region.box), "values": kept, "miou_range": ends}
        )
    return records


def shown_classes(facts: SceneFacts, view: np.ndarray) -> list[LandClass]:
    """The classes that tables of regions show: the commonest MOST_CLASSES in legend order."""
    counts = np.bincount(view.ravel(), minlength=256)
    ranked = sorted(facts.legend.classes, key=lambda c: (-int(counts[c.id]), c.id))
    return sorted(ranked[:MOST_CLASSES], key=lambda c: c.id)


def _shares(
    facts: SceneFacts, region: DrawnRegion, grid: GeoGrid, view: np.ndarray, frame: MapFrame
) -> tuple[dict[int, float], dict[int, float]]:
    """Share, and hectares where they were measured, of each class in a region."""
    measured = {c.id: facts.areas.get((region.name, c.id)) for c in facts.legend.classes}
    shares = {i: row.share for i, row in measured.items() if row is not None and row.share is not None}
    sizes = {i: row.hectares for i, row in measured.items() if row is not None and row.hectares is not None}
    if shares:
        return shares, sizes
    if region.geometry.is_empty:
        return {}, {}
    to_crs = ~frame.to_units
    geometry = shapely.transform(region.geometry, lambda xy: apply(to_crs, xy))
    x, y, width, height = region.box
    scale = view.shape[1] / frame.width, view.shape[0] / frame.height
    first = int(y * scale[1]) - 1, int(x * scale[0]) - 1
    last = math.ceil((y + height) * scale[1]) + 1, math.ceil((x + width) * scale[0]) + 1
    near = Window(*first, last[0] - first[0], last[1] - first[1]).overlap(grid.window)
    if not near.area_px:
        return {}, {}
    counts = np.bincount(view[near.within(grid.window)][burn([geometry], near, grid)], minlength=256)
    ids = list(facts.legend.ids)
    total = int(counts[ids].sum())
    return ({i: int(counts[i]) / total for i in ids}, {}) if total else ({}, {})


def measures(records: Sequence[Mapping[str, Any]], classes: Sequence[LandClass]) -> list[dict[str, str]]:
    """What regions can be colored by. over: region, or class."""
    every = [
        ("miou", "mIoU", "score", "region"),
        ("accuracy", "accuracy", "share", "region"),
        ("hectares", "mapped hectares", "number", "region"),
        ("pixels", "labeled pixels", "number", "region"),
        *((f"share:{i}", f"share of {c.name}", "share", "class") for i, c in enumerate(classes)),
    ]
    there = {key for record in records for key in record["values"]}
    return [
        {"key": k, "label": label, "kind": kind, "over": over} for k, label, kind, over in every if k in there
    ]


def per_class(records: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The columns of the panel's table of classes."""
    there = {key.split(":")[0] for record in records for key in record["values"] if ":" in key}
    every = (("share", "share", "share"), ("hectares", "ha", "number"), ("iou", "IoU", "score"))
    return [{"key": key, "label": label, "kind": kind} for key, label, kind in every if key in there]


def region_table(
    records: Sequence[Mapping[str, Any]], classes: Sequence[LandClass], wanted: Sequence[Mapping[str, str]]
) -> dict[str, Any]:
    """The table of all drawn regions."""
    keys = {m["key"] for m in wanted}
    shown = [(i, c) for i, c in enumerate(classes) if f"share:{i}" in keys][:TABLE_CLASSES]
    head, rows = [], []
    head += ["mIoU"] if "miou" in keys else []
    head += ["95 %"] if any(r["miou_range"] for r in records) else []
    head += ["accuracy"] if "accuracy" in keys else []
    head += ["hectares"] if "hectares" in keys else []
    head += [c.name for _, c in shown]
    for record in records:
        values, ends = record["values"], record["miou_range"]
        cells = []
        for title in head[: len(head) - len(shown)]:
            if title == "95 %":
                cells.append("–" if ends is None else f"{ends[0]:.2f} to {ends[1]:.2f}")
            elif title == "mIoU":
                cells.append(score(values.get("miou")))
            elif title == "accuracy":
                cells.append(percent(values.get("accuracy")))
            else:
                cells.append("–" if "hectares" not in values else f"{values['hectares']:,.1f}")
        cells += [percent(values.get(f"share:{i}")) for i, _ in shown]
        mix = [(values.get(f"share:{i}", 0.0), color_of(c)) for i, c in enumerate(classes)]
        mix = sorted(sorted(mix, reverse=True)[:MIX_CLASSES], key=mix.index)
        rows.append(
            {"name": record["name"], "cells": cells, "mix": stack([one for one in mix if one[0] > 0.001])}
        )
    return {"head": head, "rows": rows}
