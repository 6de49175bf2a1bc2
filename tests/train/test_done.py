"""A training that is done is not done again; one that a signal stops is saved first."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from click.testing import CliRunner

from geoseg.cli import main
from geoseg.model.bundle import Bundle
from geoseg.train import loop
from geoseg.train.checkpoints import FOLDER, LAST, OURS, read_checkpoint
from geoseg.train.done import is_done
from geoseg.train.reading import load_config
from geoseg.train.trainer import train, training_folder
from tests.train.scenes import SMALL, write_run
from tests.train.test_resume import same, sit, tiny


@pytest.fixture(scope="module")
def over(tmp_path_factory):
    folder = tmp_path_factory.mktemp("over")
    path = write_run(folder, **SMALL)
    train(path, folder / "bundle", progress_bar=False)
    return path, folder / "bundle"


def command(path: Path, bundle: Path, *words: str):
    return CliRunner().invoke(main, ["train", str(path), "-o", str(bundle), *words])


def test_a_training_that_is_done_is_left_as_it_is(over, monkeypatch):
    path, bundle = over
    monkeypatch.setattr("geoseg.train.trainer.finish", None)
    before = (bundle / "model.json").stat().st_mtime_ns
    done = command(path, bundle)
    assert (done.exit_code, done.stderr) == (0, f"{bundle} is done; --fresh begins anew\n")
    assert done.stdout.splitlines() == [str(bundle), str(training_folder(bundle) / "training.html")]
    assert train(path, bundle) == bundle, "a program is spared the work, too"
    assert (bundle / "model.json").stat().st_mtime_ns == before


def test_the_checkpoint_may_be_deleted_when_all_is_done(over, tmp_path):
    path, bundle = over
    kept = (training_folder(bundle) / FOLDER / LAST).rename(tmp_path / LAST)
    assert is_done(load_config(path, {}), bundle)
    kept.rename(training_folder(bundle) / FOLDER / LAST)


@pytest.mark.parametrize("what", ["weights", "card", "settings", "labels", "page's facts"])
def test_what_is_not_as_it_was_left_is_not_done(over, what):
    path, bundle = over
    config = load_config(path, {})
    assert is_done(config, bundle)
    if what == "settings":
        assert not is_done(config.model_copy(update={"notes": ("More.",)}), bundle)
        return
    altered = {
        "weights": bundle / "model.safetensors", "card": bundle / "model.json",
        "labels": config.datasets[0].labels, "page's facts": training_folder(bundle) / "training.json",
    }[what]  # fmt: skip
    before, times = altered.read_bytes(), altered.stat()
    altered.unlink()
    assert not is_done(config, bundle)
    altered.write_bytes(before + b" ")
    assert is_done(config, bundle) == (what == "page's facts")
    altered.write_bytes(before)
    os.utime(altered, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert is_done(config, bundle)


def test_a_bundle_that_was_altered_is_written_again_and_its_card_is_the_same(over):
    path, bundle = over
    card = (bundle / "model.json").read_bytes()
    (bundle / "model.safetensors").write_bytes(b"altered")
    train(path, bundle, progress_bar=False)
    assert (bundle / "model.json").read_bytes() == card, "nothing on it is of the moment when it was written"
    Bundle.open(bundle)


def test_a_fresh_start_that_was_stopped_is_not_done(over, tmp_path, monkeypatch):
    path, bundle = write_run(tmp_path, **SMALL), tmp_path / "bundle"
    train(path, bundle, progress_bar=False)
    monkeypatch.setattr(
        loop.SegmentationTask, "training_step", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        train(path, bundle, progress_bar=False, fresh=True)
    assert not is_done(load_config(path, {}), bundle)


def test_the_card_tells_what_is_known_of_the_run(over):
    notes = " ".join(Bundle.open(over[1]).card.notes)
    state = read_checkpoint(training_folder(over[1]) / FOLDER / LAST)
    assert "train: 1, 0.0982 labelled megapixels (town.tif)" in notes
    assert "validation: 1, 0.0492 labelled megapixels (south of town.tif)" in notes
    assert (
        f"rained for 2 of 2 steps in {state[OURS]['seconds'] / 60:.1f} minutes, weights of the last step"
        in notes
    )
    assert f"seed 0, {state[OURS]['software']}, {state[OURS]['day']}." in notes
    assert str(over[0].parent) not in notes, "no paths of the machine"
    data = json.loads((training_folder(over[1]) / "training.json").read_text())["data"]
    assert data == {"train": ["town.tif"], "validation": ["south of town.tif"]}


def test_the_page_tells_how_it_was_made(over):
    assert command(*over).exit_code == 0
    page = (training_folder(over[1]) / "training.html").read_text()
    for said in (
        "train: town.tif; validation: south of town.tif",
        "32 px",
        "1 × cross entropy, 1 × dice, label smoothing",
    ):
        assert said in page


@pytest.fixture(scope="module")
def through(tmp_path_factory):
    """A run that nothing stops: the checkpoint at its end."""
    folder = tmp_path_factory.mktemp("through")
    sit(tiny(folder), folder / "work")
    return read_checkpoint(folder / "work" / FOLDER / LAST)


@pytest.mark.parametrize(
    ("number", "batch", "saved"), [(signal.SIGINT, 5, 3), (signal.SIGTERM, 4, 2), (signal.SIGTERM, 7, 4)]
)
def test_a_signal_saves_the_step_at_hand_and_the_run_ends_as_if_nothing_had_been(
    tmp_path, monkeypatch, through, number, batch, saved
):
    """A step is two batches, and each second one is validated. Batch 7 ends step 4, which its validation ends."""
    path = tiny(tmp_path)
    plain, before = loop.SegmentationTask.training_step, signal.getsignal(number)

    def signalled(self, given, place):
        if place == batch:
            os.kill(os.getpid(), number)
        return plain(self, given, place)

    monkeypatch.setattr(loop.SegmentationTask, "training_step", signalled)
    with pytest.raises(KeyboardInterrupt):
        sit(path, tmp_path / "stopped")
    monkeypatch.undo()
    assert signal.getsignal(number) == before
    state = read_checkpoint(tmp_path / "stopped" / FOLDER / LAST)
    assert state["global_step"] == saved and not state[OURS]["over"]
    sit(path, tmp_path / "stopped")
    ended = read_checkpoint(tmp_path / "stopped" / FOLDER / LAST)
    assert same(ended["state_dict"], through["state_dict"])
    assert same(ended[OURS]["best"]["weights"], through[OURS]["best"]["weights"])
    assert ended[OURS]["best"]["score"] == through[OURS]["best"]["score"]


def test_a_step_is_told_when_it_is_saved(tmp_path, monkeypatch, caplog):
    from geoseg.train.checkpoints import PlainCheckpoints

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(PlainCheckpoints, "save_checkpoint", interrupted)
    with caplog.at_level("INFO", "geoseg.train"), pytest.raises(KeyboardInterrupt):
        sit(tiny(tmp_path), tmp_path / "work")
    assert not [line for line in caplog.messages if line.startswith("step ")]


def test_messages_come_once_whatever_others_log(tmp_path, capsys):
    import logging

    from geoseg.train.terminal import progress_told

    root, logger = logging.StreamHandler(), logging.getLogger("geoseg.train.anything")
    logging.getLogger().addHandler(root)
    for _ in range(2):
        with progress_told():
            logger.info("told")
            logger.warning("doubted")
    logging.getLogger().removeHandler(root)
    assert capsys.readouterr().err.splitlines() == ["told", "warning: doubted"] * 2


def test_a_class_without_labels_says_so():
    import torch

    assert loop.listed_ious(["a", "b"], torch.tensor([0.25, float("nan")])) == "a 0.250, b: no labels"
