"""The driver of a cluster without the hardware: actors that are fakes cost nothing, or sleep, and all else is real."""

from __future__ import annotations

import os
import resource
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import psutil
import ray

from geoseg.grid.lattice import Block, Blocks, Lattice
from geoseg.io.blockstore import BlockFile, BlockStore
from geoseg.io.sources import open_scene
from geoseg.model.bundle import Bundle
from geoseg.model.runtimes import RuntimeChoice, SegmenterRecipe
from geoseg.run.pool import ActorPool
from geoseg.run.work import SceneWork
from geoseg.spec import SegmentSpec

SIDE_PX = 200_000
SLEEP_S = 0.05
BLOCKS_EACH = 200
ACTORS = (2, 4, 8)


class FakeActor:
    """Answers at once, and touches neither pixels nor a network."""

    sleep_s = 0.0

    def __init__(self, lanes: int, config: Mapping[str, str]) -> None:
        self._free = threading.Semaphore(lanes)

    def start(self, recipe: SegmenterRecipe, files: Mapping[str, bytes]) -> str:
        return "fake"

    def run(self, work: SceneWork, block: Block) -> BlockFile:
        with self._free:
            time.sleep(self.sleep_s)
        return BlockFile(block.name, {1: block.core.area_px})


class FakeSleepingActor(FakeActor):
    """Takes as long as a GPU might."""

    sleep_s = SLEEP_S


def main(_pairs: int) -> None:
    """Schedule a scene of 200,000 x 200,000 px; then weak scaling, with as many blocks for each actor."""
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    ray.init(address="local", num_cpus=max(ACTORS), include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory() as name:
        begin = time.process_time()
        work, blocks = _scene(Path(name))
        print(f"{len(blocks):,} blocks planned in {time.process_time() - begin:.1f} s of CPU", flush=True)
        before, begin = _rss_mb(), time.process_time()
        peaks = [_drain(work, blocks, 2, FakeActor)]
        cpu = time.process_time() - begin
        print(f"driver: {1000 * cpu / len(blocks):.2f} ms of CPU a block; {before:.0f} MB before, {peaks[0][1]:.0f} MB "
              f"after half of the blocks, {_rss_mb():.0f} MB after all, peak {_peak_mb():.0f} MB")  # fmt: skip
        taken = {n: _drain(work, blocks[: n * BLOCKS_EACH], n, FakeSleepingActor)[0] for n in ACTORS}
    for actors, seconds in taken.items():
        print(f"{actors} actors: {seconds:.2f} s for {BLOCKS_EACH} blocks each, "
              f"weak scaling {taken[ACTORS[0]] / seconds:.2f}, "
              f"of the ideal {BLOCKS_EACH * SLEEP_S / seconds:.2f}")  # fmt: skip
    ray.shutdown()


def _scene(folder: Path) -> tuple[SceneWork, list[Block]]:
    """A VRT without sources: all of it is there, and none of it on the disk."""
    bands = "".join(f'<VRTRasterBand dataType="Byte" band="{n}"/>' for n in (1, 2, 3))
    path = folder / "sparse.vrt"
    path.write_text(
        f'<VRTDataset rasterXSize="{SIDE_PX}" rasterYSize="{SIDE_PX}"><SRS>EPSG:32640</SRS>'
        f"<GeoTransform>300000, 0.5, 0, 2800000, 0, -0.5</GeoTransform>{bands}</VRTDataset>"
    )
    card = Bundle.open().card
    scene = open_scene(str(path), card.input_spec)
    lattice = Lattice(SIDE_PX, SIDE_PX, SegmentSpec(512, 64))
    store = BlockStore(folder / "blocks", "fake")
    work = SceneWork(scene, lattice, card.legend, store, "fake")
    return work, list(Blocks.of(lattice, 4 * lattice.spec.stride_px))


def _drain(work: SceneWork, blocks: Iterable[Block], actors: int, kind: type) -> tuple[float, float]:
    """Seconds from warm actors to the last answer, and megabytes of this process half way."""
    bundle, blocks = Bundle.open(), list(blocks)
    spec = SegmentSpec(512, 64)
    recipe = SegmenterRecipe.of(bundle, spec, RuntimeChoice("openvino", "float32", "cpu", "0"))
    pool = ActorPool(recipe, actors, actors, 0.0, {})
    pool.actor = kind
    pool.proof()
    while len(pool._idle_since) < actors:
        time.sleep(0.1)
    begin, half = time.perf_counter(), 0.0
    for number, _ in enumerate(pool.segment(work, blocks)):
        if number == len(blocks) // 2:
            half = _rss_mb()
    taken = time.perf_counter() - begin
    pool.close()
    return taken, half


def _rss_mb() -> float:
    return float(psutil.Process().memory_info().rss) / 1e6


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
