"""How large pixels are on the ground: on the ellipsoid, whatever the CRS."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from pyproj import CRS, Geod, Transformer
from pyproj.exceptions import CRSError, ProjError
from scipy.interpolate import RectBivariateSpline

from geoseg.errors import GridError
from geoseg.grid.geogrid import GeoGrid
from geoseg.grid.window import Window

TOLERANCE = 1e-7
"""Relative error that interpolated areas may have in the middle between nodes, where it is largest."""
PATCH_M = 1000.0
"""Side of the squares that are measured. PROJ iterates some projections to 0.6 mm: a pixel would be too small."""
EDGE_POINTS = 8
"""A square's edge is straight in its CRS, and is followed on the ellipsoid in so many steps."""
NODES = (5, 9, 17, 33, 65, 129)
"""Nodes along an axis of the raster; the fewest that keep to the tolerance are taken."""


@dataclass(frozen=True)
class PixelAreas:
    """The area of each pixel of a raster, on the ellipsoid of its CRS.

    Rows of pixels between parallels have one area in closed form: that of a band of the ellipsoid. Otherwise a
    bicubic spline runs through the areas of geodesic squares (Karney 2013) on nodes spread over the raster, checked
    between them. A pixel's area does not depend on the window that asks for it.

    largest_m2: no pixel is larger.
    """

    grid: GeoGrid
    largest_m2: float
    _rows: _Band | None
    _spline: Any = None

    @classmethod
    def of(cls, grid: GeoGrid) -> PixelAreas:
        """Raises GridError where pixels have no known size: no CRS, or one that does not reach all of the raster."""
        if grid.crs is None:
            raise GridError("has no CRS, so its pixels have no known size on the ground")
        try:
            crs = CRS.from_wkt(grid.crs)
            base = crs.geodetic_crs
            shape, geod = (None, None) if base is None else (base.ellipsoid, base.get_geod())
            if not (crs.is_projected or crs.is_geographic) or base is None or shape is None or geod is None:
                raise GridError(f"is in {crs.name}, in which pixels have no known size on the ground")
            radians = base.axis_info[0].unit_conversion_factor
            if crs.is_geographic and grid.transform.b == grid.transform.d == 0:
                band = _Band.of(shape.semi_major_metre, shape.semi_minor_metre, radians)
                middle = _nearest_row_to_equator(grid, band)
                return cls(grid, band.area_m2(grid, middle), band)
            to_lonlat = Transformer.from_crs(crs, base, always_xy=True)
            return cls._interpolated(grid, _Ground(to_lonlat, geod, math.degrees(radians)))
        except (CRSError, ProjError) as error:
            raise GridError(f"has a CRS that cannot be used ({error})") from error

    @classmethod
    def _interpolated(cls, grid: GeoGrid, ground: _Ground) -> PixelAreas:
        patch_px = max(1.0, PATCH_M / math.sqrt(ground.area_m2(grid, grid.height / 2, grid.width / 2, 1.0)))
        for count in NODES:
            rows, cols = np.linspace(0, grid.height, count), np.linspace(0, grid.width, count)
            areas = ground.areas_m2(grid, rows, cols, patch_px)
            spline = RectBivariateSpline(rows, cols, areas, s=0)
            rows, cols = (rows[1:] + rows[:-1]) / 2, (cols[1:] + cols[:-1]) / 2
            between = ground.areas_m2(grid, rows, cols, patch_px)
            if (np.abs(spline(rows, cols) - between) <= TOLERANCE * between).all():
                return cls(grid, float(areas.max()) * (1 + 1e-3), None, spline)
        raise GridError("is in a CRS in which the size of pixels changes too abruptly to be known everywhere")

    def of_window(self, window: Window) -> np.ndarray:
        """Square metres of each pixel of a window: float64 that broadcasts to (row, col)."""
        if self._rows is not None:
            rows = range(window.row, window.row_end)
            return np.array([[self._rows.area_m2(self.grid, row)] for row in rows]).reshape(-1, 1)
        rows_at = np.arange(window.row, window.row_end) + 0.5
        cols_at = np.arange(window.col, window.col_end) + 0.5
        areas: np.ndarray = self._spline(rows_at, cols_at)
        return areas


@dataclass(frozen=True)
class _Band:
    """Areas between parallels and meridians of an ellipsoid, in closed form."""

    minor_m: float
    eccentricity: float
    radians: float
    """One unit of the coordinates."""

    @classmethod
    def of(cls, major_m: float, minor_m: float, radians: float) -> _Band:
        return cls(minor_m, math.sqrt(1 - (minor_m / major_m) ** 2), radians)

    def area_m2(self, grid: GeoGrid, row: int) -> float:
        """Area of a pixel in a row of a raster of longitudes and latitudes; what lies beyond a pole has none.

        The difference of two authalic latitudes' sines (Snyder 1987, eq. 3-12), written so that nothing cancels.
        """
        e, t = self.eccentricity, grid.transform
        low, high = sorted(self._latitude(t.f + t.e * edge) for edge in (row, row + 1))
        s1, s2 = math.sin(low), math.sin(high)
        step = 2 * math.cos((low + high) / 2) * math.sin((high - low) / 2)  # s2 - s1
        band = step * (1 + e * e * s1 * s2) / ((1 - (e * s1) ** 2) * (1 - (e * s2) ** 2))
        band += math.atanh(e * step / (1 - e * e * s1 * s2)) / e if e else step
        return float(self.minor_m**2 / 2 * abs(t.a) * self.radians * band)

    def _latitude(self, value: float) -> float:
        return min(max(value * self.radians, -math.pi / 2), math.pi / 2)


@dataclass(frozen=True)
class _Ground:
    """From map coordinates to longitude and latitude on the CRS's own ellipsoid: no shift of datum, no grids."""

    transformer: Transformer
    geod: Geod
    degrees: float
    """One unit of the geographic CRS."""

    def area_m2(self, grid: GeoGrid, row: float, col: float, side_px: float) -> float:
        """Mean area of the pixels of a square around a place. Raises GridError where the CRS does not reach."""
        t = np.arange(EDGE_POINTS) / EDGE_POINTS
        zero, one = np.zeros_like(t), np.ones_like(t)
        x = col + side_px * (np.concatenate([t, one, 1 - t, zero]) - 0.5)
        y = row + side_px * (np.concatenate([zero, t, one, 1 - t]) - 0.5)
        a, b, c, d, e, f = grid.transform[:6]
        lon, lat = self.transformer.transform(a * x + b * y + c, d * x + e * y + f)
        if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
            raise GridError("is in a CRS that does not reach all of it, so its pixels have no known size")
        area, _ = self.geod.polygon_area_perimeter(lon * self.degrees, lat * self.degrees)
        if not area:
            raise GridError("is in a CRS that does not reach all of it, so its pixels have no known size")
        return abs(float(area)) / side_px**2

    def areas_m2(self, grid: GeoGrid, rows: np.ndarray, cols: np.ndarray, side_px: float) -> np.ndarray:
        """The same on a lattice of places: (row, col)."""
        return np.array([[self.area_m2(grid, row, col, side_px) for col in cols] for row in rows])


def _nearest_row_to_equator(grid: GeoGrid, band: _Band) -> int:
    """Pixels between parallels are largest where the equator is nearest."""
    row = math.floor(float(-grid.transform.f / grid.transform.e))
    best = [min(max(r, 0), grid.height - 1) for r in (row - 1, row, row + 1)]
    return max(best, key=lambda r: band.area_m2(grid, r))
