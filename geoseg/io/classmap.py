"""Class rasters: one uint8 band of class ids, as geoseg writes them or labels come; and those of other programs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.io import DatasetReader

from geoseg.errors import SourceError, SpecError
from geoseg.grid.geogrid import GeoGrid
from geoseg.grid.window import Window
from geoseg.io.rasters import READ_ERRORS, grid_of, handle, open_raster, read_again, read_error, rio_window
from geoseg.legend import NODATA, Legend

TAG_LEGEND = "GEOSEG_LEGEND"
TAG_MODEL = "GEOSEG_MODEL"
MOST_PERCENT = 100
LARGEST_SIDECAR = 32 << 20
"""Bytes of an .aux.xml; tables of a few hundred classes take a few kilobytes."""

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ClassMap:
    """A class raster that can be read by windows, in any thread or process.

    legend: from geoseg's own tag, else None. nodata: the file's nodata value, if it declares one that a pixel can have.
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
            declared = dataset.nodata
            nodata = int(declared) if declared is not None and declared in range(256) else None
            return cls(str(path), grid_of(dataset), tagged_legend(dataset), nodata)

    @read_again
    def read(self, window: Window) -> np.ndarray:
        """Class ids of a window inside the raster: (row, col) uint8."""
        try:
            band: np.ndarray = handle(self.path).read(1, window=rio_window(window))
        except READ_ERRORS as error:
            raise read_error(self.path, window, error) from error
        return band


@dataclass(frozen=True)
class AnyClassRaster:
    """A band of small whole numbers in a raster of any data type, read as uint8 with nodata 255.

    band: counted from 1. highest: the largest value that a pixel may have; 254 for classes, 100 for percent.
    declared: the file's nodata value, of any size. masked: whether GDAL's mask says more, as with an alpha band.
    own: whether geoseg wrote it, where 255 is nodata even if the file does not say so. model: by its tag.
    """

    path: str
    grid: GeoGrid
    band: int = 1
    highest: int = NODATA - 1
    declared: float | None = None
    masked: bool = False
    own: bool = False
    model: str | None = None

    @classmethod
    def open(cls, path: str, band: int | None = None) -> AnyClassRaster:
        """Open a raster of class ids; its values are looked at when they are read.

        band: needed where there are several, beside alpha. Raises SourceError for a raster that cannot be used,
        SpecError for a band that it does not have.
        """
        _check_sidecar(path)
        with open_raster(path) as dataset:
            _check_place(dataset)
            tags = dataset.tags()
            number = _chosen_band(dataset, band, "say with --band N which one holds the classes")
            own, model = TAG_LEGEND in tags, tags.get(TAG_MODEL)
            declared, masked = _nodata(dataset, number)
            grid = grid_of(dataset)
        return cls(str(path), grid, number, declared=declared, masked=masked, own=own, model=model)

    @classmethod
    def open_percent(cls, path: str, grid: GeoGrid) -> AnyClassRaster:
        """Open a raster of whole percent on a grid; SourceError where it lies on another."""
        with open_raster(path) as dataset:
            number, found = _chosen_band(dataset, None, "confidence has one"), grid_of(dataset)
            if not found.same_place(grid):
                raise SourceError(
                    f"the confidence ({found.width} x {found.height} px) does not lie on the grid of the classes "
                    f"({grid.width} x {grid.height} px); warp it onto it, for example with gdalwarp -te and -ts",
                    path,
                )
            declared, masked = _nodata(dataset, number)
        return cls(str(path), grid, number, MOST_PERCENT, declared, masked, own=True)

    @property
    def nodata(self) -> int:
        """What `read` gives where the file has no data, whatever it has there itself."""
        return NODATA

    @read_again
    def read(self, window: Window) -> np.ndarray:
        """Values of a window inside the raster: (row, col) uint8.

        Raises SourceError for a value that is not whole or not in 0..highest, with its place. NaN is nodata.
        """
        try:
            dataset, place = handle(self.path), rio_window(window)
            values: np.ndarray = dataset.read(self.band, window=place)
            valid = self._valid(values)
            if self.masked:
                valid &= dataset.read_masks(self.band, window=place) != 0
        except READ_ERRORS as error:
            raise read_error(self.path, window, error) from error
        good = (values >= 0) & (values <= self.highest)
        if values.dtype.kind == "f":
            good &= np.trunc(values) == values
        if not (good | ~valid).all():
            row, col = np.argwhere(valid & ~good)[0].tolist()
            raise self._refusal(values[row, col], window.row + row, window.col + col)
        return np.where(valid, values, NODATA).astype(np.uint8)

    def _valid(self, values: np.ndarray) -> Bools:
        valid = np.ones(values.shape, np.bool_)
        if values.dtype.kind == "f":
            valid &= ~np.isnan(values)
            if self.declared is not None:  # as text in the file it may have lost its last digits
                valid &= ~np.isclose(values, self.declared, rtol=1e-6, atol=0, equal_nan=True)
        elif self.declared is not None:
            valid &= values != self.declared
        if self.own:
            valid &= values != NODATA
        return valid

    def _refusal(self, value: np.integer[Any] | np.floating[Any], row: int, col: int) -> SourceError:
        if self.highest == MOST_PERCENT:
            reason = "confidence is in whole percent, 0 to 100"
        elif value == NODATA:
            reason = (
                "geoseg keeps that for nodata: declare it where it means that (gdal_edit.py -a_nodata 255), "
                "or renumber the class"
            )
        elif not float(value).is_integer():
            reason = "classes are whole numbers from 0 to 254, so this is no class raster"
        else:
            reason = (
                "classes are whole numbers from 0 to 254: declare the value as nodata (gdal_edit.py -a_nodata), "
                "or renumber the classes, for example with gdal_calc.py"
            )
        found = f"holds {value!s} at row {row}, column {col}; {reason}"
        return SourceError(found, self.path, value=value.item(), row=row, col=col)


def _nodata(dataset: DatasetReader, band: int) -> tuple[float | None, bool]:
    """The nodata value that a band declares, and whether GDAL's mask of it says more than that."""
    declared, flags = dataset.nodatavals[band - 1], dataset.mask_flag_enums[band - 1]
    known = {MaskFlags.all_valid} if declared is None else {MaskFlags.all_valid, MaskFlags.nodata}
    return declared, not set(flags) <= known


def tagged_legend(dataset: DatasetReader) -> Legend | None:
    """The legend in geoseg's own tag; None without one. Raises SourceError where it cannot be read."""
    tag = dataset.tags().get(TAG_LEGEND)
    if not tag:
        return None
    try:
        legend = Legend.from_list(json.loads(tag))
        for c in legend.classes:
            if not all(type(number) is int for number in (c.id, *c.color)):
                raise ValueError(f"class {c.id} has an id or a color that is not whole")
        return legend
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, SpecError) as error:
        raise SourceError(f"its {TAG_LEGEND} tag cannot be read ({error})", dataset.name) from error


def _chosen_band(dataset: DatasetReader, band: int | None, advice: str) -> int:
    if band is not None and not 1 <= band <= dataset.count:
        count = f"{dataset.count} band{'s' * (dataset.count != 1)}"
        raise SpecError(f"has {count}, counted from 1, and no band {band}", dataset.name)
    kinds = dataset.colorinterp
    with_values = [i for i, kind in enumerate(kinds, 1) if kind is not ColorInterp.alpha]
    if band is None and len(with_values) != 1:
        names = ", ".join(f"{i} {kind.name}" for i, kind in enumerate(kinds[:8], 1))
        more = ", ..." * (dataset.count > 8)
        raise SourceError(f"has {dataset.count} bands ({names}{more}); {advice}", dataset.name)
    number = band or with_values[0]
    if dataset.dtypes[number - 1].startswith("complex"):
        raise SourceError("holds complex numbers, which are no classes and no percent", dataset.name)
    return number


def _check_sidecar(path: str) -> None:
    """GDAL reads an .aux.xml whole, whatever its size, as soon as it opens the raster."""
    sidecar = Path(f"{path}.aux.xml")
    if sidecar.is_file() and sidecar.stat().st_size > LARGEST_SIDECAR:
        raise SourceError(f"its {sidecar.name} is larger than {LARGEST_SIDECAR >> 20} MB; delete it", path)


def _check_place(dataset: DatasetReader) -> None:
    if dataset.transform == Affine.identity() and (dataset.gcps[0] or dataset.rpcs):
        kind = "ground control points" if dataset.gcps[0] else "rational polynomials"
        raise SourceError(
            f"is placed by {kind} only; rectify it first, for example with gdalwarp -r near", dataset.name
        )
