"""What sets one place apart from another: its light, its season and its colours."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

METRES_PER_PIXEL = 0.8

Color = tuple[float, float, float]
"""Red, green and blue on the 0..255 scale of the finished image, before light and haze."""

SAND_TONES: tuple[tuple[Color, Color, Color], ...] = (
    ((212, 203, 193), (186, 176, 166), (204, 201, 200)),
    ((205, 206, 212), (178, 186, 198), (214, 204, 198)),
    ((198, 202, 200), (170, 172, 166), (216, 210, 198)),
    ((220, 208, 190), (196, 176, 152), (206, 200, 196)),
    ((190, 186, 184), (160, 160, 166), (212, 206, 204)),
)
"""Per place: the main sand, a darker crust and a bright drift."""

WATER_TONES: tuple[tuple[Color, Color], ...] = (
    ((13, 22, 30), (78, 104, 92)),
    ((14, 30, 38), (90, 126, 116)),
    ((10, 14, 12), (70, 86, 58)),
    ((22, 24, 22), (88, 82, 62)),
    ((8, 18, 26), (58, 92, 96)),
)
"""Per place: deep and shallow water."""

ROOF_TONES: tuple[Color, ...] = (
    (240, 237, 234),
    (196, 194, 195),
    (152, 150, 154),
    (112, 112, 118),
    (194, 180, 162),
    (164, 144, 126),
    (178, 122, 96),
    (140, 136, 164),
    (96, 94, 98),
)
"""White, light grey, grey, dark grey, tan, brown, terracotta, violet-grey, bitumen."""


@dataclass(frozen=True)
class Look:
    """Light, air and colours of one place."""

    sun_azimuth: float  # degrees clockwise from north (up)
    sun_elevation: float  # degrees
    haze: float  # share of the light that the air adds
    warmth: float  # relative red gain (and blue loss) of the whole image
    contrast: float
    brightness: float
    sand: tuple[Color, Color, Color]
    deep_water: Color
    shallow_water: Color
    asphalt: Color
    grass: Color
    foliage: Color
    greenness: float  # 0 a dry season, 1 a lush one
    roof_weights: tuple[float, ...]

    @property
    def sun_direction(self) -> tuple[float, float]:
        """Unit vector in (col, row) that points towards the sun."""
        azimuth = math.radians(self.sun_azimuth)
        return math.sin(azimuth), -math.cos(azimuth)


def varied(rng: np.random.Generator, color: Color, spread: float) -> Color:
    """A neighbour of ``color``; ``spread`` is the deviation of its brightness in 0..255 levels."""
    common = float(rng.normal(0.0, spread))
    own = rng.normal(0.0, 0.25 * spread, 3).tolist()
    red, green, blue = (min(252.0, max(4.0, c + common + o)) for c, o in zip(color, own, strict=True))
    return red, green, blue


def draw_look(rng: np.random.Generator) -> Look:
    """Draw the look of a place; every seed gives another."""
    greenness = float(rng.uniform(0.2, 1.0))
    sand = SAND_TONES[int(rng.integers(len(SAND_TONES)))]
    deep, shallow = WATER_TONES[int(rng.integers(len(WATER_TONES)))]
    shade = float(rng.normal(0.0, 6.0))
    grass = (102 - 18 * greenness, 100 + 0 * greenness, 78 - 10 * greenness)
    foliage = (62 - 10 * greenness, 64 - 3 * greenness, 53 - 8 * greenness)
    weights = rng.dirichlet(np.array([4.0, 3.5, 4.0, 3.0, 2.5, 2.0, 0.8, 1.0, 1.4]))
    return Look(
        sun_azimuth=float(rng.uniform(115.0, 205.0)),
        sun_elevation=float(rng.uniform(40.0, 62.0)),
        haze=float(rng.uniform(0.0, 0.09)),
        warmth=float(rng.normal(0.0, 0.018)),
        contrast=float(rng.uniform(0.94, 1.12)),
        brightness=float(rng.uniform(0.9, 1.05)),
        sand=(varied(rng, sand[0], 5.0), varied(rng, sand[1], 5.0), varied(rng, sand[2], 5.0)),
        deep_water=varied(rng, deep, 2.0),
        shallow_water=varied(rng, shallow, 6.0),
        asphalt=(92 + shade, 84 + shade, 85 + shade),
        grass=varied(rng, grass, 4.0),
        foliage=varied(rng, foliage, 3.0),
        greenness=greenness,
        roof_weights=tuple(float(w) for w in weights),
    )
