"""Weights of overlapping patches, and the eight symmetries of the square."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def hann_window(side_px: int) -> np.ndarray:
    """A separable Hann window, (row, col) float32, above zero everywhere.

    Sampled at pixel centers, sin^2(pi (i + 1/2) / n): the textbook form is zero at the ends, which would leave the
    border of a scene, seen by one patch only, without an answer.
    """
    ramp = np.sin(np.pi * (np.arange(side_px) + 0.5) / side_px) ** 2
    return np.outer(ramp, ramp).astype(np.float32)


def symmetries(pixels: np.ndarray) -> Iterator[np.ndarray]:
    """The eight images of a square (..., row, col) under rotation and reflection, in a fixed order."""
    for mirrored in (pixels, pixels[..., ::-1]):
        for quarter in range(4):
            yield np.ascontiguousarray(np.rot90(mirrored, quarter, axes=(-2, -1)))


def undo_symmetry(index: int, pixels: np.ndarray) -> np.ndarray:
    """Turn the image number `index` of `symmetries` back."""
    turned = np.rot90(pixels, -(index % 4), axes=(-2, -1))
    return turned[..., ::-1] if index >= 4 else turned
