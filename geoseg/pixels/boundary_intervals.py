"""How sure boundary F1 is: the block bootstrap of `bootstrap`, with the same cells and draws, over boundary pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array, hstack

from geoseg.pixels.bootstrap import MIN_CELLS, CellCounts, Range, percentile_range, resamples
from geoseg.pixels.confusion import mean_defined


@dataclass(frozen=True)
class BoundaryIntervals:
    """95 % intervals of each class's boundary F1, in legend order, and of their mean; None where undefined."""

    f1: tuple[Range | None, ...]
    mean_f1: Range | None


def boundary_intervals(cells: CellCounts, mapped: CellCounts, truth: CellCounts) -> BoundaryIntervals:
    """Percentile intervals over resamples of the cells that hold pixels which are labelled and mapped.

    cells: pairs of classes. mapped, truth: boundary pixels of the map and of the labels by twice the class, and one
    more where matched (see `Boundaries`).
    """
    classes = mapped.pairs // 2
    scored = cells.key % (classes + 1) < classes  # the last column of a pair is unmapped
    there = np.unique(cells.key[scored] // cells.pairs)
    if len(there) < MIN_CELLS:
        return BoundaryIntervals((None,) * classes, None)
    sums = csr_array(hstack([_by_class(mapped, there), _by_class(truth, there)]))
    totals = np.concatenate([weights @ sums for weights in resamples(len(there))])
    found = f1(*totals.reshape(len(totals), 4, classes).transpose(1, 0, 2))
    return BoundaryIntervals(
        tuple(percentile_range(column) for column in found.T), percentile_range(mean_defined(found))
    )


def f1(
    mapped: npt.NDArray[np.float64],
    mapped_matched: npt.NDArray[np.float64],
    truth: npt.NDArray[np.float64],
    truth_matched: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Boundary F1 of counts, of any one shape; NaN where `BoundaryCounts.f1` is None."""
    with np.errstate(invalid="ignore", divide="ignore"):
        precision, recall = mapped_matched / mapped, truth_matched / truth
        mean = 2 * precision * recall / (precision + recall)
    found: npt.NDArray[np.float64] = np.where((precision == 0) | (recall == 0), 0.0, mean)
    return found


def _by_class(edges: CellCounts, cells: npt.NDArray[np.int64]) -> csr_array:
    """Boundary pixels of each class, then the matched ones: (cell, 2 * class)."""
    classes = edges.pairs // 2
    code, count = edges.key % edges.pairs, edges.count.astype(np.float64)
    at, of_class, matched = np.searchsorted(cells, edges.key // edges.pairs), code // 2, code % 2 == 1
    row = np.concatenate([at, at[matched]])
    column = np.concatenate([of_class, classes + of_class[matched]])
    value = np.concatenate([count, count[matched]])
    return csr_array((value, (row, column)), shape=(len(cells), 2 * classes))
