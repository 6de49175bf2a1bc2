"""Scenes: rasters as a network sees them, read by windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
from affine import Affine
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.io import DatasetReader

from geoseg.errors import ModelError, SourceError, SpecError
from geoseg.grid.geogrid import GeoGrid
from geoseg.grid.lattice import Block, Lattice
from geoseg.grid.window import Window
from geoseg.io.masks import AreaOfInterest, Mask
from geoseg.io.rasters import (
    READ_ERRORS,
    doubt_of_place,
    grid_of,
    handle,
    open_raster,
    read_again,
    read_error,
    read_tiles,
    rio_window,
    warped_handle,
)
from geoseg.pixels.pixelblock import PixelBlock
from geoseg.spec import InputSpec


@dataclass(frozen=True)
class Scene:
    """A raster, the bands that a model wants of it, and what is left out of it.

    grid: of the pixels as they are read, resampled where that was asked for. alpha: the band (1-based) that tells
    what is transparent, if there is one. warnings: what a person should know of it, a line each.
    """

    path: str
    grid: GeoGrid
    bands: tuple[int, ...]
    dtype: str
    fill: tuple[float | int, ...]
    nodata: tuple[float | None, ...]
    alpha: int | None = None
    masked: bool = False
    resampling: str | None = None
    adds_alpha: bool = False
    mask: Mask | None = None
    aoi: AreaOfInterest | None = None
    warnings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return Path(self.path).stem

    def read(self, block: Block, lattice: Lattice) -> PixelBlock:
        """The pixels that the patches of a block see, invalid ones and those outside the raster filled."""
        window = lattice.read_window(block.core)
        inside = window.overlap(self.grid.window)
        values, valid = self.read_window(inside)
        if inside == window and valid.all():
            pixels = values
        else:
            pixels = np.empty((len(self.bands), *window.shape), self.dtype)
            pixels[:] = np.asarray(self.fill, self.dtype)[:, None, None]
            np.copyto(pixels[(slice(None), *inside.within(window))], values, where=valid)
        keep = valid[block.core.within(inside)]
        if self.aoi is not None:
            keep = keep & self.aoi.covers(block.core)
        return PixelBlock(block, window, pixels, np.ascontiguousarray(keep))

    @read_again
    def read_window(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Raw values (band, row, col) and validity (row, col) of a window inside the raster."""
        bands = [*self.bands, self.alpha] if self.alpha is not None else list(self.bands)
        valid = np.ones(window.shape, bool)
        try:
            if self.resampling is not None:
                view = warped_handle(self.path, self.grid, Resampling[self.resampling], self.adds_alpha)
                values = read_tiles(view, bands, window)
            else:
                dataset = handle(self.path)
                values = dataset.read(bands, window=rio_window(window))
                if self.masked:
                    valid &= dataset.read_masks(self.bands[0], window=rio_window(window)) != 0
            if self.alpha is not None:
                valid &= values[-1] != 0
                values = values[:-1]
        except READ_ERRORS as error:
            raise read_error(self.path, window, error) from error
        declared = [value for value in self.nodata if value is not None]
        if len(declared) == len(self.nodata):
            valid &= ~_all_nodata(values, declared)
        if values.dtype.kind == "f":
            valid &= np.isfinite(values).all(axis=0)
        if self.mask is not None:
            valid &= ~self.mask.covers(window)
        return values.astype(self.dtype, copy=False), valid


def open_scene(path: str, wants: InputSpec, bands: Sequence[int] = (), gsd_m: float | None = None) -> Scene:
    """Check a raster against a model's wants, before anything is computed.

    bands: 1-based, in the model's order; the first ones where none are given. gsd_m: resample to this ground sample
    distance while reading. Raises SourceError for a raster that cannot be mapped, ModelError where the model does not
    fit it, SpecError for a request that it cannot meet.
    """
    with open_raster(path) as dataset:
        chosen = _chosen_bands(dataset, path, wants, bands)
        dtype = _dtype(dataset, path, wants, chosen)
        grid = grid_of(dataset)
        _check_place(dataset, path)
        flags = dataset.mask_flag_enums[chosen[0] - 1]
        alphas = [i for i, kind in enumerate(dataset.colorinterp, 1) if kind is ColorInterp.alpha]
        scene = Scene(
            path=str(path),
            grid=grid,
            bands=chosen,
            dtype=dtype,
            fill=wants.fill,
            nodata=tuple(dataset.nodatavals[b - 1] for b in chosen),
            alpha=next((a for a in alphas if a not in chosen), None),
            masked=MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags,
            warnings=tuple(_warnings(dataset, grid, wants, gsd_m, chosen)),
        )
        return scene if gsd_m is None else _resampled(scene, gsd_m, dataset)


def acquired(path: str) -> str | None:
    """When a raster's picture was taken, as its tags say: an ISO 8601 date, or None."""
    with open_raster(path) as dataset:
        told = dataset.tags(ns="IMAGERY").get("ACQUISITIONDATETIME") or dataset.tags().get("TIFFTAG_DATETIME")
    try:
        return date.fromisoformat((told or "")[:10].replace(":", "-")).isoformat()
    except ValueError:
        return None


def _chosen_bands(
    dataset: DatasetReader, path: str, wants: InputSpec, bands: Sequence[int]
) -> tuple[int, ...]:
    wanted = ", ".join(wants.bands)
    if bands and len(bands) != len(wants.bands):
        raise SpecError(
            f"the model takes {len(wants.bands)} bands ({wanted}), {len(bands)} were chosen", path
        )
    chosen = tuple(bands) or tuple(range(1, len(wants.bands) + 1))
    if not all(1 <= band <= dataset.count for band in chosen):
        raise ModelError(
            f"has {dataset.count} band{'s' * (dataset.count != 1)}; the model takes {len(wants.bands)} ({wanted}), "
            f"looked for as {', '.join(map(str, chosen))}",
            path,
        )
    return chosen


def _dtype(dataset: DatasetReader, path: str, wants: InputSpec, bands: tuple[int, ...]) -> str:
    found = {dataset.dtypes[band - 1] for band in bands}
    if found == {wants.dtype} or (wants.dtype == "float32" and found == {"float64"}):
        return wants.dtype
    raise ModelError(
        f"holds {', '.join(sorted(found))} values; the model takes {wants.dtype}, and values are never "
        "rescaled by guess: convert the scene, or take a model for its values",
        path,
    )


def _check_place(dataset: DatasetReader, path: str) -> None:
    if dataset.transform == Affine.identity() and (dataset.gcps[0] or dataset.rpcs):
        kind = "ground control points" if dataset.gcps[0] else "rational polynomials"
        raise SourceError(f"is placed by {kind} only; rectify it first, for example with gdalwarp", path)


def _warnings(
    dataset: DatasetReader, grid: GeoGrid, wants: InputSpec, gsd_m: float | None, bands: tuple[int, ...]
) -> list[str]:
    lines = []
    if doubt := doubt_of_place(grid):
        lines.append(doubt)
    gsd = gsd_m or grid.gsd_m
    if gsd is not None and not wants.gsd_m[0] <= gsd <= wants.gsd_m[1]:
        lines.append(
            f"pixels are {gsd:.3g} m on the ground; the model was trained for {wants.gsd_m[0]:g} to "
            f"{wants.gsd_m[1]:g} m: expect a poor map, or resample with --gsd"
        )
    if any(dataset.scales[b - 1] != 1 or dataset.offsets[b - 1] != 0 for b in bands):
        lines.append("declares a scale or an offset; stored values are used as they are")
    return lines


def _resampled(scene: Scene, gsd_m: float, dataset: DatasetReader) -> Scene:
    """The scene as read at another ground sample distance: same corner, same rotation, larger or smaller pixels."""
    if scene.grid.gsd_m is None:
        raise SpecError(
            "cannot be resampled to metres, since it has no CRS that tells its pixels' size", scene.path
        )
    if not 0 < gsd_m < float("inf"):
        raise SpecError(f"the ground sample distance must be above 0 m, got {gsd_m}", scene.path)
    factor = gsd_m / scene.grid.gsd_m
    height, width = (max(1, round(side / factor)) for side in (scene.grid.height, scene.grid.width))
    transform = scene.grid.transform @ Affine.scale(scene.grid.width / width, scene.grid.height / height)
    grid = GeoGrid(height, width, transform, scene.grid.crs)
    resampled = replace(scene, grid=grid, resampling=_kernel(factor), masked=False)
    if scene.alpha is not None or (not scene.masked and any(value is not None for value in scene.nodata)):
        return resampled
    return replace(resampled, adds_alpha=True, alpha=dataset.count + 1)  # made from the mask, if there is one


def _kernel(factor: float) -> str:
    return "average" if factor > 1 else "bilinear"


def _all_nodata(values: np.ndarray, nodata: list[float]) -> np.ndarray:
    """True where every band holds its nodata value."""
    empty = np.ones(values.shape[1:], bool)
    for band, value in zip(values, nodata, strict=True):
        empty &= np.isnan(band) if np.isnan(value) else band == value
    return empty
