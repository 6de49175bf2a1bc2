"""What travels between the stages of one block. Each owns its arrays and holds no handles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geoseg.errors import GridError
from geoseg.grid.lattice import Block
from geoseg.grid.window import Window


@dataclass(frozen=True)
class PixelBlock:
    """Pixels read for a block.

    window: what was read; may stick out of the raster. pixels: (band, row, col) over `window` in the card's dtype,
    the card's fill where the source has no data. keep: (row, col) bool over the block's core, True where the output
    gets a class: the source has data, no mask covers it, and it lies in the area of interest.
    """

    block: Block
    window: Window
    pixels: np.ndarray
    keep: np.ndarray

    def __post_init__(self) -> None:
        if self.pixels.shape[1:] != self.window.shape or self.keep.shape != self.block.core.shape:
            raise GridError(
                f"block {self.block.name}: {self.pixels.shape} pixels for {self.window}, {self.keep.shape} kept"
            )


@dataclass(frozen=True)
class LabelBlock:
    """The answer for a block's core: class id and percent, both (row, col) uint8, 255 where there is none."""

    block: Block
    labels: np.ndarray
    confidence: np.ndarray

    def __post_init__(self) -> None:
        for part in (self.labels, self.confidence):
            if part.shape != self.block.core.shape or part.dtype != np.uint8:
                raise GridError(f"block {self.block.name}: {part.shape} {part.dtype} for {self.block.core}")
