"""What a page shows of a scene's rasters: views of bounded size, whatever the scene's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from affine import Affine

from geoseg.errors import GeosegError
from geoseg.grid.geogrid import GeoGrid
from geoseg.grid.window import Window
from geoseg.io import labels as io_labels
from geoseg.io.classmap import ClassMap
from geoseg.io.glimpse import read_reduced, reduced_shape
from geoseg.io.labels import LabelOptions, Labels
from geoseg.io.places import is_there
from geoseg.io.rasters import grid_of, open_raster
from geoseg.legend import NODATA, Legend
from geoseg.report.pictures import displayed

CLASSES_PX = 3072
"""Longer side of the view of the land cover, which packs better than an image."""
VIEW_PX = 2048
"""The same of the image."""
SMALL_PX = 1024
"""The same of confidence and labels."""
SAMPLES = 8
"""Windows per row and column that stand for the whole raster where single pixels matter."""
SAMPLE_PX = 128
APART = 0.02
"""How far a source may lie from its map, as a share of its sides."""

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Source:
    """The image that was mapped. box: where it lies on the map, in its pixels: x, y, width, height."""

    path: str
    bands: tuple[int, ...]
    grid: GeoGrid
    box: Box

    @classmethod
    def find(cls, path: str, bands: Sequence[int], grid: GeoGrid) -> Source | None:
        """The image at a path, if it is still there and still covers the map's grid; else None."""
        if not path or not is_there(path):
            return None
        try:
            with open_raster(path) as dataset:
                found, count = grid_of(dataset), dataset.count
        except GeosegError:
            return None
        chosen = tuple(bands[:3]) if len(bands) >= 3 else (1, 2, 3) if count >= 3 else (1,)
        to_map = ~grid.transform @ found.transform
        x, y = to_map @ (0, 0)
        right, bottom = to_map @ (found.width, found.height)
        off = (abs(x), abs(y), abs(right - grid.width), abs(bottom - grid.height))
        sides = (grid.width, grid.height) * 2
        if max(chosen) > count or any(o > max(2, APART * side) for o, side in zip(off, sides, strict=True)):
            return None
        return cls(path, chosen, found, (x, y, right - x, bottom - y))

    def view(self, side_px: int) -> tuple[np.ndarray, np.ndarray]:
        """All of it, with a longer side of at most side_px: (row, col, 3) uint8, and where it is valid."""
        return self._shown(self.grid.window, reduced_shape(self.grid.height, self.grid.width, side_px))

    def part(self, window: Window, grid: GeoGrid, side_px: int) -> tuple[np.ndarray, np.ndarray]:
        """The part that covers a window of the map's grid, likewise."""
        x, y, width, height = self.box
        across, down = self.grid.width / width, self.grid.height / height
        col, row = round((window.col - x) * across), round((window.row - y) * down)
        size = max(1, round(window.height * down)), max(1, round(window.width * across))
        own = Window(row, col, *size).overlap(self.grid.window)
        return self._shown(own, reduced_shape(own.height, own.width, side_px))

    def _shown(self, window: Window, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        return displayed(*read_reduced(self.path, window, shape, self.bands, mean=True))


def view_of(raster: ClassMap, side_px: int) -> np.ndarray:
    """All of a raster of classes or percent, reduced: (row, col) uint8, 255 where it has none."""
    return part_of(raster, raster.grid.window, side_px)


def part_of(raster: ClassMap | Labels, window: Window, side_px: int) -> np.ndarray:
    """A window of a raster, or of labels that may lie anywhere, likewise; labels that cannot be read are none."""
    shape = reduced_shape(window.height, window.width, side_px)
    if isinstance(raster, Labels):
        step = Affine.scale(window.width / shape[1], window.height / shape[0])
        corner = raster.grid.transform @ Affine.translation(window.col, window.row)
        small = GeoGrid(*shape, corner @ step, raster.grid.crs)
        try:
            return raster.on(small).read(small.window)
        except GeosegError:
            return np.full(shape, NODATA, np.uint8)
    values, valid = read_reduced(raster.path, window, shape)
    part: np.ndarray = np.where(valid, values[0], NODATA)
    return part


def view_grid(grid: GeoGrid, shape: tuple[int, int]) -> GeoGrid:
    """The grid of a view of a raster."""
    scale = Affine.scale(grid.width / shape[1], grid.height / shape[0])
    return GeoGrid(*shape, grid.transform @ scale, grid.crs)


def open_labels(path: str, grid: GeoGrid, legend: Legend, options: LabelOptions) -> Labels | None:
    """The labels at a path, if they are still there and can be read as they were; else None."""
    if not path or not is_there(path):
        return None
    try:
        return io_labels.open_labels(path, grid, legend, options)
    except GeosegError:
        return None


def sample_percent(confidence: ClassMap) -> np.ndarray:
    """How many pixels have each whole percent: (101,) int64, in up to 64 windows that lie evenly over the raster.

    Single pixels, since overviews hold means, which are never as sure nor as unsure as pixels are.
    """
    counts = np.zeros(256, np.int64)
    for row in _starts(confidence.grid.height):
        for col in _starts(confidence.grid.width):
            window = Window(row, col, SAMPLE_PX, SAMPLE_PX).overlap(confidence.grid.window)
            counts += np.bincount(confidence.read(window).ravel(), minlength=256)
    return counts[:101]


def _starts(size: int) -> list[int]:
    """First pixels of windows along an axis: all of a short one, else evenly spaced."""
    if size <= SAMPLES * SAMPLE_PX:
        return list(range(0, size, SAMPLE_PX))
    return [(2 * i + 1) * size // (2 * SAMPLES) - SAMPLE_PX // 2 for i in range(SAMPLES)]
