"""Which pixels are learned from, and which are kept for scores."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from geoseg.errors import SourceError, SpecError
from geoseg.grid.window import Window
from geoseg.spec import SegmentSpec
from geoseg.train.augment import Augmentation, resized
from geoseg.train.config import AugmentSettings, SceneEntry
from geoseg.train.data import ScoredPatches, TrainingPatches
from geoseg.train.labels import IGNORED, SET
from geoseg.train.material import wants_of
from geoseg.train.reading import load_config
from geoseg.train.sampling import LabelIndex, PatchSampler, Statistics, index_labels
from geoseg.train.scenes import open_scenes
from tests.train.scenes import SIDE_PX, TRANSFORM, labels_of, write, write_regions, write_run, write_scene

BOXES = {"middle": (100.0, 160.0, 90.0, 200.0), "corner": (300.4, 384.0, 0.0, 77.7), "rest": (0, 384, 0, 384)}
KEPT = ("middle", "corner")


def opened(folder, **dataset):
    config = load_config(folder / "train.yaml", {})
    entries = [entry.model_copy(update=dataset) for entry in config.datasets]
    return open_scenes(config, entries, wants_of(config))


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("town")
    write_run(folder)
    write_regions(folder / "regions.geojson", BOXES)
    regions = load_config(folder / "train.yaml", {}).datasets[0].validation_regions
    return opened(folder, validation_regions=regions.model_copy(update={"names": KEPT}))[0]


@pytest.fixture(scope="module")
def index(scene):
    return index_labels(scene, 5)


def inside_kept(window: Window) -> bool:
    """An independent referee: open rectangles that overlap."""
    return any(
        min(window.row_end, bottom) - max(window.row, top) > 0.02
        and min(window.col_end, right) - max(window.col, left) > 0.02
        for top, bottom, left, right in (BOXES[name] for name in KEPT)
    )


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), low=st.floats(0.5, 1), high=st.floats(1, 2), balance=st.floats(0, 1))
def test_no_training_patch_touches_a_region_kept_for_validation(scene, index, seed, low, high, balance):
    sampler = PatchSampler([scene], [index], 64, (low, high), balance)
    rng = np.random.default_rng(seed)
    for _ in range(20):
        window = sampler.draw(rng).window
        assert not inside_kept(window)
        assert window.overlap(scene.window) == window


@given(
    row=st.integers(-20, SIDE_PX),
    col=st.integers(-20, SIDE_PX),
    height=st.integers(1, 99),
    width=st.integers(1, 99),
)
def test_touching_agrees_with_rectangles(scene, row, col, height, width):
    window = Window(row, col, height, width)
    assert scene.touches_held_out(window) == inside_kept(window)


def test_no_room_outside_the_regions_is_one_line(tmp_path):
    write_run(tmp_path)
    write_regions(tmp_path / "regions.geojson", {"south": (0, 380, 0, 384)})
    scene = opened(tmp_path)[0]
    sampler = PatchSampler([scene], [index_labels(scene, 5)], 64, (1, 1), 0.5)
    with pytest.raises(SpecError, match="no patch of 64 px"):
        sampler.draw(np.random.default_rng(0))


def test_nothing_left_to_train_on_is_one_line(tmp_path):
    write_run(tmp_path)
    write_regions(tmp_path / "regions.geojson", {"south": (0, 384, 0, 384)})
    index = index_labels(opened(tmp_path)[0], 5)
    with pytest.raises(SpecError, match="no labelled pixel is left"):
        Statistics.of([index])


def test_balance_draws_rare_classes_more_often(tmp_path):
    write_run(tmp_path)
    labels = np.full((SIDE_PX, SIDE_PX), 3, np.uint8)
    labels[:64, -64:] = 5
    write_scene(tmp_path, "town", labels)
    scene = opened(tmp_path, validation_regions=None)[0]
    index = index_labels(scene, 5)
    share = {}
    for balance in (0.0, 1.0):
        sampler, rng = PatchSampler([scene], [index], 64, (1, 1), balance), np.random.default_rng(1)
        share[balance] = np.mean(
            [sampler.draw(rng).window.touches(Window(0, 320, 64, 64)) for _ in range(200)]
        )
    assert share[0.0] < 0.15
    assert share[1.0] > 0.45


def test_the_index_counts_labels_and_measures_bands(scene, index):
    kept = scene.in_held_out(scene.window)
    labels = np.where(kept, 0, labels_of())
    counted = index.counts.sum((0, 1))
    np.testing.assert_array_equal(counted[:5], np.bincount(labels.ravel(), minlength=6)[1:])
    assert counted[5] == 0
    pixels = scene.read(scene.window)[0][:, labels > 0].astype(float)
    measured = Statistics.of([index])
    np.testing.assert_allclose(measured.mean, pixels.mean(axis=1), atol=1e-3)
    np.testing.assert_allclose(measured.std, pixels.std(axis=1), atol=1e-3)


def test_a_label_outside_the_classes_is_one_line(tmp_path):
    write_run(tmp_path)
    labels = labels_of()
    labels[200, 200] = 9
    write(tmp_path / "town_labels.tif", labels[None])
    with pytest.raises(SourceError, match=r"town_labels\.tif: holds label values that are no class: 9;"):
        index_labels(opened(tmp_path)[0], 5)


def test_labels_on_another_grid_are_refused(tmp_path):
    write_run(tmp_path)
    write(tmp_path / "town_labels.tif", labels_of(SIDE_PX - 1)[None])
    with pytest.raises(SourceError, match="share one grid"):
        opened(tmp_path)


def test_an_unknown_region_is_named(tmp_path):
    path = write_run(tmp_path)
    write_regions(tmp_path / "regions.geojson", {"north": (0, 9, 0, 9)})
    with pytest.raises(SpecError, match="no region named south; it has north"):
        opened(path.parent)


def test_patches_depend_on_seed_and_number_only(scene):
    sampler = PatchSampler([scene], [index_labels(scene, 5)], 64, (0.6, 1.6), 0.5)
    augmentation = Augmentation(AugmentSettings(), photometric=True)
    one, two = (TrainingPatches([scene], sampler, augmentation, (1, 2, 3), 64, 9, seed=4) for _ in range(2))
    for number in (3, 0, 8):
        for a, b in zip(one[number], two[number], strict=True):
            np.testing.assert_array_equal(a, b)
    assert not np.array_equal(one[1][0], one[2][0])


def test_changes_keep_shape_and_never_invent_labels(scene, index):
    always = AugmentSettings(color=1, haze=1, blur=1, jpeg=1, noise=1, cutout=1)
    patch = resized(*scene.read(Window(-10, 0, 80, 80)), 64)
    pixels, targets, valid = Augmentation(always, photometric=True)(*patch, Statistics.of([index]))
    assert (pixels.shape, targets.shape, str(pixels.dtype)) == ((3, 64, 64), (64, 64), "torch.uint8")
    assert set(targets.unique().tolist()) <= {0, 1, 2, 3, 4, IGNORED}
    assert (targets[~valid] == IGNORED).all()
    assert valid.sum() < patch[2].sum()  # the cut-out


@pytest.mark.parametrize("margin_px", [0, 16])
def test_each_kept_pixel_is_scored_once(scene, margin_px):
    patches = ScoredPatches([scene], SegmentSpec(96, margin_px), (0, 0, 0), held_out_only=True)
    scored = sum(int((targets != IGNORED).sum()) for _, targets in (patches[i] for i in range(len(patches))))
    kept = scene.in_held_out(scene.window)
    assert scored == np.count_nonzero(kept & (labels_of() > 0))


def test_whole_scenes_are_scored_whole(scene):
    patches = ScoredPatches([scene], SegmentSpec(96, 16), (0, 0, 0), held_out_only=False)
    scored = sum(int((patches[i][1] != IGNORED).sum()) for i in range(len(patches)))
    assert scored == np.count_nonzero(labels_of())


def test_a_scene_smaller_than_a_crop_is_padded(tmp_path):
    write_run(tmp_path)
    write_scene(tmp_path, "town", labels_of(40))
    scene = opened(tmp_path, validation_regions=None)[0]
    sampler = PatchSampler([scene], [index_labels(scene, 5)], 64, (1, 1), 0.5)
    window = sampler.draw(np.random.default_rng(0)).window
    _, targets, valid = scene.read(window)
    assert valid.sum() == 40 * 40
    assert (targets[~valid] == IGNORED).all()


def test_pixels_of_several_classes_are_drawn_and_told_as_sets(tmp_path):
    """A data set that labels buildings only, in one corner: its background is drawn, too, as anything else."""
    write_run(tmp_path)
    labels = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    labels[:64, :64] = 1
    write_scene(tmp_path, "town", labels)
    scene = opened(tmp_path, validation_regions=None, ignore=(), map_class={"0": {"not": ("building",)}})[0]
    index = index_labels(scene, 5)
    assert index.counts.sum((0, 1)).tolist() == [64 * 64, 0, 0, 0, 0, SIDE_PX**2 - 64 * 64]
    sampler = PatchSampler([scene], [index], 64, (1, 1), 1.0)
    still = Augmentation(
        AugmentSettings(color=0, haze=0, blur=0, jpeg=0, noise=0, cutout=0), photometric=True
    )
    patches = TrainingPatches([scene], sampler, still, (1, 2, 3), 64, 40, seed=0)
    told = torch.stack([patches[number][1] for number in range(40)])
    assert set(told.unique().tolist()) == {0, SET + 0b11110}
    with_buildings = (told == 0).any((1, 2)).float().mean()
    assert 0.3 < with_buildings < 0.8
    scored = ScoredPatches([scene], SegmentSpec(128, 0), (0, 0, 0), held_out_only=False)
    assert set(torch.stack([scored[i][1] for i in range(len(scored))]).unique().tolist()) == {
        0,
        SET + 0b11110,
    }


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_patches_of_other_bands_and_types(tmp_path, dtype):
    """Four bands of which three are taken, in another order; all changes on."""
    path = write_run(tmp_path, bands=["nir", "red", "green"], dtype=dtype)
    levels = np.array([100, 200, 300, 400])[:, None, None]
    noise = np.random.default_rng(0).normal(0, 9, (4, SIDE_PX, SIDE_PX))
    write(tmp_path / "town.tif", (levels + noise).astype(dtype))
    config = load_config(path, {})
    scene = opened(tmp_path, bands=(4, 1, 2))[0]
    sampler = PatchSampler([scene], [index_labels(scene, 5)], 64, (0.6, 1.6), 0.5)
    assert np.allclose(sampler.statistics.mean, (400, 100, 200), atol=2)
    always = AugmentSettings(rotate=1, color=1, blur=1, noise=1, cutout=1)
    pixels, targets = TrainingPatches(
        [scene], sampler, Augmentation(always, photometric=False), (1, 2, 3), config.crop_px, 3, seed=0
    )[2]
    assert (tuple(pixels.shape), str(pixels.dtype)) == ((3, 64, 64), f"torch.{dtype}")
    assert (targets == IGNORED).any()


def test_forked_workers_read_what_their_parent_would(tmp_path):
    """Though the parent has the rasters open, and a worker would share its place in each file."""
    write_run(tmp_path)
    side, layout = (
        2048,
        {"driver": "GTiff", "tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"},
    )
    values = np.random.default_rng(0).integers(1, 6, (3, side, side), np.uint8)
    for name, bands in (("town", values), ("town_labels", values[:1])):
        profile = {
            "count": len(bands),
            "height": side,
            "width": side,
            "dtype": "uint8",
            "transform": TRANSFORM,
        }
        with rasterio.open(tmp_path / f"{name}.tif", "w", crs="EPSG:32640", **layout, **profile) as dataset:
            dataset.write(bands)
    scene = opened(tmp_path, validation_regions=None)[0]
    scene.read(Window(0, 0, 8, 8))
    counts = np.zeros((side // 64, side // 64, 6), np.int64)
    counts[..., :5] = 1
    sampler = PatchSampler([scene], [LabelIndex(counts, np.ones(3), np.ones(3), 1)], 64, (1, 1), 0.5)
    still = Augmentation(
        AugmentSettings(color=0, haze=0, blur=0, jpeg=0, noise=0, cutout=0), photometric=True
    )
    patches = TrainingPatches([scene], sampler, still, (1, 2, 3), 64, 160, seed=0)
    loader = DataLoader(patches, 8, num_workers=4, multiprocessing_context="fork")
    read = torch.cat([pixels for pixels, _ in loader])
    assert torch.equal(read, torch.stack([patches[number][0] for number in range(160)]))


def test_a_split_without_labels_is_one_line(tmp_path):
    write_run(tmp_path)
    write_scene(tmp_path, "town", np.zeros((SIDE_PX, SIDE_PX), np.uint8))
    scene = opened(tmp_path, validation_regions=None, split="test")[0]
    with pytest.raises(
        SourceError, match=r"town_labels\.tif: no pixel is labelled.*nothing to score in split test"
    ):
        index_labels(scene, 5)


def test_regions_without_labels_are_one_line(tmp_path):
    write_run(tmp_path)
    labels = labels_of()
    labels[250:] = 0
    write_scene(tmp_path, "town", labels)
    with pytest.raises(SourceError, match=r"no pixel in its validation regions \(south\) is labelled"):
        index_labels(opened(tmp_path)[0], 5)


def test_bands_are_measured_where_labels_are(tmp_path):
    """However few blocks hold any."""
    write_run(tmp_path)
    side = 512 * 12
    labels = np.zeros((1, 512, side), np.uint8)
    labels[:, :40, -40:] = 3
    write(tmp_path / "town_labels.tif", labels)
    write(tmp_path / "town.tif", np.full((3, 512, side), 77, np.uint8))
    for blocks in (1, 5, 96):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("geoseg.train.sampling.STATISTICS_BLOCKS", blocks)
            assert (
                Statistics.of([index_labels(opened(tmp_path, validation_regions=None)[0], 5)]).mean
                == (77.0,) * 3
            )


def test_an_entry_keeps_regions_to_training(tmp_path):
    with pytest.raises(ValueError, match="make no sense"):
        SceneEntry.model_validate(
            {
                "scene": "a",
                "labels": "b",
                "split": "test",
                "validation_regions": {"file": "c", "names": ["d"]},
            }
        )


@given(
    st.lists(st.floats(-1e4, 1e4), min_size=2, max_size=9, unique=True),
    st.sampled_from([1e-6, 1e-3, 1.0, 1e3]),
)
def test_statistics_hold_in_any_unit(values, unit):
    """Against numpy, to four digits of the deviation, whatever the size of the numbers."""
    raw = np.array(values) * unit
    index = LabelIndex(np.ones((1, 1, 2)), raw.sum(keepdims=True), (raw**2).sum(keepdims=True), len(raw))
    found = Statistics.of([index])
    if raw.std() < 1e-5 * abs(raw.mean()):
        return
    assert found.std[0] == pytest.approx(raw.std(), rel=1e-3)
    assert abs(found.mean[0] - raw.mean()) <= 1e-3 * raw.std()


@pytest.mark.parametrize("value", [0.0, 77.0, 1e-7, -3e4])
def test_a_band_of_one_value_has_a_deviation_that_can_be_divided_by(value):
    raw = np.full(1000, value)
    index = LabelIndex(np.ones((1, 1, 2)), raw.sum(keepdims=True), (raw**2).sum(keepdims=True), len(raw))
    assert Statistics.of([index]).std == (1.0,)
