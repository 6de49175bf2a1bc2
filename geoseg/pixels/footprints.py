"""Polygons in map coordinates: their area on the ground, and their part in an area of interest."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from pyproj import CRS, Geod, Transformer
from pyproj.exceptions import ProjError

from geoseg.pixels.polygons import Bools, Geometries, Ints, apply, spans, starts_of

Points = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float64]

EDGE_PX = 64
"""A straight edge of the map is followed on the ellipsoid in steps of at most this many pixels."""


def geodesic_sizes_m(polygons: Geometries, crs: str | None, transform: Affine) -> tuple[Floats, Floats]:
    """Area and perimeter of each polygon on the WGS 84 ellipsoid, in square metres and metres: (polygon,) each.

    The perimeter is that of all rings, holes included.

    polygons: valid, in the map coordinates of `crs` (WKT). transform: the raster's geotransform.
    NaN without a CRS, and where the CRS is neither projected nor geographic or does not reach.
    Method: geodesic polygons (Karney 2013).
    """
    unknown = np.full(len(polygons), np.nan)
    if crs is None or not len(polygons):
        return unknown, unknown
    try:
        known = CRS.from_wkt(crs)
        if not (known.is_projected or known.is_geographic):
            return unknown, unknown
        to_lonlat = Transformer.from_crs(known, 4326, always_xy=True)
        _, points, (ring_starts, polygon_starts) = shapely.to_ragged_array(polygons)
        points, ring_starts = _densify(points, ring_starts, EDGE_PX * _pixel_sides(transform)[0])
        lon, lat = to_lonlat.transform(points[:, 0], points[:, 1])
    except ProjError:
        return unknown, unknown
    rings = np.full((len(ring_starts) - 1, 2), np.nan)
    finite = np.logical_and.reduceat(np.isfinite(lon) & np.isfinite(lat), ring_starts[:-1])
    geod = Geod(ellps="WGS84")
    for ring in np.flatnonzero(finite):
        at = slice(ring_starts[ring], ring_starts[ring + 1])
        rings[ring] = np.abs(geod.polygon_area_perimeter(lon[at], lat[at]))
    exteriors = np.zeros(len(rings), np.bool_)
    exteriors[polygon_starts[:-1]] = True
    rings[~exteriors, 0] *= -1
    areas, perimeters = np.add.reduceat(rings, polygon_starts[:-1]).T
    return areas, perimeters


def clip(polygons: Geometries, aoi: shapely.Geometry, transform: Affine) -> tuple[Geometries, Ints, Bools]:
    """The parts of polygons in an area of interest, in the order of the polygons.

    polygons, aoi: valid, in the same map coordinates. transform: the raster's geotransform.
    Returns the parts, the position of the polygon that each comes from, and whether the area of interest cut
    it. Polygons that end within half a pixel of its boundary count as cut: a raster is masked by pixel
    centers, so it may end that much before the boundary. Parts of one polygon come from top to bottom.
    """
    shapely.prepare(aoi)
    inside = shapely.covers(aoi, polygons)
    parts = polygons.copy()
    parts[~inside] = shapely.intersection(polygons[~inside], aoi)
    pieces, source = shapely.get_parts(parts, return_index=True)
    pieces, nested = shapely.get_parts(pieces, return_index=True)
    source = source[nested]
    keep = (shapely.get_type_id(pieces) == shapely.GeometryType.POLYGON) & (shapely.area(pieces) > 0)
    pieces, source = shapely.normalize(pieces[keep]), source[keep]

    to_pixels = ~transform
    in_pixels = shapely.transform(pieces, lambda xy: apply(to_pixels, xy))
    left, top = shapely.bounds(in_pixels)[:, :2].T
    order = np.lexsort((left, top, source))
    pieces, source = pieces[order], source[order]
    half_px = _pixel_sides(transform)[1] / 2
    boundary = shapely.boundary(aoi)
    shapely.prepare(boundary)
    cut = ~inside[source] | shapely.dwithin(boundary, pieces, half_px)
    return pieces, source, cut


def _densify(points: Points, ring_starts: Ints, max_edge: float) -> tuple[Points, Ints]:
    """Rings with points added evenly, so that no edge is longer than max_edge."""
    side = np.zeros_like(points)
    side[:-1] = np.diff(points, axis=0)
    side[ring_starts[1:] - 1] = 0
    parts = np.maximum(1, np.ceil(np.hypot(side[:, 0], side[:, 1]) / max_edge)).astype(np.int64)
    nth = spans(np.zeros_like(parts), parts)[:, None]
    dense = np.repeat(points, parts, axis=0) + np.repeat(side / parts[:, None], parts, axis=0) * nth
    return dense, starts_of(parts)[ring_starts]


def _pixel_sides(transform: Affine) -> tuple[float, float]:
    """The shorter and the longer side of a pixel, in map units."""
    along_row = float(np.hypot(transform.a, transform.d))
    along_col = float(np.hypot(transform.b, transform.e))
    return min(along_row, along_col), max(along_row, along_col)
