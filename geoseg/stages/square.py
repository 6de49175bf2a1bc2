"""Straight walls and right angles for the polygons of a layer, as they come in scan order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import shapely

from geoseg.grid.geogrid import GeoGrid
from geoseg.pixels.footprints import clip
from geoseg.pixels.frames import Frames
from geoseg.pixels.polygons import Geometries, apply
from geoseg.pixels.sweep import Arrived, sweep

Outlines = tuple[list[int], list[bytes]]
"""Places of first pixels, (row << 32) + col, and polygons as WKB in map coordinates."""


def square(traced: Iterable[Outlines], grid: GeoGrid, aoi: shapely.Geometry | None) -> Iterator[Outlines]:
    """What becomes of the polygons that squaring changes, in no particular order; see `square_footprints`.

    traced: all polygons of the layer as traced along pixel sides, in scan order; however they are cut into batches,
    the same comes out. aoi: valid. What it cuts stays as it is, and with it what shares a wall with that: where the
    walls lead that were cut off is unknown.
    """
    for redrawn in sweep(_arrivals(traced, grid, aoi), Frames.of(grid.transform, grid.crs)):
        yield redrawn.places.tolist(), shapely.to_wkb(redrawn.polygons).tolist()


def _arrivals(traced: Iterable[Outlines], grid: GeoGrid, aoi: shapely.Geometry | None) -> Iterator[Arrived]:
    to_pixels = ~grid.transform
    for places, wkb in traced:
        polygons: Geometries = shapely.from_wkb(np.array(wkb, dtype=object))
        fixed = np.zeros(len(polygons), np.bool_)
        if aoi is not None:
            _, source, cut = clip(polygons, aoi, grid.transform)
            fixed[:] = True
            fixed[source[~cut]] = False
        in_pixels = shapely.transform(polygons, lambda xy: np.rint(apply(to_pixels, xy)))
        yield Arrived(np.array(places, np.int64), in_pixels, fixed)
