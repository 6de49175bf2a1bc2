"""Opening rasters: process-wide GDAL settings, one handle per thread and file, errors in one line."""

from __future__ import annotations

import math
import os
import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar
from urllib.parse import urlsplit

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio._err import CPLE_BaseError
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader, MemoryFile
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window as RioWindow

from geoseg.errors import GridError, SourceError
from geoseg.grid.geogrid import GeoGrid
from geoseg.grid.window import Window
from geoseg.io.places import Place, gdal_name, is_remote, place_of
from geoseg.io.remote import Remote
from geoseg.parallel import limit_arenas

CACHE_MB = 128
"""GDAL's block cache, in each process."""
SMALL_CACHE_MB = 32
"""The same once a scene is mapped, when little but tiles across the edges of windows is read twice."""
OPEN_MEMBERS = 32
"""Members that all VRTs of a process hold open; GDAL's 450 made the merge's memory grow with the scene."""

REMOTE_OPTIONS = {
    "GDAL_HTTP_MAX_RETRY": "8",
    "GDAL_HTTP_RETRY_DELAY": "0.3",
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
    "GDAL_HTTP_TIMEOUT": "60",
    "CPL_VSIL_CURL_CHUNK_SIZE": str(256 << 10),
}
"""For windows of rasters in buckets: what fails is tried again, and a server that is silent is given up."""

DRIVERS = ("GTiff", "VRT")
HANDLES_PER_THREAD = 8

READ_ERRORS = (RasterioError, CPLE_BaseError)
"""What a read can raise: rasterio lets some of GDAL's own errors through, from warped views above all."""
PAUSES_S = (0.3, 1.0, 3.0)
"""Before a read from a bucket is tried again."""
EXACT_PX = 1e-9
"""How far GDAL may be off when it places resampled pixels; 0 means "no transformer at all" to rasterio 1.4."""
VIEW_TILE_PX = 512

AS_SHOWN = Affine.scale(1, -1)
"""The geotransform with which QGIS shows a raster that states none: x is the column, y is minus the row."""

_thread = threading.local()

P = ParamSpec("P")
R = TypeVar("R")


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
    for name, value in {**REMOTE_OPTIONS, **_endpoint(os.environ)}.items():
        os.environ.setdefault(name, value)
    os.environ.update(config or {})
    os.environ["GDAL_VRT_ENABLE_PYTHON"] = "NO"


def _endpoint(environment: Mapping[str, str]) -> dict[str, str]:
    """GDAL's words for a storage that is not Amazon's, from those that all other programs know."""
    url = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
    if not url:
        return {}
    parts = urlsplit(url)
    secure = "NO" if parts.scheme == "http" else "YES"
    return {"AWS_S3_ENDPOINT": parts.netloc, "AWS_HTTPS": secure, "AWS_VIRTUAL_HOSTING": "FALSE"}


def limit_cache(megabytes: int) -> None:
    """Shrink this process's block cache for good."""
    rasterio.Env(GDAL_CACHEMAX=megabytes << 20).__enter__()


@contextmanager
def small_cache() -> Iterator[None]:
    """Shrink this process's block cache, and give back what it held of the scene."""
    with rasterio.Env(GDAL_CACHEMAX=SMALL_CACHE_MB << 20):
        yield


def read_again(read: Callable[P, R]) -> Callable[P, R]:
    """For functions that read rasters: of one in a bucket they read again what storage did not give.

    GDAL tries again what is answered with an error, but takes an answer that is cut short for a damaged file.
    """

    @wraps(read)
    def patient(*args: P.args, **options: P.kwargs) -> R:
        for pause in PAUSES_S:
            try:
                return read(*args, **options)
            except SourceError as error:
                if not (isinstance(error.__cause__, READ_ERRORS) and is_remote(str(error.path))):
                    raise
                _forget_handles()
                time.sleep(pause)
        return read(*args, **options)

    return patient


def _forget_handles() -> None:
    kept = _handles()
    while kept:
        kept.popitem()[1].close()


@read_again
def open_raster(path: str | Place) -> DatasetReader:
    """Open a GeoTIFF, COG or VRT for reading; SourceError says what is wrong with it."""
    name = str(path)
    check_there(name)
    if os.path.isdir(name):
        raise SourceError("is a folder, not a raster", name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            dataset = rasterio.open(gdal_name(name))
    except (RasterioError, ValueError, OSError) as error:
        reason = str(error).replace(gdal_name(name), "it").removeprefix("'it' ").removeprefix("it: ")
        raise SourceError(f"cannot be opened as GeoTIFF, COG or VRT ({reason})", name) from error
    if dataset.driver not in DRIVERS:
        dataset.close()
        raise SourceError(
            f"is {dataset.driver}; convert it to GeoTIFF, for example with gdal_translate", name
        )
    return dataset


def check_there(name: str) -> None:
    """Raises SourceError where a file is not there, or cannot be asked for; what GDAL alone understands is passed."""
    try:
        place = place_of(name)
        if isinstance(place, Remote):
            if not place.is_file():
                Remote(
                    place.root
                ).is_dir()  # an answer without content does not tell whether there is a bucket
                raise SourceError("no such object", name)
        elif not name.startswith("/vsi") and not place.exists():
            raise SourceError("no such file", name)
    except (OSError, ValueError) as error:
        raise SourceError(f"cannot be read ({getattr(error, 'strerror', None) or error})", name) from error


def handle(path: str | Place) -> DatasetReader:
    """This thread's open dataset of a file; GDAL handles must not be shared, and reopening is slow."""
    return _kept(("plain", *_version(path)), lambda: open_raster(path))


def warped_handle(path: str | Place, grid: GeoGrid, resampling: Resampling, with_alpha: bool) -> WarpedVRT:
    """This thread's view of a file on another grid; to be read with `read_tiles` only."""

    def build() -> WarpedVRT:
        source = handle(path)
        return WarpedVRT(
            source,
            src_transform=None if states_geotransform(source) else AS_SHOWN,
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


def _version(path: str | Place) -> tuple[str, int, int]:
    """A file replaced under the same name is opened anew."""
    try:
        found = os.stat(str(path))
        return str(path), found.st_mtime_ns, found.st_size
    except OSError:
        return str(path), 0, 0


def _kept(key: Hashable, opener: Callable[[], Any]) -> Any:
    """This thread's few most recently used open datasets."""
    kept = _handles()
    if key not in kept:
        kept[key] = opener()
        while len(kept) > HANDLES_PER_THREAD:
            kept.popitem(last=False)[1].close()
    kept.move_to_end(key)
    return kept[key]


def _handles() -> OrderedDict[Hashable, Any]:
    """Of this thread. A process that was forked has its own: shared ones would move each other's place in the file."""
    kept: OrderedDict[Hashable, Any] = _thread.__dict__.setdefault(f"kept-{os.getpid()}", OrderedDict())
    return kept


def grid_of(dataset: DatasetReader) -> GeoGrid:
    """Where a raster's pixels lie; one without a geotransform lies where QGIS shows it, see AS_SHOWN.

    Raises SourceError where its geotransform places no pixels.
    """
    stated, crs = states_geotransform(dataset), dataset.crs
    transform = dataset.transform if stated else AS_SHOWN
    wkt = crs.to_wkt(version="WKT2_2019") if crs else None
    try:
        if not all(map(math.isfinite, transform[:6])):
            raise GridError(f"the geotransform {transform[:6]} holds a number that is not finite")
        return GeoGrid(dataset.height, dataset.width, transform, wkt, stated)
    except GridError as error:
        raise SourceError(
            f"{error}; state where it lies, for example with gdal_edit.py -a_ullr", dataset.name
        ) from error


def states_geotransform(dataset: DatasetReader) -> bool:
    """False where a file says nothing of where its pixels lie; QGIS shows one that states the identity upside down.

    rasterio gives the identity for both, and tells them apart by a warning, which another thread may switch off.
    """
    return dataset.transform != Affine.identity() or b"<GeoTransform>" in vrt_of(dataset)


def vrt_of(dataset: DatasetReader) -> bytes:
    """What GDAL knows of a raster, as it writes it into a VRT, for what rasterio has no call.

    Raises SourceError where GDAL cannot.
    """
    with MemoryFile(ext=".vrt") as memory:
        try:
            rasterio.shutil.copy(dataset, memory.name, driver="VRT")
        except READ_ERRORS as error:
            raise SourceError(f"what it says of itself cannot be read ({error})", dataset.name) from error
        return bytes(memory.getbuffer())


def doubt_of_place(grid: GeoGrid) -> str | None:
    """What a person should know of where a raster lies, as words that follow its name; None where all is well."""
    if grid.georeferenced and grid.crs is not None:
        return None
    if grid.georeferenced:
        return "has no CRS: its pixels lie where its geotransform says, in no known place, and have no areas"
    shown = "its pixels lie where QGIS shows them, x the column and y minus the row"
    if grid.crs is None:
        return f"has no CRS and no geotransform: {shown}, and have no areas"
    return f"has a CRS but no geotransform: {shown}; say where it lies, for example with gdal_edit.py -a_ullr"


def rio_window(window: Window) -> RioWindow:
    """The window as rasterio names it."""
    return RioWindow(window.col, window.row, window.width, window.height)


def read_error(path: str | Place, window: Window, error: Exception) -> SourceError:
    """What a failed read means to a person."""
    return SourceError(
        f"pixels at row {window.row}, column {window.col} ({window.height} x {window.width}) cannot be read; "
        f"the file is cut short or damaged ({error.__cause__ or error})",
        path,
        window=window,
    )
