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
    Method: the ring integral of authalic latitude over longitude (Snyder 1987, eq. 3-12), and middle-latitude
    distances, over steps so short that they agree with geodesics (Karney 2013), which a ring around a pole takes.
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
    rings = _ring_sizes_m(np.asarray(lon), np.asarray(lat), ring_starts)
    exteriors = np.zeros(len(rings), np.bool_)
    exteriors[polygon_starts[:-1]] = True
    rings[~exteriors, 0] *= -1
    areas, perimeters = np.add.reduceat(rings, polygon_starts[:-1]).T
    return areas, perimeters


def _ring_sizes_m(lon: Floats, lat: Floats, ring_starts: Ints) -> Floats:
    """Area and perimeter of closed rings of longitudes and latitudes in degrees, (ring, 2); NaN where one is."""
    geod = Geod(ellps="WGS84")
    e2 = geod.es
    e = np.sqrt(e2)
    lat = np.where(np.isfinite(lat) & np.isfinite(lon), lat, np.nan)
    phi = np.radians(lat)
    sin = np.sin(phi)
    with np.errstate(invalid="ignore"):
        authalic = geod.b**2 / 2 * (sin / (1 - e2 * sin**2) + np.arctanh(e * sin) / e)
        east = np.radians((np.diff(lon) + 180) % 360 - 180)  # also across 180 degrees
        above = authalic - np.repeat(authalic[ring_starts[:-1]], np.diff(ring_starts))
        middle = (phi[1:] + phi[:-1]) / 2
        curved = 1 - e2 * np.sin(middle) ** 2
        step = geod.a * np.hypot(
            east * np.cos(middle) / np.sqrt(curved), np.diff(phi) * (1 - e2) / curved**1.5
        )
        band = east * (above[1:] + above[:-1]) / 2
    # From the last point of a ring there is no step, also behind the last: a sum's bits depend on how many it adds.
    band, step, east = (np.append(values, 0.0) for values in (band, step, east))
    last = ring_starts[1:] - 1
    band[last] = step[last] = east[last] = 0
    starts = ring_starts[:-1]
    sizes: Floats = np.abs(np.column_stack([np.add.reduceat(values, starts) for values in (band, step)]))
    turns = np.abs(np.add.reduceat(east, starts))
    for ring in np.flatnonzero(turns > 1):
        at = slice(ring_starts[ring], ring_starts[ring + 1])
        sizes[ring] = np.abs(geod.polygon_area_perimeter(lon[at], lat[at]))
    return sizes


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
