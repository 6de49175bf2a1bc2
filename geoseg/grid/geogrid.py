"""Where pixels lie on the ground."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from affine import Affine

from geoseg.errors import GridError
from geoseg.grid.window import Window


@dataclass(frozen=True)
class GeoGrid:
    """Size, geotransform and coordinate reference system of a raster.

    transform: from (col, row) of a pixel's corner to map coordinates. crs: WKT, or None where the raster has none.
    georeferenced: False where the file states no geotransform, so that `transform` is only where programs show it.
    """

    height: int
    width: int
    transform: Affine
    crs: str | None = None
    georeferenced: bool = True

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise GridError(f"a raster cannot be {self.height} x {self.width} px")
        if self.transform.determinant == 0:
            raise GridError(f"the geotransform {tuple(self.transform)[:6]} maps all pixels onto a line")

    @property
    def window(self) -> Window:
        """The whole raster."""
        return Window(0, 0, self.height, self.width)

    @property
    def megapixels(self) -> float:
        return self.height * self.width / 1e6

    def transform_of(self, window: Window) -> Affine:
        """The geotransform of an array that covers `window`."""
        return self.transform @ Affine.translation(window.col, window.row)

    @cached_property
    def gsd_m(self) -> float | None:
        """Ground sample distance in metres: the side of a square as large as the central pixel is on the ground.

        Measured on the ellipsoid, since units of a CRS are not metres on the ground (EPSG:3857 is off by 1 / cos of
        the latitude). None without a CRS, or where the raster's middle lies outside what its CRS can project.
        """
        if self.crs is None:
            return None
        from pyproj import CRS, Transformer
        from pyproj.exceptions import ProjError

        try:
            crs = CRS.from_wkt(self.crs)
            if not (crs.is_projected or crs.is_geographic):
                return None
            to_lonlat = Transformer.from_crs(crs, 4326, always_xy=True)
            row, col = self.height / 2, self.width / 2
            corners = [(col, row), (col + 1, row), (col + 1, row + 1), (col, row + 1)]
            xs, ys = zip(*(self.transform @ corner for corner in corners), strict=True)
            lon, lat = to_lonlat.transform(xs, ys)
            geod = crs.get_geod()
            if geod is None or not all(map(math.isfinite, (*lon, *lat))):
                return None
            area = abs(geod.polygon_area_perimeter(lon, lat)[0])
            return math.sqrt(area) if math.isfinite(area) else None
        except ProjError:
            return None

    def same_place(self, other: GeoGrid, tolerance_px: float = 1e-3) -> bool:
        """True where both have the same size and CRS and no corner differs by more than a share of a pixel."""
        if (self.height, self.width) != (other.height, other.width) or not self._same_crs(other):
            return False
        to_mine = ~self.transform @ other.transform
        corners = [(0, 0), (self.width, 0), (0, self.height), (self.width, self.height)]
        return all(
            max(abs(a - b) for a, b in zip(to_mine @ c, c, strict=True)) <= tolerance_px for c in corners
        )

    def _same_crs(self, other: GeoGrid) -> bool:
        if self.crs == other.crs:
            return True
        if self.crs is None or other.crs is None:
            return False
        from pyproj import CRS

        return bool(CRS.from_wkt(self.crs).equals(CRS.from_wkt(other.crs), ignore_axis_order=True))
