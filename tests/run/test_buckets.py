"""Scenes, blocks, ledgers and results in a bucket: a run there is the run on disk, whatever the storage does."""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from geoseg.io import remote
from geoseg.io.identity import content_of, source_identity
from geoseg.io.places import gdal_name, place_of
from geoseg.io.rasters import open_raster
from geoseg.io.remote import Remote
from geoseg.run.lease import leased
from tests.run.results import contents, run, write_labels, write_polygons, write_scene
from tests.run.storage import KEYS, Fault, Proxy, proxy_before, request, s3_server

GEOSEG = str(Path(sys.executable).parent / "geoseg")
NUMBERS = itertools.count()
"""Of buckets: GDAL keeps what it has read by name, so that no two tests may share one."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("moto")
    with s3_server(tmp_path_factory.mktemp("s3") / "log.txt") as address:
        yield address


@pytest.fixture(scope="module")
def front(server: str) -> Iterator[Proxy]:
    with proxy_before(server) as made:
        yield made


@pytest.fixture
def proxy(server: str, front: Proxy) -> Iterator[Proxy]:
    """A fresh bucket behind a proxy that passes everything on, and the environment that names it."""
    front.fails(Fault())
    name = f"maps-{next(NUMBERS)}"
    assert request(server, "PUT", f"/{name}") == 200
    with patch.dict(os.environ, {**KEYS, **endpoint(front.address), "TEST_BUCKET": name}):
        remote._store_of.cache_clear()
        yield front
    remote._store_of.cache_clear()


def endpoint(address: str) -> dict[str, str]:
    """As a user sets it, and what geoseg makes of it for GDAL, which tests in one process set anew."""
    from geoseg.io.rasters import _endpoint

    told = {"AWS_ENDPOINT_URL": address}
    return {**told, **_endpoint(told)}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> dict[str, Any]:
    """A scene with labels and regions, and its results on disk."""
    folder = tmp_path_factory.mktemp("world")
    scene = write_scene(folder / "scene.tif", 420, 380)
    labels = write_labels(folder / "labels.tif", scene)
    regions = write_polygons(folder / "regions.gpkg", [(10, 10, 200, 300), (190, 100, 370, 400)])
    inputs = {"labels": str(labels), "regions": str(regions)}
    assert run(scene, folder / "disk", tiny_bundle, engine="local", block_px=128, **inputs) == 0
    return {"folder": folder, "scene": scene, "model": tiny_bundle, "inputs": inputs}


def bucket(name: str) -> Remote:
    """A place in this test's bucket."""
    return Remote(f"s3://{os.environ['TEST_BUCKET']}/{name}")


def put(path: Path, name: str = "") -> Remote:
    place = bucket(f"in/{name or path.name}")
    place.upload(path)
    return place


def fetch(place: Remote, folder: Path) -> Path:
    """All objects below, as files."""
    for found in place.walk_files():
        target = folder / found.url.removeprefix(place.url + "/")
        target.parent.mkdir(parents=True, exist_ok=True)
        found.download(target)
    return folder


def as_on_disk(folder: Path) -> dict[str, Any]:
    """Everything that must be equal; the recipe names the source by the digest that its storage keeps."""
    found = contents(folder)
    for name in ("landcover.tif", "confidence.tif"):
        found[name][4].pop("GEOSEG_RECIPE")
    return found


def mapped(world: dict[str, Any], out: Remote, **options: Any) -> int:
    inputs = {name: str(put(Path(path))) for name, path in world["inputs"].items()}
    scene = {"path": str(put(world["scene"])), **inputs}
    job = {"scenes": [scene], "output": str(out), "model": str(world["model"]), "block_px": 128, **options}
    file = world["folder"] / "job.yaml"
    file.write_text(json.dumps({"engine": "local", "workers": 2, **job}))
    return subprocess.run([GEOSEG, "run", "--job", str(file)], check=False).returncode


def assert_as_on_disk(world: dict[str, Any], out: Remote, folder: Path) -> None:
    here = as_on_disk(fetch(out / "scene", folder / "scene"))
    there = as_on_disk(world["folder"] / "disk" / "scene")
    assert list(here) == list(there)
    for name, content in there.items():
        assert here[name] == content, f"{name} differs"


def assert_same_map(world: dict[str, Any], out: Remote, folder: Path) -> None:
    here, there = fetch(out / "scene", folder), world["folder"] / "disk" / "scene"
    assert as_on_disk(here)["landcover.tif"] == as_on_disk(there)["landcover.tif"]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("engine", ["local", "ray"])
def test_a_run_in_a_bucket_is_the_run_on_disk(
    world: dict[str, Any], proxy: Proxy, tmp_path: Path, engine: str
) -> None:
    out = bucket("out")
    assert mapped(world, out, engine=engine) == 0
    assert_as_on_disk(world, out, tmp_path)
    summary = json.loads((out / "run.json").read_bytes())
    assert summary["scenes"][0]["status"] == "done"
    kept = sorted(
        place.url.removeprefix(out.url + "/") for place in out.walk_files() if ".geoseg" in place.url
    )
    assert kept == [".geoseg/scene/ledger.json", ".geoseg/scene/made.json"]
    assert {"index.html", "catalog.json", "run.json"} <= {place.name for place in out.iterdir()}

    proxy.fails(Fault())
    assert mapped(world, out, engine=engine, report=False) == 0
    assert json.loads((out / "run.json").read_bytes())["scenes"][0]["status"] == "unchanged"
    written = {path for method, path, _ in proxy.seen if method == "PUT" and "/out/scene/" in path}
    assert not written


@pytest.mark.timeout(240)
def test_storage_that_fails_now_and_then_costs_nothing(
    world: dict[str, Any], proxy: Proxy, tmp_path: Path
) -> None:
    """Every seventh request or so is answered with 500 or 503, late, cut short in the middle, or not at all."""
    out = bucket("out")
    place = put(world["scene"])
    proxy.fails(Fault((500, 503, "cut", "refused", "slow"), share=0.15))
    assert run(place, out, world["model"], engine="local", block_px=128, report=False) == 0
    assert len({kind for *_, kind in proxy.seen} - {None}) == 5
    proxy.fails(Fault())
    assert_same_map(world, out, tmp_path)


def test_a_killed_run_goes_on_from_its_blocks(world: dict[str, Any], proxy: Proxy, tmp_path: Path) -> None:
    out = bucket("out")
    scene = put(world["scene"])
    command = [GEOSEG, "run", str(scene), "-o", str(out), "--model", str(world["model"])]
    command += ["--engine", "local", "--block-px", "128", "--no-report"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)

    def blocks() -> set[str]:
        below = (out / ".geoseg" / "scene").walk_files()
        return {place.name for place in below if place.suffix == ".tif"}

    while len(blocks()) < 3:
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.02)
    process.kill()
    process.wait()
    before = blocks()
    proxy.fails(Fault())
    assert run(scene, out, world["model"], engine="local", block_px=128, report=False) == 0
    again = {
        path.rsplit("/", 1)[1] for method, path, _ in proxy.seen if method == "PUT" and "/blocks-" in path
    }
    assert not before & again
    summary = json.loads((out / "run.json").read_bytes())["scenes"][0]
    assert summary["blocks_found"] >= len(before)
    assert_same_map(world, out, tmp_path)


def test_of_two_that_want_a_lease_one_gets_it(proxy: Proxy) -> None:
    """Conditional writes decide, also where the answer to the one that got through is lost."""
    path = bucket("out/.geoseg/a/lease.json")
    proxy.fails(Fault(("cut",), "PUT", most=1))
    waits: list[str] = []
    with leased(path, waits.append) as first:
        assert any(kind == "cut" for *_, kind in proxy.seen) and not waits
        first.check()
        got = threading.Event()

        def second() -> None:
            with leased(path, waits.append):
                got.set()

        thread = threading.Thread(target=second, daemon=True)
        thread.start()
        assert not got.wait(3)
        assert len(waits) == 1
    assert got.wait(20)
    thread.join(10)
    assert not path.is_file()


def test_a_lease_whose_owner_is_gone_is_taken_over(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    from geoseg.run import lease

    monkeypatch.setattr(lease, "DEAD_S", 1.0)
    path = bucket("lease.json")
    path.write_bytes(b'{"owner": "another", "beat": 7, "host": "elsewhere", "pid": 1}')
    with leased(path, lambda holder: None) as taken:
        taken.check()


def test_a_revoked_key_is_one_line_and_the_run_goes_on_later(
    world: dict[str, Any], proxy: Proxy, capsys: pytest.CaptureFixture[str]
) -> None:
    out = bucket("out")
    scene = put(world["scene"])
    proxy.fails(Fault((403,), "/blocks-", after=14))
    assert run(scene, out, world["model"], engine="local", block_px=128, report=False) != 0
    said = capsys.readouterr().err
    errors = [line for line in said.splitlines() if line.startswith("error:")]
    assert errors and all("access is denied" in line for line in errors), said
    assert "Traceback" not in said
    proxy.fails(Fault())
    assert run(scene, out, world["model"], engine="local", block_px=128, report=False) == 0
    assert json.loads((out / "run.json").read_bytes())["scenes"][0]["blocks_found"] >= 2


def test_a_bucket_that_goes_away_is_one_line(
    world: dict[str, Any], proxy: Proxy, capsys: pytest.CaptureFixture[str]
) -> None:
    out = bucket("out")
    scene = put(world["scene"])
    proxy.fails(Fault((404,), "PUT /", after=8))
    assert run(scene, out, world["model"], engine="local", block_px=128, report=False) != 0
    said = capsys.readouterr().err
    errors = [line for line in said.splitlines() if line.startswith("error:")]
    assert errors and any(f"there is no bucket {out.root}" in line for line in errors), said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("scene", "line"),
    [
        ("s3://{}/in/none.tif", "in/none.tif: no such object"),
        ("s3://nowhere/none.tif", "there is no bucket s3://nowhere"),
    ],
)
def test_what_is_not_there_is_one_line(
    proxy: Proxy, tmp_path: Path, scene: str, line: str, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(Path("x"), tmp_path, tiny_bundle, scenes=(scene.format(bucket("").root[5:]),)) == 2
    assert line in capsys.readouterr().err


def test_a_content_is_known_by_its_tag_or_read_once(
    proxy: Proxy, world: dict[str, Any], tmp_path: Path
) -> None:
    """Touched and copied objects are the same source; one put in parts has a tag that is no digest."""
    small = put(world["scene"])
    first = source_identity(str(small))
    assert content_of(source_identity(str(put(world["scene"], "copies/scene.tif")))) == content_of(first)
    large = tmp_path / "large.bin"
    large.write_bytes(random.Random(0).randbytes(40 << 20))
    there = put(large)
    assert "-" in (there.head().tag or "")
    proxy.fails(Fault())
    found = source_identity(str(there))
    assert content_of(found) == content_of(source_identity(str(large)))
    read = sum(method == "GET" for method, *_ in proxy.seen)
    assert read >= 3
    assert source_identity(str(there), found) == found
    assert sum(method == "GET" for method, *_ in proxy.seen) == read


def test_windows_are_read_by_ranges(proxy: Proxy, tmp_path: Path) -> None:
    """A window of a large raster takes a small part of it."""
    from rasterio.windows import Window

    scene = write_scene(tmp_path / "wide.tif", 2048, 2048)
    place = put(scene)
    with open_raster(str(place)) as there, open_raster(scene) as here:
        window = Window(300, 300, 200, 200)
        assert (there.read(window=window) == here.read(window=window)).all()
    got = [path for method, path, _ in proxy.seen if method == "GET" and path.endswith("wide.tif")]
    assert 0 < len(got) < 12


def test_patterns_find_what_pathlib_finds(proxy: Proxy, tmp_path: Path) -> None:
    names = ["a.tif", "b.TIF", "x/a.tif", "x/y/c.tif", "x/y/d.txt", "x.tif/e.tif", "[z]/a.tif"]
    for name in names:
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"1")
        bucket(f"tree/{name}").write_bytes(b"1")
    top = bucket("tree")
    for pattern in (
        "*.tif",
        "**/*.tif",
        "x/*",
        "*/a.tif",
        "x/**/*.tif",
        "x/y/?.tif",
        "none/*.tif",
        "x/a.tif",
    ):
        here = {path.relative_to(tmp_path / "tree").as_posix() for path in (tmp_path / "tree").glob(pattern)}
        there = {place.url.removeprefix(top.url + "/") for place in top.glob(pattern)}
        assert {name for name in here if (tmp_path / "tree" / name).is_file()} == {
            n for n in there if n in names
        }, pattern


def test_a_place_stays_in_its_bucket() -> None:
    assert place_of("/vsis3/bucket/a/b.tif") == Remote("s3://bucket/a/b.tif")
    assert gdal_name("gs://bucket/a/b.tif") == "/vsigs/bucket/a/b.tif"
    assert gdal_name("az://box/a.tif") == "/vsiaz/box/a.tif"
    assert Remote("s3://bucket/a/b/item.json").linked("../c.tif") == Remote("s3://bucket/a/c.tif")
    for leaves in ("s3://bucket/../other/a", "s3://bucket/a/../../b"):
        with pytest.raises(ValueError):
            Remote(leaves)
    with pytest.raises(ValueError):
        Remote("s3://bucket/a.json").linked("../../c.tif")


@pytest.mark.parametrize("output", ["s3:/bucket/out", "ftp://host/out", "https://host/out"])
def test_a_place_that_cannot_be_written_to_is_refused(tmp_path: Path, output: str) -> None:
    refused = subprocess.run(
        [GEOSEG, "run", "a.tif", "-o", output], capture_output=True, text=True, cwd=tmp_path
    )
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1 and output in refused.stderr
    assert not list(tmp_path.iterdir())


def test_status_and_figures_read_a_bucket(world: dict[str, Any], proxy: Proxy, tmp_path: Path) -> None:
    out = str(bucket("out"))
    done = subprocess.run([GEOSEG, "status", out], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, f"error: {out}: holds no run of geoseg\n")
    assert (
        run(put(world["scene"]), Remote(out), world["model"], engine="local", block_px=256, report=False) == 0
    )
    done = subprocess.run([GEOSEG, "status", out], capture_output=True, text=True)
    assert done.returncode == 0 and "scene  done" in done.stdout, done
    compared = subprocess.run(
        [GEOSEG, "compare", f"{out}/scene", f"{out}/scene/landcover.tif", "-o", str(tmp_path / "compared")],
        capture_output=True,
        text=True,
    )
    assert compared.returncode == 0, compared.stderr
    refused = subprocess.run(
        [GEOSEG, "vectorize", f"{out}/scene/landcover.tif", "-o", f"{out}/v.gpkg"],
        capture_output=True,
        text=True,
    )
    assert refused.returncode == 2 and "writes to disk only" in refused.stderr


def test_a_night_on_a_prefix(world: dict[str, Any], proxy: Proxy, tmp_path: Path) -> None:
    """Scenes below a prefix, masks beside them, results and history in the bucket; the second night finds nothing."""
    from geoseg.run.events import LineReporter
    from geoseg.run.nights import list_scenes, read_history, read_night_job, run_night

    for name in ("north", "south"):
        put(world["scene"], f"day/{name}.tif")
    put(world["scene"], "day/readme.txt")
    job = tmp_path / "night.yaml"
    fields = {
        "output": str(bucket("nights")),
        "model": str(world["model"]),
        "engine": "local",
        "report": False,
    }
    job.write_text(json.dumps({"sources": [{"prefix": str(bucket("in/day"))}], "job": fields}))
    night, base = read_night_job(str(job))
    assert list(list_scenes(night, base).scenes) == ["north", "south"]
    first = run_night(night, base, LineReporter())
    assert (first.exit_code, first.done) == (0, ["north", "south"])
    second = run_night(night, base, LineReporter())
    assert (second.exit_code, second.done, second.unchanged) == (0, [], ["north", "south"])
    history = read_history(bucket("nights"))
    assert len(history["nights"]) == 2 and history["hectares"]["north"]
    glob = {**json.loads(job.read_text()), "sources": [{"glob": str(bucket("in")) + "/*/n*.tif"}]}
    job.write_text(json.dumps(glob))
    assert list(list_scenes(*read_night_job(str(job))).scenes) == ["north"]
