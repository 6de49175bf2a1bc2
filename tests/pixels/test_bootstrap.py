"""Counts per cell add in any cutting; intervals are those of a plain loop, and cover what they should."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg.grid.window import Window
from geoseg.legend import LandClass, Legend
from geoseg.pixels import bootstrap
from geoseg.pixels.bootstrap import (
    CELL_PX,
    LEVEL,
    MIN_CELLS,
    RESAMPLES,
    SEED,
    CellCounts,
    CellSum,
    count_cells,
    intervals,
    percentile_range,
    resamples,
)
from geoseg.pixels.confusion import OVER_ALL, PER_CLASS, ConfusionMatrix, pair_codes

LEGEND = Legend(tuple(LandClass(i, f"class {i}", (i, i, i)) for i in (1, 2, 4)))
PAIRS = 12


def codes_of(shape, seed=0):
    return np.random.default_rng(seed).integers(0, PAIRS + 1, shape).astype(np.uint16)


def cells_of(rows, cols, seed=0, agreement=0.7):
    """Random counts of rows x cols cells: labels and map agree more in some cells than in others."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(np.array([1, 1, 1, 2, 2, 4], np.uint8), (rows * 4, cols * 4))
    sure = np.clip(rng.normal(agreement, 0.2, (rows, cols)), 0, 1).repeat(4, 0).repeat(4, 1)
    other = rng.choice(np.array([1, 2, 4, 255], np.uint8), labels.shape)
    mapped = np.where(rng.random(labels.shape) < sure, labels, other).astype(np.uint8)
    codes = pair_codes(labels, mapped, LEGEND)
    key, count = np.unique(
        (np.arange(rows).repeat(4)[:, None] * cols + np.arange(cols).repeat(4)) * PAIRS + codes,
        return_counts=True,
    )
    return CellCounts(PAIRS, key, count)


@given(st.integers(0, 9), st.integers(40, 700), st.integers(40, 700), st.randoms(), st.booleans())
def test_cells_add_in_any_cutting_and_order(seed, row_step, col_step, random, masked):
    shape, scene = (520, 600), Window(0, 0, 520, 600)
    codes = codes_of(shape, seed)
    inside = np.random.default_rng(seed).random(shape) < 0.3 if masked else None
    whole = count_cells(codes, scene, 600, PAIRS, inside)
    cuts = [
        Window(row, col, row_step, col_step).overlap(scene)
        for row in range(0, 520, row_step)
        for col in range(0, 600, col_step)
    ]
    random.shuffle(cuts)
    total = CellSum(PAIRS)
    for cut in cuts:
        at = cut.within(scene)
        total.add(count_cells(codes[at], cut, 600, PAIRS, None if inside is None else inside[at]))
    found = total.result()
    assert (found.key.tolist(), found.count.tolist()) == (whole.key.tolist(), whole.count.tolist())
    assert (
        whole.total().tolist()
        == np.bincount(codes.ravel() if inside is None else codes[inside], minlength=PAIRS + 1)[
            :PAIRS
        ].tolist()
    )


def test_cells_lie_on_a_grid_from_the_first_pixel_of_the_raster():
    codes = np.zeros((1, 2), np.uint16)
    found = count_cells(codes, Window(CELL_PX, 2 * CELL_PX - 1, 1, 2), 10 * CELL_PX, PAIRS)
    assert found.key.tolist() == [(10 + 1) * PAIRS, (10 + 2) * PAIRS]
    assert found.count.tolist() == [1, 1]


def test_sums_stay_small_while_windows_arrive(monkeypatch):
    monkeypatch.setattr(bootstrap, "PENDING", 10)
    total = CellSum(PAIRS)
    part = count_cells(codes_of((4, 4)), Window(0, 0, 4, 4), 4, PAIRS)
    for _ in range(50):
        total.add(part)
        assert sum(map(len, total._parts)) <= 40
    assert total.result().count.tolist() == (50 * part.count).tolist()


def test_intervals_are_those_of_a_plain_loop():
    """Every resample as a confusion matrix of its own."""
    cells = cells_of(5, 6)
    supported = [True, True, False]
    found = intervals(cells, supported)
    dense = np.zeros((30, PAIRS), np.int64)
    dense[cells.key // PAIRS, cells.key % PAIRS] = cells.count
    random, matrices = np.random.default_rng(SEED), []
    for _ in range(RESAMPLES):
        drawn = random.integers(0, 30, 30)
        matrices.append(ConfusionMatrix(LEGEND, dense[drawn].sum(axis=0).reshape(3, 4)))

    def expected(values):
        return np.quantile([v for v in values if v is not None], [0.025, 0.975])

    assert found.cells == 30
    for name in OVER_ALL:
        assert found.over_all[name] == pytest.approx(expected([m.over_all(name) for m in matrices]))
    assert found.over_all["supported_miou"] == pytest.approx(
        expected([m.mean("iou", supported) for m in matrices])
    )
    for name in PER_CLASS:
        for n in range(3):
            assert found.per_class[name][n] == pytest.approx(
                expected([m.per_class(name)[n] for m in matrices])
            )


def test_draws_are_multinomial_and_the_same_each_time():
    batches = list(resamples(40))
    weights = np.concatenate(batches)
    assert weights.shape == (RESAMPLES, 40)
    assert (weights.sum(axis=1) == 40).all()
    assert weights.mean(axis=0) == pytest.approx(1, abs=0.15)
    assert weights.var() == pytest.approx(39 / 40, rel=0.05)
    assert all((a == b).all() for a, b in zip(batches, resamples(40), strict=True))


def test_memory_of_the_draws_is_bounded():
    assert next(iter(resamples(500_000))).shape == (2, 500_000)


@pytest.mark.parametrize("cells", [0, 1, MIN_CELLS - 1])
def test_few_cells_give_no_interval(cells):
    found = intervals(
        cells_of(1, cells) if cells else CellCounts(PAIRS, *np.zeros((2, 0), np.int64)), [True] * 3
    )
    assert found.cells == cells
    assert set(found.over_all.values()) == {None}
    assert set(found.per_class["iou"]) == {None}
    assert set(found.over_all) == {*OVER_ALL, "supported_miou"}


def test_cells_without_scored_pixels_are_none():
    """A cell that holds labelled pixels only where the map has no answer says nothing."""
    unmapped = 0 * 4 + 3
    cells = CellCounts(PAIRS, np.array([0, PAIRS + unmapped]), np.array([5, 7]))
    assert intervals(cells, [True] * 3).cells == 1


def test_a_score_that_most_resamples_lack_has_no_interval():
    """A class in one cell of a hundred is missing from a third of the resamples: that is still an interval."""
    keys = np.arange(100) * PAIRS
    rare = CellCounts(PAIRS, np.append(keys, 5 + 99 * PAIRS), np.append(np.full(100, 9), 9))
    found = intervals(rare, [True] * 3)
    assert found.per_class["iou"][1] == (1.0, 1.0)
    assert found.per_class["iou"][2] is None
    assert percentile_range(np.array([0.5, np.nan, np.nan])) is None
    assert percentile_range(np.array([0.5, 0.7, np.nan])) == pytest.approx((0.505, 0.695))


def test_intervals_cover_the_truth_as_often_as_they_say():
    """Accuracy of 60 cells drawn from a world whose accuracy is known: at least 90 of 100 intervals hold it."""
    rng, held = np.random.default_rng(4), 0
    for _ in range(100):
        right = rng.binomial(1000, np.clip(rng.normal(0.7, 0.1, 60), 0, 1))
        keys = (np.arange(60)[:, None] * PAIRS + np.array([0, 1])).ravel()
        found = intervals(CellCounts(PAIRS, keys, np.stack([right, 1000 - right], 1).ravel()), [True] * 3)
        low, high = found.over_all["accuracy"]
        held += low <= 0.7 <= high
    assert LEVEL == 0.95
    assert 90 <= held <= 99
