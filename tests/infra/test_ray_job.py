"""A run that is handed to a cluster as a Ray Job, as KubeRay does: the same results, and a state that tells the end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.run.results import assert_equal, run, write_scene
from tests.run.storage import free_port

BIN = Path(sys.executable).parent


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.fixture
def head(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The head of a cluster with its dashboard, on loopback; the environment that finds it."""
    pytest.importorskip("aiohttp_cors")
    gcs, dashboard = free_port(), free_port()
    folder = Path("/tmp", f"rj{os.getpid()}")
    environment = {**os.environ, "RAY_ADDRESS": f"http://127.0.0.1:{dashboard}", "RAY_AUTH_MODE": "disabled"}
    command = [
        BIN / "ray", "start", "--head", "--block", "--node-ip-address", "127.0.0.1", f"--port={gcs}", "--num-cpus=2",
        "--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
        f"--temp-dir={folder}",
    ]  # fmt: skip
    with (tmp_path / "head.txt").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, "RAY_AUTH_MODE": "disabled"}
        )
    try:
        until = time.monotonic() + 180
        while not answers(f"http://127.0.0.1:{dashboard}/api/jobs/"):
            assert process.poll() is None and time.monotonic() < until, (tmp_path / "head.txt").read_text()
            time.sleep(0.5)
        yield environment
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.timeout(480)
def test_a_run_as_a_ray_job_is_the_run_on_this_machine(
    head: dict[str, str], tiny_bundle: Path, tmp_path: Path
) -> None:
    scene = write_scene(tmp_path / "scene.tif", 300, 300)
    assert run(scene, tmp_path / "here", tiny_bundle, engine="local", report=False) == 0
    done = submit(head, "run", scene, "--model", tiny_bundle, "--no-report", "-o", tmp_path / "there")
    assert done.returncode == 0, done.stdout + done.stderr
    assert_equal(tmp_path / "here" / "scene", tmp_path / "there" / "scene")
    failed = submit(head, "run", "none.tif", "-o", tmp_path / "x")
    assert failed.returncode != 0
    assert "no such file" in failed.stdout + failed.stderr


def submit(head: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    """Hand a command of geoseg in and wait for its end; again, as Ray asks for, while the head has no agent yet."""
    command = [BIN / "ray", "job", "submit", "--", BIN / "geoseg", *arguments, "--address", "auto"]
    until = time.monotonic() + 180
    while True:
        done = subprocess.run(list(map(str, command)), env=head, capture_output=True, text=True)
        if "No available agent" not in done.stderr or time.monotonic() > until:
            return done
        time.sleep(1)
