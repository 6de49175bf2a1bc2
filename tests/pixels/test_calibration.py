"""Calibration is that of scikit-learn and torchmetrics, and adds up in any cutting."""

import importlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from geoseg.errors import SourceError
from geoseg.pixels.calibration import Calibration, count_percents, percent_codes


def count_calibration(percent, right, scored):
    return count_percents(percent_codes(percent, right, scored))


@given(nps.arrays(np.uint8, 60, elements=st.integers(0, 100)), nps.arrays(bool, 60))
def test_figures_are_those_of_scikit_learn_and_torchmetrics(percent, right):
    found = Calibration.of(count_calibration(percent, right, np.ones(60, bool)))
    sklearn = pytest.importorskip("sklearn.calibration")
    # Bins around whole percent, so that rounding moves none to another.
    share, mean = sklearn.calibration_curve(right, percent / 101 + 0.5 / 101, n_bins=101)
    assert [row[2] for row in found.curve()] == pytest.approx(share.tolist())
    assert [row[0] for row in found.curve()] == pytest.approx((101 * mean - 0.5).tolist())

    torch = pytest.importorskip("torch")
    importlib.import_module("geoseg.model._torchvision")  # torchmetrics imports torchvision
    functional = pytest.importorskip("torchmetrics.functional.classification")
    error = functional.binary_calibration_error(
        torch.from_numpy(percent / 100), torch.from_numpy(right.astype(int)), n_bins=200
    )
    assert found.expected_error == pytest.approx(float(error), abs=1e-6)


@given(
    nps.arrays(np.uint8, 40, elements=st.sampled_from([0, 50, 77, 100, 255])),
    nps.arrays(bool, (2, 40)),
    st.data(),
)
def test_counts_add(percent, flags, data):
    cut = data.draw(st.integers(0, 40))
    parts = [count_calibration(percent[s], flags[0][s], flags[1][s]) for s in (slice(cut), slice(cut, None))]
    assert (parts[0] + parts[1] == count_calibration(percent, *flags)).all()


def test_an_example_to_check_by_eye():
    percent = np.array([90, 90, 90, 90, 50, 50, 255, 50], np.uint8)
    right = np.array([1, 1, 1, 0, 1, 0, 1, 1], bool)
    scored = np.array([1, 1, 1, 1, 1, 1, 1, 0], bool)
    found = Calibration.of(count_calibration(percent, right, scored))
    assert found.curve() == [(50, 2, 0.5), (90, 4, 0.75)]
    assert found.total == 6
    assert found.accuracy == 4 / 6
    assert found.mean_confidence == pytest.approx((4 * 0.9 + 2 * 0.5) / 6)
    assert found.expected_error == pytest.approx(4 / 6 * 0.15)


def test_nothing_to_judge():
    found = Calibration.of(count_calibration(np.full(3, 255, np.uint8), np.ones(3, bool), np.ones(3, bool)))
    assert (found.total, found.expected_error, found.mean_confidence, found.accuracy) == (0, None, None, None)
    assert found.curve() == []


def test_more_than_a_hundred_percent_is_refused():
    with pytest.raises(SourceError, match="no raster of whole percent: it holds 130"):
        count_calibration(np.array([130, 5], np.uint8), np.ones(2, bool), np.ones(2, bool))
    assert count_calibration(np.array([130], np.uint8), np.ones(1, bool), np.zeros(1, bool)).sum() == 0
