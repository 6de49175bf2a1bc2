"""Which patches are trained on: a coarse index of the labels, and draws from it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from geoseg.errors import SourceError, SpecError
from geoseg.grid.window import Window
from geoseg.train.labels import IGNORED
from geoseg.train.scenes import LabelledScene

CELL_PX = 64
BLOCK_PX = 512
STATISTICS_BLOCKS = 96
"""Blocks of a scene whose pixels are read to measure means and deviations."""

TRIES = 50
CONSTANT = 1e-12
"""Least share of a band's squared mean that its variance is; less is rounding."""


@dataclass(frozen=True)
class LabelIndex:
    """How many pixels of each channel lie in each cell of CELL_PX x CELL_PX px that may be trained on.

    counts: (row of cells, column of cells, channel), and last the pixels that may be of several. total, squares:
    sums of raw values per band and of their squares, over `pixels` valid and labelled pixels outside the held-out
    regions.
    """

    counts: np.ndarray
    total: np.ndarray
    squares: np.ndarray
    pixels: int


def blocks_of(window: Window, side_px: int) -> Iterator[Window]:
    """A window in squares, rows first; the last ones are cut off."""
    for row in range(window.row, window.row_end, side_px):
        for col in range(window.col, window.col_end, side_px):
            yield Window(row, col, side_px, side_px).overlap(window)


def index_labels(scene: LabelledScene, channels: int) -> LabelIndex:
    """Count the labels of a scene, block by block, and measure its bands.

    SourceError for unknown labels, and where there is nothing to make the scores on that a scene is for.
    """
    rows, cols = (-(-side // CELL_PX) for side in scene.window.shape)
    counts = np.zeros((rows, cols, channels + 1), np.int64)
    labelled: list[Window] = []
    settled = scene.split == "train" and not scene.held_out  # whether there is what scores need
    for block in blocks_of(scene.window, BLOCK_PX):
        everything = scene.labels.read(block)
        targets = _for_training(scene, block, everything)
        settled = settled or _can_score(scene, block, everything, channels)
        at = Window(
            block.row // CELL_PX,
            block.col // CELL_PX,
            -(-block.height // CELL_PX),
            -(-block.width // CELL_PX),
        )
        counts[at.within(Window(0, 0, rows, cols))] = _count_cells(targets, channels)
        if (targets != IGNORED).any():
            labelled.append(block)
    if not settled:
        names = ", ".join(region.name for region in scene.held_out)
        where = f"in its validation regions ({names}) " if names else ""
        raise SourceError(
            f"no pixel {where}is labelled with one class where the scene has data, so that there is nothing to score "
            f"in split {'validation' if names else scene.split}",
            scene.labels.path,
        )
    return LabelIndex(counts, *_measure(scene, labelled[:: -(-len(labelled) // STATISTICS_BLOCKS) or 1]))


def _can_score(scene: LabelledScene, block: Window, targets: np.ndarray, channels: int) -> bool:
    """Whether a block has a valid pixel of one known class where scores are made."""
    known = targets < channels
    if scene.held_out:
        known &= scene.in_held_out(block)
    return bool(known.any() and (known & scene.scene.read_window(block)[1]).any())


def _for_training(scene: LabelledScene, block: Window, targets: np.ndarray) -> np.ndarray:
    if not scene.held_out:
        return targets
    return np.where(scene.in_held_out(block), np.uint8(IGNORED), targets)


def _measure(scene: LabelledScene, blocks: Sequence[Window]) -> tuple[np.ndarray, np.ndarray, int]:
    """Sums of the raw values per band and of their squares, over how many valid and labelled pixels."""
    total, squares, pixels = np.zeros(len(scene.scene.bands)), np.zeros(len(scene.scene.bands)), 0
    for block in blocks:
        values, valid = scene.scene.read_window(block)
        targets = _for_training(scene, block, scene.labels.read(block))
        learned = values[:, valid & (targets != IGNORED)].astype(np.float64)
        total += learned.sum(axis=1)
        squares += (learned**2).sum(axis=1)
        pixels += learned.shape[1]
    return total, squares, pixels


def _count_cells(targets: np.ndarray, channels: int) -> np.ndarray:
    height, width = (-(-side // CELL_PX) * CELL_PX for side in targets.shape)
    padded = np.full((height, width), IGNORED, np.uint8)
    padded[: targets.shape[0], : targets.shape[1]] = targets
    cells = padded.reshape(height // CELL_PX, CELL_PX, width // CELL_PX, CELL_PX)
    several = (cells >= channels) & (cells != IGNORED)
    return np.stack(
        [*((cells == channel).sum(axis=(1, 3)) for channel in range(channels)), several.sum(axis=(1, 3))],
        axis=-1,
    )


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation per band, in raw values, rounded; a band of one value has a deviation of 1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, indexes: Sequence[LabelIndex]) -> Statistics:
        pixels = sum(index.pixels for index in indexes)
        if not pixels:
            raise SpecError("no labelled pixel is left to train on: all are nodata, ignored or held out")
        mean = np.sum([index.total for index in indexes], axis=0) / pixels
        variance = np.sum([index.squares for index in indexes], axis=0) / pixels - mean**2
        varies = variance > CONSTANT * mean**2
        std = np.sqrt(np.where(varies, variance, 1.0))
        digits = [max(3, 4 - math.floor(math.log10(s))) for s in std]
        return cls(
            *(tuple(round(float(v), d) for v, d in zip(vs, digits, strict=True)) for vs in (mean, std))
        )


@dataclass(frozen=True)
class Draw:
    """One training patch: the pixels to read, to be resized to the crop's side."""

    scene: int
    window: Window


class PatchSampler:
    """Draws patches so that rare classes are seen.

    A draw picks a channel (pixels that may be of several are one more), then a cell in proportion to its pixels of
    that channel (times its scene's weight), then the zoom and the place of the patch around the cell. balance: 0
    picks channels as often as they occur, 1 all equally often; between them, in proportion to frequency **
    (1 - balance). No patch shares ground with a region that is held out. The same generator state gives the same
    draw. statistics: of the pixels that are trained on.
    """

    def __init__(
        self,
        scenes: Sequence[LabelledScene],
        indexes: Sequence[LabelIndex],
        crop_px: int,
        zoom: tuple[float, float],
        balance: float,
    ) -> None:
        self._scenes, self._crop_px, self._zoom = scenes, crop_px, zoom
        self.statistics = Statistics.of(indexes)
        cells = [_cells(number, index.counts) for number, index in enumerate(indexes)]
        self._places = np.concatenate([places for places, _ in cells])
        mass = np.concatenate([counts * scenes[n].weight for n, (_, counts) in enumerate(cells)])
        share = mass.sum(axis=0) / mass.sum()
        chance = np.where(share > 0, share ** (1 - balance), 0)
        self._channel_ends = np.cumsum(chance / chance.sum())
        self._cell_ends = np.cumsum(mass, axis=0)

    def draw(self, rng: np.random.Generator) -> Draw:
        """SpecError where the regions held out leave no room for a patch."""
        for _ in range(TRIES):
            channel = int(
                np.searchsorted(self._channel_ends, rng.random() * self._channel_ends[-1], side="right")
            )
            ends = self._cell_ends[:, channel]
            cell = int(np.searchsorted(ends, rng.random() * ends[-1], side="right"))
            number, row, col = (int(value) for value in self._places[cell])
            zoom = math.exp(rng.uniform(math.log(self._zoom[0]), math.log(self._zoom[1])))
            window = self._around(self._scenes[number].window, row, col, round(self._crop_px / zoom), rng)
            if not self._scenes[number].touches_held_out(window):
                return Draw(number, window)
        raise SpecError(
            f"no patch of {self._crop_px} px was found outside the validation regions in {TRIES} draws"
        )

    def _around(self, raster: Window, row: int, col: int, side: int, rng: np.random.Generator) -> Window:
        """A square that holds a random pixel of the cell, moved into the raster as far as it fits."""
        starts = []
        for cell, size in ((row, raster.height), (col, raster.width)):
            pixel = min(cell * CELL_PX + int(rng.integers(CELL_PX)), size - 1)
            start = pixel - int(rng.integers(side))
            low, high = min(0, size - side), max(0, size - side)
            starts.append(min(max(start, low), high))
        return Window(starts[0], starts[1], side, side)


def _cells(number: int, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cells with anything to learn: (cell, 3) scene, row and column; and their counts (cell, channel)."""
    row, col = np.nonzero(counts.sum(axis=-1))
    return np.stack([np.full_like(row, number), row, col], axis=-1), counts[row, col].astype(np.float64)
