"""Boundary pixels and their matches are those of a plain loop; windows with a halo change none."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg.grid.window import Window
from geoseg.pixels.boundaries import HALO_PX, BoundaryCounts, find_boundaries, spread

NONE = 255


def by_loop(truth, mapped, classes, tolerance):
    """The definition, pixel by pixel."""
    height, width = truth.shape
    scored = (truth != NONE) & (mapped != NONE)

    def edge(side):
        found = set()
        for r, c in np.argwhere(scored).tolist():
            for y, x in ((r - 1, c), (r + 1, c), (r, c - 1), (r, c + 1)):
                if 0 <= y < height and 0 <= x < width and scored[y, x] and side[y, x] != side[r, c]:
                    found.add((r, c, int(side[r, c])))
        return found

    t, m = edge(truth), edge(mapped)
    counts = np.zeros((4, classes), int)
    for row, own, other in ((0, m, t), (2, t, m)):
        for r, c, k in own:
            counts[row, k] += 1
            counts[row + 1, k] += any(
                k == j and (r - y) ** 2 + (c - x) ** 2 <= tolerance**2 for y, x, j in other
            )
    return counts.tolist()


def random_pair(seed, shape, classes):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, classes, (shape[0] // 4 + 1, shape[1] // 4 + 1), np.uint8)
    truth = coarse.repeat(4, 0).repeat(4, 1)[: shape[0], : shape[1]].copy()
    mapped = np.roll(truth, rng.integers(-2, 3, 2), (0, 1))
    truth[rng.random(shape) < 0.03] = NONE
    mapped[rng.random(shape) < 0.03] = NONE
    return truth, mapped


@given(st.integers(0, 99), st.integers(1, 20), st.integers(1, 20), st.integers(1, 11), st.integers(0, 5))
def test_counts_are_those_of_a_plain_loop(seed, height, width, classes, tolerance):
    truth, mapped = random_pair(seed, (height, width), classes)
    found = find_boundaries(truth, mapped, classes, tolerance)
    assert found.count().tolist() == by_loop(truth, mapped, classes, tolerance)


@given(st.integers(0, 99), st.integers(3, 40), st.integers(0, 4))
def test_windows_with_a_halo_change_no_count(seed, side, tolerance):
    truth, mapped = random_pair(seed, (33, 38), 5)
    inside = np.random.default_rng(seed).random(truth.shape) < 0.5
    scene, total, within = Window(0, 0, 33, 38), np.zeros((4, 5), int), np.zeros((4, 5), int)
    for row in range(0, 33, side):
        for col in range(0, 38, side):
            core = Window(row, col, side, side).overlap(scene)
            around = core.grow(tolerance + HALO_PX).overlap(scene)
            at = around.within(scene)
            found = find_boundaries(truth[at], mapped[at], 5, tolerance).crop(core.within(around))
            total += found.count()
            within += found.count(inside[core.within(scene)])
    whole = find_boundaries(truth, mapped, 5, tolerance)
    assert total.tolist() == whole.count().tolist()
    assert within.tolist() == whole.count(inside).tolist()


@pytest.mark.parametrize("radius", [0, 1, 2, 3, 5, 9])
def test_a_single_pixel_spreads_to_a_disk(radius):
    bits = np.zeros((15, 16), np.uint8)
    bits[7, 8] = 5
    rows, cols = np.mgrid[:15, :16]
    disk = (rows - 7) ** 2 + (cols - 8) ** 2 <= radius**2
    assert spread(bits, radius).tolist() == np.where(disk, 5, 0).tolist()


def test_an_example_to_check_by_eye():
    """A wall between two classes, drawn two pixels too far east: out of reach of one pixel, within reach of two."""
    truth, mapped = np.zeros((4, 10), np.uint8), np.zeros((4, 10), np.uint8)
    truth[:, 4:], mapped[:, 6:] = 1, 1
    near = BoundaryCounts.of(find_boundaries(truth, mapped, 3, 1).count())
    assert (near.mapped, near.mapped_matched) == ((4, 4, 0), (0, 0, 0))
    assert near.f1 == (0.0, 0.0, None)
    assert near.mean_f1 == 0
    far = BoundaryCounts.of(find_boundaries(truth, mapped, 3, 2).count())
    assert far.f1 == (1.0, 1.0, None)


def test_one_side_without_a_boundary():
    counts = BoundaryCounts((4, 0, 0), (2, 0, 0), (8, 3, 0), (2, 0, 0))
    assert counts.precision == (0.5, None, None)
    assert counts.recall == (0.25, 0.0, None)
    assert counts.f1 == (pytest.approx(1 / 3), 0.0, None)
    assert counts.mean_f1 == pytest.approx(1 / 6)
    beyond = BoundaryCounts((0, 2), (0, 0), (5, 0), (5, 0))  # of a region: what matches lies outside of it
    assert (beyond.recall[0], beyond.precision[0], beyond.f1) == (1, None, (None, 0.0))


def test_what_is_unknown_has_no_boundary():
    truth = np.array([[0, 0, NONE, 1, 1]], np.uint8)
    assert find_boundaries(truth, truth, 2, 3).count().tolist() == np.zeros((4, 2)).tolist()
