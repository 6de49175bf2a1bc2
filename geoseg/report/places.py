"""The places of a map that are worth a look: where it errs most or, without labels, where it is least sure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geoseg.grid.geogrid import GeoGrid
from geoseg.grid.window import Window

MOST_PLACES = 12
LEAST_KNOWN = 0.5
"""Share of a cell that must be known, for it to be judged."""
CELL_PX = 256
CELLS = 64
"""A raster has at most so many cells in a row or column."""


@dataclass(frozen=True)
class Place:
    """A cell of the raster. badness: the mean over its known pixels, 0..1."""

    window: Window
    badness: float


def cell_px(grid: GeoGrid) -> int:
    """Side of a cell in pixels: a sixth of a small raster, CELL_PX, or more where there would be too many cells."""
    side = max(grid.height, grid.width)
    return max(min(CELL_PX, -(-side // 6)), -(-side // CELLS))


def worst_places(badness: np.ndarray, grid: GeoGrid, most: int = MOST_PLACES) -> list[Place]:
    """The worst cells of a raster, the worst first; no two are neighbors, and none is without fault.

    badness: (row, col) float, 0..1, a reduced view of the whole raster; NaN where unknown.
    """
    side = cell_px(grid)
    rows, cols = -(-grid.height // side), -(-grid.width // side)
    row = ((np.arange(badness.shape[0]) + 0.5) * grid.height / badness.shape[0] // side).astype(np.int64)
    col = ((np.arange(badness.shape[1]) + 0.5) * grid.width / badness.shape[1] // side).astype(np.int64)
    cell = (row[:, None] * cols + col).ravel()
    known = ~np.isnan(badness).ravel()
    every = np.bincount(cell, minlength=rows * cols)
    count = np.bincount(cell, weights=known, minlength=rows * cols)
    total = np.bincount(cell, weights=np.where(known, badness.ravel(), 0), minlength=rows * cols)
    mean = np.where(count >= np.maximum(1, LEAST_KNOWN * every), total / np.maximum(count, 1), 0)
    chosen: list[int] = []
    for place in np.argsort(-mean, kind="stable").tolist():
        if mean[place] <= 0 or len(chosen) == most:
            break
        near = (max(abs(place // cols - c // cols), abs(place % cols - c % cols)) < 2 for c in chosen)
        if not any(near):
            chosen.append(place)
    return [
        Place(
            Window(c // cols * side, c % cols * side, side, side).overlap(grid.window),
            round(float(mean[c]), 6),
        )
        for c in chosen
    ]


def main_mistake(truth: np.ndarray, mapped: np.ndarray) -> tuple[int, int, float] | None:
    """The commonest pair of different classes (labelled, mapped) and its share of the compared pixels; None without.

    truth, mapped: of one shape, uint8; only pixels that are compared.
    """
    pairs = np.bincount(truth.astype(np.int64) * 256 + mapped, minlength=65536).reshape(256, 256)
    total = pairs.sum()
    np.fill_diagonal(pairs, 0)
    worst = int(pairs.argmax())
    if not total or not pairs.flat[worst]:
        return None
    return worst // 256, worst % 256, float(pairs.flat[worst] / total)
