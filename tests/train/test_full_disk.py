"""A training on a disk that fills up: one line, nothing half-written, and it goes on once there is room."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from geoseg.cli import main
from geoseg.model.bundle import Bundle
from geoseg.train import loop
from geoseg.train.checkpoints import FOLDER, LAST
from tests.train.scenes import SMALL, write_run


def call(path: Path, output: Path) -> tuple[int, list[str], list[str]]:
    done = CliRunner().invoke(main, ["train", str(path), "-o", str(output)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return done.exit_code, errors, done.stderr.splitlines()


def used_kib(folder: Path) -> int:
    return sum(path.stat().st_blocks for path in folder.rglob("*") if path.is_file()) // 2


@pytest.fixture
def training(tmp_path) -> Path:
    return write_run(tmp_path, **SMALL | {"steps": 4, "validate_every": 2})


@pytest.mark.parametrize("kib", [4, 12, 500])
def test_a_disk_too_small_for_logs_or_checkpoints(training, small_disk, kib):
    disk = small_disk(kib)
    code, errors, lines = call(training, disk / "town")
    assert code == 2 and len(errors) == 1 and errors == lines[-1:]
    assert str(disk / "town.training") in errors[0] and "No space left on device" in errors[0]
    assert not (disk / "town").exists()
    assert not list(disk.rglob("*.ckpt"))


def test_what_was_learned_waits_for_room(training, small_disk, monkeypatch):
    """The disk fills up as the run ends: at its scores, in its weights, in OpenVINO's files, at the page."""
    disk = small_disk(32_000)
    with monkeypatch.context() as patch:
        patch.setattr("geoseg.train.trainer.finish", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            CliRunner().invoke(
                main, ["train", str(training), "-o", str(disk / "town")], catch_exceptions=False
            )
    checkpoint = disk / "town.training" / FOLDER / LAST
    learned = checkpoint.read_bytes()
    monkeypatch.setattr(loop.SegmentationTask, "training_step", None)
    for room in (8, 300, 600):
        small_disk(used_kib(disk) + room)
        code, errors, lines = call(training, disk / "town")
        assert code == 2 and len(errors) == 1 and errors == lines[-1:], (room, lines)
        assert str(disk / "town") in errors[0] and "cannot be written" in errors[0].replace(
            "could not", "cannot"
        )
        assert not (disk / "town").exists() and not list(disk.glob(".town*")), room
        assert checkpoint.read_bytes() == learned
    small_disk(32_000)
    code, errors, _ = call(training, disk / "town")
    assert (code, errors) == (0, [])
    assert Bundle.open(disk / "town").card.scores
    assert (disk / "town.training" / "training.html").is_file()
