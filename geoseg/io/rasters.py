"""Opening rasters: process-wide GDAL settings, one handle per thread and file, errors in one line."""

from __future__ import annotations

import math
import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window as RioWindow

from geoseg.errors import GridError, SourceError
from geoseg.grid.geogrid import GeoGrid
from geoseg.grid.window import Window
from geoseg.parallel import limit_arenas

CACHE_MB = 128
"""GDAL's block cache, in each process."""
SMALL_CACHE_MB = 32
"""The same once a scene is mapped, when little but tiles across the edges of windows is read twice."""
OPEN_MEMBERS = 32
"""Members that all VRTs of a process hold open; GDAL's 450 made the merge's memory grow with the scene."""

DRIVERS = ("GTiff", "VRT")
HANDLES_PER_THREAD = 8

READ_ERRORS = (RasterioError, CPLE_BaseError)
"""What a read can raise: rasterio lets some of GDAL's own errors through, from warped views above all."""
EXACT_PX = 1e-9
"""How far GDAL may be off when it places resampled pixels; 0 means "no transformer at all" to rasterio 1.4."""
VIEW_TILE_PX = 512

_thread = threading.local()


def configure_gdal(config: Mapping[str, str] | None = None) -> None:
    """Set GDAL options for this process and those it starts. Options given win, then the environment, then ours.

    Environment variables reach every thread and every worker alike; Python in VRT files is never run. GDAL's own
    lines go nowhere unless CPL_LOG names a file: what matters of them is in our errors.
    """
    warnings.filterwarnings(
        "ignore", category=NotGeoreferencedWarning
    )  # block files have no place of their own
    limit_arenas()
    os.environ.setdefault("GDAL_CACHEMAX", str(CACHE_MB))
    os.environ.setdefault("GDAL_MAX_DATASET_POOL_SIZE", str(OPEN_MEMBERS))
    os.environ.setdefault("CPL_LOG", os.devnull)
    os.environ.update(config or {})
    os.environ["GDAL_VRT_ENABLE_PYTHON"] = "NO"


def limit_cache(megabytes: int) -> None:
    """Shrink this process's block cache for good."""
    rasterio.Env(GDAL_CACHEMAX=megabytes << 20).__enter__()


@contextmanager
def small_cache() -> Iterator[None]:
    """Shrink this process's block cache, and give back what it held of the scene."""
    with rasterio.Env(GDAL_CACHEMAX=SMALL_CACHE_MB << 20):
        yield


def open_raster(path: str | Path) -> DatasetReader:
    """Open a GeoTIFF, COG or VRT for reading; SourceError says what is wrong with it."""
    name = str(path)
    if "://" not in name and not name.startswith("/vsi"):
        if not os.path.exists(name):
            raise SourceError("no such file", name)
        if os.path.isdir(name):
            raise SourceError("is a folder, not a raster", name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            dataset = rasterio.open(name)
    except (RasterioError, ValueError, OSError) as error:
        reason = str(error).replace(name, "it").removeprefix("'it' ").removeprefix("it: ")
        raise SourceError(f"cannot be opened as GeoTIFF, COG or VRT ({reason})", name) from error
    if dataset.driver not in DRIVERS:
        dataset.close()
        raise SourceError(
            f"is {dataset.driver}; convert it to GeoTIFF, for example with gdal_translate", name
        )
    return dataset


def handle(path: str | Path) -> DatasetReader:
    """This thread's open dataset of a file; GDAL handles must not be shared, and reopening is slow."""
    return _kept(("plain", *_version(path)), lambda: open_raster(path))


def warped_handle(path: str | Path, grid: GeoGrid, resampling: Resampling, with_alpha: bool) -> WarpedVRT:
    """This thread's view of a file on another grid; to be read with `read_tiles` only."""

    def build() -> WarpedVRT:
        return WarpedVRT(
            handle(path),
            crs=grid.crs,
            transform=grid.transform,
            height=grid.height,
            width=grid.width,
            resampling=resampling,
            tolerance=EXACT_PX,
            add_alpha=with_alpha,
        )

    return _kept(("warped", *_version(path), grid, resampling, with_alpha), build)


def read_tiles(view: WarpedVRT, bands: list[int], window: Window) -> np.ndarray:
    """Read a window (band, row, col) of a resampled view, in whole tiles that are anchored to the view.

    GDAL chooses its kernel for each chunk that it warps, so that the same pixel can differ between two windows.
    """
    out = np.empty((len(bands), *window.shape), view.dtypes[bands[0] - 1])
    extent = Window(0, 0, view.height, view.width)
    for row in range(window.row // VIEW_TILE_PX * VIEW_TILE_PX, window.row_end, VIEW_TILE_PX):
        for col in range(window.col // VIEW_TILE_PX * VIEW_TILE_PX, window.col_end, VIEW_TILE_PX):
            tile = Window(row, col, VIEW_TILE_PX, VIEW_TILE_PX).overlap(extent)
            pixels = view.read(bands, window=rio_window(tile))
            shared = tile.overlap(window)
            out[(slice(None), *shared.within(window))] = pixels[(slice(None), *shared.within(tile))]
    return out


def _version(path: str | Path) -> tuple[str, int, int]:
    """A file replaced under the same name is opened anew."""
    try:
        found = os.stat(path)
        return str(path), found.st_mtime_ns, found.st_size
    except OSError:
        return str(path), 0, 0


def _kept(key: Hashable, opener: Callable[[], Any]) -> Any:
    """This thread's few most recently used open datasets."""
    kept: OrderedDict[Hashable, Any] = _thread.__dict__.setdefault("kept", OrderedDict())
    if key not in kept:
        kept[key] = opener()
        while len(kept) > HANDLES_PER_THREAD:
            kept.popitem(last=False)[1].close()
    kept.move_to_end(key)
    return kept[key]


def grid_of(dataset: DatasetReader) -> GeoGrid:
    """Where a raster's pixels lie. Raises SourceError where its geotransform places no pixels."""
    transform, crs = dataset.transform, dataset.crs
    wkt = crs.to_wkt(version="WKT2_2019") if crs else None
    try:
        if not all(map(math.isfinite, transform[:6])):
            raise GridError(f"the geotransform {transform[:6]} holds a number that is not finite")
        return GeoGrid(dataset.height, dataset.width, transform, wkt)
    except GridError as error:
        raise SourceError(
            f"{error}; state where it lies, for example with gdal_edit.py -a_ullr", dataset.name
        ) from error


def rio_window(window: Window) -> RioWindow:
    """The window as rasterio names it."""
    return RioWindow(window.col, window.row, window.width, window.height)


def read_error(path: str | Path, window: Window, error: Exception) -> SourceError:
    """What a failed read means to a person."""
    return SourceError(
        f"pixels at row {window.row}, column {window.col} ({window.height} x {window.width}) cannot be read; "
        f"the file is cut short or damaged ({error.__cause__ or error})",
        path,
        window=window,
    )
