"""One training at a time in a folder, and nothing to clean up after one that was killed: with real processes."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from geoseg.cli import main
from geoseg.errors import OutputError
from geoseg.train.lock import LOCK, alone_in
from geoseg.train.trainer import train
from tests.train.processes import SPAWN
from tests.train.scenes import SMALL, write_run


def crowd(folder: Path, rounds: int) -> None:
    """Enter again and again; a file of whoever is inside must not be there yet."""
    inside = folder.with_name("inside")
    entered = 0
    while entered < rounds:
        try:
            with alone_in(folder):
                inside.touch(exist_ok=False)
                time.sleep(0.0005)
                inside.unlink()
            entered += 1
        except OutputError as error:
            assert "another training is at work there" in str(error)


def test_of_many_one_at_a_time_is_inside(tmp_path):
    """Though each unlinks the lock file and the folder when it leaves."""
    many = [SPAWN.Process(target=crowd, args=(tmp_path / "town.training", 15)) for _ in range(4)]
    for process in many:
        process.start()
    for process in many:
        process.join(120)
    assert [process.exitcode for process in many] == [0] * 4
    assert not list(tmp_path.iterdir()), "nothing is left where nothing was made"


def wait_for(path: Path) -> None:
    end = time.monotonic() + 100
    while not path.exists():
        assert time.monotonic() < end, f"{path} does not appear"
        time.sleep(0.05)


def test_a_second_training_is_one_line_and_a_killed_one_leaves_the_way_free(tmp_path):
    """Killed with a loader's process at work, which lives on for seconds."""
    path = write_run(tmp_path, **SMALL | {"steps": 100_000, "validate_every": 2, "workers": 1})
    folder = tmp_path / "town.training"
    first = SPAWN.Process(target=train, args=(path, tmp_path / "town", False))
    first.start()
    try:
        wait_for(folder / "checkpoints" / "last.ckpt")
        second = CliRunner().invoke(main, ["train", str(path), "-o", str(tmp_path / "town"), "--fresh"])
        assert first.is_alive()
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.join(60)
    assert second.exit_code == 2
    who = f"process {first.pid} on {socket.gethostname()}"
    assert second.stderr.splitlines() == [
        f"error: {folder}: another training is at work there ({who}); wait until it ends, or give another folder "
        "with -o"
    ]
    assert (folder / "checkpoints" / "last.ckpt").is_file(), "the second has touched nothing"
    assert (folder / LOCK).is_file()
    with alone_in(folder):
        pass
    assert not (folder / LOCK).exists()


def test_a_disk_without_room_for_the_lock_is_one_line(small_disk):
    disk = small_disk(4)
    (disk / "full").write_bytes(bytes(4096))
    with (
        pytest.raises(OutputError, match=r"lock: cannot be written \(No space left on device\)"),
        alone_in(disk / "x"),
    ):
        raise AssertionError("entered")
    assert [path.name for path in disk.iterdir()] == ["full"]
