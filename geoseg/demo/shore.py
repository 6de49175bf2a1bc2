"""The waterline: a sea or a lake with a natural shore, often with a creek that winds inland."""

from __future__ import annotations

import math

import numpy as np
from rasterio.features import rasterize
from scipy import ndimage
from shapely.geometry import LineString

from .noise import BoolArray, FloatArray, fractal, upsample

COARSE = 4
"""Pixels per cell of the coarse rasters that plan the shore."""

SEA_SHARE = (0.10, 0.17)
"""Share of the raster under the sea or the lake."""


def _distance(mask: BoolArray) -> FloatArray:
    """Distance of every coarse cell to the nearest True cell, in full-size pixels."""
    return np.asarray(COARSE * ndimage.distance_transform_edt(~mask), np.float32)


def _creek(
    rng: np.random.Generator, size: int, inland: tuple[float, float], wobble: FloatArray
) -> FloatArray:
    """Signed distance (coarse cells) to a winding creek that runs ``inland`` from the middle of the coast."""
    steps = np.linspace(-0.75, float(rng.uniform(0.05, 0.3)), 60)
    sway = 0.09 * np.sin(3.2 * steps + rng.uniform(0, 6)) + 0.04 * np.sin(8.0 * steps + rng.uniform(0, 6))
    shift = sway + float(rng.uniform(-0.2, 0.2))
    path = (
        np.stack([inland[0] * steps - inland[1] * shift, inland[1] * steps + inland[0] * shift], axis=1) + 0.5
    )
    side = wobble.shape[0]
    pieces = [
        (LineString(ends * side), k + 1) for k, ends in enumerate(np.stack([path[:-1], path[1:]], axis=1))
    ]
    line = rasterize(pieces, out_shape=(side, side), all_touched=True, dtype="uint8")
    distance, (rows, cols) = ndimage.distance_transform_edt(line == 0, return_indices=True)
    narrowing = 1.3 - 0.85 * line[rows, cols] / len(path)
    half_width = min(0.013 * size + 14.0, 55.0)
    banks = 1.0 + 0.3 * np.tanh(wobble) + 0.22 * fractal(rng, side, 32, 4, 0.7)
    return np.asarray(COARSE * distance - half_width * narrowing * banks, np.float32)


def draw_shores(rng: np.random.Generator, size: int) -> tuple[FloatArray, FloatArray]:
    """Signed distance to the waterline in pixels, true and straightened: a sea or a lake, often a creek."""
    side = -(-size // COARSE)
    wobble = fractal(rng, side, max(16, 2 ** int(math.log2(side / 4))), 4, 0.55)
    rows, cols = np.mgrid[0:side, 0:side].astype(np.float32) / np.float32(side) - np.float32(0.5)
    bearing = float(rng.uniform(0, 2 * math.pi))
    inland = (math.cos(bearing), math.sin(bearing))
    share = float(rng.uniform(*SEA_SHARE))
    if rng.random() < 0.75:
        level = inland[0] * cols + inland[1] * rows + 0.055 * wobble
    else:
        level = np.hypot(cols - 0.22 * inland[0], rows - 0.22 * inland[1]) + 0.06 * wobble
        share *= 0.8
    water = level < np.quantile(level, share)
    if rng.random() < 0.8:
        water |= _creek(rng, size, inland, wobble) < 0
    water = ndimage.binary_opening(water, iterations=2)
    signed = _distance(water) - _distance(~water)
    shore = upsample(ndimage.gaussian_filter(signed, 1.2), COARSE, size)
    shore += np.float32(1.3) * fractal(rng, size, 32, 4, 0.7)
    return shore, upsample(ndimage.gaussian_filter(signed, 7.0), COARSE, size)
