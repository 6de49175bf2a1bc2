"""The map of errors says what the confusion matrix counts, pixel by pixel, for any windows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg.errors import SpecError
from geoseg.grid.window import Window
from geoseg.legend import NODATA, LandClass, Legend
from geoseg.pixels.confusion import ConfusionMatrix
from geoseg.stages.evaluate import Sources
from geoseg.stages.mistakes import find_mistakes, missed_classes, mistake_legend, right_value
from tests.stages.test_evaluate import LEGEND, blobs


@given(seed=st.integers(0, 50), row=st.integers(0, 52), col=st.integers(0, 60), side=st.integers(1, 70))
def test_windows_hold_the_mistakes_that_the_matrix_counts(seed: int, row: int, col: int, side: int) -> None:
    labels, mapped, _ = blobs(seed)
    sources, grid = Sources(mapped, labels), mapped.grid
    whole = find_mistakes(grid.window, sources, LEGEND)
    matrix = ConfusionMatrix.count(labels.values, mapped.values, LEGEND, [0])
    compared = matrix.counts[:, :-1]
    for position, class_id in enumerate(LEGEND.ids):
        wrong = compared[position].sum() - compared[position, position]
        assert (whole == class_id).sum() == wrong
        assert (labels.values[whole == class_id] == class_id).all()
    assert (whole == 0).sum() == np.trace(compared)
    assert (whole != NODATA).sum() == matrix.pixels
    window = Window(row, col, side, side).overlap(grid.window)
    assert (find_mistakes(window, sources, LEGEND) == whole[window.within(grid.window)]).all()


def test_names_and_colors_are_those_of_the_true_classes() -> None:
    found = mistake_legend(LEGEND)
    assert found.names == (
        "right", "missed building", "missed road", "missed land", "missed vegetation", "missed water"
    )  # fmt: skip
    assert found.ids == (0, *LEGEND.ids)
    assert [c.color for c in found.classes[1:]] == [c.color for c in LEGEND.classes]
    assert all(c.role is None for c in found.classes)  # a missed building is no building
    assert missed_classes(LEGEND).classes == found.classes[1:]


@pytest.mark.parametrize(("ids", "right"), [((1, 2), 0), ((0, 1, 3), 2), (tuple(range(254)), 254)])
def test_right_pixels_have_a_value_that_is_no_class(ids: tuple[int, ...], right: int) -> None:
    legend = Legend(tuple(LandClass(i, f"class {i}", (i, i, i)) for i in ids))
    assert right_value(legend) == right
    assert list(mistake_legend(legend).ids) == sorted((*ids, right))


def test_a_legend_of_all_values_leaves_none_for_right_pixels() -> None:
    full = Legend(tuple(LandClass(i, f"class {i}", (0, 0, 0)) for i in range(255)))
    with pytest.raises(SpecError, match="all values from 0 to 254 are classes"):
        right_value(full)
