"""Ray with several nodes, several scenes, and parts of it that fail: the results are those of the local engine."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import rasterio

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


@contextmanager
def cluster(*nodes: dict[str, Any]) -> Iterator[Any]:
    """A real cluster of several nodes on loopback; this process joins it."""
    import ray
    from ray.cluster_utils import Cluster

    watch = {
        "health_check_initial_delay_ms": 0,
        "health_check_period_ms": 500,
        "health_check_failure_threshold": 4,
    }
    head = {"num_cpus": 1, "include_dashboard": False, "_system_config": watch}
    made = Cluster(initialize_head=True, head_node_args=head)
    try:
        made.nodes = [made.add_node(**node) for node in nodes]
        made.wait_for_nodes()
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


def check(world: dict[str, Any], out: Path, scenes: list[Path] | None = None) -> None:
    for scene in scenes or world["scenes"]:
        assert_equal(world["reference"] / scene.stem, out / scene.stem)


def many(world: dict[str, Any], out: Path, **options: Any) -> int:
    scenes = tuple(str(scene) for scene in world["scenes"])
    return run(world["scenes"][0], out, world["model"], scenes=scenes, block_px=128, report=False, **options)


@pytest.mark.timeout(240)
def test_scenes_share_the_workers_and_a_lost_node_costs_nothing(
    world: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A node is killed while its actors map."""
    with cluster({"num_cpus": 2}) as made:

        def kill() -> None:
            while len(list(tmp_path.glob(".geoseg/large/blocks-*/*.tif"))) < 3:
                time.sleep(0.02)
            made.remove_node(made.nodes[0], allow_graceful=False)

        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        assert many(world, tmp_path, engine="ray", address=made.address, workers="1:3") == 0
        killer.join(10)
        assert not killer.is_alive()
    check(world, tmp_path)
    summary = json.loads((tmp_path / "run.json").read_text())
    assert [scene["name"] for scene in summary["scenes"]] == ["large", "small", "little"]


@pytest.mark.timeout(180)
def test_what_prometheus_is_told(world: dict[str, Any], tmp_path: Path) -> None:
    import ray

    from geoseg.grid.lattice import Blocks, Lattice
    from geoseg.io.blockstore import BlockStore
    from geoseg.io.sources import open_scene
    from geoseg.model.bundle import Bundle
    from geoseg.model.runtimes import RuntimeChoice, SegmenterRecipe
    from geoseg.run.job import Workers
    from geoseg.run.meters import METERS
    from geoseg.run.on_ray import RayEngine
    from geoseg.run.work import SceneWork
    from geoseg.spec import SegmentSpec

    bundle, spec = Bundle.open(world["model"]), SegmentSpec(256, 64)
    scene = open_scene(str(world["scenes"][1]), bundle.card.input_spec)
    lattice = Lattice(scene.grid.height, scene.grid.width, spec)
    quick = {"metrics_report_interval_ms": 300}
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, _system_config=quick)
    engine = RayEngine(SegmenterRecipe.of(bundle, spec, RuntimeChoice.decide(bundle.card)), Workers(1, 1))
    try:
        store = BlockStore(tmp_path, "key")
        work = SceneWork(scene, lattice, bundle.card.legend, store, engine.proof())
        assert len(list(engine.segment(work, Blocks.of(lattice, 128)))) == 4
        found: set[str] = set()
        wanted = METERS.keys() - {"geoseg_workers_lost"}
        while not wanted <= found:
            time.sleep(0.3)
            (node,) = ray.nodes()
            where = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
            with suppress(OSError):  # its port is not known at once
                page = urllib.request.urlopen(where, timeout=10).read().decode()
                found |= set(re.findall(r"^ray_(geoseg_[a-z_]+?)(?:_total|_bucket)?[{ ]", page, re.M))
    finally:
        engine.close()
        ray.shutdown()
    assert found - {"geoseg_block_seconds_count", "geoseg_block_seconds_sum"} <= METERS.keys()


@pytest.mark.timeout(180)
def test_a_worker_that_does_not_answer_is_given_up(world: dict[str, Any], tmp_path: Path) -> None:
    """Stopped, not killed: as when its link is cut, nothing says that it is gone."""
    import psutil

    from geoseg.run import schedule

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
        with patch.multiple(schedule, LEAST_LIMIT_S=4.0, FIRST_LIMIT_S=60.0, SLOWER=4.0):
            assert many(world, tmp_path, engine="ray", workers=2) == 0
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


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_a_block_that_always_fails_is_named_and_costs_only_its_scene(
    world: dict[str, Any], tmp_path: Path, engine: str, capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    if engine == "ray":
        request.getfixturevalue("two_cores")
    good, other = world["scenes"][1], world["scenes"][0]
    bad = spoil(other, tmp_path / "bad.tif")
    out, scenes = tmp_path / "out", (str(bad), str(good))
    options = {"scenes": scenes, "block_px": 128, "report": False, "engine": engine}
    assert run(bad, out, world["model"], **options) == 1
    said = capsys.readouterr().err
    assert "blocks could not be mapped" in said
    assert not (out / "bad").exists()
    check(world, out, [good])
    stamps = {p.name: p.stat().st_mtime_ns for p in out.glob(".geoseg/bad/blocks-*/*.tif")}
    assert len(stamps) > 20
    if engine == "ray":
        return

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
