"""What is left out of a map: masks (clouds, water, ...) and everything outside an area of interest."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely
from rasterio._err import CPLE_BaseError
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.warp import transform_bounds
from shapely import Geometry, Polygon

from geoseg.errors import SourceError
from geoseg.grid.geogrid import GeoGrid
from geoseg.grid.window import Window
from geoseg.io.rasters import (
    READ_ERRORS,
    grid_of,
    handle,
    open_raster,
    read_again,
    read_error,
    read_tiles,
    rio_window,
    warped_handle,
)
from geoseg.io.regions import read_polygons
from geoseg.pixels.burn import burn

RASTER_ENDINGS = (".tif", ".tiff", ".vrt", ".cog", ".gtiff")


@dataclass(frozen=True)
class Mask:
    """Pixels to leave out. From a raster: those whose value is listed, or is not 0 where no values are listed,
    nearest neighbor where its grid is another. From polygons: those whose centers lie inside.
    """

    path: str
    grid: GeoGrid
    values: tuple[int, ...] = ()
    polygons: tuple[Geometry, ...] | None = None
    aligned: bool = True

    @classmethod
    def open(cls, path: str, grid: GeoGrid, values: tuple[int, ...] = ()) -> Mask:
        """Raises SourceError where the file is neither, or does not meet the scene."""
        if Path(path).suffix.lower() not in RASTER_ENDINGS:
            found = read_polygons(path, grid, None)
            return cls(path, grid, values, tuple(polygon.geometry for polygon in found))
        with open_raster(path) as dataset:
            if dataset.dtypes[0].startswith("complex"):
                raise SourceError("a mask holds whole numbers, this holds complex ones", path)
            own = grid_of(dataset)
            aligned = own.same_place(grid)
            if not aligned:
                _check_overlap(own, grid, path)
        return cls(path, grid, values, None, aligned)

    @read_again
    def covers(self, window: Window) -> np.ndarray:
        """(row, col) bool, True where the mask leaves a pixel out."""
        if self.polygons is not None:
            return burn(self.polygons, window, self.grid)
        try:
            if self.aligned:
                return self._listed(handle(self.path).read(1, window=rio_window(window)))
            view = warped_handle(self.path, self.grid, Resampling.nearest, True)
            values, alpha = read_tiles(view, [1, view.count], window)
            covered: np.ndarray = self._listed(values) & (alpha != 0)
            return covered
        except READ_ERRORS as error:
            raise read_error(self.path, window, error) from error

    def _listed(self, values: np.ndarray) -> np.ndarray:
        return values != 0 if not self.values else np.isin(values, self.values)


def _outline(grid: GeoGrid, window: Window) -> Polygon:
    corners = [(0, 0), (window.width, 0), (window.width, window.height), (0, window.height)]
    return Polygon([grid.transform_of(window) @ corner for corner in corners])


def _check_overlap(mask: GeoGrid, scene: GeoGrid, path: str) -> None:
    """Raises SourceError where a mask cannot be laid over a scene, or lies elsewhere as far as boxes tell."""
    if mask.crs is None or scene.crs is None:
        raise SourceError(
            f"the mask is {mask.width} x {mask.height} px and without CRS on one side; "
            f"it cannot be laid over the scene of {scene.width} x {scene.height} px",
            path,
        )
    try:
        left, bottom, right, top = transform_bounds(
            scene.crs, mask.crs, *_outline(scene, scene.window).bounds
        )
    except (RasterioError, CPLE_BaseError) as error:
        raise SourceError(f"the mask cannot be brought into the scene's CRS ({error})", path) from error
    own = _outline(mask, mask.window).bounds
    if left <= right and (left >= own[2] or right <= own[0] or bottom >= own[3] or top <= own[1]):
        raise SourceError("the mask does not overlap the scene", path)


@dataclass(frozen=True)
class AreaOfInterest:
    """Where a map is wanted: pixels whose centers lie inside. Chooses blocks and masks the output, never the input."""

    path: str
    grid: GeoGrid
    polygons: tuple[Geometry, ...]

    @classmethod
    def open(cls, path: str, grid: GeoGrid) -> AreaOfInterest:
        return cls(path, grid, tuple(polygon.geometry for polygon in read_polygons(path, grid, None)))

    def covers(self, window: Window) -> np.ndarray:
        """(row, col) bool, True inside."""
        return burn(self.polygons, window, self.grid)

    @property
    def box(self) -> Window:
        """A box around all pixels of the area."""
        left, bottom, right, top = shapely.total_bounds(list(self.polygons))
        corners = [(left, bottom), (left, top), (right, bottom), (right, top)]
        cols, rows = zip(*(~self.grid.transform @ corner for corner in corners), strict=True)
        row, col = math.floor(min(rows)), math.floor(min(cols))
        box = Window(row, col, math.ceil(max(rows)) - row, math.ceil(max(cols)) - col)
        return box.overlap(self.grid.window)

    def meets(self, window: Window) -> bool:
        """True where a window may hold pixels of the area."""
        outline = _outline(self.grid, window)
        return any(polygon.intersects(outline) for polygon in self.polygons)
