"""Intervals of boundary F1 are those of a plain loop over resampled cells, and cover what they should."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg.pixels.bootstrap import MIN_CELLS, RESAMPLES, SEED, CellCounts, percentile_range
from geoseg.pixels.boundaries import BoundaryCounts
from geoseg.pixels.boundary_intervals import boundary_intervals, f1

CLASSES = 3
PAIRS = CLASSES * (CLASSES + 1)


def cell_counts(table: np.ndarray, numbers: np.ndarray) -> CellCounts:
    """table: (cell, code) counts; numbers: (cell,) the cells' own numbers, rising."""
    at, code = np.nonzero(table)
    return CellCounts(table.shape[1], numbers[at] * table.shape[1] + code, table[at, code].astype(np.int64))


def a_scene(cells: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pairs, boundary codes of map and labels per cell, and cell numbers with gaps; class 2 is rare on one side."""
    rng = np.random.default_rng(seed)
    numbers = np.sort(rng.choice(10 * cells + 10, cells, replace=False))
    pairs = rng.integers(0, 40, (cells, PAIRS))
    pairs[:, 0] += 1  # each holds a pixel that is labelled and mapped
    mapped, truth = rng.integers(0, 30, (2, cells, 2 * CLASSES))
    mapped[:, 4:] *= rng.random((cells, 1)) < 0.1
    return pairs, mapped, truth, numbers


@settings(max_examples=15)
@given(cells=st.integers(MIN_CELLS, 60), seed=st.integers(0, 99))
def test_intervals_are_those_of_a_plain_loop(cells: int, seed: int) -> None:
    pairs, mapped, truth, numbers = a_scene(cells, seed)
    only_unmapped = np.zeros((1, PAIRS), np.int64)
    only_unmapped[0, CLASSES] = 5  # a labelled class that the map leaves out: no cell of the bootstrap
    with_more = cell_counts(np.concatenate([pairs, only_unmapped]), np.append(numbers, numbers[-1] + 3))
    found = boundary_intervals(with_more, cell_counts(mapped, numbers), cell_counts(truth, numbers))

    random = np.random.default_rng(SEED)
    scores, means = [], []
    for drawn in random.integers(0, cells, (RESAMPLES, cells)):
        sums = [side[drawn].sum(axis=0).reshape(CLASSES, 2) for side in (mapped, truth)]
        counts = BoundaryCounts.of(np.array([x for s in sums for x in (s.sum(axis=1), s[:, 1])]))
        scores.append([np.nan if v is None else v for v in counts.f1])
        means.append(np.nan if counts.mean_f1 is None else counts.mean_f1)
    for own, column in zip(found.f1, np.array(scores).T, strict=True):
        expected = percentile_range(column)
        assert own == (None if expected is None else pytest.approx(expected, abs=1e-12))
    assert found.mean_f1 == pytest.approx(percentile_range(np.array(means)), abs=1e-12)


def test_few_cells_have_no_intervals() -> None:
    pairs, mapped, truth, numbers = a_scene(MIN_CELLS - 1, 0)
    found = boundary_intervals(*(cell_counts(table, numbers) for table in (pairs, mapped, truth)))
    assert found.f1 == (None,) * CLASSES
    assert found.mean_f1 is None


@given(st.lists(st.tuples(*[st.integers(0, 3)] * 4), min_size=1, max_size=9))
def test_f1_is_undefined_where_the_counts_say_so(rows: list[tuple[int, int, int, int]]) -> None:
    mapped, mapped_matched, truth, truth_matched = np.array(rows).T
    counts = (mapped + mapped_matched, mapped_matched, truth + truth_matched, truth_matched)
    found = f1(*(side.astype(np.float64) for side in counts))
    expected = BoundaryCounts.of(np.array(counts)).f1
    assert [None if np.isnan(v) else v for v in found] == pytest.approx(list(expected))


def test_intervals_cover_the_figure_and_narrow_with_more_cells() -> None:
    widths = []
    for cells in (20, 500):
        pairs, mapped, truth, numbers = a_scene(cells, 1)
        found = boundary_intervals(*(cell_counts(table, numbers) for table in (pairs, mapped, truth)))
        sums = [side.sum(axis=0).reshape(CLASSES, 2) for side in (mapped, truth)]
        whole = BoundaryCounts.of(np.array([x for s in sums for x in (s.sum(axis=1), s[:, 1])]))
        assert found.f1[0] is not None
        assert found.f1[0][0] < whole.f1[0] < found.f1[0][1]
        widths.append(found.f1[0][1] - found.f1[0][0])
    assert widths[1] < widths[0] / 3
