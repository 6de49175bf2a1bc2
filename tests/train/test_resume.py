"""A run that is stopped anywhere ends as if it had not been: laws first, with real kills."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

from geoseg.errors import OutputError, SourceError, SpecError
from geoseg.train import loop
from geoseg.train.checkpoints import FOLDER, LAST, OURS, found_checkpoint, read_checkpoint
from geoseg.train.data import TrainingPatches
from geoseg.train.reading import load_config
from geoseg.train.trainer import learn
from tests.train.processes import apart, fill_disk
from tests.train.scenes import SMALL, labels_of, write_run, write_scene

STEPS = 6
TOWN = {"scene": "town.tif", "labels": "town_labels.tif", "ignore": [0]}
CHAINS = {
    "validating": (("write", 1), ("replaced", 1), ("step", 3), ("validate", 2), ("write", 1)),
    "no validation": (("step", 5), ("write", 2)),
}
"""Where the sittings of a run are killed: in which call, counted from 1."""


def tiny(folder: Path, **changes) -> Path:
    """Three validations; a step is two batches of two patches. Dropout and augmentation are on."""
    return write_run(folder, **SMALL | {"steps": STEPS, "validate_every": 2, "accumulate": 2} | changes)


def sit(path: Path, folder: Path):
    """One sitting, as `geoseg train` does it; the trained network."""
    return learn(load_config(path, {}), folder, progress_bar=False).network


def sit_and_die(path: Path, folder: Path, moment: str, count: int) -> None:
    """A sitting that gets SIGKILL at a moment; a file that is being written is half there."""
    left = [count]

    def dies(call, before: bool):
        def wrapped(*arguments, **named):
            left[0] -= 1
            if left[0] == 0 and before:
                if moment == "write":
                    os.ftruncate(arguments[0], os.fstat(arguments[0]).st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)
            result = call(*arguments, **named)
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return wrapped

    task = loop.SegmentationTask
    if moment == "step":
        task.training_step = dies(task.training_step, before=False)
    elif moment == "validate":
        task.validation_step = dies(task.validation_step, before=True)
    elif moment == "write":
        os.fsync = dies(os.fsync, before=True)
    else:
        os.replace = dies(os.replace, before=False)
    sit(path, folder)


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("kind", CHAINS)
def test_killed_again_and_again_a_run_ends_with_the_same_weights(tmp_path, monkeypatch, kind):
    changes = {"datasets": [TOWN]} if kind == "no validation" else {}
    path = tiny(tmp_path, **changes)
    through = sit(path, tmp_path / "through")
    folder = tmp_path / "killed"
    for moment in CHAINS[kind]:
        assert apart(sit_and_die, path, folder, *moment) == -signal.SIGKILL
    reached = read_checkpoint(folder / FOLDER / LAST)["global_step"]
    assert 0 < reached < STEPS
    read = []
    plain = TrainingPatches.__getitem__
    monkeypatch.setattr(TrainingPatches, "__getitem__", lambda self, i: (read.append(i), plain(self, i))[1])
    network = sit(path, folder)
    assert read == list(range(reached * 4, STEPS * 4)), "patches before the checkpoint are not read again"
    assert same(network.state_dict(), through.state_dict())
    ends = [read_checkpoint(tmp_path / name / FOLDER / LAST) for name in ("through", "killed")]
    assert same(ends[0]["current_model_state"], ends[1]["current_model_state"])
    assert same(ends[0]["state_dict"], ends[1]["state_dict"])
    assert not list((folder / FOLDER).glob(".*")), "what killed writers left is cleared away"


OVER = {"steps": 2, "accumulate": 1}


@pytest.fixture(scope="module")
def over(tmp_path_factory):
    """A run of two steps that has ended: its training file and folder."""
    folder = tmp_path_factory.mktemp("over")
    path = tiny(folder, **OVER)
    sit(path, folder / "work")
    return path, folder / "work"


def test_checkpoints_hold_plain_values_only(over):
    state = torch.load(over[1] / FOLDER / LAST, weights_only=True)
    assert state["global_step"] == 2
    assert state[OURS]["seconds"] > 0
    assert state[OURS]["best"]["weights"].keys() <= {n.removeprefix("network.") for n in state["state_dict"]}


def test_a_run_that_is_over_is_not_trained_again(over, monkeypatch):
    monkeypatch.setattr(loop.SegmentationTask, "training_step", None)
    network = sit(*over)
    assert same(network.state_dict(), read_checkpoint(over[1] / FOLDER / LAST)[OURS]["best"]["weights"])


@pytest.mark.parametrize("change", [{"learning_rate": 0.5}, {"seed": 3}, {"augment": {"blur": 0.5}}])
def test_another_training_file_is_refused_in_one_line_that_names_the_keys(over, change):
    other = load_config(tiny(over[0].parent, **OVER | change), {})
    with pytest.raises(
        SpecError, match=f"last.ckpt: is of another training: {next(iter(change))} changed"
    ) as told:
        found_checkpoint(over[1], other, fresh=False)
    assert "\n" not in str(told.value)


def test_what_does_not_decide_the_weights_may_change(over, tmp_path):
    other = tiny(tmp_path, **OVER | {"notes": ["moved"], "threads": 2, "workers": 2})
    assert found_checkpoint(over[1], load_config(other, {}), fresh=False) is not None


def test_other_labels_than_the_checkpoints_are_refused(over, tmp_path):
    path = tiny(tmp_path, **OVER)
    write_scene(tmp_path, "town", labels_of()[::-1].copy())
    (tmp_path / "work").symlink_to(over[1])
    with pytest.raises(SpecError, match="other scenes or labels"):
        sit(path, tmp_path / "work")


def test_fresh_begins_anew(tmp_path):
    path = tiny(tmp_path, steps=2)
    folder = tmp_path / "work"
    for name in (FOLDER, "log"):
        (folder / name).mkdir(parents=True)
        (folder / name / "old").touch()
    (folder / FOLDER / LAST).write_bytes(b"another run's")
    with pytest.raises(SourceError, match=r"last.ckpt: cannot be read as a checkpoint .*--fresh"):
        found_checkpoint(folder, load_config(path, {}), fresh=False)
    assert found_checkpoint(folder, load_config(path, {}), fresh=True) is None
    (tmp_path / "town.tif").rename(tmp_path / "away.tif")
    with pytest.raises(SourceError, match=r"town\.tif: no such file"):
        learn(load_config(path, {}), folder, progress_bar=False, fresh=True)
    assert (folder / FOLDER / LAST).read_bytes() == b"another run's", (
        "a run that cannot begin takes nothing away"
    )
    (tmp_path / "away.tif").rename(tmp_path / "town.tif")
    learn(load_config(path, {}), folder, progress_bar=False, fresh=True)
    assert read_checkpoint(folder / FOLDER / LAST)["global_step"] == 2
    assert not list(folder.rglob("old"))


def test_a_checkpoint_cannot_run_code(tmp_path):
    class Code:
        def __reduce__(self):
            return os.system, ("touch run",)

    torch.save({OURS: Code()}, tmp_path / LAST)
    with pytest.raises(SourceError, match="cannot be read as a checkpoint"):
        read_checkpoint(tmp_path / LAST)
    assert not Path("run").exists()


def test_the_time_limit_counts_all_sittings(tmp_path, monkeypatch):
    path = tiny(tmp_path, steps=1000, validate_every=1000, max_minutes=1)
    folder = tmp_path / "work"
    monkeypatch.setattr(
        loop.StopInTime, "on_train_batch_end", lambda _, trainer, *__: setattr(trainer, "should_stop", True)
    )
    sit(path, folder)  # ended by hand after the first batch
    state = read_checkpoint(folder / FOLDER / LAST)
    state[OURS] |= {"over": False, "seconds": 100.0}
    torch.save(state, folder / FOLDER / LAST)
    monkeypatch.undo()
    sit(path, folder)
    ended = read_checkpoint(folder / FOLDER / LAST)
    assert 100 < ended[OURS]["seconds"] < 160
    assert ended["global_step"] < 5


def fill_up(path: Path, folder: Path, limit: int) -> None:
    fill_disk(limit)
    try:
        sit(path, folder)
    except OutputError as error:
        (folder / "told").write_text(str(error))


def test_a_full_disk_is_one_line_and_leaves_the_last_checkpoint(over, tmp_path):
    path = tiny(tmp_path)
    folder = tmp_path / "work"
    assert apart(sit_and_die, path, folder, "step", 7) == -signal.SIGKILL
    before = (folder / FOLDER / LAST).read_bytes()
    assert apart(fill_up, path, folder, len(before) // 2) == 0
    told = (folder / "told").read_text()
    assert "last.ckpt: cannot be written (File too large)" in told and "\n" not in told
    assert (folder / FOLDER / LAST).read_bytes() == before
    assert [p.name for p in (folder / FOLDER).iterdir()] == [LAST]
