"""How close the engines come to the pure forward speed of the network, and what the other stages cost."""

from __future__ import annotations

import itertools
import random
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from geoseg.grid.lattice import Blocks, Lattice
from geoseg.io.blockstore import BlockStore
from geoseg.io.cog import write_cog
from geoseg.io.rasters import configure_gdal
from geoseg.io.sources import open_scene
from geoseg.model.bundle import Bundle
from geoseg.model.runtimes import RuntimeChoice, SegmenterRecipe
from geoseg.parallel import cores
from geoseg.pixels.polygons import polygonize_block
from geoseg.run.job import Workers
from geoseg.run.local import LocalEngine
from geoseg.run.on_ray import RayEngine
from geoseg.run.prepare import BLOCK_CENTERS
from geoseg.run.work import SceneWork
from geoseg.spec import SegmentSpec
from geoseg.stages.segment import Segmenter
from tests.benchmarks.scenes import DUBAI_7, mosaic


class Case:
    """One scene, one network, and the work on it up to the written label raster."""

    def __init__(self, scene: Path, folder: Path) -> None:
        configure_gdal()
        self.bundle = Bundle.open()
        self.spec = SegmentSpec()
        self.recipe = SegmenterRecipe.of(
            self.bundle, self.spec, RuntimeChoice.decide(self.bundle.card, "openvino")
        )
        self.scene = open_scene(str(scene), self.bundle.card.input_spec)
        self.lattice = Lattice(self.scene.grid.height, self.scene.grid.width, self.spec)
        self.blocks = list(Blocks.of(self.lattice, BLOCK_CENTERS * self.spec.stride_px))
        self.patches = self.lattice.patch_count(self.lattice.window)
        self.folder = folder
        self._runs = itertools.count()
        pixels = self.scene.read(self.blocks[0], self.lattice)
        self.examples = [
            np.ascontiguousarray(pixels.pixels[(slice(None), *p.within(pixels.window))])[None]
            for p in self.lattice.patches(self.blocks[0].core)
        ]

    def forward(self, segmenter: Segmenter, lanes: int, patches: int) -> float:
        """Seconds for nothing but the network."""

        def lane(number: int) -> None:
            for index in range(number, patches, lanes):
                segmenter.classify(self.examples[index % len(self.examples)])

        begin = time.perf_counter()
        with ThreadPoolExecutor(lanes) as pool:
            list(pool.map(lane, range(lanes)))
        return time.perf_counter() - begin

    def whole(self, engine: LocalEngine | RayEngine) -> float:
        """Seconds from warm engine to written label COG."""
        here = self.folder / str(next(self._runs))
        store = BlockStore(here / "blocks", "benchmark")
        store.folder.mkdir(parents=True)
        work = SceneWork(self.scene, self.lattice, self.bundle.card.legend, store, engine.proof())
        begin = time.perf_counter()
        for _ in engine.segment(work, self.blocks):
            pass
        write_cog(here / "landcover.tif", self.scene.grid, store, self.blocks, 1, self.bundle.card.legend, {})
        taken = time.perf_counter() - begin
        shutil.rmtree(here)  # as a run does once it has published a scene
        return taken


def main(pairs: int) -> None:
    """The 2 x 2 mosaic of dubai_7: local and Ray against pure forward, in the thread layout with the best median."""
    with tempfile.TemporaryDirectory() as name:
        case = Case(mosaic(Path(name)), Path(name))
        layouts = {f"forward, {lanes} x {cores() // lanes} threads": lanes for lanes in {1, cores()}}
        size = f"{case.scene.grid.megapixels:.1f} Mpx, {case.patches} patches, {case.recipe.choice.precision}"
        print(size, flush=True)
        local = LocalEngine(case.recipe)
        ray = RayEngine(case.recipe, Workers(2, 2))
        local.proof(), ray.proof()
        sides: dict[str, Callable[[], float]] = {
            name: partial(case.forward, case.recipe.build(lanes, cores()), lanes, case.patches)
            for name, lanes in layouts.items()
        }
        sides |= {"local": partial(case.whole, local), "ray, 2 actors": partial(case.whole, ray)}
        times: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(pairs):
            for side in random.sample(list(sides), len(sides)):
                times[side].append(sides[side]())
            print("  " + ", ".join(f"{side} {taken[-1]:.1f} s" for side, taken in times.items()), flush=True)
        ray.close()
    fastest = min(layouts, key=lambda name: statistics.median(times[name]))
    print("| side | Mpx/s (median) | share of the fastest forward: median |\n| --- | --- | --- |")
    for side, taken in times.items():
        shares = [f / t for f, t in zip(times[fastest], taken, strict=True)]
        low, high = interval(shares)
        print(f"| {side} | {case.scene.grid.megapixels / statistics.median(taken):.2f} | "
              f"{statistics.median(shares):.3f} (95 % interval {low:.3f} to {high:.3f}) |")  # fmt: skip


def interval(values: list[float]) -> tuple[float, float]:
    """95 % interval of a median, by bootstrap."""
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(values, (10_000, len(values))), axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    return float(low), float(high)


def stages(_pairs: int) -> None:
    """Core-seconds per megapixel of every stage, on dubai_7."""
    with tempfile.TemporaryDirectory() as name:
        case = Case(DUBAI_7, Path(name))
        store = BlockStore(Path(name) / "blocks", "benchmark")
        store.folder.mkdir()
        legend, lattice = case.bundle.card.legend, case.lattice
        segmenter = case.recipe.build(1, 1)
        work = SceneWork(case.scene, lattice, legend, store, "")
        pixels = [case.scene.read(block, lattice) for block in case.blocks]
        costs = {"read": _cores(lambda: [case.scene.read(block, lattice) for block in case.blocks])}
        answers = []
        costs["network"] = _cores(lambda: answers.extend(work.segment(p, segmenter) for p in pixels))
        costs["write blocks"] = _cores(lambda: [work.put(answer) for answer in answers])
        merge = partial(write_cog, Path(name) / "merged.tif", case.scene.grid, store, case.blocks)
        costs["merge land cover"] = _cores(lambda: merge(1, legend, {}))
        costs["merge confidence"] = _cores(lambda: merge(2, None, {}))
        costs["polygonize"] = _cores(
            lambda: [polygonize_block(a.labels, a.block.core, (1, 2)) for a in answers]
        )
    print("| stage | core-seconds per Mpx | share of network |\n| --- | --- | --- |")
    for stage, seconds in costs.items():
        print(f"| {stage} | {seconds / case.scene.grid.megapixels:.4f} | {seconds / costs['network']:.1%} |")


def _cores(action: Callable[[], object]) -> float:
    before = resource.getrusage(resource.RUSAGE_SELF)
    action()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
