"""`training.html`: how a training went, from what it has left in its folder."""

from __future__ import annotations

import csv
import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geoseg.errors import SourceError
from geoseg.io.files import publish_bytes
from geoseg.legend import NODATA
from geoseg.report.charts import bar, reliability, swatch
from geoseg.report.curves import curve
from geoseg.report.facts import dig, items, number, read_object, text
from geoseg.report.page import render
from geoseg.report.pictures import data_uri, displayed, flat, photo, shrink_photo, thin_out
from geoseg.report.sections import TINTS, duration, percent, score

FACTS, EXAMPLES, PAGE = "training.json", "examples.npz", "training.html"
LOG = "log/metrics.csv"
SIDE_PX = 320
"""Longer side of an example's pictures."""
MOST_EXAMPLES, MOST_NAMES = 12, 12
LOSSES = ("cross_entropy", "dice", "focal", "lovasz", "tversky", "reverse_cross_entropy")
CURVES = (
    (
        "loss",
        "Loss",
        "loss",
        "Of the batches that were logged; what the loss is made of is in the training file.",
    ),
    ("learning_rate", "Learning rate", "learning rate", "Of all but the encoder, where that has its own."),
    (
        "miou_validation",
        "Mean IoU in validation",
        "mean IoU",
        "Of the averaged weights (EMA); the best ones are kept.",
    ),
)

Row = dict[str, float]


def write_training(folder: Path) -> Path:
    """Write `folder/training.html`; the same input, the same bytes.

    folder: what `geoseg train` leaves beside the bundle. Raises SourceError where training.json is missing or
    damaged, OutputError where the disk refuses.
    """
    path = folder / PAGE
    publish_bytes(path, training_page(folder))
    return path


def training_page(folder: Path) -> bytes:
    """The page of a training folder, as UTF-8."""
    facts = read_object(folder / FACTS)
    if not facts:
        raise SourceError(f"holds no {FACTS}: no training has ended here", folder)
    classes = [(text(c.get("name")), _color(c.get("color"))) for c in items(facts.get("classes"))]
    ids = {int(number(c.get("id")) or 0): _rgb(c.get("color")) for c in items(facts.get("classes"))}
    name = f"{text(facts.get('name'))} {text(facts.get('version'))}"
    return render(
        "training.html.j2", "index.js", {}, title=f"{name} – training", name=name, lead=_lead(facts),
        figures=_figures(facts), curves=_curves(read_log(folder)), classes=_classes(facts, classes),
        confusion=_confusion(facts, [n for n, _ in classes]), tests=_tests(facts, classes), sureness=_sureness(facts),
        examples=examples(folder, ids), key=[{"name": n, "swatch": swatch(c)} for n, c in classes],
        facts=_facts(facts),
    )  # fmt: skip


def read_log(folder: Path) -> list[Row]:
    """All rows of a run's log, by step, counted from 1; none without a log.

    Of rows and cells that a killed writer left damaged, nothing is told.
    """
    path = folder / LOG
    if not path.is_file():
        return []
    rows: list[Row] = []
    with path.open(newline="", encoding="utf-8", errors="replace") as stream:
        for cells in csv.DictReader(stream):
            row = {str(key): value for key, cell in cells.items() if (value := _cell(cell)) is not None}
            if "step" in row:
                rows.append(row)
    return rows


def examples(folder: Path, colors: Mapping[int, Sequence[int]]) -> list[dict[str, Any]]:
    """Pictures of image, labels and answer of each example; none without a file. colors: by class id.

    Raises SourceError where the file is damaged.
    """
    path = folder / EXAMPLES
    if not path.is_file():
        return []
    found = []
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            numbers = sorted(int(key.removeprefix("image_")) for key in arrays if key.startswith("image_"))
            for n in numbers[:MOST_EXAMPLES]:
                image, labels, answers = (arrays[f"{kind}_{n}"] for kind in ("image", "labels", "answers"))
                found.append(_example(image, labels, answers, colors))
    except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise SourceError(f"holds no examples as geoseg writes them ({error})", path) from error
    return found


def _example(
    image: np.ndarray, labels: np.ndarray, answers: np.ndarray, colors: Mapping[int, Sequence[int]]
) -> dict[str, Any]:
    known = labels != NODATA
    right = float((labels == answers)[known].mean()) if known.any() else None
    shown, valid = shrink_photo(*displayed(image, np.ones(labels.shape, bool)), SIDE_PX)
    pictures = [
        ("image", photo(shown, valid)),
        ("labels", flat(thin_out(labels, SIDE_PX), colors)),
        ("answer", flat(thin_out(answers, SIDE_PX), colors)),
    ]
    return {
        "pictures": [{"label": label, "src": data_uri(picture)} for label, picture in pictures],
        "text": f"{percent(right)} of {int(known.sum()):,} labelled pixels right",
    }


def _lead(facts: Mapping[str, Any]) -> str:
    done = number(dig(facts, "done", "seconds"))
    spent = f", trained in {duration(done)}" if done is not None else ""
    return f"{text(facts.get('architecture'))} with {text(facts.get('encoder'))}{spent}"


def _figures(facts: Mapping[str, Any]) -> list[dict[str, str]]:
    found = []
    miou = number(dig(facts, "validation", "miou"))
    if miou is not None:
        best = number(dig(facts, "done", "best_step"))
        found.append(("validation mIoU", score(miou), f"weights of step {best or 0:,.0f}"))
    tests = [number(dig(one, "miou")) for one in _object(facts, "tests").values()]
    known = [value for value in tests if value is not None]
    if known:
        found.append(
            ("test mIoU", score(sum(known) / len(known)), f"{len(known)} scene{'s' * (len(known) > 1)}")
        )
    after, before = (number(dig(facts, "calibration", "error", key)) for key in ("after", "before"))
    if after is not None:
        found.append(("calibration error", percent(after), f"{percent(before)} before temperature scaling"))
    found.append(
        ("steps", f"{number(dig(facts, 'done', 'steps')) or 0:,.0f}", f"of {_count(facts, 'steps')}")
    )
    found.append(("parameters", f"{(number(facts.get('parameters')) or 0) / 1e6:,.2f} M", ""))
    return [{"label": label, "value": value, "note": note} for label, value, note in found]


def _curves(rows: Sequence[Row]) -> list[dict[str, Any]]:
    found = []
    for key, title, axis, note in CURVES:
        points = [(row["step"], row[key]) for row in rows if key in row]
        if not points:
            continue
        told = f"{title} over {points[-1][0]:,.0f} steps: from {points[0][1]:.3g} to {points[-1][1]:.3g}"
        plot = curve(points, told, "step", axis, dots=key == "miou_validation")
        found.append({"title": title, "note": note, "plot": plot})
    return found


def _classes(facts: Mapping[str, Any], classes: Sequence[tuple[str, str]]) -> dict[str, Any] | None:
    """Bars of validation IoU, and how many pixels of each class were there to learn from."""
    ious = dig(facts, "validation", "iou")
    learned = facts.get("learned_px")
    if not isinstance(ious, dict):
        return None
    px = [number(n) or 0.0 for n in learned] if isinstance(learned, list) else []
    bars = []
    for place, (name, color) in enumerate(classes):
        value = number(ious.get(name))
        note = f"{px[place] / 1e6:,.2f} Mpx to learn from" if place < len(px) else ""
        bars.append(
            {
                "name": name,
                "swatch": swatch(color),
                "bar": bar(value, color),
                "value": score(value),
                "note": note,
            }
        )
    return {"bars": bars}


def _confusion(facts: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any] | None:
    """The confusion matrix of validation in percent of each labelled class; None where there is none that fits."""
    found = dig(facts, "validation", "confusion")
    size = len(names)
    if not isinstance(found, list) or any(not isinstance(row, list) or len(row) != size for row in found):
        return None
    counts = [[number(cell) or 0.0 for cell in row] for row in found]
    titles = [*names, "one of several, but not this"]
    rows = []
    for place, row in enumerate(counts[: size + 1]):
        total = sum(row)
        if place == size and not total:
            continue
        shares = [n / total if total else None for n in row]
        cells = [
            {
                "text": "–" if share is None else percent(share),
                "tint": 0 if share is None else sum(share >= step for step in TINTS),
                "hit": place == column,
            }
            for column, share in enumerate(shares)
        ]
        rows.append({"name": titles[place], "cells": cells})
    table = {
        "title": "Counts in pixels",
        "head": ["labelled ↓ mapped →", *names],
        "rows": [[title, *(f"{n:,.0f}" for n in row)] for title, row in zip(titles, counts, strict=False)],
    }
    return {"head": list(names), "rows": rows, "table": table}


def _tests(facts: Mapping[str, Any], classes: Sequence[tuple[str, str]]) -> dict[str, Any] | None:
    """Scores of the test scenes; None without any."""
    rows = [
        [name, score(number(dig(one, "miou"))), *(score(number(dig(one, "iou", c))) for c, _ in classes)]
        for name, one in _object(facts, "tests").items()
    ]
    return {"head": ["scene", "mIoU", *(c for c, _ in classes)], "rows": rows} if rows else None


def _sureness(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The reliability curves without and with temperature."""
    temperature = number(dig(facts, "calibration", "temperature"))
    charts = []
    for key, title in (
        ("before", "As trained"),
        ("after", f"With temperature {temperature or 1:.2f}, as on the card"),
    ):
        curve_, error = (
            dig(facts, "calibration", "curve", key),
            number(dig(facts, "calibration", "error", key)),
        )
        points = [
            (c, r, n)
            for row in (curve_ if isinstance(curve_, list) else [])
            for c, r, n in [(number(dig(row, 0)), number(dig(row, 1)), number(dig(row, 2)))]
            if c is not None and r is not None and n
        ]
        if not points:
            continue
        total = sum(n for *_, n in points)
        charts.append(
            {
                "title": title,
                "note": f"Expected calibration error: {percent(error)}, in 15 bins. On the dashed line, 80 % "
                "confidence means right in 80 of 100 pixels.",
                "plot": reliability([(c, r, n / total) for c, r, n in points], f"Reliability curve. {title}"),
                "table": {
                    "title": "Curve as numbers",
                    "head": ["mean confidence", "right", "pixels"],
                    "rows": [[percent(c), percent(r), f"{n:,.0f}"] for c, r, n in points],
                },
            }
        )
    return charts


def _facts(facts: Mapping[str, Any]) -> list[dict[str, str]]:
    options = _object(facts, "options")
    bands, start = facts.get("bands"), facts.get("start")
    batch = f"{_count(facts, 'batch')} patches"
    if (number(facts.get("accumulate")) or 1) > 1:
        batch += f", {_count(facts, 'accumulate')} batches per step"
    found = {
        "architecture": text(facts.get("architecture")),
        "encoder": text(facts.get("encoder")),
        "options": ", ".join(f"{k}: {v}" for k, v in options.items()),
        "bands": ", ".join(map(str, bands)) if isinstance(bands, list) else "",
        "data": "; ".join(f"{split}: {_listed(names)}" for split, names in _object(facts, "data").items()),
        "crop": f"{_count(facts, 'crop_px')} px" if number(facts.get("crop_px")) else "",
        "batch": batch,
        "loss": _loss(_object(facts, "loss")),
        "seed": text(facts.get("seed")),
        "weights": "; ".join(map(str, start)) if isinstance(start, list) and start else "random at the start",
    }
    return [{"name": name, "value": value} for name, value in found.items() if value]


def _listed(names: Any) -> str:
    """The first of some names."""
    known = [text(name) for name in names] if isinstance(names, list) else []
    more = f" and {len(known) - MOST_NAMES} more" if len(known) > MOST_NAMES else ""
    return ", ".join(known[:MOST_NAMES]) + more


def _loss(settings: Mapping[str, Any]) -> str:
    """The losses of a sum with their weights, and what else is set for those that are in it."""
    weights = {name: number(settings.get(name)) or 0.0 for name in LOSSES}
    terms = [f"{weight:g} × {name.replace('_', ' ')}" for name, weight in weights.items() if weight]
    for name, of in (
        ("label_smoothing", "cross_entropy"),
        ("focal_gamma", "focal"),
        ("tversky_alpha", "tversky"),
    ):
        if weights[of] and number(settings.get(name)):
            terms.append(f"{name.replace('_', ' ')} {number(settings.get(name)):g}")
    classes = _object(settings, "class_weights")
    if classes:
        terms.append(f"class weights {', '.join(f'{name} {value}' for name, value in classes.items())}")
    return ", ".join(terms)


def _object(facts: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = facts.get(key)
    return found if isinstance(found, dict) else {}


def _count(facts: Mapping[str, Any], key: str) -> str:
    return f"{number(facts.get(key)) or 0:,.0f}"


def _rgb(color: Any) -> tuple[int, int, int]:
    values = [int(number(v) or 0) for v in color[:3]] if isinstance(color, list) else []
    red, green, blue = [min(max(v, 0), 255) for v in [*values, 0, 0, 0][:3]]
    return red, green, blue


def _color(color: Any) -> str:
    return "#{:02x}{:02x}{:02x}".format(*_rgb(color))


def _cell(cell: Any) -> float | None:
    try:
        return number(float(cell))
    except (TypeError, ValueError):
        return None
