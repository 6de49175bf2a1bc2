"""Half-size pictures of a raster, for overviews: each pixel stands for four."""

from __future__ import annotations

import numpy as np


def shrink_classes(labels: np.ndarray) -> np.ndarray:
    """The commonest of four values; of equally common ones the lowest, so that a class wins over nodata (255).

    labels: (row, col) uint8; an odd last row or column stands twice. Returns half of each side, rounded up.
    """
    pairs = _even(labels).view(np.uint16)
    top, bottom = pairs[::2], pairs[1::2]
    half = top.astype(np.uint8)
    mixed = np.nonzero((top != bottom) | (top >> 8 != half))  # few: a map is mostly larger areas of one class
    if mixed[0].size:
        upper, lower = top[mixed], bottom[mixed]
        quarters = (pixel.astype(np.uint8) for pixel in (upper, upper >> 8, lower, lower >> 8))
        half[mixed] = _commonest(*quarters)
    return half


def _commonest(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    a, b = np.minimum(a, b), np.maximum(a, b)
    c, d = np.minimum(c, d), np.maximum(c, d)
    a, c = np.minimum(a, c), np.maximum(a, c)
    b, d = np.minimum(b, d), np.maximum(b, d)
    b, c = np.minimum(b, c), np.maximum(b, c)
    commonest: np.ndarray = np.where(a == b, a, np.where(b == c, b, np.where(c == d, c, a)))
    return commonest


def shrink_percent(percent: np.ndarray, nodata: int) -> np.ndarray:
    """The rounded mean of the four values that are not nodata; nodata where all are.

    percent: (row, col) uint8; an odd last row or column stands twice. Returns half of each side, rounded up.
    """
    parts = _quarters(percent)
    count = sum((part != nodata).astype(np.uint16) for part in parts)
    total = sum(np.where(part != nodata, part, 0).astype(np.uint16) for part in parts)
    mean = (2 * total + count) // np.maximum(2 * count, 1)
    return np.where(count > 0, mean, nodata).astype(np.uint8)


def _quarters(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    whole = _even(pixels)
    return whole[::2, ::2], whole[::2, 1::2], whole[1::2, ::2], whole[1::2, 1::2]


def _even(pixels: np.ndarray) -> np.ndarray:
    """The same with an even number of rows and columns, row after row in memory."""
    rows, cols = pixels.shape
    if rows % 2 or cols % 2:
        return np.pad(pixels, ((0, rows % 2), (0, cols % 2)), mode="edge")
    return np.ascontiguousarray(pixels)
