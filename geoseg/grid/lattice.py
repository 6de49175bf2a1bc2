"""The lattice of patches, anchored to the raster, and the blocks of work cut along it.

A patch's place depends on the raster's size and on the spec, never on a block: this is why cutting a raster into
blocks changes no answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from geoseg.errors import SpecError
from geoseg.grid.window import Window
from geoseg.spec import SegmentSpec


@dataclass(frozen=True)
class Block:
    """A unit of work: its place in the raster's rows and columns of blocks, and the pixels that it owns."""

    row: int
    col: int
    core: Window

    @property
    def name(self) -> str:
        return f"r{self.row:06d}_c{self.col:06d}"


@dataclass(frozen=True)
class Lattice:
    """Patches over a raster of height x width pixels.

    blend "crop": patch (i, j) answers for its center, the square of stride_px that starts at (i, j) * stride_px; the
    patch starts a margin before it (the overlap-tile strategy of Ronneberger et al. 2015). Centers tile the raster
    from its first pixel; patches stick out at the borders.
    blend "hann": patches start at multiples of stride_px, the last of a row or column is shifted back to end with the
    raster, and a raster smaller than a patch lies in its middle: the places of MONAI's sliding window.
    """

    height: int
    width: int
    spec: SegmentSpec

    @property
    def window(self) -> Window:
        return Window(0, 0, self.height, self.width)

    def patches(self, core: Window) -> Iterator[Window]:
        """The patches that answer for the pixels of `core`, in lattice order (rows first)."""
        rows = self._starts(self.height, core.row, core.row_end)
        cols = self._starts(self.width, core.col, core.col_end)
        side = self.spec.patch_px
        return (Window(row, col, side, side) for row in rows for col in cols)

    def center(self, patch: Window) -> Window:
        """What a patch answers for: its center in the raster (crop), or all of it (hann)."""
        inner = patch.grow(-self.spec.margin_px) if self.spec.blend == "crop" else patch
        return inner.overlap(self.window)

    def read_window(self, core: Window) -> Window:
        """The pixels that the patches of `core` see; may stick out of the raster."""
        patches = list(self.patches(core))
        first, last = patches[0], patches[-1]
        return Window(first.row, first.col, last.row_end - first.row, last.col_end - first.col)

    def patch_count(self, core: Window) -> int:
        rows = self._starts(self.height, core.row, core.row_end)
        cols = self._starts(self.width, core.col, core.col_end)
        return len(rows) * len(cols)

    def _starts(self, size: int, begin: int, end: int) -> Sequence[int]:
        """First rows (or columns) of the patches that answer for begin..end of an axis of `size` pixels."""
        stride, patch, margin = self.spec.stride_px, self.spec.patch_px, self.spec.margin_px
        if self.spec.blend == "crop":
            return range(begin // stride * stride - margin, -(-end // stride) * stride - margin, stride)
        if size <= patch:
            return [-((patch - size) // 2)]
        count = 1 + -(-(size - patch) // stride)
        first = max(0, (begin - patch) // stride + 1)
        starts = (min(i * stride, size - patch) for i in range(min(first, count - 1), count))
        return [s for s in starts if s < end and s + patch > begin]


@dataclass(frozen=True)
class Blocks:
    """All blocks of a raster, rows first. Cores are a whole number of centers, and are cut off by the raster's end."""

    lattice: Lattice
    block_px: int

    @classmethod
    def of(cls, lattice: Lattice, block_px: int) -> Blocks:
        """block_px is rounded down to whole patch centers, at least one."""
        if block_px < 1:
            raise SpecError(f"block size must be at least 1 px, got {block_px}")
        stride = lattice.spec.stride_px
        return cls(lattice, max(1, block_px // stride) * stride)

    @property
    def rows(self) -> int:
        return -(-self.lattice.height // self.block_px)

    @property
    def cols(self) -> int:
        return -(-self.lattice.width // self.block_px)

    def __len__(self) -> int:
        return self.rows * self.cols

    def __iter__(self) -> Iterator[Block]:
        return (self.at(row, col) for row in range(self.rows) for col in range(self.cols))

    def at(self, row: int, col: int) -> Block:
        square = Window(row * self.block_px, col * self.block_px, self.block_px, self.block_px)
        return Block(row, col, square.overlap(self.lattice.window))
