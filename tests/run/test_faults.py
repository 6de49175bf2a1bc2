"""What goes wrong around a run: readers that look at any moment, kills, clocks that jump, a disk that fills up."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pyogrio
import pytest
import rasterio

from tests.run.results import assert_equal, run, write_scene

GEOSEG = str(Path(sys.executable).parent / "geoseg")
FAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> dict[str, Path]:
    """Two pictures of one place, and their results."""
    folder = tmp_path_factory.mktemp("world")
    made = {"model": tiny_bundle}
    for seed, name in enumerate(("old", "new")):
        (folder / name).mkdir()
        made[name] = write_scene(folder / name / "scene.tif", 400, 420, seed=seed)
        assert run(made[name], folder / name / "out", tiny_bundle, report=False) == 0
        made[f"{name} results"] = folder / name / "out/scene"
    return made


def command(scene: Path, out: Path, model: Path, *more: str) -> list[str]:
    return [
        GEOSEG, "run", str(scene), "-o", str(out), "--model", str(model), "--block-px", "128", "--workers", "1",
        *more,
    ]  # fmt: skip


# Readers


def read_whole(path: Path) -> None:
    """Read all of a result as its users would. Raises an exception where it is not whole."""
    if path.suffix == ".tif":
        with rasterio.open(path) as dataset:
            dataset.read()
    elif path.suffix == ".gpkg":
        content = path.read_bytes()  # at once: another file may have the name when it is opened again
        for name, _ in pyogrio.list_layers(content):
            _, _, geometries, fields = pyogrio.raw.read(content, layer=name)
            assert {len(field) for field in fields} <= {pyogrio.read_info(content, layer=name)["features"]}
            assert geometries is None or len(geometries)
        with closing(sqlite3.connect(":memory:")) as base:
            base.deserialize(content)
            assert base.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    elif path.suffix == ".json":
        json.loads(path.read_text())
    elif path.suffix in (".qml", ".xml"):
        ET.fromstring(path.read_bytes())
    elif path.suffix == ".qgz":
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
    elif path.suffix == ".html":
        assert path.read_text().rstrip().endswith("</html>")
    else:
        assert path.read_bytes()


@contextmanager
def polled(*folders: Path) -> Iterator[Counter[str]]:
    """Readers that open all files of some folders again and again; counts what was read, by name."""
    read: Counter[str] = Counter()
    broken: list[str] = []
    over = threading.Event()

    def poll(folder: Path) -> None:
        while not over.is_set():
            for path in [*folder.glob("*")]:
                if path.name.startswith(".") or path.is_dir():
                    continue
                try:
                    read_whole(path)
                    read[path.name] += 1
                except Exception as error:
                    broken.append(f"{path}: {type(error).__name__}: {error}")
            over.wait(0.1)

    threads = [threading.Thread(target=poll, args=(folder,), daemon=True) for folder in folders]
    for thread in threads:
        thread.start()
    try:
        yield read
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert not broken, broken[:3]


class Changes:
    """What the kernel tells of changes in folders (inotify): each as its name and what was done to it."""

    MODIFY, MOVED_TO, CREATE, OVERFLOW, IS_DIR = 0x2, 0x80, 0x100, 0x4000, 0x40000000

    def __init__(self, *folders: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        for folder in folders:
            mask = self.MODIFY | self.MOVED_TO | self.CREATE
            assert libc.inotify_add_watch(self._descriptor, os.fsencode(folder), mask) >= 0

    def __iter__(self) -> Iterator[tuple[str, int]]:
        while True:
            try:
                content = os.read(self._descriptor, 1 << 16)
            except BlockingIOError:
                return
            while content:
                _, mask, _, length = struct.unpack_from("iIII", content)
                name, content = content[16 : 16 + length], content[16 + length :]
                assert not mask & self.OVERFLOW
                if not mask & self.IS_DIR:
                    yield name.rstrip(b"\0").decode(), mask


@pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")
def test_readers_never_see_half_a_file_while_a_scene_is_mapped_killed_and_mapped_anew(
    world: dict[str, Path], tmp_path: Path
) -> None:
    """Killed while its changed source is mapped, and right when the first of the new results is in its place."""
    scene, out = tmp_path / "scene.tif", tmp_path / "out"
    results = out / "scene"
    results.mkdir(parents=True)
    shutil.copy(world["old"], scene)
    again = command(scene, out, world["model"], "--no-report")

    def replaced() -> bool:
        return {path.name: path.stat().st_ino for path in results.glob("[!.]*")} != before

    changes = Changes(out, results)
    with polled(out, results) as read:
        assert run(scene, out, world["model"], report=False) == 0
        assert_equal(world["old results"], results)
        before = {path.name: path.stat().st_ino for path in results.glob("[!.]*")}
        shutil.copy(world["new"], scene)
        for moment in (lambda: any(out.glob(".geoseg/scene/blocks-*/r*.tif")), replaced):
            process = subprocess.Popen(again, stderr=subprocess.DEVNULL, text=True)
            while not moment() and process.poll() is None:
                time.sleep(0.001)
            process.kill()
            process.wait()
        assert run(scene, out, world["model"], block_px=128) == 0
        published = {p.name for p in [*results.iterdir(), *out.iterdir()] if p.is_file()}
        deadline = time.monotonic() + 10
        while not published <= read.keys() and time.monotonic() < deadline:
            time.sleep(0.1)
    assert_equal_but_reports(world["new results"], results)
    assert not [name for name in published if name.startswith(".")]
    assert published <= read.keys()
    assert {
        "landcover.tif",
        "vectors.gpkg",
        "item.json",
        "project.qgz",
        "report.html",
        "run.json",
    } <= published
    seen = [(name, mask) for name, mask in changes if not name.startswith(".")]
    assert {name for name, _ in seen} >= published
    assert not [name for name, mask in seen if mask != Changes.MOVED_TO], "written under its final name"


def assert_equal_but_reports(expected: Path, found: Path) -> None:
    """The run that made what is expected was asked for no report."""
    beside = found.parent / f"{found.name} without reports"
    shutil.rmtree(beside, ignore_errors=True)
    shutil.copytree(found, beside, ignore=shutil.ignore_patterns("*.html", "*.png"))
    assert_equal(expected, beside)
    shutil.rmtree(beside)


# Clocks


@pytest.mark.skipif(not FAKETIME, reason="libfaketime is not here: apt-get install faketime")
def test_a_clock_that_jumps_changes_nothing_and_takes_nobody_over(
    world: dict[str, Path], tmp_path: Path
) -> None:
    """Two runs on one folder: the clock of one jumps to and fro by hours, that of the other is two days ahead."""
    offset, out = tmp_path / "offset", tmp_path / "out"
    offset.write_text("+30h\n")
    over = threading.Event()

    def jump() -> None:
        while not over.is_set():
            for text in ("+30h\n", "-20h\n"):
                beside = offset.with_name("next")
                beside.write_text(text)
                beside.rename(offset)
                over.wait(0.2)

    def start(**clock: str) -> subprocess.Popen[str]:
        fake = {"LD_PRELOAD": str(FAKETIME[0]), "NO_FAKE_STAT": "1", **clock}
        begin = command(world["new"], out, world["model"], "--no-report", "--json")
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(begin, text=True, env={**os.environ, **fake}, **pipes)

    thread = threading.Thread(target=jump)
    thread.start()
    started = []
    try:
        jumping = start(FAKETIME_TIMESTAMP_FILE=str(offset), FAKETIME_NO_CACHE="1", DONT_FAKE_MONOTONIC="1")
        started.append(jumping)
        while not any(out.glob(".geoseg/scene/blocks-*/r*.tif")):
            assert jumping.poll() is None, events_of(jumping)
            time.sleep(0.01)
        jumping.send_signal(signal.SIGSTOP)  # until the other has found the lease
        ahead = start(FAKETIME="+48h")
        started.append(ahead)
        assert ahead.stdout is not None
        first = json.loads(ahead.stdout.readline())
        jumping.send_signal(signal.SIGCONT)
        mapping, waiting = events_of(jumping), [first, *events_of(ahead)]
    finally:
        over.set()
        thread.join()
        for process in started:
            process.kill()
    hours = [
        {round((event["time"] - time.time()) / 3600) for event in events} for events in (mapping, waiting)
    ]
    assert hours[0] <= {30, -20}
    assert hours[1] == {48}
    assert mapping[-1]["status"] == "done"
    assert [event["event"] for event in waiting] == ["note", "scene"]
    assert waiting[0]["text"].endswith("works on it; waiting")
    assert "nothing to do" in waiting[1]["text"]
    assert_equal(world["new results"], out / "scene")


def events_of(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """What a run told, if it ended well."""
    told, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    return [json.loads(line) for line in told.splitlines()]


# A full disk; more in tests/bad_input/test_outputs.py


FULL = ("No space left on device", "is the disk full?", " free")


def test_a_disk_that_is_full_when_a_scene_is_mapped_anew_keeps_what_was_published(
    world: dict[str, Path],
    tmp_path: Path,
    small_disk: Callable[[int], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nothing is left, or enough for all blocks, but not for the maps."""
    scene, out = tmp_path / "scene.tif", small_disk(32_000)
    options: dict[str, Any] = {"block_px": 128, "report": False}
    shutil.copy(world["old"], scene)
    assert run(scene, out, world["model"], **options) == 0
    shutil.copy(world["new"], scene)
    used = shutil.disk_usage(out).used // 1024
    for left in (0, 420):
        small_disk(used + left)
        capsys.readouterr()
        assert run(scene, out, world["model"], **options) != 0
        errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert all(any(words in line for words in FULL) for line in errors), errors
        assert len([line for line in errors if f"{out / 'run.json'}: " not in line]) == 1, errors
        assert_equal(world["old results"], out / "scene")
        assert not list(out.glob(".geoseg/scene/lease.json"))  # the next run would wait for nobody
    small_disk(32_000)
    assert run(scene, out, world["model"], **options) == 0
    assert_equal(world["new results"], out / "scene")
