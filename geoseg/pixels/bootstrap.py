"""How sure scores are: confusion counts per cell of a grid, and the block bootstrap over the cells.

Neighboring pixels are right or wrong together, so that pixels taken one by one would promise far too much.
Cells of a grid are resampled instead (block bootstrap; Künsch 1989, Hall 1985): errors that lie closer
together than a cell is wide stay together. The grid starts at the raster's first pixel and its cells have a
fixed size; it knows nothing of the windows in which a raster is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from geoseg.grid.window import Window
from geoseg.pixels.confusion import OVER_ALL, PER_CLASS, figures, mean_defined

Ints = npt.NDArray[np.int64]
Range = tuple[float, float]

CELL_PX = 256
RESAMPLES = 1000
LEVEL = 0.95
SEED = 20200229
MIN_CELLS = 10
"""With fewer cells an interval would be a guess, so there is none."""
LEAST_DEFINED = 0.5
"""A score that is undefined in more resamples than this has no interval."""
DRAWS_AT_ONCE = 1_000_000
PENDING = 1_000_000


@dataclass(frozen=True, eq=False)
class CellCounts:
    """How often each pair of a labelled and a mapped class occurs in each cell. Takes 16 bytes for each pair
    that does: at most 480 for a cell (65,536 pixels) of five classes.

    pairs: number of pairs that can be. key: (entry,) int64, cell * pairs + pair, rising. count: (entry,) int64.
    """

    pairs: int
    key: Ints
    count: Ints

    @classmethod
    def merge(cls, pairs: int, parts: Sequence[CellCounts]) -> CellCounts:
        """The sum of some counts, in any order."""
        keys = np.concatenate([np.zeros(0, np.int64), *(part.key for part in parts)])
        counts = np.concatenate([np.zeros(0, np.int64), *(part.count for part in parts)])
        key, place = np.unique(keys, return_inverse=True)
        total = np.zeros(len(key), np.int64)
        np.add.at(total, place, counts)
        return cls(pairs, key, total)

    def __len__(self) -> int:
        return len(self.key)

    def total(self) -> Ints:
        """Over all cells: (pairs,)."""
        total = np.zeros(self.pairs, np.int64)
        np.add.at(total, self.key % self.pairs, self.count)
        return total

    def by_class(self, classes: int) -> csr_array:
        """Pixels in both, in the labels and in the map: (cell, 3 * class), of the cells that hold pixels
        which are labelled and mapped, from top to bottom, then from left to right."""
        pair = self.key % self.pairs
        row, col = pair // (classes + 1), pair % (classes + 1)
        mapped = col < classes
        row, col, count = row[mapped], col[mapped], self.count[mapped].astype(np.float64)
        cells, cell = np.unique(self.key[mapped] // self.pairs, return_inverse=True)
        hit = row == col
        at = np.concatenate([cell[hit], cell, cell])
        column = np.concatenate([row[hit], classes + row, 2 * classes + col])
        value = np.concatenate([count[hit], count, count])
        return csr_array((value, (at, column)), shape=(len(cells), 3 * classes))


class CellSum:
    """Adds up the counts of windows; holds little more than their sum."""

    def __init__(self, pairs: int) -> None:
        self._pairs = pairs
        self._parts: list[CellCounts] = []
        self._summed = 0

    def add(self, part: CellCounts) -> None:
        self._parts.append(part)
        if sum(map(len, self._parts[1:])) > max(PENDING, self._summed):
            self._parts = [self.result()]
            self._summed = len(self._parts[0])

    def result(self) -> CellCounts:
        return CellCounts.merge(self._pairs, self._parts)


def count_cells(
    codes: npt.NDArray[np.uint16], window: Window, width: int, pairs: int, inside: np.ndarray | None = None
) -> CellCounts:
    """The counts of a window.

    codes: (row, col), see `pair_codes`; codes from `pairs` on are not counted. width: of the raster, in pixels.
    inside: (row, col) bool, the pixels that count.
    """
    columns = -(-width // CELL_PX)
    keys, counts = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for row in range(window.row // CELL_PX, -(-window.row_end // CELL_PX)):
        for col in range(window.col // CELL_PX, -(-window.col_end // CELL_PX)):
            cell = Window(row * CELL_PX, col * CELL_PX, CELL_PX, CELL_PX).overlap(window).within(window)
            chosen = codes[cell].ravel() if inside is None else codes[cell][inside[cell]]
            found = np.bincount(chosen, minlength=pairs)[:pairs]
            occurring = np.flatnonzero(found)
            keys.append((row * columns + col) * pairs + occurring)
            counts.append(found[occurring])
    key, count = np.concatenate(keys), np.concatenate(counts)
    order = np.argsort(key, kind="stable")
    return CellCounts(pairs, key[order], count[order])


@dataclass(frozen=True)
class Intervals:
    """Percentile intervals of scores; None where the score is undefined or the cells are too few.

    cells: that hold pixels which are labelled and mapped. over_all: by the names of OVER_ALL and
    supported_miou. per_class: by the names of PER_CLASS, in legend order.
    """

    cells: int
    over_all: dict[str, Range | None]
    per_class: dict[str, tuple[Range | None, ...]]


def intervals(cells: CellCounts, supported: Sequence[bool]) -> Intervals:
    """95 % intervals of all scores, by the percentiles of 1000 resamples with replacement of the cells.

    supported: (class,), the classes of supported_miou. The draws follow from the number of cells alone.
    """
    classes = len(supported)
    sums = cells.by_class(classes)
    count = sums.shape[0]
    if count < MIN_CELLS:
        nothing: tuple[Range | None, ...] = (None,) * classes
        return Intervals(
            count,
            dict.fromkeys((*OVER_ALL, "supported_miou")),
            dict.fromkeys(PER_CLASS, nothing),
        )
    totals = np.concatenate([weights @ sums for weights in resamples(count)])
    hits, truth, mapped = totals.reshape(len(totals), 3, classes).transpose(1, 0, 2)
    found = figures(hits, truth, mapped)
    found["supported_miou"] = mean_defined(found["iou"][:, np.asarray(supported, np.bool_)])
    return Intervals(
        count,
        {name: percentile_range(found[name]) for name in (*OVER_ALL, "supported_miou")},
        {name: tuple(percentile_range(column) for column in found[name].T) for name in PER_CLASS},
    )


def resamples(cells: int) -> Iterator[npt.NDArray[np.float64]]:
    """How often each cell is drawn: batches of (resample, cell), RESAMPLES in all, each of `cells` draws.

    The sums that are made of them are whole numbers below 2**53: exact in any order.
    """
    random = np.random.default_rng(SEED)
    step = max(1, DRAWS_AT_ONCE // cells)
    for first in range(0, RESAMPLES, step):
        rows = min(step, RESAMPLES - first)
        drawn = random.integers(0, cells, (rows, cells)) + cells * np.arange(rows)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=rows * cells).reshape(rows, cells)
        yield weights.astype(np.float64)


def percentile_range(values: npt.NDArray[np.float64]) -> Range | None:
    """The range of the middle 95 % of the values that are not NaN; None where too many are."""
    known = values[~np.isnan(values)]
    if len(known) < max(1, LEAST_DEFINED * len(values)):
        return None
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return low, high
