"""From a training file to a bundle that maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from geoseg.cli import main
from geoseg.errors import ModelError, OutputError, SourceError, SpecError
from geoseg.grid.window import Window
from geoseg.model.bundle import Bundle
from geoseg.model.network import load_network
from geoseg.report.training import read_log
from geoseg.train.config import LossSettings
from geoseg.train.data import TrainingPatches
from geoseg.train.loop import learning_rate_share
from geoseg.train.losses import WeightedLoss
from geoseg.train.reading import load_config
from geoseg.train.scenes import IGNORED
from geoseg.train.scores import (
    Outcome,
    calibration_error,
    confusion_of,
    find_temperature,
    iou_of,
    mean_iou,
    sample_step,
    score,
)
from geoseg.train.trainer import finish, fit, gather, learn, new_network, train, training_folder
from tests.train.processes import apart, fill_disk
from tests.train.scenes import SMALL, labels_of, settings, write_run, write_scene


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A run of two steps over a scene, a demo scene and a test scene, on the command line: its bundle, and stderr."""
    folder = tmp_path_factory.mktemp("run")
    other = {"scene": "other.tif", "labels": "other_labels.tif", "ignore": [0], "split": "test"}
    path = write_run(folder, datasets=[*settings()["datasets"], other], demo={"seeds": [7], "size": 256})
    write_scene(folder, "other", labels_of(128), seed=1)
    done = CliRunner().invoke(main, ["train", str(path), "-o", str(folder / "bundle")])
    assert done.exit_code == 0, done.output
    assert done.stdout.split() == [str(folder / "bundle"), str(folder / "bundle.training" / "training.html")]
    return folder / "bundle", done.stderr


@pytest.fixture(scope="module")
def run(told):
    return told[0]


def test_the_terminal_shows_a_line_per_validation_and_no_advertising(told):
    lines = told[1].splitlines()
    assert [
        line
        for line in lines
        if line.startswith("step 2, 100 %") and "validation mIoU" in line and "road" in line
    ]
    assert [line for line in lines if line.endswith(" ...")] == [
        "scoring the validation pixels ...", "scoring other ...", "writing the bundle, for PyTorch and OpenVINO ...",
        "comparing the ways to run it ...",
    ], "no long silence"  # fmt: skip
    assert len(lines) == 8, (
        "beside these the validation, what was kept, and the scores of validation and test"
    )
    assert not [
        word for word in ("Tip", "litlogger", "GPU available", "Trainer", "Warning") if word in told[1]
    ]


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


def test_a_run_ends_when_validations_stay_without_a_better_one(tmp_path, monkeypatch):
    monkeypatch.setattr("geoseg.train.loop.mean_iou", lambda _: 0.5)
    config = load_config(
        write_run(tmp_path, **SMALL | {"steps": 100, "validate_every": 1, "patience": 2}), {}
    )
    fitted = learn(config, tmp_path / "work", False).fitted
    assert (fitted.steps, fitted.best_step) == (3, 1)
    assert learn(config, tmp_path / "work", False).fitted == fitted, "it is over, and stays so"


def test_patience_without_validation_is_refused(tmp_path):
    town = {"scene": "town.tif", "labels": "town_labels.tif", "ignore": [0]}
    path = write_run(tmp_path, **SMALL | {"patience": 2, "datasets": [town]})
    with pytest.raises(SpecError, match="patience counts validations, but"):
        learn(load_config(path, {}), tmp_path / "work", False)


def test_a_network_that_cannot_be_leaves_nothing(tmp_path):
    with pytest.raises(ModelError, match=r"train\.yaml: no network 'DeepLabV3Plus' with encoder 'nonsense'"):
        train(write_run(tmp_path, encoder="nonsense"), tmp_path / "bundle")
    assert not list(tmp_path.glob("bundle*"))


@pytest.mark.parametrize("found", ["folder", "file"])
def test_what_is_no_bundle_is_not_replaced_and_nothing_is_trained(tmp_path, found):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    output = tmp_path / "photos" if found == "folder" else tmp_path / "photos" / "a.jpg"
    with pytest.raises(OutputError, match="is no model bundle, so it is not replaced"):
        train(write_run(tmp_path), output)
    assert not list(tmp_path.rglob("*.training"))


def full_disk(path: Path, folder: Path) -> None:
    """As a process of its own: learn, then a file of 100 kB fills the disk."""
    config = load_config(path, {})
    learned = learn(config, training_folder(folder / "bundle"), False)
    fill_disk(100_000)
    try:
        finish(learned, config, folder / "bundle")
    except OutputError as error:
        (folder / "told").write_text(str(error))


def test_a_full_disk_leaves_no_half_bundle(tmp_path):
    path = write_run(tmp_path, **SMALL)
    assert apart(full_disk, path, tmp_path) == 0
    told = (tmp_path / "told").read_text()
    assert told.startswith(f"{tmp_path / 'bundle'}: ") and "File too large" in told and "\n" not in told
    assert not (tmp_path / "bundle").exists() and not list(tmp_path.glob(".bundle*"))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_breaks_in_a_loader_is_one_line(tmp_path, monkeypatch, workers):
    def breaks(self, number):
        raise SourceError("is broken", "town.tif", window=number)

    monkeypatch.setattr(TrainingPatches, "__getitem__", breaks)
    config = load_config(write_run(tmp_path, **SMALL | {"workers": workers}), {})
    with pytest.raises(SourceError) as told:
        learn(config, tmp_path / "work", False)
    assert str(told.value) == "town.tif: is broken"


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
    assert confusion[:4].tolist() == [[1, 0, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert iou_of(confusion)[:2].tolist() == [0.5, pytest.approx(1 / 3)]
    assert iou_of(confusion)[2:].isnan().all(), "no label has them, though one is mapped"
    assert mean_iou(confusion) == pytest.approx(5 / 12)


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
    fit(new_network(config, material), config, material, tmp_path / "work", False)
    checkpoint = torch.load(tmp_path / "work" / "checkpoints" / "last.ckpt", weights_only=True)
    assert 1 <= checkpoint["global_step"] < 200
    scores = [row["step"] for row in read_log(tmp_path / "work") if "miou_validation" in row]
    assert scores[-1] == checkpoint["global_step"], "the last validation still ran"
    assert checkpoint["geoseg"]["over"]


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
    fit(network, config, material, tmp_path / "work", False)
    assert not torch.equal(before, network.body.segmentation_head[0].weight)
    assert (tmp_path / "work" / "checkpoints" / "last.ckpt").is_file()


def test_the_temperature_of_logits_beyond_measure_lies_at_the_end():
    """Those of a network that has overshot; its confidence is as honest as it can be made."""
    targets = torch.arange(400) % 4
    wrong = 1e30 * torch.nn.functional.one_hot((targets + 1) % 4, 4).float()
    assert find_temperature(Outcome(torch.zeros(5, 4), wrong, targets)) == pytest.approx(20, rel=0.01)
    right = 1e30 * torch.nn.functional.one_hot(targets, 4).float()
    assert 0.05 <= find_temperature(Outcome(torch.zeros(5, 4), right, targets)) <= 20


def test_the_sample_for_calibration_is_bounded():
    assert sample_step(512 * 512) == 7
    for pixels in (10**8, 10**10, 10**12):
        assert 0.7 * 2_000_000 < pixels / sample_step(pixels) ** 2 <= 2_000_000
    batch = torch.zeros(2, 3, 64, 64), torch.zeros(2, 64, 64, dtype=torch.int64)
    network = torch.nn.Conv2d(3, 4, 1)
    assert len(score(network, [batch], 4, 16).targets) == 2 * 4 * 4
    nothing = score(network, [batch], 4, None)
    assert len(nothing.logits) == len(nothing.targets) == 0 and nothing.confusion.sum() == 2 * 64 * 64
