"""Small views of large files: rasters reduced tile by tile, layers in batches. Memory follows the view."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyogrio
import shapely
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window as RioWindow

from geoseg.errors import SourceError
from geoseg.grid.window import Window
from geoseg.io.places import Place, fetched, place_of
from geoseg.io.rasters import READ_ERRORS, handle, read_again, read_error

TILE_PX = 128
"""Side of what is read at once, in pixels of the view."""
BATCH = 1_000
"""Features read at once."""


def reduced_shape(height: int, width: int, side_px: int) -> tuple[int, int]:
    """Rows and columns of a view whose longer side is at most side_px; never larger than the raster."""
    scale = min(1.0, side_px / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


@read_again
def read_reduced(
    path: str | Path, window: Window, shape: tuple[int, int], bands: Sequence[int] = (1,), mean: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """A window of a raster, reduced to `shape` (row, col): values (band, row, col) and validity (row, col).

    The file's overviews are used where it has any. mean: average, for pictures; else one of the pixels, for classes.
    The window lies inside the raster and is no smaller than the view. Raises SourceError where it cannot be read.
    """
    dataset = handle(path)
    rows, cols = _edges(window.height, shape[0]), _edges(window.width, shape[1])
    values = np.empty((len(bands), *shape), dataset.dtypes[bands[0] - 1])
    valid = np.empty(shape, bool)
    how = Resampling.average if mean else Resampling.nearest
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            for (r0, r1), (y0, y1) in rows:
                for (c0, c1), (x0, x1) in cols:
                    part = RioWindow(window.col + x0, window.row + y0, x1 - x0, y1 - y0)
                    size = (r1 - r0, c1 - c0)
                    values[:, r0:r1, c0:c1] = dataset.read(
                        list(bands), window=part, out_shape=(len(bands), *size), resampling=how
                    )
                    valid[r0:r1, c0:c1] = dataset.dataset_mask(window=part, out_shape=size) != 0
    except READ_ERRORS as error:
        raise read_error(path, window, error) from error
    return values, valid


def _edges(size: int, reduced: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Tiles along an axis: their ends in the view, and in the raster, rounded to whole pixels."""
    ends = [*range(0, reduced, TILE_PX), reduced]
    places = [round(end * size / reduced) for end in ends]
    return list(zip(pairwise(ends), pairwise(places), strict=True))


def layer_counts(path: str | Place) -> dict[str, int]:
    """The layers of a vector file that have geometries, with their number of features.

    Raises SourceError where the file is missing or damaged.
    """
    if not place_of(path).is_file():
        raise SourceError("no such file", path)
    try:
        with fetched(path) as opened:
            names = [str(name) for name, kind in pyogrio.list_layers(opened) if kind is not None]
            return {name: int(pyogrio.read_info(opened, layer=name)["features"]) for name in names}
    except (OSError, RuntimeError, ValueError) as error:
        raise SourceError(f"cannot be read as a vector file ({error})", path) from error


def read_layer(
    path: str | Place, layer: str, field: str | None = None
) -> Iterator[tuple[np.ndarray, list[str]]]:
    """Geometries of a layer in file order, in batches, with the text of a field (empty strings without one).

    Raises SourceError where the file is damaged or has no such field.
    """
    try:
        with (
            fetched(path) as opened,
            pyogrio.open_arrow(
                opened, layer=layer, columns=[field] if field else [], batch_size=BATCH, use_pyarrow=True
            ) as (meta, reader),
        ):
            column = meta["geometry_name"] or "wkb_geometry"
            for batch in reader:
                geometries = shapely.from_wkb(batch.column(column).to_numpy(zero_copy_only=False))
                names = batch.column(field).to_pylist() if field else [""] * len(geometries)
                yield geometries, ["" if name is None else str(name) for name in names]
    except (OSError, RuntimeError, ValueError, KeyError, shapely.errors.ShapelyError) as error:
        raise SourceError(f"layer {layer!r} cannot be read ({error})", path) from error
