"""What others see of a run: while it goes, when it is killed, and when it is over."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from geoseg.cli import main
from geoseg.errors import SourceError
from geoseg.run.events import Quiet, Watched
from geoseg.run.lease import leased
from geoseg.run.pace import NETWORK
from geoseg.run.status import format_status, status_of
from tests.run.results import run, write_scene

GEOSEG = str(Path(sys.executable).parent / "geoseg")


def states(output: Path) -> dict[str, str]:
    return {scene.name: scene.state for scene in status_of(output).scenes}


def test_a_run_is_seen_while_it_goes_and_when_it_is_killed(tiny_bundle: Path, tmp_path: Path) -> None:
    scenes = [write_scene(tmp_path / f"{name}.tif", 900, 900, seed=n) for n, name in enumerate("ab")]
    out = tmp_path / "out"
    command = [
        GEOSEG, "run", *map(str, scenes), "-o", str(out), "--model", str(tiny_bundle), "--block-px", "128",
        "--workers", "1", "--no-report",
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not any(out.glob(".geoseg/a/blocks-*/*.tif")):
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(19)  # stopped, so that it does not end while it is looked at
    paused = status_of(out, watch_s=3)
    assert not paused.running
    process.send_signal(18)
    time.sleep(2.5)
    if process.poll() is None:
        live = status_of(out, watch_s=3)
        assert live.running or process.poll() is not None
        if live.running:
            assert {"running"} <= {scene.state for scene in live.scenes}
            assert "on " in next(scene.detail for scene in live.scenes if scene.state == "running")
            assert live.ended is None
    process.kill()
    process.wait()
    cut = status_of(out, watch_s=0.1)
    assert not cut.running
    assert {scene.state for scene in cut.scenes} <= {"stopped", "done", "waiting"}
    assert run(scenes[0], out, tiny_bundle, scenes=tuple(map(str, scenes)), report=False) == 0
    assert states(out) == {"a": "done", "b": "done"}


def test_the_bottleneck_of_a_running_scene_is_told(tmp_path: Path) -> None:
    with leased(tmp_path / ".geoseg/a/lease.json", lambda _: None) as lease:
        reporter = Watched(Quiet(), lease.now)
        reporter.stage("a", "map", 50.0, 10.0)
        reporter.advance(11.0, NETWORK)
        (scene,) = status_of(tmp_path).scenes
        assert (scene.state, scene.detail) == (
            "running", f"map 42 %, network-bound on {socket.gethostname()}",
        )  # fmt: skip
        reporter.stage("a", "merge", 50.0)
        (scene,) = status_of(tmp_path).scenes
        assert scene.detail == f"merge on {socket.gethostname()}"


def test_a_failed_scene_is_named_with_its_reason(tiny_bundle: Path, tmp_path: Path) -> None:
    good = write_scene(tmp_path / "good.tif", 200, 200)
    bad = tmp_path / "bad.tif"
    bad.write_bytes(good.read_bytes()[:2000])
    assert run(good, tmp_path / "out", tiny_bundle, scenes=(str(good), str(bad)), report=False) == 1
    found = status_of(tmp_path / "out")
    assert states(tmp_path / "out") == {"good": "done", "bad": "failed"}
    assert "1 done, 1 failed; ended" in format_status(found)

    tried = CliRunner().invoke(main, ["status", str(tmp_path / "out"), "--json"])
    assert tried.exit_code == 1
    said = json.loads(tried.stdout)
    assert str(bad) in next(scene["detail"] for scene in said["scenes"] if scene["name"] == "bad")


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no run of geoseg"):
        status_of(tmp_path)
