"""What is made of all polygons of a raster at once, on their way to the layers: generalizing, and a coverage.

Memory grows with the polygons here, by 1 to 2 kB for each; that is why both are only done on request.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import shapely

from geoseg.errors import SpecError
from geoseg.grid.geogrid import GeoGrid
from geoseg.pixels.footprints import geodesic_sizes_m
from geoseg.pixels.generalize import GeneralizeRules, generalize
from geoseg.pixels.polygons import Pieces
from geoseg.pixels.simplify import simplify_coverage
from geoseg.stages.square import Outlines

SIMPLIFY_PX = 1.0
"""Corners whose triangle is no larger than a pixel go: the stairs of slanting borders do."""
BATCH = 1_000


def generalized(parts: Sequence[Pieces], grid: GeoGrid, rules: GeneralizeRules | None) -> Pieces:
    """All polygons of a raster in scan order, generalized where there are rules.

    Raises SpecError for rules in square metres where the raster has no CRS that tells.
    """
    pieces = Pieces.concat(parts)
    if rules is None:
        rows, cols = pieces.first_pixels()
        return pieces.take(np.lexsort((cols, rows)))
    if grid.gsd_m is None:
        raise SpecError(
            "has no CRS that tells how large its pixels are, so no least areas in m2 can be asked for"
        )
    areas, _ = geodesic_sizes_m(pieces.geometries(grid.transform), grid.crs, grid.transform)
    return generalize(pieces, areas, rules)


def batches(pieces: Pieces) -> Iterator[Pieces]:
    """The same polygons, some at a time."""
    for begin in range(0, len(pieces), BATCH):
        yield pieces.take(np.arange(begin, min(begin + BATCH, len(pieces))))


def coverage(pieces: Pieces, grid: GeoGrid) -> Iterator[Outlines]:
    """Outlines that are simplified without gap or overlap; see `simplify_coverage`."""
    side = float(np.sqrt(abs(grid.transform.determinant)))
    simple = simplify_coverage(pieces, grid.transform, SIMPLIFY_PX * side)
    rows, cols = pieces.first_pixels()
    places = (rows << 32) + cols
    for begin in range(0, len(pieces), BATCH):
        here = slice(begin, begin + BATCH)
        yield places[here].tolist(), shapely.to_wkb(simple[here]).tolist()
