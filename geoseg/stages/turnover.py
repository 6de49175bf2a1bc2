"""Buildings that one map has and another has not: gone, or new.

Footprints of two maps never coincide; one counts as met where the other map's buildings cover enough of it. Footprints
are read tile by tile, each judged in the tile that holds its first vertex, against all that may touch it: every tile
gives the answers of the whole layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import shapely

from geoseg.grid.geogrid import GeoGrid
from geoseg.grid.window import Window
from geoseg.legend import NODATA
from geoseg.pixels.burn import apply
from geoseg.pixels.shares import pixel_shares
from geoseg.stages.evaluate import pixel_box, windows
from geoseg.stages.protocols import ClassSource

TILE_PX = 4096
OVERLAP = 0.25
"""Share of a footprint that the other map's buildings must cover for it to be met again."""
SEEN = 0.5
"""Share of a footprint where the other map must have an answer, for a building to be missing there."""

Box = tuple[float, float, float, float]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Footprints:
    """Building polygons in map coordinates, and what their layer says of each; all (polygon,)."""

    geometries: npt.NDArray[np.object_]
    ids: npt.NDArray[np.object_]
    area_m2: Floats
    confidence_mean: Floats

    def at(self, chosen: npt.NDArray[np.bool_]) -> Footprints:
        return Footprints(
            self.geometries[chosen], self.ids[chosen], self.area_m2[chosen], self.confidence_mean[chosen]
        )


class FootprintSource(Protocol):
    """A layer of buildings that can be read by boxes of map coordinates: left, bottom, right, top."""

    def read(self, box: Box) -> Footprints: ...


@dataclass(frozen=True, eq=False)
class Missing:
    """The buildings of a tile that the other map has not, with the share of each that its buildings cover.

    judged: how many buildings of the tile could be looked for at all.
    """

    buildings: Footprints
    covered: Floats
    judged: int


def find_missing(
    own: FootprintSource, other: FootprintSource, other_map: ClassSource, overlap: float = OVERLAP
) -> Iterator[Missing]:
    """The buildings of one map that another has not, tile by tile.

    other_map: the class raster that the other buildings come from. A building is missing where less than `overlap`
    of it is covered by others, and the other map has an answer for at least SEEN of it.
    """
    for tile in windows(other_map.grid, TILE_PX):
        found = _owned(own.read(_box_of(tile, other_map.grid)), tile, other_map.grid)
        if not len(found.geometries):
            continue
        others = other.read(tuple(shapely.total_bounds(found.geometries).tolist()))
        covered = covered_shares(found.geometries, others.geometries)
        missing = covered < overlap
        seen = np.ones(len(missing), np.bool_)
        for i in np.flatnonzero(missing):
            seen[i] = _seen_share(found.geometries[i], other_map) >= SEEN
        missing &= seen
        yield Missing(found.at(missing), covered[missing], int(seen.sum()))


def covered_shares(own: npt.NDArray[np.object_], others: npt.NDArray[np.object_]) -> Floats:
    """The share of each polygon's area that other polygons, which do not overlap one another, cover: in 0..1."""
    pairs = shapely.STRtree(others).query(own, predicate="intersects")
    shared = shapely.area(shapely.intersection(own[pairs[0]], others[pairs[1]]))
    covered: Floats = np.bincount(pairs[0], shared, len(own)) / shapely.area(own)
    return covered.clip(0, 1)


@dataclass(frozen=True)
class _Shape:
    name: str
    geometry: shapely.Geometry


def _seen_share(geometry: shapely.Geometry, source: ClassSource) -> float:
    """Where a raster has an answer: share of a polygon's part in it; 0 where no part is."""
    box = pixel_box(_Shape("", geometry), source.grid)
    if not box.area_px:
        return 0.0
    shares, values = pixel_shares(geometry, box, source.grid), source.read(box)
    none = (values == NODATA) | (values == (NODATA if source.nodata is None else source.nodata))
    total = int(shares.sum())
    return int(shares[~none].sum()) / total if total else 0.0


def _owned(found: Footprints, tile: Window, grid: GeoGrid) -> Footprints:
    """The footprints whose first vertex lies in a tile; a vertex beyond the raster belongs to the nearest."""
    points, polygon = shapely.get_coordinates(found.geometries, return_index=True)
    first = points[np.searchsorted(polygon, np.arange(len(found.geometries)))]
    col, row = np.floor(apply(~grid.transform, first)).T
    col, row = np.clip(col, 0, grid.width - 1), np.clip(row, 0, grid.height - 1)
    inside = (row >= tile.row) & (row < tile.row_end) & (col >= tile.col) & (col < tile.col_end)
    return found.at(inside)


def _box_of(tile: Window, grid: GeoGrid) -> Box:
    wide = tile.grow(2)
    corners = [
        (wide.col, wide.row),
        (wide.col_end, wide.row),
        (wide.col, wide.row_end),
        (wide.col_end, wide.row_end),
    ]
    x, y = zip(*(grid.transform @ corner for corner in corners), strict=True)
    return min(x), min(y), max(x), max(y)
