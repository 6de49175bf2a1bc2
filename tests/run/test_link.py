"""Two Ray nodes in network namespaces of their own, and the link between them cut in the middle of a run."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.run.results import assert_equal, run, write_scene

BIN = Path(sys.executable).parent
HEAD, WORKER, PORT = "10.77.0.1", "10.77.0.2", 6379
QUICK = {
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "4",
}
"""How soon Ray takes a silent node for dead; by itself it waits up to a minute."""

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None, reason="network namespaces need root and iproute2"
)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextmanager
def two_nodes(folder: Path, env: dict[str, str]) -> Iterator[tuple[str, str]]:
    """The namespaces of a head and a worker, a core each."""
    spaces, links = (f"gsh{os.getpid()}", f"gsw{os.getpid()}"), (f"v{os.getpid()}a", f"v{os.getpid()}b")
    try:
        for space in spaces:
            ip("netns", "add", space)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespace can be made ({error.stderr.decode().strip()})")
    nodes: list[subprocess.Popen[bytes]] = []
    short = Path(tempfile.mkdtemp(prefix="ray"))  # paths of sockets have 107 characters at most
    try:
        ip("link", "add", links[0], "type", "veth", "peer", "name", links[1])
        for space, link, address in zip(spaces, links, (HEAD, WORKER), strict=True):
            ip("link", "set", link, "netns", space)
            ip("-n", space, "addr", "add", f"{address}/24", "dev", link)
            ip("-n", space, "link", "set", "lo", "up")
            ip("-n", space, "link", "set", link, "up")
        join = (["--head", f"--port={PORT}", "--include-dashboard=false"], [f"--address={HEAD}:{PORT}"])
        for space, address, how in zip(spaces, (HEAD, WORKER), join, strict=True):
            log = (folder / f"{space}.log").open("wb")
            command = [
                "ip", "netns", "exec", space, str(BIN / "ray"), "start", "--block", "--num-cpus=1",
                "--object-store-memory=100000000", "--disable-usage-stats", f"--node-ip-address={address}",
                f"--temp-dir={short / space[:3]}", *how,
            ]  # fmt: skip
            nodes.append(
                subprocess.Popen(command, stdout=log, stderr=log, env=env | QUICK, start_new_session=True)
            )
            wait_for(space, f"</dev/tcp/{HEAD}/{PORT}")
        yield spaces
    finally:
        for node in nodes:
            os.killpg(node.pid, signal.SIGKILL)
        shutil.rmtree(short, ignore_errors=True)
        for space in spaces:
            listed = subprocess.run(
                ["ip", "netns", "pids", space], capture_output=True, text=True, check=False
            )
            for pid in listed.stdout.split():
                os.kill(int(pid), signal.SIGKILL)
            subprocess.run(["ip", "netns", "del", space], check=False, capture_output=True)


def wait_for(space: str, test: str) -> None:
    for _ in range(120):
        tried = subprocess.run(
            ["ip", "netns", "exec", space, "bash", "-c", test], check=False, capture_output=True
        )
        if tried.returncode == 0:
            return
        time.sleep(0.25)
    pytest.fail(f"{test} did not come true")


@pytest.mark.timeout(240)
def test_a_cut_link_costs_time_and_nothing_else(tiny_bundle: Path, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", 1000, 1000)
    assert run(scene, tmp_path / "reference", tiny_bundle, report=False) == 0
    out = tmp_path / "out"
    token = tmp_path / "token"
    token.write_text(secrets.token_hex(32))
    env = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    with two_nodes(tmp_path, env) as (head, worker):
        command = [
            "ip", "netns", "exec", head, str(BIN / "geoseg"), "run", str(scene), "-o", str(out), "--model",
            str(tiny_bundle), "--address", f"{HEAD}:{PORT}", "--workers", "2", "--block-px", "128", "--no-report",
        ]  # fmt: skip
        driver = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env)
        while len(list(out.glob(".geoseg/scene/blocks-*/*.tif"))) < 4:
            assert driver.poll() is None, driver.stderr and driver.stderr.read()
            time.sleep(0.02)
        ip("-n", worker, "link", "set", f"v{os.getpid()}b", "down")
        said = driver.communicate(timeout=200)[1]
    assert driver.returncode == 0, said
    assert_equal(tmp_path / "reference" / "scene", out / "scene")
