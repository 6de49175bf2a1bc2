"""Confusion matrices add in any cutting and order; their ratios are those of torchmetrics and scikit-learn."""

import importlib
import pickle
import warnings
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from geoseg.errors import SourceError, SpecError
from geoseg.legend import NODATA, LandClass, Legend
from geoseg.pixels.confusion import OVER_ALL, PER_CLASS, ConfusionMatrix, figures, pair_codes

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
def test_scores_are_those_of_scikit_learn(pair):
    metrics = pytest.importorskip("sklearn.metrics")
    labels, prediction = pair
    matrix = ConfusionMatrix.count(labels, prediction, LEGEND)
    scored = np.isin(labels, LEGEND.ids) & (prediction != NODATA)
    truth, mapped, ids = labels[scored], prediction[scored], list(LEGEND.ids)
    if not matrix.pixels:
        assert {matrix.over_all(name) for name in OVER_ALL} == {None}
        assert {value for name in PER_CLASS for value in matrix.per_class(name)} == {None}
        return
    assert matrix.counts[:, :-1].tolist() == metrics.confusion_matrix(truth, mapped, labels=ids).tolist()
    occurs = np.isin(ids, truth) | np.isin(ids, mapped)
    defined = {
        "iou": occurs,
        "dice": occurs,
        "precision": np.isin(ids, mapped),
        "recall": np.isin(ids, truth),
    }
    for name, function in (
        ("iou", metrics.jaccard_score),
        ("dice", metrics.f1_score),
        ("precision", metrics.precision_score),
        ("recall", metrics.recall_score),
    ):
        expected = function(truth, mapped, labels=ids, average=None, zero_division=0)
        assert [value is not None for value in matrix.per_class(name)] == defined[name].tolist()
        assert [value or 0 for value in matrix.per_class(name)] == pytest.approx(expected.tolist())
    assert matrix.support == tuple((truth == i).sum() for i in ids)
    assert matrix.accuracy == pytest.approx(metrics.accuracy_score(truth, mapped))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes that only the map has
        assert matrix.over_all("mean_accuracy") == pytest.approx(
            metrics.balanced_accuracy_score(truth, mapped)
        )
        kappa = metrics.cohen_kappa_score(truth, mapped)
    weighted = metrics.jaccard_score(truth, mapped, labels=ids, average="weighted", zero_division=0)
    assert matrix.over_all("frequency_weighted_iou") == pytest.approx(weighted)
    assert matrix.over_all("mean_dice") == pytest.approx(
        metrics.f1_score(truth, mapped, labels=np.array(ids)[occurs], average="macro", zero_division=0)
    )
    assert (matrix.over_all("kappa") is None) == np.isnan(kappa)
    assert (matrix.over_all("kappa") or 0) == pytest.approx(np.nan_to_num(kappa))


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
    assert matrix.per_class("precision") == (1.0, 2 / 3, None)
    assert matrix.per_class("recall") == (2 / 3, 1.0, None)
    assert matrix.per_class("dice") == (0.8, 0.8, None)
    assert matrix.over_all("mean_accuracy") == (2 / 3 + 1) / 2
    assert matrix.over_all("frequency_weighted_iou") == 2 / 3
    assert matrix.over_all("kappa") == pytest.approx((4 / 5 - 12 / 25) / (1 - 12 / 25))
    assert matrix.support == (3, 2, 0)
    assert matrix.absent == ("water",)


def test_supported_classes_have_enough_labelled_pixels():
    labels, prediction = np.array([1, 1, 1, 2], np.uint8), np.array([1, 1, 2, 5], np.uint8)
    matrix = ConfusionMatrix.count(labels, prediction, LEGEND)
    assert matrix.supported(0) == (True, True, False)
    assert matrix.supported(2) == (True, False, False)
    assert matrix.mean("iou", matrix.supported(2)) == 2 / 3
    assert matrix.miou == pytest.approx((2 / 3 + 0 + 0) / 3)
    assert matrix.mean("iou", matrix.supported(9)) is None


def test_figures_of_many_samples_are_those_of_each():
    counts = np.random.default_rng(3).integers(0, 4, (50, 3, 3))
    sums = np.diagonal(counts, axis1=1, axis2=2), counts.sum(2), counts.sum(1)
    found = figures(*(s.astype(float) for s in sums))
    for n, sample in enumerate(counts):
        matrix = ConfusionMatrix(LEGEND, np.pad(sample, ((0, 0), (0, 1))))
        for name in OVER_ALL:
            assert found[name][n] == pytest.approx(matrix.over_all(name) or np.nan_to_num(found[name][n]))
        for name in PER_CLASS:
            assert np.nan_to_num(found[name][n]).tolist() == [v or 0 for v in matrix.per_class(name)]


@given(pairs())
def test_codes_name_the_cell_of_each_pixel(pair):
    labels, prediction = pair
    codes = pair_codes(labels, prediction, LEGEND, [2])
    channel = {1: 0, 2: 1, 5: 2, NODATA: 3}
    for label, mapped, code in zip(labels.ravel(), prediction.ravel(), codes.ravel(), strict=True):
        scored = label in (1, 5)
        assert code == (channel[int(label)] * 4 + channel[int(mapped)] if scored else 12)


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
