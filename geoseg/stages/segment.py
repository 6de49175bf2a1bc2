"""Map one block: patches through the network, answers into the block's core."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import islice
from typing import Protocol

import numpy as np

from geoseg.grid.lattice import Lattice
from geoseg.grid.window import Window
from geoseg.legend import NODATA, Legend
from geoseg.pixels.blend import hann_window, symmetries, undo_symmetry
from geoseg.pixels.labels import choose_labels
from geoseg.pixels.pixelblock import LabelBlock, PixelBlock
from geoseg.spec import InputSpec
from geoseg.stages.protocols import Mapper

Answers = Iterator[tuple[Window, np.ndarray]]
"""Each patch with its probabilities (class, row, col), in lattice order."""


class Segmenter(Protocol):
    """A network on a device, for patches of one size and dtype; safe to call from several threads.

    batch: how many patches a call takes; every call has exactly so many, so that the shape never changes.
    """

    @property
    def batch(self) -> int: ...

    def classify(self, patches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n, band, row, col) -> class ids and percent of each patch's center, both (n, row, col) uint8."""

    def probabilities(self, patches: np.ndarray) -> np.ndarray:
        """(n, band, row, col) -> (n, class, row, col) float32, summing to 1 over class."""


def segment_block(
    pixels: PixelBlock, segmenter: Segmenter, lattice: Lattice, legend: Legend, mapper: Mapper = map
) -> LabelBlock:
    """The answer for a block. Patches whose pixels are all left out never reach the network.

    mapper: runs the network on the batches; threads that several blocks share keep every lane busy to the last patch.
    """
    if lattice.spec.labels_only:
        return _classified(pixels, segmenter, lattice, mapper)
    scores = block_scores(pixels, segmenter, lattice, len(legend.ids), mapper)
    return LabelBlock(pixels.block, *choose_labels(scores, pixels.keep, legend))


def block_scores(
    pixels: PixelBlock, segmenter: Segmenter, lattice: Lattice, classes: int, mapper: Mapper = map
) -> np.ndarray:
    """Probabilities over a block's core, (class, row, col) float32; of no meaning where pixels are left out."""
    scores = np.zeros((classes, *pixels.block.core.shape), np.float32)
    blend = _add_weighted if lattice.spec.blend == "hann" else _put_center
    blend(scores, pixels, _answers(pixels, segmenter, lattice, mapper), lattice)
    return scores


def _wanted(pixels: PixelBlock, lattice: Lattice) -> list[Window]:
    """The block's patches, without those whose pixels are all left out."""
    core = pixels.block.core
    return [
        p for p in lattice.patches(core) if pixels.keep[lattice.center(p).overlap(core).within(core)].any()
    ]


def _classified(pixels: PixelBlock, segmenter: Segmenter, lattice: Lattice, mapper: Mapper) -> LabelBlock:
    core = pixels.block.core
    labels = np.full(core.shape, NODATA, np.uint8)
    confidence = np.full(core.shape, NODATA, np.uint8)

    def classify(batch: list[Window]) -> tuple[list[Window], tuple[np.ndarray, np.ndarray]]:
        return batch, segmenter.classify(_stack(pixels, batch, segmenter.batch))

    for batch, (ids, percent) in mapper(classify, _batches(_wanted(pixels, lattice), segmenter.batch)):
        for index, patch in enumerate(batch):
            center = lattice.center(patch)
            here = center.within(core)
            part = slice(center.height), slice(center.width)
            labels[here] = ids[index][part]
            confidence[here] = percent[index][part]
    if not pixels.keep.all():  # rare, and a copy under a mask takes ten times as long as a plain one
        left_out = ~pixels.keep
        labels[left_out] = confidence[left_out] = NODATA
    return LabelBlock(pixels.block, labels, confidence)


def _put_center(scores: np.ndarray, pixels: PixelBlock, answers: Answers, lattice: Lattice) -> None:
    core = pixels.block.core
    for patch, answer in answers:
        center = lattice.center(patch)
        scores[(slice(None), *center.within(core))] = answer[(slice(None), *center.within(patch))]


def _add_weighted(scores: np.ndarray, pixels: PixelBlock, answers: Answers, lattice: Lattice) -> None:
    """Weighted mean of the patches over each pixel. Lattice order decides how floats round, so blocks do not."""
    core = pixels.block.core
    window = hann_window(lattice.spec.patch_px)
    weights = np.zeros(core.shape, np.float32)
    for patch, answer in answers:
        shared = patch.overlap(core)
        here, there = shared.within(core), shared.within(patch)
        scores[(slice(None), *here)] += answer[(slice(None), *there)] * window[there]
        weights[here] += window[there]
    scores /= np.where(weights > 0, weights, np.float32(1))


def _answers(pixels: PixelBlock, segmenter: Segmenter, lattice: Lattice, mapper: Mapper) -> Answers:
    """The probabilities of each patch, averaged over the symmetries where that is wanted."""

    def ask(batch: list[Window]) -> tuple[list[Window], np.ndarray]:
        stack = _stack(pixels, batch, segmenter.batch)
        if lattice.spec.tta == "none":
            return batch, segmenter.probabilities(stack)
        turned = (undo_symmetry(i, segmenter.probabilities(s)) for i, s in enumerate(symmetries(stack)))
        return batch, np.stack(list(turned)).mean(axis=0, dtype=np.float32)

    for batch, answers in mapper(ask, _batches(_wanted(pixels, lattice), segmenter.batch)):
        yield from zip(batch, answers, strict=False)


def _batches(patches: list[Window], size: int) -> Iterator[list[Window]]:
    rest = iter(patches)
    while batch := list(islice(rest, size)):
        yield batch


def _stack(pixels: PixelBlock, patches: list[Window], size: int) -> np.ndarray:
    """(size, band, row, col); a last batch that is not full is filled up with its first patch."""
    padded = patches + patches[:1] * (size - len(patches))
    return np.stack([pixels.pixels[(slice(None), *patch.within(pixels.window))] for patch in padded])


def proof_patch(inputs: InputSpec, patch_px: int) -> np.ndarray:
    """One fixed patch (band, row, col): checks and texture around each band's mean."""
    rows, cols = np.mgrid[0:patch_px, 0:patch_px].astype(np.int64)
    pixels = np.empty((len(inputs.fill), patch_px, patch_px), inputs.dtype)
    for band, mean in enumerate(inputs.fill):
        noise = (rows * 7919 + cols * 104729 + band * 1299709) % 97 - 48
        checks = ((rows // 24 + cols // 40 + band) % 5 - 2) * 12
        values = mean + (noise + checks) * (max(abs(mean), 1) / 128)
        pixels[band] = np.clip(values, *_limits(inputs.dtype))
    return pixels


def _limits(dtype: str) -> tuple[float, float]:
    if np.dtype(dtype).kind == "f":
        return -np.inf, np.inf
    return np.iinfo(dtype).min, np.iinfo(dtype).max


def prove(segmenter: Segmenter, patch: np.ndarray, labels_only: bool) -> str:
    """Digest of a network's answer to a fixed patch: machines that disagree on it must not share a map."""
    stack = np.stack([patch] * segmenter.batch)
    parts = segmenter.classify(stack) if labels_only else (segmenter.probabilities(stack),)
    digest = hashlib.sha256()
    for part in parts:
        digest.update(np.ascontiguousarray(part[0]).tobytes())
    return digest.hexdigest()
