"""Changes to patches: any dtype and band count, labels never invented, one seed per patch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from geoseg.train.augment import GAIN, OFFSET, Augmentation, resized
from geoseg.train.config import AugmentSettings
from geoseg.train.labels import IGNORED
from geoseg.train.sampling import Statistics

SIDE = 48
NONE = {"rotate": 0, "color": 0, "haze": 0, "blur": 0, "jpeg": 0, "noise": 0, "cutout": 0}
ALL = dict.fromkeys(NONE, 1.0)
KINDS = [("uint8", 3), ("uint8", 4), ("uint16", 8), ("int16", 1), ("float32", 5)]


def patch(dtype: str, bands: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Bands of their own level and spread; targets in quarters; a corner without data."""
    rng = np.random.default_rng(seed)
    level = np.arange(1, bands + 1)[:, None, None]
    pixels = (20 * level + 8 * level**0.5 * rng.normal(size=(bands, SIDE, SIDE))).clip(1, 250).astype(dtype)
    row, col = np.mgrid[:SIDE, :SIDE] >= SIDE // 2
    targets = (row + 2 * col).astype(np.uint8)
    valid = np.ones((SIDE, SIDE), bool)
    valid[:9, :14] = False
    targets[~valid], pixels[:, ~valid] = IGNORED, 0
    return torch.from_numpy(pixels), torch.from_numpy(targets), torch.from_numpy(valid)


def statistics(bands: int) -> Statistics:
    level = np.arange(1, bands + 1)
    return Statistics(tuple((20.0 * level).tolist()), tuple((8 * level**0.5).tolist()))


def augmented(changes: dict[str, float], dtype: str, bands: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(seed)
    augmentation = Augmentation(AugmentSettings(**changes), photometric=(dtype, bands) == ("uint8", 3))
    return augmentation(*patch(dtype, bands), statistics(bands))


@pytest.mark.parametrize(("dtype", "bands"), KINDS)
@settings(max_examples=8)
@given(seed=st.integers(0, 2**31))
def test_every_change_on_any_pixels_keeps_their_kind_and_invents_no_label(dtype, bands, seed):
    pixels, targets, valid = augmented(ALL, dtype, bands, seed)
    assert pixels.shape == (bands, SIDE, SIDE)
    assert str(pixels.dtype) == f"torch.{dtype}"
    assert (targets.dtype, valid.dtype) == (torch.uint8, torch.bool)
    assert set(targets.unique().tolist()) <= {0, 1, 2, 3, IGNORED}
    assert (targets[~valid] == IGNORED).all()
    assert torch.isfinite(pixels.float()).all()
    assert not torch.equal(pixels.float().std(), patch(dtype, bands)[0].float().std())


@pytest.mark.parametrize(("dtype", "bands"), KINDS)
@settings(max_examples=8)
@given(seed=st.integers(0, 2**31))
def test_without_changes_pixels_and_labels_move_together(dtype, bands, seed):
    """Only turned and flipped: the same columns of values and target, in another order."""

    def columns(pixels: Tensor, targets: Tensor, valid: Tensor) -> np.ndarray:
        planes = [*pixels.numpy().astype(float), targets.numpy(), valid.numpy()]
        flat = np.stack([np.asarray(plane, float).ravel() for plane in planes], axis=1)
        return flat[np.lexsort(flat.T)]

    np.testing.assert_array_equal(
        columns(*augmented(NONE, dtype, bands, seed)), columns(*patch(dtype, bands))
    )


def test_all_eight_turns_are_drawn():
    seen = {augmented(NONE, "uint8", 3, seed)[0].numpy().tobytes() for seed in range(100)}
    assert len(seen) == 8


@pytest.mark.parametrize(("dtype", "bands"), KINDS)
def test_one_seed_one_patch(dtype, bands):
    one, again, other = (augmented(ALL, dtype, bands, seed) for seed in (5, 5, 6))
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not torch.equal(one[0].float(), other[0].float())


@settings(max_examples=30)
@given(seed=st.integers(0, 2**31))
def test_color_of_any_bands_is_a_gain_and_an_offset_in_their_deviations(seed):
    bands = 5
    changed, before = (augmented(NONE | c, "float32", bands, seed)[0] for c in ({"color": 1}, {}))
    x, y = before.reshape(bands, -1).double().numpy(), changed.reshape(bands, -1).double().numpy()
    gains = []
    for band in range(bands):
        (gain, constant), rest, *_ = np.polyfit(x[band], y[band], 1, full=True)
        mean, std = statistics(bands).mean[band], statistics(bands).std[band]
        assert rest.sum() < 1e-3
        assert 1 / (1 + GAIN) - 1e-4 <= gain <= 1 + GAIN + 1e-4
        assert abs(constant + (gain - 1) * mean) <= OFFSET * std + 1e-3
        gains.append(gain)
    assert np.ptp(gains) > 0


def test_noise_of_any_bands_follows_their_deviation():
    """Bands that differ by a thousand in scale get noise of the same share."""
    flat = torch.ones(2, 400, 400)
    blank = torch.zeros(400, 400, dtype=torch.uint8)
    augmentation = Augmentation(AugmentSettings(**NONE | {"noise": 1}), photometric=False)
    torch.manual_seed(0)
    pixels, _, _ = augmentation(flat, blank, blank == 0, Statistics((0.0, 0.0), (2.0, 2000.0)))
    low, high = pixels.std(dim=(1, 2)).tolist()
    assert high / low == pytest.approx(1000, rel=0.02)
    assert 0.02 <= low / 2 <= 0.15


@settings(max_examples=25)
@given(seed=st.integers(0, 2**31))
def test_turned_by_any_angle_labels_follow_and_edges_teach_nothing(seed):
    """An image that shows its labels: valid pixels still do, but for those on a border between two."""
    _, targets, valid = patch("uint8", 1)
    pixels = torch.where(valid, 40 + 40 * targets, 0)[None].float()
    torch.manual_seed(seed)
    augmentation = Augmentation(AugmentSettings(**NONE | {"rotate": 1}), photometric=False)
    pixels, targets, valid = augmentation(pixels, targets, valid, statistics(1))
    assert pixels[0][valid].min() > 39.9  # never mixed with what is invalid or beyond the edge
    shown = ((pixels[0] - 40) / 40)[valid]
    off = (shown - targets[valid]).abs() > 0.01
    assert off.float().mean() < 0.12
    assert valid.float().mean() > 0.6
    assert (targets[~valid] == IGNORED).all()
    assert (targets[valid] != IGNORED).all()


def test_a_turn_by_any_angle_is_a_chance():
    whole = [
        bool(augmented(NONE | {"rotate": 0.5}, "uint8", 3, seed)[2].sum() == SIDE**2 - 9 * 14)
        for seed in range(60)
    ]
    assert 15 < sum(whole) < 45


def test_values_stay_in_the_range_of_their_dtype():
    """Instead of wrapping around."""
    bright = torch.full((4, SIDE, SIDE), 65_500, dtype=torch.int32).to(torch.uint16)
    blank = torch.zeros(SIDE, SIDE, dtype=torch.uint8)
    augmentation = Augmentation(AugmentSettings(**NONE | {"noise": 1}), photometric=False)
    torch.manual_seed(1)
    pixels, _, _ = augmentation(bright, blank, blank == 0, Statistics((0.0,) * 4, (3000.0,) * 4))
    values = pixels.numpy()
    assert values.max() == 65_535
    assert values.min() > 55_000


@pytest.mark.parametrize(("dtype", "bands"), KINDS)
def test_resizing_keeps_the_kind(dtype, bands):
    pixels, targets, valid = (part.numpy() for part in patch(dtype, bands))
    image, classes, good = resized(pixels, targets, valid, 32)
    assert (tuple(image.shape), str(image.dtype)) == ((bands, 32, 32), f"torch.{dtype}")
    assert set(classes.unique().tolist()) <= {0, 1, 2, 3, IGNORED}
    assert (classes[~good] == IGNORED).all()


@given(st.integers(16, 100))
def test_resized_pixels_are_not_mixed_with_invalid_ones(side):
    pixels, targets, valid = (part.numpy() for part in patch("uint8", 1))
    image, classes, good = resized(np.where(valid, np.uint8(90), pixels), targets, valid, side)
    assert (image[0][good] == 90).all()
    assert abs(good.float().mean() - valid.mean()) < 2.5 / side
    assert ((classes == IGNORED) == ~good).all()
