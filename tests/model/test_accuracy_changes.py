"""What the accuracy benchmark does to scenes, and reads from the card."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from geoseg.model.bundle import Bundle
from geoseg.pixels.calibration import PERCENTS, Calibration
from tests.benchmarks import accuracy
from tests.benchmarks.accuracy import AIR, brightened, error_in_bins, hazed, numbers, padded, write_changed

PIXELS = arrays(np.uint8, (3, 4, 5))
SHARES = st.floats(0, 1)


@given(PIXELS)
def test_brightness_one_and_no_haze_change_nothing(pixels: np.ndarray) -> None:
    assert np.array_equal(brightened(pixels, 1), pixels)
    assert np.array_equal(hazed(pixels, 0), pixels)


@given(PIXELS)
def test_full_haze_shows_the_air_alone(pixels: np.ndarray) -> None:
    assert (hazed(pixels, 1) == AIR).all()


@given(PIXELS, st.floats(0, 1e6))
def test_brightness_is_the_product_rounded_and_cut(pixels: np.ndarray, factor: float) -> None:
    """Value by value, in Python's own numbers."""
    found = brightened(pixels, factor)
    assert found.dtype == np.uint8
    assert found.ravel().tolist() == [min(round(int(value) * factor), 255) for value in pixels.ravel()]


@given(PIXELS, SHARES, st.integers(0, 255))
def test_haze_lies_between_the_ground_and_the_air(pixels: np.ndarray, share: float, air: int) -> None:
    found = hazed(pixels, share, air)
    assert found.dtype == np.uint8
    assert (found >= np.minimum(pixels, air)).all()
    assert (found <= np.maximum(pixels, air)).all()


@given(PIXELS, SHARES, SHARES)
def test_more_haze_is_no_further_from_the_air(pixels: np.ndarray, one: float, other: float) -> None:
    thin, thick = (hazed(pixels, share).astype(int) for share in sorted((one, other)))
    assert (np.abs(thick - AIR) <= np.abs(thin - AIR)).all()


def test_values_that_can_be_checked_by_eye() -> None:
    pixels = np.array([0, 100, 201, 255], np.uint8)
    assert brightened(pixels, 1.2).tolist() == [0, 120, 241, 255]
    assert brightened(pixels, 0.8).tolist() == [0, 80, 161, 204]
    assert hazed(pixels, 0.2).tolist() == [46, 126, 207, 250]


def test_a_changed_scene_lies_where_it_lay_and_changes_by_its_values_alone(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 700, 530), dtype=np.uint8)
    place = Affine(0.8, 0, 300_000, 0, -0.8, 2_800_000)
    source, target = tmp_path / "scene.tif", tmp_path / "changed.tif"
    profile = {
        "count": 3,
        "height": 700,
        "width": 530,
        "dtype": "uint8",
        "crs": "EPSG:32640",
        "transform": place,
    }
    with rasterio.open(source, "w", driver="GTiff", **profile) as out:
        out.write(pixels)
    write_changed(source, target, partial(hazed, share=0.35))
    with rasterio.open(target) as changed:
        assert np.array_equal(changed.read(), hazed(pixels, 0.35))
        assert (changed.crs, changed.transform, changed.nodata) == ("EPSG:32640", place, None)


@given(arrays(np.int64, (2, PERCENTS), elements=st.integers(0, 50)))
def test_calibration_errors_of_coarser_bins_are_no_larger(halves: np.ndarray) -> None:
    right, wrong = halves
    counts = np.stack([right + wrong, right])
    counts[0, 0] += 1
    exact = Calibration.of(counts).expected_error
    one = abs(counts[1].sum() - (counts[0] * np.arange(PERCENTS) / 100).sum()) / counts[0].sum()
    assert error_in_bins(counts, 100) <= exact + 1e-12
    assert error_in_bins(counts, 20) <= error_in_bins(counts, 100) + 1e-12
    assert error_in_bins(counts, 1) == pytest.approx(one)


def test_a_calibration_error_that_can_be_checked_by_eye() -> None:
    """Two pixels of 90 and 92 percent share a bin, one is right; one of 100 percent is right."""
    counts = np.zeros((2, PERCENTS), np.int64)
    counts[:, 90], counts[:, 92], counts[:, 100] = (1, 1), (1, 0), (1, 1)
    assert error_in_bins(counts) == pytest.approx(abs(1 - 1.82) / 3)


def test_scores_are_found_in_a_note() -> None:
    notes = [
        "Other 0.111.",
        "Seen at 0.5 m 0.606, at 1.25 m 0.565; 12 % 0.61, air 230, of 1,191 steps 10.123.",
    ]
    assert numbers(notes, "Seen") == [0.606, 0.565]
    assert numbers(notes, "Nothing") == []
    assert padded([0.606, 0.565], 2) == [0.606, 0.565]
    assert padded([0.606, 0.565], 3) == [None, None, None]


@pytest.mark.parametrize(
    ("beginning", "count"),
    [
        (accuracy.CHANGED, 1 + len(accuracy.GSDS) + len(accuracy.BRIGHTNESS) + len(accuracy.HAZE)),
        (accuracy.DEMO, len(accuracy.DEMO_SEEDS)),
        (accuracy.CHOICES, 3),
    ],
)
def test_the_cards_notes_have_a_score_for_each_row(beginning: str, count: int) -> None:
    assert len(numbers(Bundle.open().card.notes, beginning)) == count
