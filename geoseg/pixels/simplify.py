"""Simplified polygons of a class map that still fit together: no gap, no overlap, the same neighbors."""

from __future__ import annotations

import math

import numpy as np
import shapely
from affine import Affine

from geoseg.errors import SpecError
from geoseg.pixels.noding import noded
from geoseg.pixels.polygons import Geometries, Pieces, apply


def simplify_coverage(
    pieces: Pieces, transform: Affine, tolerance: float, simplify_boundary: bool = False
) -> Geometries:
    """Simplify the borders of all polygons of a raster, each border once for both of its sides.

    pieces: all polygons of a raster, whole, in any order. They are needed at once, with about 250 bytes of memory for
    each corner of the outlines. The result does not depend on their order, nor on where their rings start.
    transform: from pixel corners to map coordinates.
    tolerance: map units, 0 or more; the side of a square. A corner goes if the triangle that it makes with its two
    neighbors is no larger than that square, the smallest triangle first; so a stair of single pixels goes from a
    tolerance of 0.71 pixel sides on. 0 removes nothing.
    simplify_boundary: whether borders of nothing (nodata, the raster's end) are simplified too. They may cut off the
    corners of the raster then. To smooth the borders of nodata only, pass nodata as polygons of its own class.
    Returns valid polygons in map coordinates, normalized, in the order of the pieces; no two overlap, neighbors share
    every corner of their border, and all corners are corners of pixels. No polygon and no hole is lost: points where
    three borders meet stay, no two borders become the same straight line, and a ring keeps three corners.
    Raises SpecError for a tolerance that is negative or not finite.
    Method: Visvalingam & Whyatt (1993), in GEOS's version for coverages.
    """
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise SpecError(f"tolerance of the simplification must be 0 map units or more, got {tolerance}")
    if not len(pieces):
        return pieces.geometries()
    # Borders are simplified one after the other, from their first corner on: so order and starts are fixed before.
    rows, cols = pieces.first_pixels()
    order = np.lexsort((cols, rows))
    polygons = shapely.normalize(noded(pieces.take(order)).polygons())
    # In whole pixels no triangle's area is rounded; a transform scales all areas alike.
    tolerance_px = tolerance / math.sqrt(abs(transform.determinant))
    simple = shapely.coverage_simplify(polygons, tolerance_px, simplify_boundary=simplify_boundary)
    found: Geometries = np.empty(len(pieces), dtype=object)
    found[order] = shapely.normalize(shapely.transform(simple, lambda xy: apply(transform, xy)))
    return found
