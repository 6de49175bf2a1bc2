"""What an evaluation says: scores of the whole raster and of its regions, and how they are written down."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from geoseg.errors import SpecError
from geoseg.legend import Legend
from geoseg.pixels.bootstrap import CELL_PX, LEVEL, MIN_CELLS, RESAMPLES, SEED, Intervals, Range
from geoseg.pixels.boundaries import BoundaryCounts
from geoseg.pixels.boundary_intervals import BoundaryIntervals
from geoseg.pixels.calibration import Calibration
from geoseg.pixels.confusion import OVER_ALL, PER_CLASS, ConfusionMatrix
from geoseg.pixels.matching import ObjectScore
from geoseg.pixels.roadmatch import RoadScore

FORMAT = 2
"""2: what 1 held, and more. Its JSON Schema is metrics.schema.json."""
MAX_TOLERANCE_PX = 100

NOTES = (
    "A class that occurs neither in the labels nor in the map has no IoU and is left out of the mean.",
    "iou, miou and accuracy look at pixels that are both labelled and mapped; so do others that do not say else.",
    "strict_iou and strict_miou count labelled pixels without an answer in the map (unmapped) as misses.",
    "supported_ means leave out every class with fewer labelled pixels than settings.min_support_px, too: "
    "they are listed in below_min_support, those that occur nowhere in absent.",
    "mean_accuracy is the mean recall of labelled classes; kappa is Cohen's.",
    "Rows of confusion are labelled classes; columns are mapped classes in the same order, then unmapped.",
    "intervals: 95 % percentile intervals by block bootstrap over square cells of the raster; null where fewer "
    "than settings.min_cells cells hold pixels, or where a score is undefined in most resamples.",
    "boundary: share of boundary pixels within settings.tolerance_px of one of the same class on the other side "
    "(Csurka et al. 2013); pixels beside unlabelled or unmapped ones are no boundary for that. Its intervals come "
    "from the same cells.",
    "calibration: by whole percent of confidence; curve rows are percent, pixels, share that got their class.",
    "Overlapping regions each count their own pixels; overall covers the whole raster, not regions only.",
)
OBJECT_NOTES = (
    "objects: pixels of one class that share sides. Matched where IoU is above 0.5 (AP: at least 0.5 or 0.75, "
    "greedily by mean confidence, 101 recall levels as in COCO). Only pixels that are both labelled and mapped count "
    "in an IoU; an object with at most half of its pixels there is left out unless it is matched.",
    "An object that a region's edge cuts is whole, and counts in a region that holds more than half of its pixels; "
    "a matched pair counts where its labelled object does.",
    "roads: center lines of both sides within settings.tolerance_px of each other (Heipke et al. 1997, Wiedemann et "
    "al. 1998); lines are cut at a region's edge, matches beyond it count.",
)


@dataclass(frozen=True)
class ScoreSettings:
    """What may be chosen about scores.

    min_support: a class with fewer labelled (and mapped) pixels is left out of supported means. tolerance_px: of
    boundaries and road lines. objects: whether to score buildings as objects and roads as lines, too.
    """

    min_support: int = 100
    tolerance_px: int = 3
    objects: bool = False

    def __post_init__(self) -> None:
        if self.min_support < 0:
            raise SpecError(f"minimum support is at least 0 pixels, got {self.min_support}")
        if not 0 <= self.tolerance_px <= MAX_TOLERANCE_PX:
            raise SpecError(f"tolerance must lie in 0..{MAX_TOLERANCE_PX} px, got {self.tolerance_px}")


@dataclass(frozen=True)
class AreaScore:
    """The scores of the whole raster, or of a region.

    calibration: None without a confidence raster. objects, roads: by the name of their class; None where not asked.
    """

    name: str
    matrix: ConfusionMatrix
    intervals: Intervals
    boundary: BoundaryCounts
    boundary_intervals: BoundaryIntervals
    calibration: Calibration | None = None
    objects: tuple[tuple[str, ObjectScore], ...] | None = None
    roads: tuple[tuple[str, RoadScore], ...] | None = None


@dataclass(frozen=True)
class Scores:
    """Scores of the whole raster, and of each region in file order.

    gsd_m: ground sample distance, or None where unknown. remarks: what a reader should know, a line each.
    """

    whole: AreaScore
    regions: tuple[AreaScore, ...] = ()
    settings: ScoreSettings = field(default_factory=ScoreSettings)
    gsd_m: float | None = None
    remarks: tuple[str, ...] = ()

    @property
    def overall(self) -> ConfusionMatrix:
        """The confusion matrix of the whole raster."""
        return self.whole.matrix

    @property
    def legend(self) -> Legend:
        return self.overall.legend

    @property
    def tolerance_m(self) -> float | None:
        return None if self.gsd_m is None else self.settings.tolerance_px * self.gsd_m

    def to_dict(self) -> dict[str, Any]:
        """The content of metrics.json: plain values, None where a score is undefined."""
        return {
            "format": FORMAT,
            "classes": [{"id": c.id, "name": c.name} for c in self.legend.classes],
            "settings": {
                "min_support_px": self.settings.min_support,
                "tolerance_px": self.settings.tolerance_px,
                "tolerance_m": self.tolerance_m,
                "cell_px": CELL_PX,
                "min_cells": MIN_CELLS,
                "resamples": RESAMPLES,
                "seed": SEED,
                "level": LEVEL,
            },
            "overall": _metrics(self.whole, self.settings),
            "regions": [{"region": r.name, **_metrics(r, self.settings)} for r in self.regions],
            "notes": [*NOTES, *(OBJECT_NOTES if self.settings.objects else ())],
            "remarks": list(self.remarks),
        }

    def rows(self) -> list[dict[str, str | float | int | None]]:
        """One record per region: region, miou, the IoU of each class under its name, pixels, unmapped, and more.

        These are the rows of regions.csv and the attributes of the regions layer. A class named as another
        column is gets the prefix iou_.
        """
        return [_row(r) for r in self.regions]

    def columns(self) -> list[str]:
        """The keys of each of `rows`, for a table without any."""
        return list(_row(self.whole))


def _metrics(score: AreaScore, settings: ScoreSettings) -> dict[str, Any]:
    matrix = score.matrix
    names, supported = matrix.legend.names, matrix.supported(settings.min_support)
    below = [n for n, enough in zip(names, supported, strict=True) if not enough and n not in matrix.absent]
    found: dict[str, Any] = {
        "pixels": matrix.pixels,
        "unmapped": matrix.unmapped,
        **{name: matrix.over_all(name) for name in OVER_ALL},
        "strict_miou": matrix.strict_miou,
        "supported_miou": matrix.mean("iou", supported),
        "supported_mean_dice": matrix.mean("dice", supported),
        "supported_mean_accuracy": matrix.mean("recall", supported),
        **{name: _by_class(names, matrix.per_class(name)) for name in PER_CLASS},
        "strict_iou": _by_class(names, matrix.strict_iou),
        "support": _by_class(names, matrix.support),
        "absent": list(matrix.absent),
        "below_min_support": below,
        "intervals": _intervals(score.intervals, names),
        "boundary": {
            "mean_f1": score.boundary.mean_f1,
            "f1": _by_class(names, score.boundary.f1),
            "precision": _by_class(names, score.boundary.precision),
            "recall": _by_class(names, score.boundary.recall),
            "intervals": {
                "mean_f1": _pair(score.boundary_intervals.mean_f1),
                "f1": _by_class(names, map(_pair, score.boundary_intervals.f1)),
            },
        },
        "calibration": None if score.calibration is None else _calibration(score.calibration),
        "confusion": matrix.counts.tolist(),
    }
    if score.objects is not None:
        found["objects"] = {name: one.to_dict() for name, one in score.objects}
    if score.roads is not None:
        found["roads"] = {name: one.to_dict() for name, one in score.roads}
    return found


def _intervals(found: Intervals, names: Sequence[str]) -> dict[str, Any]:
    return {
        "cells": found.cells,
        **{name: _pair(value) for name, value in found.over_all.items()},
        **{name: _by_class(names, map(_pair, values)) for name, values in found.per_class.items()},
    }


def _pair(value: Range | None) -> list[float] | None:
    return None if value is None else list(value)


def _calibration(found: Calibration) -> dict[str, Any]:
    return {
        "pixels": found.total,
        "expected_error": found.expected_error,
        "mean_confidence": found.mean_confidence,
        "accuracy": found.accuracy,
        "curve": [list(row) for row in found.curve()],
    }


def _by_class(names: Sequence[str], values: Iterable[Any]) -> dict[str, Any]:
    return dict(zip(names, values, strict=True))


def _row(score: AreaScore) -> dict[str, str | float | int | None]:
    matrix = score.matrix
    low, high = score.intervals.over_all["miou"] or (None, None)
    more = {
        "miou_low": low,
        "miou_high": high,
        "accuracy": matrix.accuracy,
        "kappa": matrix.over_all("kappa"),
        "boundary_f1": score.boundary.mean_f1,
    }
    taken = {"region", "miou", "pixels", "unmapped", *more}
    iou = _by_class(matrix.legend.names, matrix.iou)
    return {
        "region": score.name,
        "miou": matrix.miou,
        **{f"iou_{name}" if name.lower() in taken else name: value for name, value in iou.items()},
        "pixels": matrix.pixels,
        "unmapped": matrix.unmapped,
        **more,
    }
