"""Center lines do not depend on windows, lie in the middle, and are measured as a ruler would."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from geoseg.grid.window import Window
from geoseg.pixels.roadmatch import HALO_PX, ROUNDS, SPUR_PX, RoadScore, center_lines, find_lines

EIGHT = np.ones((3, 3), bool)
EVERYTHING = np.s_[:, :]


def roads(seed, height=150, width=170, wide=3):
    """Random straight roads of some width, with ragged sides."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[:height, :width]
    mask = np.zeros((height, width), bool)
    for _ in range(4):
        angle, row, col = rng.random() * np.pi, rng.integers(height), rng.integers(width)
        mask |= np.abs((rows - row) * np.cos(angle) - (cols - col) * np.sin(angle)) < rng.uniform(
            1.5, wide + 1.5
        )
    return mask ^ ((rng.random(mask.shape) < 0.05) & ndimage.binary_dilation(mask))


def count(truth, mapped, tolerance, inside=None):
    inside = np.ones(truth.shape, bool) if inside is None else inside
    return np.stack([side.count(EVERYTHING, inside) for side in find_lines(truth, mapped, tolerance)])


@settings(max_examples=8)
@given(st.integers(0, 99), st.integers(40, 170), st.integers(0, 4))
def test_windows_with_a_halo_change_no_length(seed, side, tolerance):
    truth, mapped = roads(seed, 400, 300, 9), roads(seed + 1, 400, 300, 9)
    inside = np.random.default_rng(seed).random(truth.shape) < 0.5
    scene, total = Window(0, 0, 400, 300), np.zeros((2, 4), int)
    for row in range(0, 400, side):
        for col in range(0, 300, side):
            core = Window(row, col, side, side).overlap(scene)
            around = core.grow(HALO_PX + tolerance).overlap(scene)
            at = around.within(scene)
            found = find_lines(truth[at], mapped[at], tolerance)
            scored = inside[core.within(scene)]
            total += np.stack([one.crop(core.within(around)).count(EVERYTHING, scored) for one in found])
    assert total.tolist() == count(truth, mapped, tolerance, inside).tolist()


@settings(max_examples=10)
@given(st.integers(0, 99))
def test_lines_are_thin_lie_inside_and_keep_roads_together(seed):
    mask = ndimage.binary_closing(np.pad(roads(seed), 20), iterations=2)
    lines = center_lines(mask)
    assert not (lines & ~mask).any()
    assert not ndimage.binary_erosion(lines, EIGHT).any()
    blocks = ndimage.uniform_filter(lines.astype(float), 2) > 0.99  # two by two pixels
    assert blocks.sum() <= 0.02 * lines.sum()
    parts, number = ndimage.label(mask, EIGHT)
    for n in range(1, number + 1):
        assert ndimage.label(lines & (parts == n), EIGHT)[1] <= 1


def test_a_straight_road_has_its_middle_for_a_line():
    mask = np.zeros((40, 200), bool)
    mask[15:24, 10:190] = True
    rows, cols = np.nonzero(center_lines(mask))
    assert set(rows.tolist()) <= {18, 19, 20}
    assert cols.min() <= 10 + 9
    assert cols.max() >= 189 - 9


def test_length_is_that_of_a_ruler():
    """Straight and diagonal alike; staircases cost the least in between."""
    score = RoadScore.of(count(np.eye(100, dtype=bool), np.eye(100, dtype=bool), 0))
    # Its dead ends are taken off and grow back.
    assert score.truth == pytest.approx(99 * 2**0.5)
    level = np.zeros((9, 100), bool)
    level[4] = True
    assert RoadScore.of(count(level, level, 0)).truth == 99
    cross = np.zeros((101, 101), bool)
    cross[50], cross[:, 50] = True, True
    assert RoadScore.of(count(cross, cross, 0)).truth == 200  # corners are not cut


def test_spurs_and_short_lines_are_noise():
    mask = np.zeros((60, 100), bool)
    mask[30, 5:95] = True
    mask[30 - SPUR_PX + 1 : 30, 50] = True
    mask[5, 5 : 5 + 2 * SPUR_PX] = True
    expected = np.zeros_like(mask)
    expected[30, 5:95] = True
    assert (center_lines(mask) != expected).sum() <= 1
    mask[30 - 3 * SPUR_PX : 30, 50] = True
    assert center_lines(mask)[30 - 3 * SPUR_PX : 30 - SPUR_PX, 50].all()


def test_what_is_as_wide_as_a_square_is_no_road():
    mask = np.zeros((300, 400), bool)
    mask[50:250, 50:250] = True
    mask[145:155, 250:390] = True
    lines = center_lines(mask)
    assert not lines[60:240, 60 : 250 - ROUNDS].any()
    assert lines[:, 300:370].any(axis=0).all()


def test_an_example_to_check_by_eye():
    """The map has half of a road, two pixels off, and one that is none."""
    truth, mapped = np.zeros((2, 60, 201), bool)
    truth[20, :] = True
    mapped[22, :101] = True
    mapped[50, 0:51] = True
    near = RoadScore.of(count(truth, mapped, 2)).to_dict()
    assert near["truth_px"] == 200
    assert near["mapped_px"] == 150
    assert near["completeness"] == pytest.approx(0.5, abs=0.01)
    assert near["correctness"] == pytest.approx(2 / 3)
    assert near["quality"] == pytest.approx(100 / (150 + 100), abs=0.01)
    far = RoadScore.of(count(truth, mapped, 1)).to_dict()
    assert (far["completeness"], far["correctness"], far["quality"]) == (0, 0, 0)


def test_no_roads_at_all():
    nothing = np.zeros((5, 5), bool)
    assert RoadScore.of(count(nothing, nothing, 3)).to_dict() == {
        "truth_px": 0, "mapped_px": 0, "completeness": None, "correctness": None, "quality": None,
    }  # fmt: skip
