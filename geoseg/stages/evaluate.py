"""Scores of a class raster against labels, over the whole raster and per region.

The raster is read by windows anchored to its first pixel. Each window gives confusion counts; counts are
summed, and ratios are taken from the sums: the scores are those of the whole raster, for any window size and
order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np

from geoseg.errors import SourceError
from geoseg.grid.geogrid import GeoGrid
from geoseg.grid.window import Window
from geoseg.legend import Legend
from geoseg.pixels.burn import burn
from geoseg.pixels.confusion import ConfusionMatrix
from geoseg.stages.protocols import ClassSource, Mapper

FORMAT = 1
WINDOW_PX = 2048
"""Side of a window."""

NOTES = (
    "A class that occurs neither in the labels nor in the map has no IoU and is left out of the mean.",
    "iou, miou and accuracy look at pixels that are both labelled and mapped.",
    "strict_iou and strict_miou count labelled pixels without an answer in the map (unmapped) as misses.",
    "Rows of confusion are labelled classes; columns are mapped classes in the same order, then unmapped.",
    "Overlapping regions each count their own pixels; overall covers the whole raster, not regions only.",
)


class Region(Protocol):
    """A named polygon in the raster's CRS."""

    @property
    def name(self) -> str: ...
    @property
    def geometry(self) -> Any: ...


@dataclass(frozen=True)
class RegionScore:
    """The confusion counts of one region."""

    name: str
    matrix: ConfusionMatrix


@dataclass(frozen=True)
class Scores:
    """Confusion counts of the whole raster, and of each region in file order."""

    overall: ConfusionMatrix
    regions: tuple[RegionScore, ...] = ()

    @property
    def legend(self) -> Legend:
        return self.overall.legend

    def to_dict(self) -> dict[str, Any]:
        """The content of metrics.json: plain values, None where a score is undefined."""
        return {
            "format": FORMAT,
            "classes": [{"id": c.id, "name": c.name} for c in self.legend.classes],
            "overall": _metrics(self.overall),
            "regions": [{"region": r.name, **_metrics(r.matrix)} for r in self.regions],
            "notes": list(NOTES),
        }

    def rows(self) -> list[dict[str, str | float | int | None]]:
        """One record per region: region, miou, the IoU of each class under its name, pixels, unmapped.

        These are the rows of regions.csv and the attributes of the regions layer. A class named as another
        column is gets the prefix iou_.
        """
        return [_row(r) for r in self.regions]

    def columns(self) -> list[str]:
        """The keys of each of `rows`, for a table without any."""
        return list(_row(RegionScore("", self.overall)))


@dataclass(frozen=True)
class WindowTask:
    """A window to compare, and the regions that may touch it, by their place in the file."""

    window: Window
    regions: tuple[tuple[int, Region], ...]


@dataclass(frozen=True)
class WindowCounts:
    """What comes back from a worker: counts of a window, and of the regions in it by index."""

    overall: ConfusionMatrix
    regions: tuple[tuple[int, ConfusionMatrix], ...]


def score_map(
    landcover: ClassSource,
    labels: ClassSource,
    legend: Legend,
    regions: Sequence[Region],
    mapper: Mapper,
    window_px: int = WINDOW_PX,
) -> Scores:
    """Score a map against labels on the same grid, over the whole raster and in each region.

    A region without a pixel in the raster has zero counts. The label raster's nodata value is not scored.
    Raises SourceError where the labels or the map hold values outside the legend.
    """
    count = partial(count_window, landcover=landcover, labels=labels, legend=legend)
    overall = ConfusionMatrix.zero(legend)
    by_region = [overall] * len(regions)
    for counts in mapper(count, _tasks(landcover.grid, regions, window_px)):
        overall += counts.overall
        for index, matrix in counts.regions:
            by_region[index] += matrix
    pairs = zip(regions, by_region, strict=True)
    return Scores(overall, tuple(RegionScore(region.name, matrix) for region, matrix in pairs))


def count_window(
    task: WindowTask, landcover: ClassSource, labels: ClassSource, legend: Legend
) -> WindowCounts:
    """The counts of one window; regions without a pixel in it are left out."""
    truth, mapped = labels.read(task.window), landcover.read(task.window)
    ignore = () if labels.nodata is None else (labels.nodata,)
    try:
        overall = ConfusionMatrix.count(truth, mapped, legend, ignore)
    except SourceError as error:
        wrong = landcover if error.facts.get("side") == "prediction" else labels
        raise SourceError(str(error), wrong.path, window=task.window, **error.facts) from error
    found = []
    for index, region in task.regions:
        inside = burn([region.geometry], task.window, landcover.grid)
        if inside.any():
            matrix = ConfusionMatrix.count(truth[inside], mapped[inside], legend, ignore)
            found.append((index, matrix))
    return WindowCounts(overall, tuple(found))


def windows(grid: GeoGrid, window_px: int = WINDOW_PX) -> Iterator[Window]:
    """Squares of window_px that tile the raster from its first pixel, rows first; cut off at its end."""
    for row in range(0, grid.height, window_px):
        for col in range(0, grid.width, window_px):
            yield Window(row, col, window_px, window_px).overlap(grid.window)


def _tasks(grid: GeoGrid, regions: Sequence[Region], window_px: int) -> Iterator[WindowTask]:
    boxes = np.array([_pixel_box(region, grid) for region in regions]).reshape(-1, 4)
    for w in windows(grid, window_px):
        meets = (boxes[:, :2] <= (w.col_end, w.row_end)) & (boxes[:, 2:] >= (w.col, w.row))
        yield WindowTask(w, tuple((i, regions[i]) for i in np.flatnonzero(meets.all(axis=1)).tolist()))


def _pixel_box(region: Region, grid: GeoGrid) -> tuple[float, float, float, float]:
    """First column and row, last column and row of a box around a region; NaN, which meets none, if empty."""
    left, bottom, right, top = region.geometry.bounds
    corners = [
        ~grid.transform @ corner for corner in ((left, top), (right, top), (left, bottom), (right, bottom))
    ]
    cols, rows = zip(*corners, strict=True)
    return min(cols), min(rows), max(cols), max(rows)


def _metrics(matrix: ConfusionMatrix) -> dict[str, Any]:
    return {
        "pixels": matrix.pixels,
        "unmapped": matrix.unmapped,
        "accuracy": matrix.accuracy,
        "miou": matrix.miou,
        "strict_miou": matrix.strict_miou,
        "iou": _per_class(matrix, matrix.iou),
        "strict_iou": _per_class(matrix, matrix.strict_iou),
        "confusion": matrix.counts.tolist(),
    }


def _per_class(matrix: ConfusionMatrix, values: Sequence[float | None]) -> dict[str, float | None]:
    return dict(zip(matrix.legend.names, values, strict=True))


def _row(score: RegionScore) -> dict[str, str | float | int | None]:
    taken = {"region", "miou", "pixels", "unmapped"}
    iou = _per_class(score.matrix, score.matrix.iou)
    return {
        "region": score.name,
        "miou": score.matrix.miou,
        **{f"iou_{name}" if name.lower() in taken else name: value for name, value in iou.items()},
        "pixels": score.matrix.pixels,
        "unmapped": score.matrix.unmapped,
    }
