"""Block files: the answer for one block, atomic, with a digest inside. A block whose file is there is done."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from rasterio.io import MemoryFile

from geoseg.errors import GeosegError, OutputError, SourceError
from geoseg.grid.lattice import Block
from geoseg.io.files import cannot_write, make_folder, staged
from geoseg.io.places import Place
from geoseg.io.rasters import READ_ERRORS
from geoseg.io.remote import Remote
from geoseg.legend import NODATA
from geoseg.parallel import threaded_map
from geoseg.pixels.labels import count_values
from geoseg.pixels.pixelblock import LabelBlock

STRIP_PX = 64
OPEN = "open"
"""The object that says that a folder of blocks in a bucket is in use, where no folder can say so by being there."""
FETCHES = 16
"""Blocks that are fetched from a bucket at once."""


@dataclass(frozen=True)
class BlockFile:
    """What travels instead of pixels: the block's name, and how many pixels each class has."""

    name: str
    counts: dict[int, int]


@dataclass(frozen=True)
class BlockStore:
    """A folder of block files of one map. key: digest of all that decides the map; files of another never mix in."""

    folder: Place
    key: str

    def path(self, block: Block) -> Place:
        return self.folder / f"{block.name}.tif"

    def begin(self) -> bool:
        """Open the folder for blocks; whether it was open before. Raises OutputError where that cannot be."""
        begun = self._is_open()
        make_folder(self.folder)
        if isinstance(self.folder, Remote) and not begun:
            with _written(self.folder):
                (self.folder / OPEN).write_bytes(b"")
        return begun

    def _is_open(self) -> bool:
        with _written(self.folder):
            return (self.folder / OPEN).is_file() if isinstance(self.folder, Remote) else self.folder.is_dir()

    def fetched(self, blocks: Iterable[Block], folder: Path) -> BlockStore:
        """These blocks in a folder on this machine's disk. Raises OutputError, SourceError."""
        there = BlockStore(folder, self.key)
        for _ in threaded_map(partial(self._fetch, there), blocks, FETCHES):
            pass
        return there

    def _fetch(self, there: BlockStore, block: Block) -> None:
        content = self._read(block)
        if content is None:
            raise SourceError("is not there any more", self.path(block))
        path = folder_of(there) / f"{block.name}.tif"
        try:
            path.write_bytes(content)
        except OSError as error:
            raise cannot_write(path, error) from error

    def _read(self, block: Block) -> bytes | None:
        path = self.path(block)
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SourceError(f"cannot be read ({error.strerror or error})", path) from error

    def put(self, answer: LabelBlock) -> BlockFile:
        """Publish a block: two bands, class and confidence. Raises OutputError where the disk refuses, or where the
        folder is gone: a worker that was given up may answer when the scene has long been published.

        Not compressed: they live only until the scene is published, and packing them took as long as all else here.
        Not forced to the disk either: a file that a power cut has spoilt does not match its digest, and is none.
        """
        if not self._is_open():
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
            path = self.path(answer.block)
            if isinstance(path, Remote):
                with _written(path):
                    path.write_bytes(bytes(memory.getbuffer()))
            else:
                with staged(path) as temporary, temporary.open("wb") as stream:
                    stream.write(memory.getbuffer())
        return BlockFile(answer.block.name, _counts(answer))

    def find(self, block: Block) -> BlockFile | None:
        """The block's file, if it is there, belongs to this map and is whole; anything else is no block."""
        content = self._read(block)
        if content is None:
            return None
        try:
            with MemoryFile(content) as memory, memory.open() as dataset:
                tags = dataset.tags()
                if tags.get("KEY") != self.key or (dataset.height, dataset.width) != block.core.shape:
                    return None
                answer = LabelBlock(block, dataset.read(1), dataset.read(2))
                if tags.get("SHA256") != _digest(answer):
                    return None
                return BlockFile(block.name, _counts(answer))
        except (*READ_ERRORS, GeosegError, ValueError):
            return None


def folder_of(store: BlockStore) -> Path:
    """The folder of a store on disk."""
    if isinstance(store.folder, Remote):
        raise OutputError("is in a bucket; fetch the blocks first", store.folder)
    return store.folder


@contextmanager
def _written(path: Place) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from error


def _counts(answer: LabelBlock) -> dict[int, int]:
    counts = count_values(answer.labels)
    return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}


def _digest(answer: LabelBlock) -> str:
    """Of the pixels and their place: a block under another's name is none."""
    digest = hashlib.sha256(repr(answer.block).encode())
    digest.update(np.ascontiguousarray(answer.labels).data)
    digest.update(np.ascontiguousarray(answer.confidence).data)
    return digest.hexdigest()
