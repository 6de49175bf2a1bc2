"""Ray with several nodes, several scenes, and parts of it that fail: the results are those of the local engine.

Whatever drives Ray runs in a process of its own: where its raylet or its control store dies, Ray ends the driver too.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from tests.run.nodes import cluster
from tests.run.results import assert_equal, descendants, run, write_scene

GEOSEG = str(Path(sys.executable).parent / "geoseg")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> dict[str, Any]:
    """A large scene and two small ones, and their results on the local engine."""
    folder = tmp_path_factory.mktemp("world")
    sides = {"large": 800, "small": 200, "little": 150}
    scenes = [write_scene(folder / f"{name}.tif", side, side, seed=side) for name, side in sides.items()]
    for scene in scenes:
        assert run(scene, folder / "reference", tiny_bundle, report=False) == 0
    return {"scenes": scenes, "model": tiny_bundle, "reference": folder / "reference"}


def check(world: dict[str, Any], out: Path, scenes: list[Path] | None = None) -> None:
    for scene in scenes or world["scenes"]:
        assert_equal(world["reference"] / scene.stem, out / scene.stem)


def command(
    world: dict[str, Any], out: Path, *options: object, scenes: list[Path] | None = None
) -> list[str]:
    return [
        "run", *map(str, scenes or world["scenes"]), "-o", str(out), "--model", str(world["model"]),
        "--block-px", "128", "--no-report", *map(str, options),
    ]  # fmt: skip


def geoseg(arguments: list[str], program: tuple[str, ...] = (GEOSEG,)) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*program, *arguments], capture_output=True, text=True, timeout=140, check=False)


@pytest.mark.timeout(240)
def test_scenes_share_the_workers_and_a_lost_node_costs_nothing(
    world: dict[str, Any], tmp_path: Path
) -> None:
    """A node is killed while its actors map."""
    with cluster({"num_cpus": 2}) as made:

        def kill() -> None:
            while len(list(tmp_path.glob(".geoseg/large/blocks-*/*.tif"))) < 3:
                time.sleep(0.02)
            made.kill(0)

        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        done = geoseg(command(world, tmp_path, "--address", made.address, "--workers", "1:3"))
        assert done.returncode == 0, done.stderr
        killer.join(10)
        assert not killer.is_alive()
    check(world, tmp_path)
    summary = json.loads((tmp_path / "run.json").read_text())
    assert [scene["name"] for scene in summary["scenes"]] == ["large", "small", "little"]


@pytest.mark.timeout(300)
def test_a_lost_worker_is_told_with_its_blocks_and_prometheus_is_told_all(
    world: dict[str, Any], tmp_path: Path
) -> None:
    from geoseg.run.meters import METERS

    model, scene = world["model"], world["scenes"][0]
    events = driver("tests.run.measured_pool", model, scene, tmp_path)
    assert {event["run"] for event in events} == {events[0]["run"]}
    told = {kind: [event for event in events if event["event"] == kind] for kind in EVENTS}
    assert told["found"][0]["meters"] == sorted(METERS)

    (lost,) = told["worker_lost"]
    joined = [event["worker"] for event in told["worker_joined"]]
    assert len(set(joined)) == len(joined) == 2
    assert lost["worker"] == joined[0]
    (mapped,) = told["mapped"]
    assert len(mapped["blocks"]) == len(set(mapped["blocks"])) == 49
    assert [event["bottleneck"] for event in told["waiting"]] == ["workers"]
    assert mapped["bottleneck"] in ("read", "network", "write")
    tried = {event["block"] for event in told["retry"]}
    assert tried <= set(mapped["blocks"])
    assert 1 <= len(tried) == len(told["retry"]) <= 3  # what the one worker had, with its one lane
    for event in told["retry"]:
        assert (event["scene"], event["worker"], event["losses"]) == ("large", lost["worker"], 1)
        assert f"large: block {event['block']} is tried again: its worker was lost (" in event["text"]


def test_the_readme_lists_the_meters() -> None:
    from geoseg.run.meters import METERS

    readme = (Path(__file__).parents[2] / "infra/README.md").read_text()
    listed = dict(re.findall(r"^\| `(geoseg_\w+)` \| (.*) \|$", readme, re.M))
    assert listed == METERS


EVENTS = ("worker_joined", "worker_lost", "retry", "waiting", "mapped", "found")


def driver(module: str, *arguments: object) -> list[dict[str, Any]]:
    """The events of a module that drives Ray in a process of its own; again where Ray itself did not start.

    On a busy machine Ray may also give up the agent that hands meters on, for the life of a process: then there are
    none at all.
    """
    for turn in range(3):
        folder = Path(str(arguments[-1]), str(turn))
        folder.mkdir()
        done = geoseg([*map(str, arguments[:-1]), str(folder)], (sys.executable, "-m", module))
        events = [json.loads(line) for line in done.stdout.splitlines()]
        if events and events[-1].get("meters") != []:
            break
    assert events, f"Ray did not start: {done.stderr[-4000:]}"
    died = "".join(path.read_text()[-2000:] for path in sorted(Path(events[0]["logs"]).glob("raylet*.err")))
    assert done.returncode == 0, f"{done.stderr[-4000:]}\n{died}"
    return events


IMPATIENT = """
from geoseg.cli import main
from geoseg.run import schedule
schedule.LEAST_LIMIT_S, schedule.FIRST_LIMIT_S, schedule.SLOWER = 4.0, 60.0, 4.0
main()
"""


@pytest.mark.timeout(180)
def test_a_worker_that_does_not_answer_is_given_up(world: dict[str, Any], tmp_path: Path) -> None:
    """Stopped, not killed: as when its link is cut, nothing says that it is gone."""
    import psutil

    stopped: list[psutil.Process] = []

    def stop() -> None:
        while not any(tmp_path.glob(".geoseg/large/blocks-*/*.tif")):
            time.sleep(0.02)
        for process in descendants("ray::SegmentActor"):
            if not stopped:
                stopped.append(process)
                process.send_signal(signal.SIGSTOP)

    threading.Thread(target=stop, daemon=True).start()
    try:
        done = geoseg(
            command(world, tmp_path, "--engine", "ray", "--workers", 2), (sys.executable, "-c", IMPATIENT)
        )
        assert done.returncode == 0, done.stderr
    finally:
        for process in stopped:
            with suppress(psutil.Error):
                process.send_signal(signal.SIGCONT)
    assert stopped
    check(world, tmp_path)


def spoil(source: Path, target: Path, tile: str = "1_1") -> Path:
    """A copy with one tile that cannot be decoded."""
    with rasterio.open(source) as dataset:
        offset = int(dataset.get_tag_item(f"BLOCK_OFFSET_{tile}", "TIFF", bidx=1))
    content = bytearray(source.read_bytes())
    content[offset : offset + 64] = b"\xff" * 64
    target.write_bytes(content)
    return target


def test_a_block_that_always_fails_costs_only_its_scene_on_ray(world: dict[str, Any], tmp_path: Path) -> None:
    bad, good, out = spoil(world["scenes"][0], tmp_path / "bad.tif"), world["scenes"][1], tmp_path / "out"
    with cluster({"num_cpus": 1}) as made:
        done = geoseg(command(world, out, "--address", made.address, "--json", scenes=[bad, good]))
    assert done.returncode == 1, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert ["blocks could not be mapped" in event["text"] for event in told if event["event"] == "error"] == [
        True
    ]
    assert not (out / "bad").exists()
    check(world, out, [good])
    assert len(list(out.glob(".geoseg/bad/blocks-*/*.tif"))) > 20


def test_a_block_that_always_fails_is_named_and_costs_only_its_scene(
    world: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, other = world["scenes"][1], world["scenes"][0]
    bad = spoil(other, tmp_path / "bad.tif")
    out, scenes = tmp_path / "out", (str(bad), str(good))
    options = {"scenes": scenes, "block_px": 128, "report": False}
    assert run(bad, out, world["model"], **options) == 1
    assert "blocks could not be mapped" in capsys.readouterr().err
    assert not (out / "bad").exists()
    check(world, out, [good])
    stamps = {p.name: p.stat().st_mtime_ns for p in out.glob(".geoseg/bad/blocks-*/*.tif")}
    assert len(stamps) > 20

    assert run(bad, out, world["model"], **options) == 1
    assert stamps == {p.name: p.stat().st_mtime_ns for p in out.glob(".geoseg/bad/blocks-*/*.tif")}

    assert run(bad, out, world["model"], **options, allow_partial=True) == 1
    assert "there the map is nodata" in capsys.readouterr().err
    with (
        rasterio.open(out / "bad/landcover.tif") as partial,
        rasterio.open(world["reference"] / "large/landcover.tif") as whole,
    ):
        found, expected = partial.read(1), whole.read(1)
    hole = (found == 255) & (expected != 255)
    assert 0 < hole.sum() <= 512 * 512  # the tile, and what the patches of its neighbors see of it
    assert np.array_equal(found[~hole], expected[~hole])
    assert json.loads((out / "run.json").read_text())["partial"]["bad"]

    bad.write_bytes(other.read_bytes())
    assert run(bad, out, world["model"], **options) == 0
    assert_equal_pixels(out / "bad", world["reference"] / "large")


def assert_equal_pixels(a: Path, b: Path) -> None:
    with rasterio.open(a / "landcover.tif") as first, rasterio.open(b / "landcover.tif") as second:
        assert np.array_equal(first.read(1), second.read(1))


def test_of_two_runs_of_one_job_one_maps_and_the_other_waits(world: dict[str, Any], tmp_path: Path) -> None:
    command = [
        GEOSEG, "run", *map(str, world["scenes"]), "-o", str(tmp_path), "--model", str(world["model"]),
        "--block-px", "128", "--workers", "1", "--no-report",
    ]  # fmt: skip
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sum(text.count("nothing to do") for text in said) == 3
    check(world, tmp_path)
    assert not list(tmp_path.glob(".geoseg/*/lease.json"))
