"""Frames in which angles are those on the ground, for parts of a raster that are small against the earth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from affine import Affine
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError, ProjError

from geoseg.pixels.polygons import Bools, apply

Points = npt.NDArray[np.float64]

STEPS = 4096
"""Frames are rounded to this part of a pixel side: right angles are right to 0.03 degrees, few frames serve a raster,
and pixel corners stay exact in them."""
MOST_OBLONG = 4.0
"""A pixel that is more oblong than this on the ground, as at 76 degrees of latitude in degrees, has no frame."""
REACH_PX = 16
"""A frame is measured over twice as many pixels: some projections are iterated to no more than 0.6 mm."""


class Frame(NamedTuple):
    """A linear map from pixels: x = col_x * col + row_x * row, y = row_y * row.

    Angles in it are those on the ground, up to a turn and a reflection. A unit is the longer side of a pixel.
    """

    col_x: float
    row_x: float
    row_y: float

    def of_pixels(self, points: Points) -> Points:
        """(point, 2) from (col, row)."""
        col, row = points.T
        return np.column_stack([self.col_x * col + self.row_x * row, self.row_y * row])

    def to_pixels(self, points: Points) -> Points:
        """(point, 2) to (col, row)."""
        x, y = points.T
        row = y / self.row_y
        return np.column_stack([(x - self.row_x * row) / self.col_x, row])


@dataclass(frozen=True)
class Frames:
    """The frames of places of a raster: the same for a place whatever else is asked for.

    Without a CRS, and in one that is neither projected nor geographic, map units are lengths on the ground.
    """

    transform: Affine
    _ground: _Ground | None

    @classmethod
    def of(cls, transform: Affine, crs: str | None) -> Frames:
        """crs: WKT. One that PROJ cannot use counts as none."""
        return cls(transform, None if crs is None else _Ground.of(crs))

    def at(self, places: Points) -> Points:
        """The three numbers of the frame at each place: (place, 3); NaN where a pixel has no known or usable shape.

        places: (place, 2), (col, row).
        """
        around = places[:, None] + REACH_PX * np.array([[-1, 0], [1, 0], [0, -1], [0, 1]], np.float64)
        xy = apply(self.transform, around.reshape(-1, 2))
        if self._ground is None:
            left, right, above, below = xy.reshape(-1, 4, 2).transpose(1, 0, 2)
            return _triangular(right - left, below - above)
        return _triangular(*self._ground.metres(xy.reshape(-1, 4, 2)))


@dataclass(frozen=True)
class _Ground:
    """Lengths on the ellipsoid of a CRS."""

    transformer: Any
    radians: float
    square_eccentricity: float

    @classmethod
    def of(cls, wkt: str) -> _Ground | None:
        try:
            crs = CRS.from_wkt(wkt)
            base = crs.geodetic_crs
            if not (crs.is_projected or crs.is_geographic) or base is None or base.ellipsoid is None:
                return None
            shape = base.ellipsoid
            squeeze = shape.semi_minor_metre / shape.semi_major_metre
            to_degrees = Transformer.from_crs(crs, base, always_xy=True)
            return cls(to_degrees, base.axis_info[0].unit_conversion_factor, 1 - squeeze**2)
        except (CRSError, ProjError):
            return None

    def metres(self, crosses: Points) -> tuple[Points, Points]:
        """East and north from the first point to the second, and from the third to the fourth, in some unit.

        crosses: (place, 4, 2) in map coordinates. NaN where the CRS does not reach, and at the poles.
        """
        try:
            lon, lat = self.transformer.transform(crosses[..., 0], crosses[..., 1])
        except ProjError:
            lon = lat = np.full(crosses.shape[:2], np.nan)
        lon, lat = np.asarray(lon) * self.radians, np.asarray(lat) * self.radians
        reached = np.isfinite(lon) & np.isfinite(lat) & (np.abs(lat) < math.pi / 2)
        usable: Bools = np.logical_and.reduce(reached, axis=1)
        lon, lat = np.where(usable[:, None], lon, 0), np.where(usable[:, None], lat, 0)
        lon = np.stack([lon[:, 1] - lon[:, 0], lon[:, 3] - lon[:, 2]])
        east = (lon + math.pi) % (2 * math.pi) - math.pi  # also across 180 degrees
        north = np.stack([lat[:, 1] - lat[:, 0], lat[:, 3] - lat[:, 2]])
        middle = lat.mean(axis=1)
        # Radii of curvature across and along the meridian, over their common factor.
        flattened = 1 - self.square_eccentricity * np.sin(middle) ** 2
        across = flattened * np.cos(middle)
        along = 1 - self.square_eccentricity
        steps = np.stack([east * across, north * along], axis=2)
        steps[:, ~usable] = np.nan
        return steps[0], steps[1]


def _triangular(col: Points, row: Points) -> Points:
    """The frames of pixels with given sides: (place, 3). col, row: (place, 2), what a step along an axis is."""
    with np.errstate(invalid="ignore", divide="ignore"):
        wide, high = np.hypot(*col.T), np.hypot(*row.T)
        shear = (col * row).sum(axis=1) / wide
        upright = np.abs(col[:, 0] * row[:, 1] - col[:, 1] * row[:, 0]) / wide
        sides = np.column_stack([wide, shear, upright]) / np.maximum(wide, high)[:, None]
        frames: Points = np.round(sides * STEPS) / STEPS
        # Ratio of the singular values of the map, from its squares' sum and its determinant.
        squares, area = (frames**2).sum(axis=1), frames[:, 0] * frames[:, 2]
        root = np.sqrt(np.maximum(squares**2 - 4 * area**2, 0))
        oblong = np.sqrt((squares + root) / (squares - root))
        frames[~(oblong <= MOST_OBLONG)] = np.nan
    return frames
