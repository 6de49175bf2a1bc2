"""What a worker needs to map blocks of a scene: plain values, the same for every engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from geoseg.errors import BlockError, GeosegError, SourceError
from geoseg.grid.lattice import Block, Lattice
from geoseg.io.blockstore import BlockFile, BlockStore
from geoseg.io.sources import Scene
from geoseg.legend import Legend
from geoseg.pixels.pixelblock import LabelBlock, PixelBlock
from geoseg.stages.protocols import Mapper
from geoseg.stages.segment import Segmenter, segment_block

BLOCK_ERRORS = (BlockError, SourceError)
"""What goes wrong with one block alone; anything else ends the scene."""


@dataclass(frozen=True)
class BlockLoss:
    """A block that could not be mapped, by name, and why."""

    name: str
    error: GeosegError


@dataclass(frozen=True)
class MappedBlock(BlockFile):
    """A block's file as it comes from a worker, with the seconds that each stage of run/pace.py took."""

    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class SceneWork:
    """A scene, how it is cut, and where its blocks go.

    proof: the answer to the fixed patch that a worker must give. name: what events call the scene.
    """

    scene: Scene
    lattice: Lattice
    legend: Legend
    store: BlockStore
    proof: str
    name: str = ""

    def read(self, block: Block) -> PixelBlock:
        return self.scene.read(block, self.lattice)

    def segment(self, pixels: PixelBlock, segmenter: Segmenter, mapper: Mapper = map) -> LabelBlock:
        return segment_block(pixels, segmenter, self.lattice, self.legend, mapper)

    def put(self, answer: LabelBlock) -> BlockFile:
        return self.store.put(answer)
