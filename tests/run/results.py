"""What "equal" means: pixels, place and tags of rasters; geometry and attributes of vectors, in order; scores."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyogrio
import rasterio
import shapely
from affine import Affine

from geoseg.io.stac import ITEM
from geoseg.report.facts import REPORT
from geoseg.run.events import LineReporter
from geoseg.run.job import make_job
from geoseg.run.pipeline import Run

TRANSFORM = Affine(0.8, 0, 300_000, 0, -0.8, 2_700_000)


def run(scene: Path, output: Path, model: Path, **options: Any) -> int:
    given = {"scenes": (str(scene),), "output": str(output), "model": str(model), "workers": 2, **options}
    return Run(make_job(given), LineReporter()).go()


def descendants(name: str) -> list[psutil.Process]:
    """Processes of that name that this one has started, directly or through others; none of another test's."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if name in " ".join(process.cmdline()):
                found.append(process)
    return found


def write_scene(
    path: Path, height: int = 700, width: int = 620, seed: int = 0, crs: str | None = "EPSG:32640",
    transform: Affine = TRANSFORM, nodata: int | None = 0,
) -> Path:  # fmt: skip
    """Blobs of several sizes, which the tiny network tells apart, and a corner without data."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((3, height, width))
    for side in (4, 20, 90):
        coarse = rng.random((3, height // side + 2, width // side + 2)) * 90
        pixels += coarse.repeat(side, 1).repeat(side, 2)[:, :height, :width]
    image = np.clip(pixels, 1, 255).astype(np.uint8)
    rows, cols = np.mgrid[:height, :width]
    image[:, rows + cols < 150] = 0
    profile = {
        "driver": "GTiff", "height": height, "width": width, "count": 3, "dtype": "uint8",
        "tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate",
    }  # fmt: skip
    with rasterio.open(path, "w", crs=crs, transform=transform, nodata=nodata, **profile) as out:
        out.write(image)
    return path


def write_labels(path: Path, scene: Path, seed: int = 1) -> Path:
    rng = np.random.default_rng(seed)
    with rasterio.open(scene) as source:
        profile = {**source.profile, "count": 1, "nodata": None}
        shape = source.shape
    coarse = rng.integers(0, 6, (shape[0] // 30 + 1, shape[1] // 30 + 1), dtype=np.uint8)
    with rasterio.open(path, "w", **profile) as out:
        out.write(coarse.repeat(30, 0).repeat(30, 1)[: shape[0], : shape[1]], 1)
    return path


def write_polygons(
    path: Path, boxes: Sequence[tuple[float, float, float, float]], transform: Affine = TRANSFORM,
    crs: str = "EPSG:32640",
) -> Path:  # fmt: skip
    """Boxes given as col, row, col, row in pixels, named by number, in a GeoJSON or GeoPackage."""
    corners = [(transform @ (c0, r0), transform @ (c1, r1)) for c0, r0, c1, r1 in boxes]
    shapes = [
        shapely.box(min(a[0], b[0]), min(a[1], b[1]), max(a[0], b[0]), max(a[1], b[1])) for a, b in corners
    ]
    names = np.array([f"box {i}" for i in range(len(boxes))], dtype=object)
    pyogrio.raw.write(
        path, shapely.to_wkb(np.array(shapes)), [names], ["region"], geometry_type="Polygon", crs=crs,
        driver="GPKG",
    )  # fmt: skip
    return path


def contents(folder: Path) -> dict[str, Any]:
    """Everything in a scene's folder that must be equal for equal answers."""
    found: dict[str, Any] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".tif":
            with rasterio.open(path) as source:
                found[path.name] = (
                    source.read(1).tobytes(), source.shape, tuple(source.transform), source.crs, source.tags(),
                    source.nodata, source.overviews(1), source.read(1, out_shape=(50, 50)).tobytes(),
                )  # fmt: skip
        elif path.suffix == ".gpkg":
            for layer in (name for name, kind in pyogrio.list_layers(path) if kind is not None):
                meta, fids, blobs, fields = pyogrio.raw.read(path, layer=layer, return_fids=True)
                found[f"{path.name}:{layer}"] = (
                    meta["crs"], list(meta["fields"]), fids.tolist(), [bytes(b) for b in blobs],
                    [[None if v != v else v for v in column.tolist()] for column in fields],
                )  # fmt: skip
        elif path.name not in (ITEM, REPORT):  # they name the time of the run, and how long it took
            found[path.name] = path.read_bytes()
    return found


def assert_equal(a: Path, b: Path) -> None:
    first, second = contents(a), contents(b)
    assert list(first) == list(second)
    for name in first:
        assert first[name] == second[name], f"{name} differs between {a} and {b}"
