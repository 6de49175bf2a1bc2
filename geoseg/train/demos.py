"""Demo scenes as files, so that training reads them like any other scene."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from affine import Affine

from geoseg.demo.look import METRES_PER_PIXEL
from geoseg.demo.scene import render_demo
from geoseg.errors import OutputError
from geoseg.io.files import make_folder
from geoseg.train.config import DemoEntry, SceneEntry

CRS = "EPSG:32640"
LAYOUT = {"driver": "GTiff", "tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate"}


def write_demos(entry: DemoEntry, folder: Path) -> tuple[SceneEntry, ...]:
    """Render image and labels of each seed into `folder`; 0 is nodata. OutputError where the disk is full.

    They all lie in one nominal place, and are for training only.
    """
    make_folder(folder)
    written = []
    for seed in entry.seeds:
        scene = render_demo(seed, entry.size)
        image, labels = folder / f"demo_{seed}.tif", folder / f"demo_{seed}_labels.tif"
        _write(image, scene.image)
        _write(labels, scene.labels[None])
        meanings = {str(value): meaning for value, meaning in enumerate(entry.meanings.values(), 1)}
        written.append(SceneEntry(scene=image, labels=labels, map_class=meanings))
    return tuple(written)


def _write(path: Path, bands: np.ndarray) -> None:
    transform = Affine.translation(300_000, 2_800_000) @ Affine.scale(METRES_PER_PIXEL, -METRES_PER_PIXEL)
    profile = {
        "count": bands.shape[0], "height": bands.shape[1], "width": bands.shape[2], "dtype": bands.dtype.name,
        "crs": CRS, "transform": transform, "nodata": 0,
    }  # fmt: skip
    try:
        with rasterio.open(path, "w", **LAYOUT, **profile) as dataset:
            dataset.write(bands)
    except (rasterio.errors.RasterioError, OSError) as error:
        raise OutputError(f"could not be written ({error})", path) from error
