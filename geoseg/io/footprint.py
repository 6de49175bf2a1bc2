"""Where a raster lies on the globe, as GeoJSON says it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import shapely
from pyproj import CRS, Transformer
from pyproj.enums import TransformDirection
from pyproj.exceptions import ProjError
from shapely.geometry import mapping
from shapely.geometry.base import BaseGeometry

from geoseg.grid.geogrid import GeoGrid

BEND, DECIMALS = 1e-4, 7


def footprint(grid: GeoGrid) -> tuple[dict[str, Any], list[float]] | None:
    """The raster's outline on WGS 84, longitude before latitude: a GeoJSON geometry and its bbox.

    Bent edges are followed to BEND of the outline's height. An outline across the antimeridian is cut there and its
    bbox has west above east, as RFC 7946 asks; one around a pole reaches up to it. None without a CRS, or where a part
    of the outline has no place on the globe.
    """
    if grid.crs is None:
        return None
    try:
        ring = _ring(grid, CRS.from_wkt(grid.crs))
    except ProjError:
        return None
    shape = shapely.make_valid(shapely.Polygon(ring).simplify(BEND * np.ptp(ring[:, 1])))
    west, south, east, north = shape.bounds
    worlds = range(math.floor((west + 180) / 360), math.ceil((east + 180) / 360))
    parts = [_world(shape, 360 * number) for number in worlds]
    whole = shapely.set_precision(shapely.orient_polygons(shapely.union_all(parts)), 10**-DECIMALS)
    rounded = shapely.transform(shapely.orient_polygons(whole), lambda points: np.round(points, DECIMALS))
    bbox = [west - 360 * worlds[0], south, east - 360 * worlds[-1], north]
    if east - west >= 360:
        bbox[0], bbox[2] = -180, 180
    return mapping(rounded), [round(side, DECIMALS) for side in bbox]


def _world(shape: BaseGeometry, shift: float) -> BaseGeometry:
    """What lies between shift - 180 and shift + 180 degrees, moved to -180..180."""
    cut = shapely.intersection(shape, shapely.box(shift - 180, -90, shift + 180, 90))
    return shapely.transform(cut, lambda points: points - [shift, 0])


def _ring(grid: GeoGrid, crs: CRS) -> np.ndarray:
    """The outline as (point, 2) lon and lat, without jumps: longitudes may leave -180..180. Raises ProjError."""
    to_lonlat = Transformer.from_crs(crs, "OGC:CRS84", always_xy=True)
    poles = to_lonlat.transform([0, 0], [90, -90], direction=TransformDirection.INVERSE)
    size = np.array([[grid.width], [grid.height]])
    with np.errstate(invalid="ignore"):  # a pole may have no place in the raster's CRS
        away = np.abs(~grid.transform @ np.array(poles) - size / 2) - size / 2
    beyond = np.nan_to_num(away.max(axis=0), nan=np.inf)  # pixels outside the raster; below 0: inside
    # A pole right on the outline of a map has every longitude at once: step back from it.
    inset = 1e-3 if not crs.is_geographic and (np.abs(beyond) < 1e-3).any() else 0
    ends = np.array([[0, 1, 1, 0, 0], [0, 0, 1, 1, 0]]) * (size - 2 * inset) + inset

    def locate(t: np.ndarray) -> np.ndarray:
        cols, rows = (np.interp(t, range(5), side) for side in ends)
        points = np.array(to_lonlat.transform(*(grid.transform @ (cols, rows))))
        if not np.isfinite(points).all():
            raise ProjError("a part of the outline has no place on the globe")
        return points

    t = np.linspace(0, 4, 33)
    for _ in range(48):
        (lon, lat), middle = locate(t), (t[1:] + t[:-1]) / 2
        mid_lon, mid_lat = locate(middle)
        step, half = _turn(np.diff(lon)), _turn(mid_lon - lon[:-1])
        off = np.hypot((half - step / 2) * np.cos(np.radians(mid_lat)), mid_lat - (lat[1:] + lat[:-1]) / 2)
        bent = (off > BEND * np.ptp(lat)) | (np.abs(step) > 30)
        if not bent.any():
            break
        t = np.sort(np.concatenate([t, middle[bent]]))
    lon = np.round(np.unwrap(lon, period=360), 9)
    if abs(lon[-1] - lon[0]) > 180:  # once around the globe, so a pole is inside
        pole = 90 if beyond[0] < beyond[1] else -90
        lon, lat = np.append(lon, [lon[-1], lon[0]]), np.append(lat, [pole, pole])
    return np.column_stack([lon, lat])


def _turn(degrees: np.ndarray) -> np.ndarray:
    """A difference of longitudes, the short way round."""
    return (degrees + 180) % 360 - 180
