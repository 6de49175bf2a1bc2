"""Scores of a class raster against labels, over the whole raster and per region.

The raster is read by windows anchored to its first pixel, each with what its boundaries need around it. Each
window gives counts; counts are summed, and ratios are taken from the sums: the scores are those of the whole
raster, for any window size and order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np

from geoseg.errors import SourceError
from geoseg.grid.geogrid import GeoGrid
from geoseg.grid.window import Window
from geoseg.legend import NODATA, Legend
from geoseg.pixels.bootstrap import CellCounts, CellSum, count_cells, intervals
from geoseg.pixels.boundaries import HALO_PX, Boundaries, BoundaryCounts, Ints, find_boundaries
from geoseg.pixels.boundary_intervals import boundary_intervals
from geoseg.pixels.burn import burn
from geoseg.pixels.calibration import PERCENTS, Calibration, count_percents, percent_codes
from geoseg.pixels.confusion import ConfusionMatrix, channels, pair_codes
from geoseg.stages.protocols import ClassSource, Mapper
from geoseg.stages.scores import AreaScore, ScoreSettings
from geoseg.stages.scores import Scores as Scores  # others look for it here

WINDOW_PX = 2048
"""Side of a window."""
DEFAULTS = ScoreSettings()


class Region(Protocol):
    """A named polygon in the raster's CRS."""

    @property
    def name(self) -> str: ...
    @property
    def geometry(self) -> Any: ...


@dataclass(frozen=True)
class Sources:
    """What is compared: two class rasters on one grid, and the map's confidence in percent, where there is one."""

    landcover: ClassSource
    labels: ClassSource
    confidence: ClassSource | None = None


@dataclass(frozen=True)
class WindowTask:
    """A window to compare, and the regions that may touch it, by their place in the file."""

    window: Window
    regions: tuple[tuple[int, Region], ...]


@dataclass(frozen=True, eq=False)
class AreaCounts:
    """Sums over some pixels: pairs of classes per cell, boundary pixels of the map and of the labels per cell (see
    `Boundaries`), confidences (2, 101)."""

    cells: CellCounts
    mapped_edges: CellCounts
    true_edges: CellCounts
    percents: Ints


@dataclass(frozen=True, eq=False)
class WindowCounts:
    """What comes back from a worker: counts of a window, and of the regions in it by index."""

    overall: AreaCounts
    regions: tuple[tuple[int, AreaCounts], ...]


def score_map(
    landcover: ClassSource,
    labels: ClassSource,
    legend: Legend,
    regions: Sequence[Region],
    mapper: Mapper,
    window_px: int = WINDOW_PX,
    confidence: ClassSource | None = None,
    settings: ScoreSettings = DEFAULTS,
) -> Scores:
    """Score a map against labels on the same grid, over the whole raster and in each region.

    A region without a pixel in the raster has zero counts. The label raster's nodata value is not scored.
    Boundaries are those of the whole raster: the edge of a region is none, and a boundary pixel may be matched
    by one beyond it. confidence: in percent, on the same grid; without it there is no calibration.
    Raises SourceError where the labels or the map hold values outside the legend.
    """
    sources = Sources(landcover, labels, confidence)
    count = partial(count_window, sources=sources, legend=legend, tolerance_px=settings.tolerance_px)
    overall, by_region = AreaSum(legend), [AreaSum(legend) for _ in regions]
    for counts in mapper(count, window_tasks(landcover.grid, regions, window_px)):
        overall.add(counts.overall)
        for index, found in counts.regions:
            by_region[index].add(found)
    calibrated = confidence is not None
    return Scores(
        overall.score("overall", settings, calibrated),
        tuple(
            total.score(region.name, settings, calibrated)
            for region, total in zip(regions, by_region, strict=True)
        ),
        settings,
        landcover.grid.gsd_m,
    )


class AreaSum:
    """Adds up the counts of an area."""

    def __init__(self, legend: Legend) -> None:
        size = len(legend.classes)
        self._legend = legend
        self._cells = CellSum(size * (size + 1))
        self._mapped_edges, self._true_edges = CellSum(2 * size), CellSum(2 * size)
        self._percents = np.zeros((2, PERCENTS), np.int64)

    def add(self, counts: AreaCounts) -> None:
        self._cells.add(counts.cells)
        self._mapped_edges.add(counts.mapped_edges)
        self._true_edges.add(counts.true_edges)
        self._percents += counts.percents

    def score(self, name: str, settings: ScoreSettings, calibrated: bool) -> AreaScore:
        size = len(self._legend.classes)
        cells, mapped, truth = (s.result() for s in (self._cells, self._mapped_edges, self._true_edges))
        edges = [side.total().reshape(size, 2) for side in (mapped, truth)]
        boundary = np.array([row for side in edges for row in (side.sum(axis=1), side[:, 1])])
        matrix = ConfusionMatrix(self._legend, cells.total().reshape(size, size + 1))
        return AreaScore(
            name,
            matrix,
            intervals(cells, matrix.supported(settings.min_support)),
            BoundaryCounts.of(boundary),
            boundary_intervals(cells, mapped, truth),
            Calibration.of(self._percents) if calibrated else None,
        )


def count_window(task: WindowTask, sources: Sources, legend: Legend, tolerance_px: int) -> WindowCounts:
    """The counts of one window; regions without a pixel in it are left out."""
    labels, landcover, grid = sources.labels, sources.landcover, sources.landcover.grid
    around = task.window.grow(tolerance_px + HALO_PX).overlap(grid.window)
    core = task.window.within(around)
    truth, mapped = labels.read(around), read_map(landcover, around)
    ignore = () if labels.nodata is None else (labels.nodata,)
    try:
        codes = pair_codes(truth[core], mapped[core], legend, ignore)
    except SourceError as error:
        if error.facts.get("side") != "prediction":
            raise SourceError(str(error), labels.path, window=task.window, **error.facts) from error
        said = str(error).replace("prediction hold", "holds", 1)
        advice = "where one means no answer, declare it as nodata (gdal_edit.py -a_nodata)"
        raise SourceError(f"{said}; {advice}", landcover.path, window=task.window) from error
    size = len(legend.classes)
    truth, mapped = channels(legend, ignore)[truth], channels(legend)[mapped]
    boundaries = find_boundaries(truth, mapped, size, tolerance_px).crop(core)
    percents = _percents(sources.confidence, task.window, truth[core], mapped[core])
    found = _Found(task.window, grid.width, size * (size + 1), codes, boundaries, percents)
    by_region = []
    for index, region in task.regions:
        part = pixel_box(region, grid).overlap(task.window)
        inside = burn([region.geometry], part, grid)
        if inside.any():
            by_region.append((index, found.count(part, inside)))
    return WindowCounts(found.count(task.window), tuple(by_region))


def read_map(landcover: ClassSource, window: Window) -> np.ndarray:
    """Class ids of a map: (row, col) uint8, 255 where it has no answer, whatever its file calls that."""
    mapped = landcover.read(window)
    if landcover.nodata in (None, NODATA):
        return mapped
    return np.where(mapped == landcover.nodata, np.uint8(NODATA), mapped)


def _percents(
    confidence: ClassSource | None, window: Window, truth: np.ndarray, mapped: np.ndarray
) -> np.ndarray | None:
    """See `percent_codes`. truth, mapped: positions in the legend."""
    if confidence is None:
        return None
    scored = (truth != NODATA) & (mapped != NODATA)
    try:
        return percent_codes(confidence.read(window), truth == mapped, scored)
    except SourceError as error:
        raise error if error.path else SourceError(str(error), confidence.path, window=window) from error


@dataclass(frozen=True, eq=False)
class _Found:
    """The pixels of a window, as they are counted: (row, col) each. pairs: number of codes."""

    window: Window
    width: int
    pairs: int
    codes: np.ndarray
    boundaries: Boundaries
    percents: np.ndarray | None

    def count(self, part: Window, inside: np.ndarray | None = None) -> AreaCounts:
        """The counts of a part, of the pixels that are inside."""
        at = part.within(self.window)
        percents = np.zeros((2, PERCENTS), np.int64)
        if self.percents is not None:
            chosen = self.percents[at]
            percents = count_percents(chosen if inside is None else chosen[inside])
        edges, classes = self.boundaries.crop(at), self.boundaries.classes
        return AreaCounts(
            count_cells(self.codes[at], part, self.width, self.pairs, inside),
            count_cells(edges.mapped, part, self.width, 2 * classes, inside),
            count_cells(edges.truth, part, self.width, 2 * classes, inside),
            percents,
        )


def windows(grid: GeoGrid, window_px: int = WINDOW_PX) -> Iterator[Window]:
    """Squares of window_px that tile the raster from its first pixel, rows first; cut off at its end."""
    for row in range(0, grid.height, window_px):
        for col in range(0, grid.width, window_px):
            yield Window(row, col, window_px, window_px).overlap(grid.window)


def window_tasks(grid: GeoGrid, regions: Sequence[Region], window_px: int) -> Iterator[WindowTask]:
    """A task for each window, with the regions near it."""
    boxes = [pixel_box(region, grid) for region in regions]
    edges = np.array([(b.row, b.row_end, b.col, b.col_end) for b in boxes], np.int64).reshape(-1, 4)
    for w in windows(grid, window_px):
        apart = (edges[:, 0] >= w.row_end) | (edges[:, 1] <= w.row)
        apart |= (edges[:, 2] >= w.col_end) | (edges[:, 3] <= w.col)
        yield WindowTask(w, tuple((i, regions[i]) for i in np.flatnonzero(~apart).tolist()))


def pixel_box(region: Region, grid: GeoGrid) -> Window:
    """The pixels that a region may hold, a window in the raster with some to spare; without area if empty."""
    left, bottom, right, top = region.geometry.bounds
    if not math.isfinite(left):
        return Window(0, 0, 0, 0)
    corners = [
        ~grid.transform @ corner for corner in ((left, top), (right, top), (left, bottom), (right, bottom))
    ]
    cols, rows = zip(*corners, strict=True)
    first = math.floor(max(0, min(rows))), math.floor(max(0, min(cols)))
    last = math.ceil(min(grid.height, max(rows))), math.ceil(min(grid.width, max(cols)))
    sides = max(0, last[0] - first[0]), max(0, last[1] - first[1])
    return Window(*first, *sides).grow(1).overlap(grid.window) if all(sides) else Window(0, 0, 0, 0)
