"""Confusion matrices add in any cutting and order; their ratios are those of torchmetrics."""

import importlib
import pickle
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from geoseg.errors import SourceError, SpecError
from geoseg.legend import NODATA, LandClass, Legend
from geoseg.pixels.confusion import ConfusionMatrix

LEGEND = Legend(
    (
        LandClass(1, "building", (255, 0, 0)),
        LandClass(2, "road", (0, 255, 0)),
        LandClass(5, "water", (0, 0, 255)),
    )
)
SHAPES = nps.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)


@st.composite
def pairs(draw, label_values=(0, 1, 2, 5, NODATA), map_values=(1, 2, 5, NODATA)):
    shape = draw(SHAPES)
    labels = draw(nps.arrays(np.uint8, shape, elements=st.sampled_from(label_values)))
    prediction = draw(nps.arrays(np.uint8, shape, elements=st.sampled_from(map_values)))
    return labels, prediction


@given(pairs(), st.randoms(), st.data())
def test_matrices_add_in_any_cutting_and_order(pair, random, data):
    labels, prediction = pair
    rows = sorted({0, labels.shape[0], *data.draw(st.lists(st.integers(0, labels.shape[0])))})
    cols = sorted({0, labels.shape[1], *data.draw(st.lists(st.integers(0, labels.shape[1])))})
    cells = [np.s_[a:b, c:d] for a, b in pairwise(rows) for c, d in pairwise(cols)]
    random.shuffle(cells)
    parts = [ConfusionMatrix.count(labels[cell], prediction[cell], LEGEND) for cell in cells]
    assert sum(parts, ConfusionMatrix.zero(LEGEND)) == ConfusionMatrix.count(labels, prediction, LEGEND)


@settings(deadline=None)  # the first import of torch takes seconds
@given(pairs())
def test_scores_are_those_of_torchmetrics(pair):
    torch = pytest.importorskip("torch")
    importlib.import_module("geoseg.model._torchvision")  # torchmetrics imports torchvision
    functional = pytest.importorskip("torchmetrics.functional.classification")
    labels, prediction = pair
    matrix = ConfusionMatrix.count(labels, prediction, LEGEND)
    scored = np.isin(labels, LEGEND.ids) & (prediction != NODATA)
    assert matrix.pixels == scored.sum()
    if not matrix.pixels:
        assert matrix.miou is None
        assert matrix.accuracy is None
        return
    channel = {value: i for i, value in enumerate(LEGEND.ids)}
    truth, mapped = (torch.tensor([channel[v] for v in a[scored].tolist()]) for a in (labels, prediction))
    jaccard = functional.multiclass_jaccard_index
    per_class = jaccard(mapped, truth, num_classes=3, average=None).tolist()
    assert [value or 0 for value in matrix.iou] == pytest.approx(per_class, abs=1e-6)
    assert matrix.miou == pytest.approx(float(jaccard(mapped, truth, num_classes=3)), abs=1e-6)
    assert matrix.accuracy == pytest.approx(float((truth == mapped).float().mean()), abs=1e-6)


@given(pairs())
def test_strict_scores_are_plain_scores_where_unmapped_pixels_got_a_wrong_class(pair):
    labels, prediction = pair
    other = Legend((*LEGEND.classes, LandClass(9, "nothing", (0, 0, 0))))
    filled = np.where(prediction == NODATA, np.uint8(9), prediction)
    strict = ConfusionMatrix.count(labels, prediction, LEGEND).strict_iou
    assert strict == ConfusionMatrix.count(labels, filled, other).iou[:3]


def test_an_example_to_check_by_eye():
    labels = np.array([[1, 1, 1, 2], [2, 2, 0, 255]], np.uint8)
    prediction = np.array([[1, 1, 2, 2], [2, 255, 1, 1]], np.uint8)
    matrix = ConfusionMatrix.count(labels, prediction, LEGEND)
    assert matrix.counts.tolist() == [[2, 1, 0, 0], [0, 2, 0, 1], [0, 0, 0, 0]]
    assert (matrix.pixels, matrix.unmapped) == (5, 1)
    assert matrix.accuracy == 4 / 5
    assert matrix.iou == (2 / 3, 2 / 3, None)
    assert matrix.miou == 2 / 3
    assert matrix.strict_iou == (2 / 3, 2 / 4, None)
    assert matrix.strict_miou == (2 / 3 + 2 / 4) / 2


def test_a_class_that_only_the_map_has_counts_as_zero():
    matrix = ConfusionMatrix.count(np.array([1, 1], np.uint8), np.array([1, 5], np.uint8), LEGEND)
    assert matrix.iou == (1 / 2, None, 0.0)
    assert matrix.miou == 1 / 4


def test_nodata_of_the_labels_is_ignored_even_where_it_is_a_class():
    labels, prediction = np.array([1, 7, 2], np.uint8), np.array([1, 1, 2], np.uint8)
    assert ConfusionMatrix.count(labels, prediction, LEGEND, ignore=[7]).pixels == 2
    assert ConfusionMatrix.count(labels, prediction, LEGEND, ignore=[7, 2]).pixels == 1


def test_zero_counts_where_it_is_a_class():
    legend = Legend((LandClass(0, "background", (0, 0, 0)), LandClass(1, "building", (9, 9, 9))))
    matrix = ConfusionMatrix.count(np.array([0, 1], np.uint8), np.array([0, 0], np.uint8), legend)
    assert matrix.counts.tolist() == [[1, 0, 0], [1, 0, 0]]


@pytest.mark.parametrize("side", ["labels", "prediction"])
def test_unknown_values_are_listed_with_the_ids_of_the_legend(side):
    arrays = {"labels": np.array([1, 2, 5], np.uint8), "prediction": np.array([1, 2, 255], np.uint8)}
    arrays[side] = np.array([3, 200, 1], np.uint8)
    with pytest.raises(SourceError, match=f"^{side} hold values .*: 3, 200; .* ids are 1, 2, 5$") as caught:
        ConfusionMatrix.count(**arrays, legend=LEGEND)
    assert caught.value.facts["side"] == side


def test_a_prediction_of_zero_is_no_class():
    with pytest.raises(SourceError, match="prediction hold values that are no class: 0;"):
        ConfusionMatrix.count(np.array([0], np.uint8), np.array([0], np.uint8), LEGEND)


@pytest.mark.parametrize(
    "counts", [np.zeros((3, 3), int), np.zeros((3, 4)), -np.ones((3, 4), int)], ids=["shape", "type", "sign"]
)
def test_impossible_counts_are_refused_at_birth(counts):
    with pytest.raises(SpecError, match="3 x 4 whole counts"):
        ConfusionMatrix(LEGEND, counts)


def test_matrices_of_different_legends_do_not_add():
    with pytest.raises(SpecError, match="different legends"):
        ConfusionMatrix.zero(LEGEND) + ConfusionMatrix.zero(Legend(LEGEND.classes[:2]))


def test_a_matrix_travels_and_cannot_be_changed():
    matrix = ConfusionMatrix.count(np.array([1], np.uint8), np.array([2], np.uint8), LEGEND)
    assert pickle.loads(pickle.dumps(matrix)) == matrix
    assert hash(pickle.loads(pickle.dumps(matrix))) == hash(matrix)
    with pytest.raises(ValueError, match="read-only"):
        matrix.counts[0, 0] = 1
