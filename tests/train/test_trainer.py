"""From a training file to a bundle that maps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from geoseg.errors import SpecError
from geoseg.grid.window import Window
from geoseg.model.bundle import Bundle
from geoseg.model.network import load_network
from geoseg.train.config import LossSettings, load_config
from geoseg.train.loop import learning_rate_share
from geoseg.train.losses import WeightedLoss
from geoseg.train.scenes import IGNORED
from geoseg.train.scores import Outcome, calibration_error, confusion_of, find_temperature, iou_of, mean_iou
from geoseg.train.trainer import fit, gather, new_network, train
from tests.train.scenes import labels_of, settings, write_run, write_scene


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two steps over a scene, a demo scene and a test scene."""
    folder = tmp_path_factory.mktemp("run")
    other = {"scene": "other.tif", "labels": "other_labels.tif", "ignore": [0], "split": "test"}
    path = write_run(folder, datasets=[*settings()["datasets"], other], demo={"seeds": [7], "size": 256})
    write_scene(folder, "other", labels_of(128), seed=1)
    return train(path, folder / "bundle")


def test_a_run_writes_a_bundle_that_maps(run):
    bundle = Bundle.open(run)
    network = load_network(bundle)
    logits = network(torch.randint(0, 256, (1, 3, 128, 128), dtype=torch.uint8))
    assert logits.shape == (1, 5, 128, 128)
    assert torch.isfinite(logits).all()


def test_the_card_tells_what_was_measured(run):
    card = Bundle.open(run).card
    assert {"miou_validation", "miou_other", "ece_validation", "iou_road_validation"} <= set(card.scores)
    assert all(0 <= value <= 1 for value in card.scores.values())
    assert [band.name for band in card.bands] == ["red", "green", "blue"]
    assert all(0 < band.mean < 255 and band.std > 0 for band in card.bands)
    assert card.patch_px == 128
    assert card.temperature > 0


def test_checkpoints_hold_plain_state(run):
    checkpoints = list((run.parent / "bundle.training" / "checkpoints").glob("*.ckpt"))
    assert checkpoints
    for path in checkpoints:
        assert "state_dict" in torch.load(path, weights_only=True)


def test_a_log_is_kept(run):
    logged = next((run.parent / "bundle.training").rglob("metrics.csv")).read_text()
    assert "miou_validation" in logged.splitlines()[0]


def test_demo_scenes_make_up_their_share(tmp_path):
    path = write_run(tmp_path, demo={"seeds": [7], "size": 256, "share": 0.25})
    material = gather(load_config(path, {}), tmp_path / "work")
    mass = [s.weight * i.counts.sum() for s, i in zip(material.train, material.indexes, strict=True)]
    assert mass[1] / sum(mass) == pytest.approx(0.25)


def test_a_bad_file_stops_before_anything_is_written(tmp_path):
    path = write_run(tmp_path, learning=3)
    with pytest.raises(SpecError, match="learning"):
        train(path, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_schedule_warms_up_and_ends_low():
    assert learning_rate_share(0, 10, 0.0) == pytest.approx(0.1)
    assert learning_rate_share(10, 10, 0.0) == 1
    assert learning_rate_share(99, 10, 0.5) == pytest.approx(0.505)
    assert learning_rate_share(99, 10, 1.2) == pytest.approx(0.01)


def test_ignored_pixels_do_not_move_the_loss(tmp_path):
    legend = load_config(write_run(tmp_path), {}).legend
    loss = WeightedLoss(LossSettings(), legend)
    logits = torch.randn(2, 5, 8, 8, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(128).reshape(2, 8, 8) % 5
    targets[:, :4] = IGNORED
    changed = logits.clone()
    changed[:, :, :4] = 9.0
    torch.testing.assert_close(loss(logits, targets), loss(changed, targets))
    assert loss(logits, torch.full_like(targets, IGNORED)) == 0


def test_confusion_and_iou_by_hand():
    chosen, targets = torch.tensor([0, 0, 1, 1, 2]), torch.tensor([0, 1, 1, IGNORED, 1])
    confusion = confusion_of(chosen, targets, 4)
    assert confusion.tolist() == [[1, 0, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert iou_of(confusion)[:3].tolist() == [0.5, pytest.approx(1 / 3), 0.0]
    assert math.isnan(iou_of(confusion)[3])
    assert mean_iou(confusion) == pytest.approx(5 / 18)


def test_the_temperature_undoes_a_scaling():
    rng = torch.Generator().manual_seed(0)
    honest = 2 * torch.randn(20_000, 4, generator=rng)
    targets = torch.multinomial(honest.softmax(1), 1, generator=rng)[:, 0]
    outcome = Outcome(torch.zeros(4, 4), 3 * honest, targets)
    temperature = find_temperature(outcome)
    assert temperature == pytest.approx(3, rel=0.05)
    assert calibration_error(outcome, temperature) < 0.02 < calibration_error(outcome, 1.0)


def test_fill_is_the_rounded_mean(tmp_path):
    material = gather(load_config(write_run(tmp_path), {}), tmp_path / "work")
    assert material.fill == tuple(round(mean) for mean in material.statistics.mean)
    assert np.shape(material.train[0].read(Window(0, 0, 5, 5))[0]) == (3, 5, 5)


def test_the_time_limit_ends_a_run_in_good_order(tmp_path):
    config = load_config(write_run(tmp_path, steps=10_000, max_minutes=0.01), {})
    material = gather(config, tmp_path / "work")
    fit(new_network(config, material), config, material, tmp_path / "work", progress_bar=False)
    checkpoint = torch.load(tmp_path / "work" / "checkpoints" / "last.ckpt", weights_only=True)
    assert 1 <= checkpoint["global_step"] < 200
    assert any("miou_validation" in key for key in map(str, checkpoint["callbacks"]))


@pytest.mark.parametrize("split", ["train", "validation"])
def test_runs_without_regions_end_with_weights(tmp_path, split):
    """Nothing to validate on; and regions of one scene with the whole of another."""
    other = {"scene": "other.tif", "labels": "other_labels.tif", "split": split}
    town = {"scene": "town.tif", "labels": "town_labels.tif", "ignore": [0]}
    datasets = [town if split == "train" else settings()["datasets"][0], other]
    path = write_run(tmp_path, datasets=datasets)
    write_scene(tmp_path, "other", np.maximum(labels_of(128), 1), seed=1)
    config = load_config(path, {})
    material = gather(config, tmp_path / "work")
    network = new_network(config, material)
    before = network.body.segmentation_head[0].weight.clone()
    fit(network, config, material, tmp_path / "work", progress_bar=False)
    assert not torch.equal(before, network.body.segmentation_head[0].weight)
    assert (tmp_path / "work" / "checkpoints" / "last.ckpt").is_file()
