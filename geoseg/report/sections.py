"""The parts of a report below its map: figures, bars and tables, each from what the run has left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from geoseg.report.charts import bar, histogram, reliability, swatch
from geoseg.report.facts import SceneFacts, dig, number, pair
from geoseg.report.layers import color_of
from geoseg.stages.weighing import EVERYTHING

MOST_CLASSES = 16
"""Classes in tables of classes against something; the commonest ones where a map has more."""
STAGES = {
    "open": "open files",
    "start": "start the network",
    "map": "map",
    "merge": "merge blocks",
    "evaluate": "score",
    "objects": "score buildings and roads",
    "errors": "map of errors",
    "vectorize": "vectors",
    "areas": "areas",
    "report": "report",
}
SCORES = (("iou", "IoU"), ("dice", "F1"), ("precision", "precision"), ("recall", "recall"))
TINTS = (0.005, 0.05, 0.2, 0.4, 0.6)
BIN = 5


def percent(share: float | None, digits: int = 1) -> str:
    """A share as a person reads it; a dash where it is unknown."""
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def score(value: float | None) -> str:
    """A score from 0 to 1."""
    return "–" if value is None else f"{value:.3f}"


def hectares(value: float | None) -> str:
    """An area."""
    return "–" if value is None else f"{value:,.0f} ha" if value >= 100 else f"{value:,.2f} ha"


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def spread(ends: tuple[float, float] | None, digits: int = 2, title: str = "95 %: ") -> str:
    """An interval in words."""
    return "" if ends is None else f"{title}{ends[0]:.{digits}f} to {ends[1]:.{digits}f}"


def class_areas(
    facts: SceneFacts, shares: Mapping[int, float], exact: bool, mapped_px: float
) -> dict[str, Any]:
    """Bars and table of how much each class covers.

    shares: 0..1 of what is mapped, by class id; exact: whether they were counted. mapped_px: pixels that are mapped.
    """
    own = {c.id: facts.areas.get((EVERYTHING, c.id)) for c in facts.legend.classes}
    measured = any(row is not None and row.hectares is not None for row in own.values())
    gsd = facts.landcover.grid.gsd_m
    sizes: dict[int, float] = {}
    for c in facts.legend.classes:
        row = own[c.id]
        if measured and row is not None and row.hectares is not None:
            sizes[c.id] = row.hectares
        elif gsd is not None:
            sizes[c.id] = shares.get(c.id, 0.0) * mapped_px * gsd**2 / 10_000
    adjusted = {i: r.adjusted_ha for i, r in own.items() if r is not None and r.adjusted_ha is not None}
    total = sum(sizes.values())
    most = max(
        (r.adjusted_ha + (r.adjusted_ci95_ha or 0) for r in own.values() if r and r.adjusted_ha), default=0
    )
    top = max([*shares.values(), most / total if total else 0], default=0) or 1
    bars, rows = [], []
    for c in sorted(facts.legend.classes, key=lambda one: (-shares.get(one.id, 0.0), one.id)):
        share, row = shares.get(c.id, 0.0), own[c.id]
        low = high = None
        note = hectares(sizes[c.id]) if c.id in sizes else ""
        if row is not None and row.adjusted_ha is not None and row.adjusted_ci95_ha is not None and total:
            low = max(0.0, row.adjusted_ha - row.adjusted_ci95_ha) / total / top
            high = (row.adjusted_ha + row.adjusted_ci95_ha) / total / top
            note = f"{hectares(row.adjusted_ha)} ± {row.adjusted_ci95_ha:,.2f} adjusted"
        color = color_of(c)
        shown = {"name": c.name, "swatch": swatch(color), "value": percent(share), "note": note}
        bars.append({**shown, "bar": bar(share / top, color, low, high)})
        cells = [c.name, str(c.id), percent(share, 3), hectares(sizes.get(c.id))]
        if adjusted:
            cells += [hectares(adjusted.get(c.id)), hectares(row.adjusted_ci95_ha if row else None)]
        rows.append(cells)
    note = "Share of what is mapped" + ("" if exact else ", estimated from a reduced copy of the map")
    if sizes:
        note += "; hectares on the ellipsoid" if measured else "; hectares from the central pixel’s size"
    if adjusted:
        note += (
            ". Whiskers: area adjusted for the map’s errors, with its 95 % interval (Olofsson et al. 2014)"
        )
    head = ["class", "id", "share", "area", *(["adjusted area", "95 % ±"] if adjusted else [])]
    table = {"title": "Areas as numbers", "head": head, "rows": rows}
    return {"title": "Area by class", "note": note + ".", "bars": bars, "table": table}


def class_scores(facts: SceneFacts) -> dict[str, Any] | None:
    """Bars of IoU per class with their intervals, and a table of all scores; None without labels."""
    whole = facts.overall
    ious = whole.get("iou")
    if not isinstance(ious, dict):
        return None
    kinds = [(key, title) for key, title in SCORES if isinstance(whole.get(key), dict)]
    spans = {
        (key, c.name): pair(dig(whole, "intervals", key, c.name))
        for key, _ in kinds
        for c in facts.legend.classes
    }
    bars, rows = [], []
    for c in facts.legend.classes:
        value, ends = number(ious.get(c.name)), spans.get(("iou", c.name))
        low, high = ends or (None, None)
        shown = {"name": c.name, "swatch": swatch(color_of(c)), "value": score(value)}
        note = f"{low:.2f} to {high:.2f}" if low is not None and high is not None else ""
        bars.append({**shown, "note": note, "bar": bar(value, color_of(c), low, high)})
        cells = [c.name]
        for key, _ in kinds:
            ends = spans[key, c.name]
            cells += [score(number(dig(whole, key, c.name))), spread(ends, 3, "") or "–"]
        ends = pair(dig(whole, "boundary", "intervals", "f1", c.name))
        cells += [score(number(dig(whole, "boundary", "f1", c.name))), spread(ends, 3, "") or "–"]
        support = number(dig(whole, "support", c.name))
        rows.append([*cells, "–" if support is None else f"{support:,.0f}"])
    note = "IoU: the part of a class’s pixels, in map or labels, that both agree on; 1 is full agreement."
    if any(ends is not None for ends in spans.values()):
        note += " Whiskers and small figures: 95 % intervals by block bootstrap."
    remarks = facts.metrics.get("remarks")
    note = " ".join([note, *map(str, remarks if isinstance(remarks, list) else ())])
    titles = [*(title for _, title in kinds), "boundary F1"]
    head = ["class", *(h for title in titles for h in (title, "95 %")), "labeled pixels"]
    return {"note": note, "bars": bars, "table": {"title": "Scores as numbers", "head": head, "rows": rows}}


def confusion(facts: SceneFacts) -> dict[str, Any] | None:
    """The confusion matrix in percent of each labeled class; None without one that fits the legend."""
    counts, classes = facts.overall.get("confusion"), facts.legend.classes
    size = len(classes)
    if not isinstance(counts, list) or len(counts) != size:
        return None
    if any(not isinstance(row, list) or len(row) != size + 1 for row in counts):
        return None
    values = [[number(cell) or 0.0 for cell in row] for row in counts]
    totals = [sum(row) for row in values]
    kept = sorted(sorted(range(size), key=lambda i: -totals[i])[:MOST_CLASSES])
    with_unmapped = any(values[i][size] for i in kept)
    columns = [*kept, *([size] if with_unmapped else [])]
    names = [*(c.name for c in classes), "unmapped"]
    rows = []
    for i in kept:
        cells = []
        for j in columns:
            share = values[i][j] / totals[i] if totals[i] else None
            tint = 0 if share is None else sum(share >= step for step in TINTS)
            shown = "–" if share is None else percent(share, 1)
            cells.append({"text": shown, "tint": tint, "hit": i == j})
        rows.append({"name": names[i], "cells": cells})
    note = "Each row is a labeled class and says where its pixels went; framed cells are right."
    if len(kept) < size:
        note += f" The {len(kept)} classes with most labels, of {size}."
    table = {
        "title": "Counts in pixels",
        "head": ["labeled ↓ mapped →", *(names[j] for j in columns)],
        "rows": [[names[i], *(f"{values[i][j]:,.0f}" for j in columns)] for i in kept],
    }
    return {"note": note, "head": [names[j] for j in columns], "rows": rows, "table": table}


def sureness(facts: SceneFacts, sampled: Sequence[int] | None) -> list[dict[str, Any]]:
    """The reliability curve where there are labels, and the histogram of confidence.

    sampled: pixels of each whole percent in a sample of the raster; None without confidence.
    """
    charts = []
    rows = dig(facts.overall, "calibration", "curve")
    curve = [r for r in rows if isinstance(r, list) and len(r) == 3] if isinstance(rows, list) else []
    known = [(number(p), number(n), number(s)) for p, n, s in curve]
    points = [(p, n, s) for p, n, s in known if p is not None and n is not None and s is not None and n > 0]
    if points:
        charts.append(_reliability_chart(facts, points))
    if sampled is not None and any(sampled):
        total = sum(sampled)
        shares = [sum(sampled[i : i + BIN]) / total for i in range(0, 100, BIN)]
        shares[-1] += sampled[100] / total
        names = [f"{i} to {i + BIN - 1 if i + BIN < 100 else 100} %" for i in range(0, 100, BIN)]
        mean = mean_percent(sampled)
        label = f"Histogram of confidence; its mean is {mean:.0f} percent"
        charts.append(
            {
                "title": "How sure the map is",
                "note": f"Confidence of {total:,} pixels, from windows spread evenly; the mean is {mean:.1f} %.",
                "plot": histogram(shares, label),
                "table": {
                    "title": "Histogram as numbers",
                    "head": ["confidence", "pixels", "share"],
                    "rows": [
                        [name, f"{n:,}", percent(s)]
                        for name, s, n in zip(names, shares, (round(s * total) for s in shares), strict=True)
                    ],
                },
            }
        )
    return charts


def mean_percent(counts: Sequence[int]) -> float:
    """The mean of whole percents. counts: (101,) pixels of each."""
    return float(np.average(np.arange(len(counts)), weights=counts))


def _reliability_chart(facts: SceneFacts, points: Sequence[tuple[float, float, float]]) -> dict[str, Any]:
    """In bins of BIN percent; a bin stands where its pixels' mean confidence is."""
    bins: dict[int, list[float]] = {}
    for p, n, share in points:
        total = bins.setdefault(min(int(p) // BIN, 100 // BIN - 1), [0.0, 0.0, 0.0])
        for i, more in enumerate((n, n * p / 100, n * share)):
            total[i] += more
    whole = sum(n for n, *_ in bins.values())
    dots = [(sure / n, right / n, n / whole) for _, (n, sure, right) in sorted(bins.items())]
    error = number(dig(facts.overall, "calibration", "expected_error"))
    note = (
        "On the dashed line, 80 % confidence means right in 80 of 100 pixels; below it, the map is too sure."
    )
    if error is not None:
        note += f" Expected calibration error: {percent(error)}."
    rows = [[percent(c), percent(r), f"{w * whole:,.0f}"] for c, r, w in dots]
    return {
        "title": "Whether confidence keeps its promise",
        "note": note,
        "plot": reliability(dots, "Reliability curve: share of right pixels by confidence"),
        "table": {"title": "Curve as numbers", "head": ["mean confidence", "right", "pixels"], "rows": rows},
    }


def stages(facts: SceneFacts) -> dict[str, Any] | None:
    """Bars of the seconds that each stage took; None where that is not known."""
    found = facts.row.get("seconds")
    times = {str(k): number(v) or 0.0 for k, v in found.items()} if isinstance(found, dict) else {}
    total = sum(times.values())
    if total <= 0:
        return None
    slowest = max(times, key=lambda key: times[key])
    name = STAGES.get(slowest, slowest)
    note = f"The bottleneck is “{name}”: {percent(times[slowest] / total, 0)} of {duration(total)}."
    mpx = facts.landcover.grid.megapixels
    if times.get("map") and not facts.row.get("blocks_found"):  # else only some of it was mapped in that time
        note += f" {mpx:,.1f} Mpx were mapped at {mpx / times['map']:.2f} Mpx/s."
    bars = [
        {
            "name": STAGES.get(k, k),
            "bar": bar(v / times[slowest]),
            "value": duration(v),
            "note": percent(v / total, 0),
        }
        for k, v in times.items()
    ]
    rows = [[STAGES.get(k, k), f"{v:.3f}", percent(v / total)] for k, v in times.items()]
    return {
        "note": note,
        "bars": bars,
        "table": {"title": "Times as numbers", "head": ["stage", "s", "share"], "rows": rows},
    }
