"""Buildings scored as objects and roads scored as lines, as tables of a report."""

from __future__ import annotations

from typing import Any

from geoseg.report.facts import SceneFacts, dig, items, number, text
from geoseg.report.outlines import short
from geoseg.report.sections import duration, score
from geoseg.stages.weighing import EVERYTHING

OBJECT_FIGURES = {
    "precision": "precision", "recall": "recall", "f1": "F1", "ap50": "AP50", "ap75": "AP75", "panoptic_quality": "PQ",
}  # fmt: skip
LINE_FIGURES = {"completeness": "completeness", "correctness": "correctness", "quality": "quality"}
MOST_ROWS = 40
"""Of a table of regions within a card."""


KINDS = (
    (
        "objects", "Buildings as objects", OBJECT_FIGURES, ("truth", "mapped"),
        "Labeled and mapped buildings matched one to one where their IoU is above 0.5.",
    ),
    (
        "roads", "Roads as lines", LINE_FIGURES, ("truth_px", "mapped_px"),
        "Center lines of map and labels within the tolerance of each other; lengths in pixels.",
    ),
)  # fmt: skip
"""Key in metrics.json, title, figures, sizes of both sides, and what it is."""


def structures(facts: SceneFacts) -> list[dict[str, Any]]:
    """Tables of buildings scored as objects and of roads scored as lines, where the run was asked for them."""
    taken = number(dig(facts.row, "seconds", "objects"))
    time = "" if taken is None else f" Buildings and roads took {duration(taken)} to score."
    regions = items(facts.metrics.get("regions"))
    areas = [(EVERYTHING, facts.overall), *((short(text(r.get("region"))), r) for r in regions)][:MOST_ROWS]
    found = []
    for key, title, figures, sizes, note in KINDS:
        scored = facts.overall.get(key)
        names = list(scored) if isinstance(scored, dict) else []
        rows = []
        for place, area in areas:
            for name in names:
                shown = [score(number(dig(area, key, name, figure))) for figure in figures]
                counts = [number(dig(area, key, name, size)) for size in sizes]
                of_class = [name] * (len(names) > 1)
                rows.append([place, *of_class, *shown, *("–" if n is None else f"{n:,.0f}" for n in counts)])
        if rows:
            head = ["region", *["class"] * (len(names) > 1), *figures.values(), "labeled", "mapped"]
            table = {"title": "Scores as numbers", "head": head, "rows": rows}
            found.append({"title": title, "note": note + time, "table": table})
    return found
