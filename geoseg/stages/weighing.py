"""How much of what lies in each region, bit by bit the same for any window.

A pixel counts with the share of it that lies in the region, times its area on the ellipsoid, rounded to a whole
number of units that no window decides; whole numbers add up exactly, in any order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely

from geoseg.errors import SourceError, SpecError
from geoseg.grid.geogrid import GeoGrid
from geoseg.grid.window import Window
from geoseg.legend import NODATA, Legend
from geoseg.pixels.ground import PixelAreas
from geoseg.pixels.labels import count_values
from geoseg.pixels.shares import FULL, SHARE_BITS, pixel_shares
from geoseg.stages.evaluate import Region, WindowTask, pixel_box, window_tasks
from geoseg.stages.protocols import ClassSource

VALUES = 256
"""Of a uint8 raster."""
EVERYTHING = "overall"
"""Name of all of a raster, as among scores."""
HECTARE_M2 = 10_000
WINDOW_PX = 1024
"""Side of a window; half of what an evaluation reads at once, since a pixel takes some 50 bytes here."""
MAX_WINDOW_PX = 1 << 12
"""Larger windows could add up to more units than float64 counts."""


@dataclass(frozen=True)
class RegionSums:
    """What comes back from a worker, of one region by its index: pixels and area of each code, in whole units."""

    index: int
    pixels: tuple[int, ...]
    area: tuple[int, ...]


def region_tasks(grid: GeoGrid, regions: Sequence[Region], window_px: int) -> Iterator[WindowTask]:
    """The windows that a region may touch. Raises SpecError for windows above MAX_WINDOW_PX."""
    if not 1 <= window_px <= MAX_WINDOW_PX:
        raise SpecError(f"windows must lie in 1..{MAX_WINDOW_PX} px, got {window_px}")
    return (task for task in window_tasks(grid, regions, window_px) if task.regions)


def weigh(
    codes: np.ndarray, bins: int, task: WindowTask, grid: GeoGrid, sizes: PixelAreas | None
) -> tuple[RegionSums, ...]:
    """How much there is of each code in each region of a window; regions without a pixel in it are left out.

    codes: (row, col) whole numbers in 0..bins-1, over the task's window.
    """
    per_share = None  # units of area in one of a pixel's FULL parts
    if sizes is not None:
        per_share = np.broadcast_to(sizes.of_window(task.window) / (unit_m2(sizes) * FULL), codes.shape)
    found = []
    for index, region in task.regions:
        part = pixel_box(region, grid).overlap(task.window)
        shares = pixel_shares(region.geometry, part, grid)
        if not shares.any():
            continue
        at = part.within(task.window)
        area: tuple[int, ...] = (0,) * bins
        if per_share is not None:
            area = _sums(codes[at], np.rint(shares * per_share[at]), bins)
        found.append(RegionSums(index, _share_sums(codes[at], shares, bins), area))
    return tuple(found)


def add_sums(parts: Iterable[Iterable[RegionSums]], regions: int, bins: int) -> np.ndarray:
    """Sums over windows: (region, 2, bins) Python integers; pixels in parts of FULL, and area in units."""
    totals = np.zeros((regions, 2, bins), dtype=object)
    for found in parts:
        for one in found:
            totals[one.index] += np.array([one.pixels, one.area], dtype=object)
    return totals


def and_whole(regions: Sequence[Region], grid: GeoGrid) -> tuple[Region, ...]:
    """The regions, then all of a raster as one more."""
    return (*regions, _Whole(EVERYTHING, outline(grid)))


def remarks_on_names(regions: Sequence[Region]) -> list[str]:
    """What to say of a region that is called as all of the raster is."""
    if EVERYTHING not in {region.name for region in regions}:
        return []
    return [f"a region is called {EVERYTHING!r}, too; all of the map comes last"]


def _sums(codes: np.ndarray, weights: np.ndarray, bins: int) -> tuple[int, ...]:
    """Sum of whole weights per code; exact, since float64 holds every whole number up to 2**53."""
    return tuple(int(total) for total in np.bincount(codes.ravel(), weights.ravel(), bins).tolist())


def _share_sums(codes: np.ndarray, shares: np.ndarray, bins: int) -> tuple[int, ...]:
    if int(shares.min()) == FULL:  # counting is faster than adding
        return tuple(FULL * n for n in np.bincount(codes.ravel(), minlength=bins).tolist())
    return _sums(codes, shares, bins)


def unit_m2(sizes: PixelAreas) -> float:
    """A power of two, so that no pixel has more than FULL units."""
    return math.ldexp(1, math.frexp(sizes.largest_m2)[1] - SHARE_BITS)


def check_values(values: np.ndarray, landcover: ClassSource, legend: Legend, window: Window) -> None:
    """Raises SourceError where a window of a map holds what is neither a class nor nodata."""
    known = {*legend.ids, NODATA, *(() if landcover.nodata is None else (landcover.nodata,))}
    present = np.flatnonzero(count_values(values)).tolist()
    unknown = [value for value in present if value not in known]
    if unknown:
        raise SourceError(
            f"holds values that are no class: {', '.join(map(str, unknown))}; "
            f"the legend's ids are {', '.join(map(str, legend.ids))}",
            landcover.path,
            window=window,
        )


@dataclass(frozen=True)
class _Whole:
    name: str
    geometry: Any


def outline(grid: GeoGrid) -> Any:
    """A raster's edge as a polygon in its CRS."""
    corners = [(0, 0), (grid.width, 0), (grid.width, grid.height), (0, grid.height)]
    return shapely.Polygon([grid.transform @ corner for corner in corners])
