"""Multi-scale random fields, built coarse to fine so that full-size scenes stay cheap."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]


def upsample2(field: FloatArray) -> FloatArray:
    """Double both sides of ``field`` (rows, cols) by quadratic B-spline subdivision."""
    rows, cols = field.shape
    near, far = np.float32(0.75) * field, np.float32(0.25) * field
    tall = np.empty((2 * rows, cols), np.float32)
    tall[0], tall[-1] = field[0], field[-1]
    np.add(near[1:], far[:-1], out=tall[2::2])
    np.add(near[:-1], far[1:], out=tall[1:-1:2])
    near, far = np.float32(0.75) * tall, np.float32(0.25) * tall
    wide = np.empty((2 * rows, 2 * cols), np.float32)
    wide[:, 0], wide[:, -1] = tall[:, 0], tall[:, -1]
    np.add(near[:, 1:], far[:, :-1], out=wide[:, 2::2])
    np.add(near[:, :-1], far[:, 1:], out=wide[:, 1:-1:2])
    return wide


def upsample(field: FloatArray, factor: int, size: int) -> FloatArray:
    """Enlarge ``field`` by ``factor`` (a power of two) and crop it to (size, size) pixels."""
    while factor > 1:
        field = upsample2(field)
        factor //= 2
    return np.ascontiguousarray(field[:size, :size])


def fractal(rng: np.random.Generator, size: int, coarse: int, fine: int, gain: float) -> FloatArray:
    """A (size, size) random field of zero mean and unit deviation.

    ``coarse`` and ``fine`` are the largest and smallest feature in pixels (powers of two); each octave,
    half as large as the one before, has ``gain`` times its amplitude.
    """
    cell = coarse
    side = -(-size // cell) + 2
    field = rng.standard_normal((side, side), dtype=np.float32)
    amplitude = 1.0
    while cell > 1:
        cell //= 2
        field = upsample2(field)
        side = -(-size // cell) + 2
        start = (field.shape[0] - side) // 2
        field = field[start : start + side, start : start + side]
        if cell >= fine:
            amplitude *= gain
            field = field + np.float32(amplitude) * rng.standard_normal((side, side), dtype=np.float32)
    field = np.ascontiguousarray(field[1 : size + 1, 1 : size + 1])
    field -= field.mean()
    field /= field.std() + np.float32(1e-6)
    return field


def smoothstep(field: FloatArray, low: float, high: float) -> FloatArray:
    """Rise smoothly from 0 where ``field`` is ``low`` to 1 where it is ``high``."""
    ramp = np.clip((field - np.float32(low)) / np.float32(high - low), 0.0, 1.0)
    return np.asarray(ramp * ramp * (3.0 - 2.0 * ramp), np.float32)
