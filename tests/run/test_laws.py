"""The law through the whole job: rasters, polygons and scores do not depend on how the work was done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import rasterio
import rasterio.shutil
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geoseg.demo.scene import render_demo
from geoseg.errors import SpecError
from geoseg.model.bundle import DEFAULT_BUNDLE
from geoseg.run.demo import SCENE, write_demo
from geoseg.run.engines import engine_name
from geoseg.run.job import make_job
from tests.run.nodes import cluster
from tests.run.results import (
    TRANSFORM,
    assert_equal,
    contents,
    descendants,
    run,
    write_labels,
    write_polygons,
    write_scene,
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> dict[str, Path]:
    """A scene with labels and regions, and its results with all defaults."""
    folder = tmp_path_factory.mktemp("world")
    scene = write_scene(folder / "scene.tif")
    made = {
        "scene": scene,
        "model": tiny_bundle,
        "labels": write_labels(folder / "labels.tif", scene),
        "regions": write_polygons(folder / "regions.gpkg", [(10, 10, 300.5, 400), (200, 350, 615, 690)]),
        "reference": folder / "reference",
    }
    assert run(scene, made["reference"], tiny_bundle, **scored(made)) == 0
    return made


def scored(world: dict[str, Path]) -> dict[str, Any]:
    return {"labels": str(world["labels"]), "regions": str(world["regions"])}


def test_the_reference_says_something(world: dict[str, Path]) -> None:
    found = contents(world["reference"] / "scene")
    assert set(found) >= {
        "landcover.tif", "confidence.tif", "vectors.gpkg:buildings", "vectors.gpkg:roads", "vectors.gpkg:regions",
        "metrics.json", "regions.csv",
    }  # fmt: skip
    counts = np.bincount(np.frombuffer(found["landcover.tif"][0], np.uint8), minlength=256)
    assert (counts[1:6] > 500).sum() >= 3
    assert counts[255] > 10_000
    assert len(found["vectors.gpkg:buildings"][3]) + len(found["vectors.gpkg:roads"][3]) > 10


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(block_px=st.integers(1, 900), workers=st.integers(1, 3))
def test_blocks_and_workers_change_nothing(
    world: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, block_px: int, workers: int
) -> None:
    out = tmp_path_factory.mktemp("cut")
    assert run(world["scene"], out, world["model"], block_px=block_px, workers=workers, **scored(world)) == 0
    assert_equal(world["reference"] / "scene", out / "scene")


@pytest.mark.parametrize(
    "options", [{"blend": "hann"}, {"tta": "d4"}, {"blend": "hann", "tta": "d4"}, {"gsd": 1.1}], ids=str
)
def test_blends_symmetries_and_resampling_obey_too(
    world: dict[str, Path], tmp_path: Path, options: dict[str, Any]
) -> None:
    for block_px in (128, 4000):
        assert (
            run(world["scene"], tmp_path / str(block_px), world["model"], block_px=block_px, **options) == 0
        )
    assert_equal(tmp_path / "128" / "scene", tmp_path / "4000" / "scene")


@pytest.mark.timeout(180)
def test_ray_on_two_cores_gives_what_local_gives(world: dict[str, Path], tmp_path: Path) -> None:
    """Two one-core actors on two cores: the other stages must find a place beside them."""
    on_two_cores(world, tmp_path)
    assert_equal(world["reference"] / "scene", tmp_path / "scene")


def on_two_cores(world: dict[str, Path], out: Path) -> str:
    """Map the scene; returns the events."""
    with cluster(head_cpus=2) as made:
        ray = ("--engine", "ray", "--address", made.address, "--workers", "2", "--json")
        done = subprocess.run(command(world, out, *ray), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def small_memory() -> Iterator[Callable[[int], None]]:
    """A group of processes with next to no memory of its own: the kernel kills what is put there and asks for more."""
    first = (
        Path("/sys/fs/cgroup/memory") if Path("/sys/fs/cgroup/memory").is_dir() else Path("/sys/fs/cgroup")
    )
    group = first / f"geoseg-{os.getpid()}"
    limit = (
        "memory.max" if (Path("/sys/fs/cgroup") / "cgroup.controllers").is_file() else "memory.limit_in_bytes"
    )
    try:
        group.mkdir()
        (group / limit).write_text(str(4 << 20))
    except OSError as error:
        with suppress(OSError):
            group.rmdir()
        pytest.skip(f"no group with limited memory can be made here ({error})")
    try:
        yield lambda pid: (group / "cgroup.procs").write_text(str(pid)) and None
    finally:
        for _ in range(50):  # what was killed leaves it a little later
            with suppress(OSError):
                group.rmdir()
                break
            time.sleep(0.1)


@pytest.mark.timeout(180)
# What is freed may be taken again without new pages, so that now and then the kernel has no reason to kill.
@pytest.mark.parametrize("how", ["killed", pytest.param("out of memory", marks=pytest.mark.soak)])
def test_an_actor_that_is_gone_costs_nothing(world: dict[str, Path], tmp_path: Path, how: str) -> None:
    hit: list[psutil.Process] = []

    def strike(end: Callable[[psutil.Process], object]) -> None:
        while not any(tmp_path.glob(".geoseg/scene/blocks-*/*.tif")):
            time.sleep(0.02)
        for process in descendants("ray::SegmentActor")[:1]:
            hit.append(process)
            end(process)

    with ExitStack() as stack:
        end: Callable[[psutil.Process], object] = psutil.Process.kill
        if how == "out of memory":
            squeeze = stack.enter_context(small_memory())
            end = lambda process: squeeze(process.pid)  # noqa: E731
        threading.Thread(target=strike, args=(end,), daemon=True).start()
        events = on_two_cores(world, tmp_path)
    assert hit
    assert events.count('"event": "worker_lost"') == 1
    assert_equal(world["reference"] / "scene", tmp_path / "scene")


@pytest.mark.timeout(180)
def test_a_private_ray_instance_listens_on_loopback_only(world: dict[str, Path], tmp_path: Path) -> None:
    process = psutil.Popen(command(world, tmp_path, "--engine", "ray"), stderr=subprocess.DEVNULL)
    heard: set[str] = set()
    while process.poll() is None:
        for member in process.children(recursive=True):
            with suppress(psutil.Error):
                heard |= {
                    c.laddr.ip for c in member.net_connections("inet") if c.status == psutil.CONN_LISTEN
                }
        time.sleep(0.3)
    assert process.returncode == 0
    assert heard
    assert heard <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def test_an_area_of_interest_masks_the_output_and_nothing_else(
    world: dict[str, Path], tmp_path: Path
) -> None:
    aoi = write_polygons(tmp_path / "aoi.gpkg", [(100.2, 220.7, 333.3, 470.1)])
    assert run(world["scene"], tmp_path / "out", world["model"], aoi=str(aoi), block_px=128) == 0
    for name in ("landcover.tif", "confidence.tif"):
        with (
            rasterio.open(world["reference"] / "scene" / name) as a,
            rasterio.open(tmp_path / "out/scene" / name) as b,
        ):
            whole, part = a.read(1), b.read(1)
            assert (a.transform, a.crs, a.shape) == (b.transform, b.crs, b.shape)
        inside = np.zeros(whole.shape, bool)
        inside[221:470, 100:333] = True
        assert np.array_equal(part[inside], whole[inside])
        assert (part[~inside] == 255).all()


def command(world: dict[str, Path], out: Path, *more: str) -> list[str]:
    return [
        str(Path(sys.executable).parent / "geoseg"), "run", str(world["scene"]), "-o", str(out),
        "--model", str(world["model"]), "--labels", str(world["labels"]), "--regions", str(world["regions"]),
        "--block-px", "128", "--workers", "1", *more,
    ]  # fmt: skip


@pytest.mark.parametrize("kills", [10, pytest.param(100, marks=pytest.mark.soak)])
def test_a_run_that_is_killed_goes_on_where_it_was(
    world: dict[str, Path], tmp_path: Path, kills: int
) -> None:
    """Killed at random, before the first block or after the last; a recorded block is never redone."""
    rng = np.random.default_rng(kills)
    stamps: dict[str, int] = {}
    for _ in range(kills):
        process = subprocess.Popen(
            command(world, tmp_path), stderr=subprocess.DEVNULL, start_new_session=True
        )
        time.sleep(float(rng.uniform(0.5, 6)))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for path in tmp_path.glob(".geoseg/scene/blocks-*/r*.tif"):
            assert stamps.setdefault(path.name, path.stat().st_mtime_ns) == path.stat().st_mtime_ns
        final = (
            sorted(p.name for p in (tmp_path / "scene").glob("*")) if (tmp_path / "scene").exists() else []
        )
        assert not [name for name in final if name.startswith(".")]
    done = subprocess.run(command(world, tmp_path), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert_equal(world["reference"] / "scene", tmp_path / "scene")
    assert not list(tmp_path.glob(".geoseg/scene/blocks-*"))


def test_a_finished_scene_is_left_alone(
    world: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(world["scene"], tmp_path, world["model"]) == 0
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "scene").iterdir()}
    os.utime(world["scene"])
    assert run(world["scene"], tmp_path, world["model"], engine="ray", block_px=256) == 0
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "scene").iterdir()} == before
    assert "nothing to do" in capsys.readouterr().err


def test_labels_that_come_later_add_scores_and_leave_the_map(world: dict[str, Path], tmp_path: Path) -> None:
    assert run(world["scene"], tmp_path, world["model"]) == 0
    before = (tmp_path / "scene/landcover.tif").stat().st_mtime_ns
    assert run(world["scene"], tmp_path, world["model"], **scored(world)) == 0
    assert (tmp_path / "scene/landcover.tif").stat().st_mtime_ns == before
    assert_equal(world["reference"] / "scene", tmp_path / "scene")


def test_a_changed_scene_is_mapped_again(
    world: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = write_scene(tmp_path / "scene.tif", seed=5)
    assert run(scene, tmp_path / "out", world["model"]) == 0
    write_scene(scene)
    assert run(scene, tmp_path / "out", world["model"]) == 0
    assert "has changed (source)" in capsys.readouterr().err
    for name in ("landcover.tif", "confidence.tif"):
        assert contents(tmp_path / "out/scene")[name] == contents(world["reference"] / "scene")[name]


def test_a_vrt_is_as_new_as_its_members(world: dict[str, Path], tmp_path: Path) -> None:
    write_scene(tmp_path / "part.tif", seed=5)
    vrt = tmp_path / "scene.vrt"
    rasterio.shutil.copy(tmp_path / "part.tif", vrt, driver="VRT")
    assert run(vrt, tmp_path / "out", world["model"]) == 0
    before = contents(tmp_path / "out/scene")["landcover.tif"]
    write_scene(tmp_path / "part.tif")
    assert run(vrt, tmp_path / "out", world["model"]) == 0
    after = contents(tmp_path / "out/scene")["landcover.tif"]
    assert after[0] == contents(world["reference"] / "scene")["landcover.tif"][0] != before[0]


def test_an_address_asks_for_ray_and_one_machine_does_not() -> None:
    job = {"scenes": ("a.tif",), "output": "out", "runtime": "openvino"}
    assert engine_name(make_job(job)) == "local"
    assert engine_name(make_job({**job, "address": "auto"})) == "ray"


def test_other_parameters_are_refused_in_the_same_folder(world: dict[str, Path], tmp_path: Path) -> None:
    assert run(world["scene"], tmp_path, world["model"]) == 0
    before = contents(tmp_path / "scene")
    assert run(world["scene"], tmp_path, world["model"], margin_px=32) == 2
    assert contents(tmp_path / "scene") == before
    assert run(world["scene"], tmp_path, world["model"], margin_px=32, overwrite=True) == 0
    assert contents(tmp_path / "scene") != before


def test_two_scenes_of_one_name_are_refused(world: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="would both write to"):
        run(world["scene"], tmp_path, world["model"], scenes=("a/x.tif", "b/x.tif"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["raster", "other grid", "polygons"])
def test_masked_pixels_are_nodata_and_enter_the_network_as_the_mean(
    world: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    """A mask gives the same map as a scene whose own nodata lies there."""
    hole = (200, 300, 400, 500)
    with rasterio.open(world["scene"]) as source:
        image, profile = source.read(), source.profile
    image[:, hole[1] : hole[3], hole[0] : hole[2]] = 0
    (tmp_path / "own").mkdir()
    with rasterio.open(tmp_path / "own/scene.tif", "w", **profile) as out:
        out.write(image)
    if kind == "polygons":
        mask, values = write_polygons(tmp_path / "mask.gpkg", [hole]), ()
    else:
        step, mask, values = (1 if kind == "raster" else 100), tmp_path / "mask.tif", (3, 9)
        cells = np.full((profile["height"] // step, profile["width"] // step + 1), 1, np.uint8)
        cells[hole[1] // step : hole[3] // step, hole[0] // step : hole[2] // step] = 9
        cells = cells[:, : profile["width"]] if step == 1 else cells
        shape = {
            "height": cells.shape[0],
            "width": cells.shape[1],
            "transform": TRANSFORM @ TRANSFORM.scale(step),
        }
        with rasterio.open(mask, "w", **{**profile, **shape, "count": 1, "nodata": None}) as out:
            out.write(cells, 1)
    assert run(tmp_path / "own/scene.tif", tmp_path / "a", world["model"]) == 0
    assert run(world["scene"], tmp_path / "b", world["model"], mask=str(mask), mask_values=values) == 0
    own, masked = contents(tmp_path / "a/scene"), contents(tmp_path / "b/scene")
    assert own["landcover.tif"][0] == masked["landcover.tif"][0]
    assert own["confidence.tif"][0] == masked["confidence.tif"][0]


def test_torch_and_openvino_agree(tmp_path: Path) -> None:
    """On a drawn scene, with the bundled model: float16 weights in OpenVINO's file cost a label in a few thousand."""
    write_demo(render_demo(seed=3, size=768), tmp_path)
    found = []
    for runtime in ("torch", "openvino"):
        out = tmp_path / runtime
        assert run(tmp_path / SCENE, out, DEFAULT_BUNDLE, runtime=runtime, precision="float32") == 0
        found.append(contents(out / Path(SCENE).stem))
    labels = [np.frombuffer(c["landcover.tif"][0], np.uint8) for c in found]
    assert (labels[0] == labels[1]).mean() > 0.998
