"""Block files: the answer for one block, atomic, with a digest inside. A block whose file is there is done."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rasterio.io import MemoryFile

from geoseg.errors import GeosegError, OutputError
from geoseg.grid.lattice import Block
from geoseg.io.files import staged
from geoseg.io.rasters import READ_ERRORS, open_raster
from geoseg.legend import NODATA
from geoseg.pixels.labels import count_values
from geoseg.pixels.pixelblock import LabelBlock

STRIP_PX = 64


@dataclass(frozen=True)
class BlockFile:
    """What travels instead of pixels: the block's name, and how many pixels each class has."""

    name: str
    counts: dict[int, int]


@dataclass(frozen=True)
class BlockStore:
    """A folder of block files of one map. key: digest of all that decides the map; files of another never mix in."""

    folder: Path
    key: str

    def path(self, block: Block) -> Path:
        return self.folder / f"{block.name}.tif"

    def put(self, answer: LabelBlock) -> BlockFile:
        """Publish a block: two bands, class and confidence. Raises OutputError where the disk refuses, or where the
        folder is gone: a worker that was given up may answer when the scene has long been published.

        Not compressed: they live only until the scene is published, and packing them took as long as all else here.
        Not forced to the disk either: a file that a power cut has spoilt does not match its digest, and is none.
        """
        if not self.folder.is_dir():
            raise OutputError("is not there (any more)", self.folder)
        height, width = answer.block.core.shape
        profile = {
            "driver": "GTiff", "height": height, "width": width, "count": 2, "dtype": "uint8", "nodata": NODATA,
            "interleave": "band", "blockysize": STRIP_PX, "sparse_ok": True,
        }  # fmt: skip
        with MemoryFile() as memory:
            with memory.open(**profile) as dataset:
                dataset.write(answer.labels, 1)
                dataset.write(answer.confidence, 2)
                dataset.update_tags(KEY=self.key, SHA256=_digest(answer))
            with staged(self.path(answer.block)) as temporary, temporary.open("wb") as stream:
                stream.write(memory.getbuffer())
        return BlockFile(answer.block.name, _counts(answer))

    def find(self, block: Block) -> BlockFile | None:
        """The block's file, if it is there, belongs to this map and is whole; anything else is no block."""
        path = self.path(block)
        if not path.exists():
            return None
        try:
            with open_raster(path) as dataset:
                tags = dataset.tags()
                if tags.get("KEY") != self.key or (dataset.height, dataset.width) != block.core.shape:
                    return None
                answer = LabelBlock(block, dataset.read(1), dataset.read(2))
                if tags.get("SHA256") != _digest(answer):
                    return None
                return BlockFile(block.name, _counts(answer))
        except (*READ_ERRORS, GeosegError, ValueError):
            return None


def _counts(answer: LabelBlock) -> dict[int, int]:
    counts = count_values(answer.labels)
    return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}


def _digest(answer: LabelBlock) -> str:
    """Of the pixels and their place: a block under another's name is none."""
    digest = hashlib.sha256(repr(answer.block).encode())
    digest.update(np.ascontiguousarray(answer.labels).data)
    digest.update(np.ascontiguousarray(answer.confidence).data)
    return digest.hexdigest()
