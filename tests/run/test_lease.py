"""One holder at a time, whatever is killed, and no clock of another machine is believed."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from unittest.mock import patch

import pytest

from geoseg.errors import OutputError
from geoseg.run import lease as module
from geoseg.run.lease import leased, read_lease

OTHER_HOST = {"owner": "x", "beat": 3, "host": "far away", "pid": 1}


@pytest.fixture(autouse=True)
def quick():
    with patch.multiple(module, BEAT_S=0.05, DEAD_S=0.6, LOOK_S=0.02):
        yield


def silent(_: str) -> None:
    pass


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    path, holders, most = tmp_path / "x" / "lease.json", [], []

    def hold(number: int) -> None:
        for _ in range(3):
            with leased(path, silent):
                holders.append(number)
                most.append(len(holders))
                time.sleep(0.02)
                holders.remove(number)

    threads = [threading.Thread(target=hold, args=(n,)) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 15
    assert list(path.parent.iterdir()) == []


def test_its_counter_rises_and_it_says_what_its_owner_does(tmp_path: Path) -> None:
    with leased(tmp_path / "lease.json", silent) as lease:
        lease.now["stage"] = "map"
        beats = []
        for _ in range(3):
            time.sleep(0.12)
            beats.append(read_lease(lease.path)["beat"])
        assert beats == sorted(set(beats))
        assert read_lease(lease.path)["stage"] == "map"
    assert read_lease(lease.path) is None


def test_a_lease_that_stands_still_is_taken_over_and_one_that_lives_is_not(tmp_path: Path) -> None:
    path = tmp_path / "lease.json"
    path.write_text(json.dumps(OTHER_HOST))
    told: list[str] = []
    begin = time.monotonic()
    with leased(path, told.append) as lease:
        lease.check()
    assert time.monotonic() - begin > 0.6
    assert told == ["process 1 on far away"]

    stop = threading.Event()

    def live() -> None:
        for beat in range(1000):
            if stop.wait(0.05):
                path.unlink()
                return
            path.write_text(json.dumps({**OTHER_HOST, "beat": beat}))

    path.write_text(json.dumps(OTHER_HOST))
    owner = threading.Thread(target=live)
    owner.start()
    threading.Timer(1.5, stop.set).start()
    begin = time.monotonic()
    with leased(path, silent):
        assert time.monotonic() - begin > 1.4
    owner.join()


def test_a_process_of_this_machine_that_is_gone_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "lease.json"
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom geoseg.run.lease import leased\n"
        "with leased(Path(sys.argv[1]), print):\n    os._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 9
    assert path.exists()
    with patch.object(module, "DEAD_S", 1000):
        begin = time.monotonic()
        with leased(path, silent):
            assert time.monotonic() - begin < 5


def test_who_was_stopped_for_long_learns_that_the_lease_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "lease.json"
    with leased(path, silent) as lease:
        lease.check()
        path.write_text(json.dumps(OTHER_HOST))
        with pytest.raises(OutputError, match="another run has taken this scene over"):
            lease.check()
        time.sleep(0.2)
    assert read_lease(path) == OTHER_HOST


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"owner": 3}', bytes(range(128, 168))], ids=str)
def test_a_broken_lease_is_taken_over_in_the_end(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "lease.json"
    path.write_bytes(content)
    with leased(path, silent) as lease:
        lease.check()


def test_of_two_that_clear_a_dead_lease_none_removes_the_others(tmp_path: Path) -> None:
    """The second comes too late: what it finds is a living lease, which it puts back."""
    path = tmp_path / "lease.json"
    dead, alive = json.dumps(OTHER_HOST).encode(), json.dumps({**OTHER_HOST, "owner": "y"}).encode()
    path.write_bytes(alive)
    module._clear(path, dead)
    assert path.read_bytes() == alive
    path.write_bytes(dead)
    module._clear(path, dead)
    assert list(tmp_path.iterdir()) == []
