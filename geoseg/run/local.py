"""The local engine: one process; blocks are read ahead and written behind by threads while the network runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property, partial
from time import perf_counter
from typing import ParamSpec, TypeVar

from geoseg.grid.lattice import Block
from geoseg.io.blockstore import BlockFile
from geoseg.model.runtimes import SegmenterRecipe
from geoseg.parallel import cores, pooled_map, threaded_map
from geoseg.pixels.pixelblock import LabelBlock, PixelBlock
from geoseg.run.pace import NETWORK, READ, WRITE, Pace
from geoseg.run.work import BLOCK_ERRORS, BlockLoss, SceneWork
from geoseg.stages.segment import Segmenter

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")

GPU_READERS = 4
"""Threads that read ahead for a GPU. For a CPU one is enough, and decodes each tile once: handles share none."""


class LocalEngine:
    """lanes: blocks mapped at once, a core each; on a GPU two, so that one copies while the other computes."""

    def __init__(self, recipe: SegmenterRecipe, workers: int | None = None) -> None:
        self.recipe = recipe
        self.lanes = 2 if recipe.choice.device == "cuda" else workers or cores()
        # One thread more than lanes stacks patches while the network is busy with the others'.
        self._threads = self.lanes + 1
        self._pace = Pace({(READ,): self._readers, (NETWORK,): self._threads, (WRITE,): 1})

    @property
    def _readers(self) -> int:
        return GPU_READERS if self.recipe.choice.device == "cuda" else 1

    @cached_property
    def segmenter(self) -> Segmenter:
        return self.recipe.build(self.lanes, self.lanes)

    @property
    def limit(self) -> str:
        """What holds the mapping up now; see run/pace.py."""
        return self._pace.limit

    def proof(self) -> str:
        """Digest of the network's answer to one fixed patch."""
        return self.recipe.prove(self.segmenter)

    def segment(self, work: SceneWork, blocks: Iterable[Block]) -> Iterator[BlockFile | BlockLoss]:
        """Map blocks and publish their files; yields each as it is done. A few blocks are in flight, never more."""
        segmenter = self.segmenter
        # Blocks share the network's threads patch by patch, so that no lane is idle while a last block is mapped.
        reading, mapping, writing = (ThreadPoolExecutor(n) for n in (self._readers, self._threads, 1))
        network = ThreadPoolExecutor(self._threads)
        mapper = partial(pooled_map, network, self._threads)
        flight: deque[tuple[Block, dict[str, float], Future[BlockFile]]] = deque()

        def segment(read: Future[PixelBlock], seconds: dict[str, float]) -> LabelBlock:
            return _timed(seconds, NETWORK, work.segment, read.result(), segmenter, mapper)

        def put(answer: Future[LabelBlock], seconds: dict[str, float]) -> BlockFile:
            return _timed(seconds, WRITE, work.put, answer.result())

        def first() -> BlockFile | BlockLoss:
            block, seconds, written = flight.popleft()
            try:
                file = written.result()
            except BLOCK_ERRORS as error:
                return BlockLoss(block.name, error)
            self._pace.note(seconds)
            return file

        try:
            for block in blocks:
                seconds: dict[str, float] = {}
                read = reading.submit(_timed, seconds, READ, work.read, block)
                answer = mapping.submit(segment, read, seconds)
                flight.append((block, seconds, writing.submit(put, answer, seconds)))
                if len(flight) > 2 * self.lanes:
                    yield first()
            while flight:
                yield first()
        finally:
            for pool in (reading, mapping, network, writing):
                pool.shutdown(wait=True, cancel_futures=True)

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Ordered map over threads."""
        return threaded_map(function, items, self.lanes)

    def close(self) -> None:
        with suppress(AttributeError):
            del self.segmenter


def _timed(
    seconds: dict[str, float], stage: str, function: Callable[P, R], *args: P.args, **options: P.kwargs
) -> R:
    begin = perf_counter()
    try:
        return function(*args, **options)
    finally:
        seconds[stage] = perf_counter() - begin
