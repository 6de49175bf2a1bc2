"""What is left out of a map: masks (clouds, water, ...) and everything outside an area of interest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rasterio.enums import Resampling
from shapely import Geometry, Polygon

from geoseg.errors import SourceError
from geoseg.grid.geogrid import GeoGrid
from geoseg.grid.window import Window
from geoseg.io.rasters import (
    READ_ERRORS,
    grid_of,
    handle,
    open_raster,
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
            if not aligned and (own.crs is None or grid.crs is None):
                raise SourceError(f"the mask is {own.width} x {own.height} px and without CRS on one side; it cannot be laid over the scene", path)
        return cls(path, grid, values, None, aligned)

    def covers(self, window: Window) -> np.ndarray:
        """(row, col) bool, True where the mask leaves a pixel out."""
        if self.polygons is not None:
            return burn(self.polygons, window, self.grid)
        try:
            if self.aligned:
                return self._listed(handle(self.path).read(1, window=rio_window(window)))
            view = warped_handle(self.path, self.grid, Resampling.nearest, True)
            values, alpha = read_tiles(view, [1, view.count], window)
            return self._listed(values) & (alpha != 0)
        except READ_ERRORS as error:
            raise read_error(self.path, window, error) from error

    def _listed(self, values: np.ndarray) -> np.ndarray:
        return np.isin(values, self.values) if self.values else values != 0


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

    def meets(self, window: Window) -> bool:
        """True where a window may hold pixels of the area."""
        transform = self.grid.transform_of(window)
        corners = [(0, 0), (window.width, 0), (window.width, window.height), (0, window.height)]
        outline = Polygon([transform * corner for corner in corners])
        return any(polygon.intersects(outline) for polygon in self.polygons)
