"""What each worker of a pool runs: an actor that holds the network and maps the blocks that it is handed."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from threading import Semaphore

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

from geoseg.errors import ModelError
from geoseg.grid.lattice import Block
from geoseg.io.blockstore import BlockFile
from geoseg.io.rasters import configure_gdal, limit_cache
from geoseg.model.parcel import unpacked
from geoseg.model.runtimes import SegmenterRecipe
from geoseg.run.meters import BlockMeters
from geoseg.run.pace import NETWORK, READ, WAIT, WRITE
from geoseg.run.work import BLOCK_ERRORS, BlockLoss, MappedBlock, SceneWork

ACTOR_CACHE_MB = 64
"""GDAL's block cache in an actor: neighboring blocks mostly go to others, so that less is read twice."""
OTHER_ANSWER = (
    "a worker answers one fixed patch otherwise than the run's first one did (another CPU or GPU type), so its blocks "
    "must not join this map; use workers of one kind, or --precision float32"
)


class SegmentActor:
    """Loads the network once; each of its threads reads a block, waits for the network, and writes the answer."""

    def __init__(self, lanes: int, config: Mapping[str, str]) -> None:
        configure_gdal(config)
        limit_cache(ACTOR_CACHE_MB)
        self._lanes = lanes
        self._free = Semaphore(lanes)
        self._meters = BlockMeters(lanes)

    def start(self, recipe: SegmenterRecipe, files: Mapping[str, bytes]) -> str:
        """Load the network from the files of its bundle; the answer to one fixed patch."""
        with unpacked(recipe, files) as here:
            self._segmenter = here.build(self._lanes, 1)
        self._proof = recipe.prove(self._segmenter)
        return self._proof

    def run(self, work: SceneWork, block: Block) -> BlockFile | BlockLoss:
        """Map one block. The scene may have been begun on another kind of machine, so each asks before it writes."""
        if work.proof != self._proof:
            raise ModelError(OTHER_ANSWER, work.scene.path)
        begin = time.monotonic()
        try:
            pixels = work.read(block)
            read = time.monotonic()
            with self._free:
                free = time.monotonic()
                answer = work.segment(pixels, self._segmenter)
                done = time.monotonic()
        except BLOCK_ERRORS as error:
            self._meters.failed()
            return BlockLoss(block.name, error)
        written = work.put(answer)
        ends = {READ: read, WAIT: free, NETWORK: done, WRITE: time.monotonic()}
        seconds = {
            stage: end - start
            for (stage, end), start in zip(ends.items(), [begin, *ends.values()], strict=False)
        }
        self._meters.mapped(block.core.area_px, pixels.pixels.nbytes, seconds)
        return MappedBlock(written.name, written.counts, seconds)
