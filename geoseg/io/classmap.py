"""Class rasters: one uint8 band of class ids, as geoseg writes them or as labels come."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from geoseg.errors import SourceError, SpecError
from geoseg.grid.geogrid import GeoGrid
from geoseg.grid.window import Window
from geoseg.io.rasters import READ_ERRORS, grid_of, handle, open_raster, read_error, rio_window
from geoseg.legend import Legend

TAG_LEGEND = "GEOSEG_LEGEND"


@dataclass(frozen=True)
class ClassMap:
    """A class raster that can be read by windows, in any thread or process.

    legend: from geoseg's own tag, else None. nodata: the file's nodata value, if it declares one.
    """

    path: str
    grid: GeoGrid
    legend: Legend | None
    nodata: int | None

    @classmethod
    def open(cls, path: str) -> ClassMap:
        with open_raster(path) as dataset:
            if dataset.count != 1 or dataset.dtypes[0] != "uint8":
                raise SourceError(
                    f"a class raster has one band of uint8, this has {dataset.count} of {dataset.dtypes[0]}",
                    path,
                )
            tag = dataset.tags().get(TAG_LEGEND)
            try:
                legend = Legend.from_list(json.loads(tag)) if tag else None
            except (ValueError, KeyError, TypeError, SpecError) as error:
                raise SourceError(f"its {TAG_LEGEND} tag cannot be read ({error})", path) from error
            nodata = None if dataset.nodata is None else int(dataset.nodata)
            return cls(str(path), grid_of(dataset), legend, nodata)

    def read(self, window: Window) -> np.ndarray:
        """Class ids of a window inside the raster: (row, col) uint8."""
        try:
            band: np.ndarray = handle(self.path).read(1, window=rio_window(window))
        except READ_ERRORS as error:
            raise read_error(self.path, window, error) from error
        return band
