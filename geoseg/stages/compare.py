"""What changed between two maps of one place: from which class to which, how much, where.

Both maps are read by windows of their common grid; sums of windows are exact (see `weighing`), so the figures are
those of the whole rasters for any window size and order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from geoseg.errors import GridError, SpecError
from geoseg.grid.geogrid import GeoGrid
from geoseg.grid.window import Window
from geoseg.legend import NODATA, LandClass, Legend
from geoseg.pixels.burn import apply
from geoseg.pixels.ground import PixelAreas
from geoseg.pixels.labels import count_values
from geoseg.pixels.shares import FULL
from geoseg.stages.evaluate import Region, WindowTask, windows
from geoseg.stages.protocols import ClassSource, Mapper
from geoseg.stages.weighing import (
    HECTARE_M2,
    WINDOW_PX,
    RegionSums,
    add_sums,
    and_whole,
    check_values,
    region_tasks,
    remarks_on_names,
    unit_m2,
    weigh,
)

MAX_OFF_PX = 1.0
"""Grids that are farther apart than this are no two maps of one raster."""
MAX_DRIFT_PX = 0.5
"""How much the distance between two maps' pixels may vary over them."""
NO_ANSWER = "(no answer)"
UNCHANGED = LandClass(0, "unchanged", (235, 235, 235))

NOTE = "A difference between two maps is a change on the ground, or an error of either map."

Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Part:
    """A rectangle of a class raster as a raster of its own, on a grid that may lie a part of a pixel beside."""

    source: ClassSource
    grid: GeoGrid
    row: int
    col: int

    @property
    def path(self) -> str:
        return self.source.path

    @property
    def nodata(self) -> int | None:
        return self.source.nodata

    def read(self, window: Window) -> np.ndarray:
        """(row, col) uint8 of a window that counts from the part's first pixel."""
        return self.source.read(replace(window, row=window.row + self.row, col=window.col + self.col))


@dataclass(frozen=True)
class Pair:
    """An earlier and a later map on one grid. off_px: how far the later one was moved to lie on it."""

    before: Part
    after: Part
    old: Legend
    new: Legend
    off_px: float = 0.0

    @property
    def grid(self) -> GeoGrid:
        return self.before.grid

    @property
    def is_change(self) -> np.ndarray:
        """(old class, new class) bool; classes are told by their names."""
        return np.array([[a != b for b in self.new.names] for a in self.old.names])


@dataclass(frozen=True)
class RegionChange:
    """How much of a region went from which class to which: (old class + 1, new class + 1), in legend order.

    The last row and column are what has no answer in the earlier and the later map. Hectares are None where pixels
    have no known size.
    """

    name: str
    pixels: Matrix
    hectares: Matrix | None


@dataclass(frozen=True)
class Changes:
    """Changes of all that both maps cover, and per region in file order."""

    old: Legend
    new: Legend
    whole: RegionChange
    regions: tuple[RegionChange, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def every(self) -> tuple[RegionChange, ...]:
        """The regions, then all that both maps cover."""
        return (*self.regions, self.whole)

    def rows(self) -> list[dict[str, str | float | int | None]]:
        """One record per region and pair of classes, `overall` last: the rows of transitions.csv.

        region; from_id, from_class, to_id, to_class (255 and "(no answer)" where a map has none); pixels (cut ones
        by their share), hectares; share of what the earlier map gives to from_class and the later has an answer
        for, in 0..1, None where there is none.
        """
        return [row for region in self.every for row in self._rows(region)]

    def _rows(self, region: RegionChange) -> list[dict[str, str | float | int | None]]:
        ids = [*zip(self.old.ids, self.old.names, strict=True), (NODATA, NO_ANSWER)]
        new_ids = [*zip(self.new.ids, self.new.names, strict=True), (NODATA, NO_ANSWER)]
        rows: list[dict[str, str | float | int | None]] = []
        for i, (old_id, old) in enumerate(ids):
            amounts = (region.hectares or region.pixels)[i]
            known = math.fsum(amounts[:-1])
            for j, (new_id, new) in enumerate(new_ids):
                both = NODATA not in (old_id, new_id)
                rows.append({
                    "region": region.name, "from_id": old_id, "from_class": old, "to_id": new_id, "to_class": new,
                    "pixels": region.pixels[i][j],
                    "hectares": None if region.hectares is None else region.hectares[i][j],
                    "share": amounts[j] / known if both and known else None,
                })  # fmt: skip
        return rows


def pair_up(before: ClassSource, after: ClassSource, old: Legend, new: Legend) -> Pair:
    """Lay a later map on the grid of an earlier one, to the nearest pixel.

    Raises GridError where CRSs, or sizes or directions of pixels differ, or where a corner lies MAX_OFF_PX pixels or
    more beside the other map's.
    """
    a, b = before.grid, after.grid
    if not replace(b, height=a.height, width=a.width, transform=a.transform).same_place(a):
        raise GridError("the maps are in different CRSs")
    to_a = ~a.transform @ b.transform
    edges = np.array([(0, 0), (b.width, 0), (0, b.height), (b.width, b.height)], np.float64)
    shifts = apply(to_a, edges) - edges  # of the later map's corners, in columns and rows of the earlier one
    if np.ptp(shifts, axis=0).max() >= MAX_DRIFT_PX:
        raise GridError("the maps have pixels of different sizes or directions")
    apart = shifts + edges - np.minimum(edges, 1) * (a.width, a.height)
    if np.abs(apart).max() >= MAX_OFF_PX:
        raise GridError(
            f"the maps lie on different grids: {a.height} x {a.width} px and {b.height} x {b.width} px, with a corner "
            f"{np.hypot(*apart.T).max():.6g} px apart"
        )
    shift = shifts.mean(axis=0)
    # Pixel (row, col) of the later map is (row + down, col + right) of the earlier one.
    right, down = np.rint(shift).astype(int).tolist()
    shared = Window(down, right, b.height, b.width).overlap(a.window)
    grid = replace(a, height=shared.height, width=shared.width, transform=a.transform_of(shared))
    moved = float(np.hypot(*(shift - (right, down))))
    return Pair(
        Part(before, grid, shared.row, shared.col),
        Part(after, grid, shared.row - down, shared.col - right),
        old, new, moved if moved > 1e-6 else 0.0,
    )  # fmt: skip


def measure_changes(
    pair: Pair, regions: Sequence[Region], mapper: Mapper, window_px: int = WINDOW_PX
) -> Changes:
    """Measure the pairs of classes in all that both maps cover, and in each region.

    regions: polygons in the maps' CRS. Raises SourceError where a map holds values outside its legend.
    """
    places = and_whole(regions, pair.grid)
    remarks = remarks_on_names(regions)
    try:
        sizes: PixelAreas | None = PixelAreas.of(pair.grid)
    except GridError as error:
        sizes = None
        remarks.append(f"{pair.before.path} {error}: there are no hectares")
    if pair.off_px:
        remarks.append(
            f"the grids are {pair.off_px:.3g} px apart: pixels are compared with those nearest to them, and edges of "
            "classes may differ for that alone"
        )
    shape = len(pair.old.ids) + 1, len(pair.new.ids) + 1
    bins = shape[0] * shape[1]
    count = partial(count_window, pair=pair, sizes=sizes)
    totals = add_sums(mapper(count, region_tasks(pair.grid, places, window_px)), len(places), bins)
    unit_ha = 0.0 if sizes is None else unit_m2(sizes) / HECTARE_M2
    *found, whole = (
        RegionChange(
            place.name,
            _matrix(pixels, shape, 1 / FULL),
            None if sizes is None else _matrix(area, shape, unit_ha),
        )
        for place, (pixels, area) in zip(places, totals, strict=True)
    )
    return Changes(pair.old, pair.new, whole, tuple(found), tuple(remarks))


def occurring(source: ClassSource, mapper: Mapper, window_px: int = WINDOW_PX) -> tuple[int, ...]:
    """The values of a class raster that are not nodata, rising."""
    counts = sum(
        mapper(partial(_count, source), windows(source.grid, window_px)), np.zeros(NODATA + 1, np.int64)
    )
    found: list[int] = np.flatnonzero(counts[:NODATA]).tolist()
    return tuple(value for value in found if value != source.nodata)


def _count(source: ClassSource, window: Window) -> np.ndarray:
    return count_values(source.read(window))


def count_window(task: WindowTask, pair: Pair, sizes: PixelAreas | None) -> tuple[RegionSums, ...]:
    """Pixels and area of each pair of classes in each region of one window."""
    size = len(pair.new.ids) + 1
    before, after = (
        _channels(pair.before, pair.old, task.window),
        _channels(pair.after, pair.new, task.window),
    )
    bins = (len(pair.old.ids) + 1) * size
    return weigh(before * size + after, bins, task, pair.grid, sizes)


def change_legend(pair: Pair) -> Legend:
    """What a raster of changes holds: 0 unchanged, then every pair of classes in order, as "old to new".

    A pair has one id, whether it occurs or not, and the color of its new class. Pairs of one class have no color of
    their own. Raises SpecError for more pairs than a byte holds.
    """
    count = len(pair.old.ids) * len(pair.new.ids)
    if count >= NODATA:
        raise SpecError(
            f"{count} pairs of classes do not fit a raster of bytes; compare maps with fewer classes"
        )
    changed = pair.is_change
    classes = [UNCHANGED]
    for i, a in enumerate(pair.old.classes):
        for j, b in enumerate(pair.new.classes):
            if changed[i, j]:
                classes.append(LandClass(_change_id(pair, i, j), f"{a.name} to {b.name}", b.color))
    return Legend(tuple(classes))


def change_values(pair: Pair, window: Window) -> np.ndarray:
    """The ids of `change_legend` in a window: (row, col) uint8; nodata where either map has no answer."""
    rows, cols = len(pair.old.ids), len(pair.new.ids)
    table = np.full((rows + 1, cols + 1), NODATA, np.uint8)
    ids = [[_change_id(pair, i, j) for j in range(cols)] for i in range(rows)]
    table[:rows, :cols] = np.where(pair.is_change, ids, UNCHANGED.id)
    before, after = _channels(pair.before, pair.old, window), _channels(pair.after, pair.new, window)
    values: np.ndarray = table[before, after]
    return values


def _change_id(pair: Pair, i: int, j: int) -> int:
    return 1 + i * len(pair.new.ids) + j


def _channels(source: ClassSource, legend: Legend, window: Window) -> np.ndarray:
    """Positions in the legend, (row, col) int64; the number of classes where there is no answer."""
    values = source.read(window)
    check_values(values, source, legend, window)
    table = np.full(NODATA + 1, len(legend.ids), np.int64)
    table[list(legend.ids)] = np.arange(len(legend.ids))
    channels: np.ndarray = table[values]
    return channels


def _matrix(totals: np.ndarray, shape: tuple[int, int], unit: float) -> Matrix:
    rows: Any = totals.reshape(shape)
    return tuple(tuple(int(n) * unit for n in row) for row in rows)
