"""The local cluster: the same map as without it, deaf to the network and to strangers, and gone when it is done."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import psutil
import pytest

from tests.run.results import assert_equal, run, write_scene

SCRIPT = Path(__file__).parents[2] / "infra" / "two_nodes.py"
GEOSEG = Path(sys.executable).with_name("geoseg")
JOIN = """
import ray
ray.init(address="auto", log_to_driver=False, logging_level="ERROR")
print("nodes", sum(node["Alive"] for node in ray.nodes()))
"""

pytestmark = pytest.mark.timeout(240)


@dataclass
class Watched:
    """A cluster, and what was seen of its processes."""

    process: subprocess.Popen[str]
    seen: set[psutil.Process] = field(default_factory=set)
    listens: set[str] = field(default_factory=set)

    def look(self) -> None:
        for process in psutil.Process(self.process.pid).children(recursive=True):
            try:
                connections = process.net_connections("inet")
            except psutil.Error:
                continue
            self.seen.add(process)
            self.listens |= {c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN}

    def until(self, done: Callable[[], object]) -> None:
        deadline = time.monotonic() + 180
        while not done() and time.monotonic() < deadline:
            if psutil.pid_exists(self.process.pid) and self.process.poll() is None:
                self.look()
            time.sleep(0.2)
        assert done(), "it took too long"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Watched]]:
    """Starts the script; what it says goes to `out` and `err` of its home."""
    home = tmp_path / "home"
    home.mkdir()
    started: list[subprocess.Popen[str]] = []

    def go(*arguments: str | Path) -> Watched:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        with (home / "out").open("w") as out, (home / "err").open("w") as err:
            process = subprocess.Popen(
                [sys.executable, SCRIPT, *arguments], stdout=out, stderr=err, text=True,
                env={**kept, "HOME": str(home), "OMP_NUM_THREADS": "1"}, cwd=home,
            )  # fmt: skip
        started.append(process)
        return Watched(process)

    yield go
    for process in started:
        process.terminate()
        process.wait(60)


def alive(processes: set[psutil.Process]) -> list[str]:
    return [p.name() for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture
def decoy(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process of somebody else's cluster, as far as its name tells; `ray stop` would end it."""
    program = tmp_path / "raylet"
    shutil.copy(shutil.which("sleep") or "", program)
    process = subprocess.Popen([program, "300"])
    yield process
    process.kill()
    process.wait()


def test_it_maps_as_one_machine_does_and_leaves_nothing_behind(
    tiny_bundle: Path, tmp_path: Path, start: Callable[..., Watched], decoy: subprocess.Popen[bytes]
) -> None:
    scene = write_scene(tmp_path / "scene.tif", 300, 280)
    assert run(scene, tmp_path / "local", tiny_bundle, block_px=128, report=False) == 0
    watched = start(
        "--", GEOSEG, "run", scene, "-o", tmp_path / "ray", "--model", tiny_bundle,
        "--address", "auto", "--block-px", "128", "--no-report",
    )  # fmt: skip
    watched.until(lambda: watched.process.poll() is not None)
    assert watched.process.returncode == 0, (tmp_path / "home" / "err").read_text()
    assert_equal(tmp_path / "local" / "scene", tmp_path / "ray" / "scene")
    assert len(watched.seen) > 6
    assert watched.listens
    assert all(mapped(address).is_loopback for address in watched.listens), watched.listens
    assert alive(watched.seen) == []
    assert decoy.poll() is None


def mapped(address: str) -> IPv4Address | IPv6Address:
    """IPv4 where the address is one inside IPv6."""
    found = ip_address(address)
    return getattr(found, "ipv4_mapped", None) or found


def test_it_takes_only_who_has_its_token_and_ends_when_told(
    tmp_path: Path, start: Callable[..., Watched], decoy: subprocess.Popen[bytes]
) -> None:
    watched = start()
    said = tmp_path / "home" / "out"
    watched.until(lambda: "RAY_AUTH_TOKEN_PATH=" in said.read_text())
    lines = [line.removeprefix("export ") for line in said.read_text().splitlines()]
    join = dict(line.split("=", 1) for line in lines)
    token = Path(join["RAY_AUTH_TOKEN_PATH"])
    assert token.stat().st_mode & 0o777 == 0o600
    assert token.parent.stat().st_mode & 0o777 == 0o700
    assert token.read_text() not in said.read_text() + (tmp_path / "home" / "err").read_text()
    with client(join) as friend:
        assert friend.communicate(timeout=120)[0].splitlines()[-1] == "nodes 2"
    wrong = {key: value for key, value in join.items() if key != "RAY_AUTH_TOKEN_PATH"}
    with client({**wrong, "RAY_AUTH_TOKEN": "0" * 64}) as stranger:
        assert stranger.stdout is not None
        assert "InvalidAuthToken" in next(line for line in stranger.stdout if "cluster ID" in line)
        stranger.kill()  # it would try for twenty seconds
    watched.look()
    watched.process.send_signal(signal.SIGTERM)
    assert watched.process.wait(60) == 128 + signal.SIGTERM
    assert watched.seen
    assert alive(watched.seen) == []
    assert not token.parent.exists()
    assert decoy.poll() is None


def client(environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", JOIN], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **environment},
    )  # fmt: skip


def test_its_exit_code_is_that_of_the_command(capfd: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("two_nodes", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module._run([sys.executable, "-c", "raise SystemExit(7)"]) == 7
    assert module._run(["/no/such/program"]) == 127
    assert "/no/such/program" in capfd.readouterr().err


def test_it_ends_processes_by_id_only() -> None:
    text = SCRIPT.read_text()
    assert "ray stop" not in text.replace("never `ray stop`", "")
    assert not {"pkill", "killall"} & set(text.split())
