"""Results that cannot be written, and what an earlier run left behind: no half results, nothing trusted unread."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from geoseg.grid.lattice import Block
from geoseg.grid.window import Window
from geoseg.io.blockstore import BlockStore
from geoseg.pixels.pixelblock import LabelBlock
from tests.bad_input.attempt import DONE, NOTHING_STARTED, SOME_FAILED, Try, attempt, write_raster
from tests.run.results import assert_equal, write_polygons, write_scene


@pytest.mark.parametrize("below", ["file", "file/below", "file/below/below"])
def test_a_path_below_a_file_is_no_folder(run: Try, good: Path, tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("in the way")
    output = tmp_path / below
    run(good, output=output).refused(NOTHING_STARTED, output, "cannot be made a folder for results")


@pytest.mark.parametrize(
    ("in_the_way", "code"),
    [(".geoseg", NOTHING_STARTED), ("good", SOME_FAILED), ("good/landcover.tif/x", SOME_FAILED)],
)
def test_something_in_the_way_of_results(
    run: Try, good: Path, tmp_path: Path, in_the_way: str, code: int
) -> None:
    path = tmp_path / "out" / in_the_way
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    tried = run(good)
    assert (tried.code, len(tried.errors)) == (code, 1)
    assert path.read_text() == "mine"
    assert "good/vectors.gpkg" not in tried.published


# A small disk


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Path:
    """A folder with a scene whose results compress badly, and its results in `out`."""
    folder = tmp_path_factory.mktemp("noisy")
    noise = np.random.default_rng(0).integers(1, 255, (3, 700, 900), np.uint8)
    scene = write_raster(folder / "s.tif", noise)
    assert attempt(folder / "out", scene, "--margin-px", 0, "--model", tiny_bundle).code == DONE
    return folder


@pytest.mark.parametrize("kib", [100, 240, 360, 480, 720])
def test_a_full_disk_costs_the_scene_and_more_space_finishes_it(
    run: Try, noisy: Path, tmp_path: Path, small_disk: Callable[[int], Path], kib: int
) -> None:
    """What the plan foresees is refused; what it does not, because noise compresses badly, is found while writing."""
    scene = noisy / "s.tif"
    tried = run(scene, "--margin-px", 0, output=small_disk(kib))
    foreseen = " free" in tried.errors[0]
    assert tried.code == (NOTHING_STARTED if foreseen else SOME_FAILED)
    assert (len(tried.errors), tried.published) == (1, [])
    assert "unexpected" not in tried.errors[0]
    assert foreseen or "cannot be written" in tried.errors[0]
    found = len(list((tmp_path / "disk").glob(".geoseg/s/blocks-*/*.tif")))
    assert run(scene, "--margin-px", 0, output=small_disk(32_000)).code == DONE
    assert summary(tmp_path / "disk")["blocks_found"] == found
    assert_equal(tmp_path / "disk" / "s", noisy / "out" / "s")


@pytest.mark.parametrize("kib", [4, 16, 100])
def test_a_disk_too_small_for_blocks(
    run: Try, noisy: Path, tmp_path: Path, small_disk: Callable[[int], Path], kib: int
) -> None:
    """An area of interest may be small: the plan counts only what is outside it."""
    aoi = write_polygons(tmp_path / "aoi.gpkg", [(0, 0, 900, 700)])
    tried = run(noisy / "s.tif", "--aoi", aoi, output=small_disk(kib))
    assert tried.code in (NOTHING_STARTED, SOME_FAILED)
    assert tried.published == []
    assert all("No space left on device" in line or " free" in line for line in tried.errors)


# What an earlier run left behind


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Path:
    """A folder with a scene and its results in `out`."""
    folder = tmp_path_factory.mktemp("finished")
    scene = write_scene(folder / "s.tif", 200, 300)
    assert attempt(folder / "out", scene, "--model", tiny_bundle).code == DONE
    return folder


@pytest.fixture
def left(finished: Path, tmp_path: Path) -> Path:
    """A copy of these results, to be spoiled."""
    return Path(shutil.copytree(finished / "out", tmp_path / "out"))


def summary(output: Path) -> dict[str, Any]:
    scene: dict[str, Any] = json.loads((output / "run.json").read_text())["scenes"][0]
    return scene


@pytest.mark.parametrize(
    ("options", "words"),
    [(["--margin-px", 32], "margin_px: 64 then, 32 now"), (["--tta", "d4"], "tta: none then, d4 now")],
)
def test_results_of_other_parameters_are_kept(
    run: Try, finished: Path, left: Path, options: list[object], words: str
) -> None:
    tried = run(finished / "s.tif", *options)
    assert (tried.code, len(tried.errors)) == (NOTHING_STARTED, 1)
    assert "holds results of other parameters" in tried.errors[0]
    assert words in tried.errors[0]
    assert_equal(left / "s", finished / "out" / "s")
    assert run(finished / "s.tif", *options, "--overwrite").code == DONE
    assert run(finished / "s.tif", *options).stderr[-1].startswith("s: unchanged")


def spoil(**fields: Any) -> Callable[[str], str]:
    return lambda text: json.dumps({**json.loads(text), **fields})


@pytest.mark.parametrize(
    "change",
    [
        lambda _: "",
        lambda text: text[: len(text) // 2],
        lambda _: "[]",
        lambda _: "[" * 100_000,
        spoil(recipe=[1]),
        spoil(block_px=-1, published={}),
        spoil(block_px="x", published={}),
        spoil(identities={"source": 5}),
        spoil(published={"map": 5}),
        spoil(surprise=1),
    ],
)
def test_a_corrupted_ledger_is_not_trusted(
    run: Try, finished: Path, left: Path, change: Callable[[str], str]
) -> None:
    ledger = left / ".geoseg" / "s" / "ledger.json"
    ledger.write_text(change(ledger.read_text()))
    tried = run(finished / "s.tif")
    assert (tried.code, len(tried.errors)) == (NOTHING_STARTED, 1)
    assert str(ledger) in tried.errors[0]
    assert "delete it to start anew" in tried.errors[0]
    assert_equal(left / "s", finished / "out" / "s")


def test_a_corrupted_ledger_is_replaced_where_that_is_asked_for(run: Try, finished: Path, left: Path) -> None:
    (left / ".geoseg" / "s" / "ledger.json").write_text("{")
    assert run(finished / "s.tif", "--overwrite").code == DONE
    assert_equal(left / "s", finished / "out" / "s")


# Block files


def overwrite(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def paint(path: Path) -> None:
    with rasterio.open(path, "r+") as dataset:
        dataset.write(np.full(dataset.shape, 3, np.uint8), 1)


CORRUPTIONS: dict[str, Callable[[Path, Path], None]] = {
    "empty": lambda path, _: overwrite(path, b""),
    "cut short": lambda path, _: overwrite(path, path.read_bytes()[:-100]),
    "zeros inside": lambda path, _: overwrite(
        path, path.read_bytes()[:-400] + bytes(300) + path.read_bytes()[-100:]
    ),
    "another format": lambda path, _: overwrite(path, b"hello"),
    "other labels": lambda path, _: paint(path),
    "another block": lambda path, other: overwrite(path, other.read_bytes()),
}


@pytest.mark.parametrize("corrupt", CORRUPTIONS.values(), ids=CORRUPTIONS)
def test_a_corrupted_block_is_no_block(tmp_path: Path, corrupt: Callable[[Path, Path], None]) -> None:
    store = BlockStore(tmp_path, "key")
    blocks = [Block(0, col, Window(0, 128 * col, 128, 128)) for col in range(2)]
    noise = np.random.default_rng(0).integers(0, 100, (2, 128, 128), np.uint8)
    put = [store.put(LabelBlock(block, noise[0], noise[1])) for block in blocks]
    assert [store.find(block) for block in blocks] == put
    assert BlockStore(tmp_path, "other key").find(blocks[0]) is None
    corrupt(store.path(blocks[0]), store.path(blocks[1]))
    assert [store.find(block) for block in blocks] == [None, put[1]]


def test_blocks_corrupted_after_a_kill_are_mapped_again(run: Try, tmp_path: Path, tiny_bundle: Path) -> None:
    scene = write_scene(tmp_path / "s.tif", 700, 900)
    output, blocks = tmp_path / "killed", []
    command = [Path(sys.executable).with_name("geoseg"), "run", scene, "-o", output, "--model", tiny_bundle]
    process = subprocess.Popen([*command, "--block-px", "128"], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(blocks) <= len(CORRUPTIONS) and time.monotonic() < deadline:
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.005)
        blocks = sorted(output.glob(".geoseg/s/blocks-*/r*.tif"))
    process.send_signal(signal.SIGKILL)
    process.wait()
    blocks = sorted(output.glob(".geoseg/s/blocks-*/r*.tif"))
    for path, corrupt in zip(blocks, CORRUPTIONS.values(), strict=False):
        corrupt(path, blocks[-1])
    assert run(scene, "--block-px", 128, output=output).code == DONE
    assert summary(output)["blocks_found"] == len(blocks) - len(CORRUPTIONS)
    assert run(scene).code == DONE
    assert_equal(output / "s", tmp_path / "out" / "s")
