"""Rectangles of pixels, as values."""

from __future__ import annotations

from dataclasses import dataclass

from geoseg.errors import GridError


@dataclass(frozen=True, order=True)
class Window:
    """A rectangle of pixels: first row and column, height and width. May start before the raster's first pixel."""

    row: int
    col: int
    height: int
    width: int

    def __post_init__(self) -> None:
        if self.height < 0 or self.width < 0:
            raise GridError(f"a window cannot be {self.height} x {self.width} px")

    @property
    def row_end(self) -> int:
        return self.row + self.height

    @property
    def col_end(self) -> int:
        return self.col + self.width

    @property
    def shape(self) -> tuple[int, int]:
        return self.height, self.width

    @property
    def area_px(self) -> int:
        return self.height * self.width

    def overlap(self, other: Window) -> Window:
        """The part in both; of no area where they only touch or lie apart."""
        row, col = max(self.row, other.row), max(self.col, other.col)
        height = max(0, min(self.row_end, other.row_end) - row)
        width = max(0, min(self.col_end, other.col_end) - col)
        return Window(row, col, height, width)

    def touches(self, other: Window) -> bool:
        """True where the two share at least one pixel."""
        return self.overlap(other).area_px > 0

    def grow(self, margin_px: int) -> Window:
        """Wider by a margin on each side."""
        return Window(
            self.row - margin_px,
            self.col - margin_px,
            self.height + 2 * margin_px,
            self.width + 2 * margin_px,
        )

    def within(self, outer: Window) -> tuple[slice, slice]:
        """Where this window lies in an array that covers `outer`. Raises GridError where it sticks out."""
        if self.overlap(outer).shape != self.shape:
            raise GridError(f"{self} does not lie within {outer}")
        row, col = self.row - outer.row, self.col - outer.col
        return slice(row, row + self.height), slice(col, col + self.width)
