"""Folders as runs leave them, written without a network: a drawn map, its image and labels, and what a run says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import rasterio
import shapely
from affine import Affine

from geoseg.io.classmap import TAG_LEGEND
from geoseg.legend import LandClass, Legend
from geoseg.pixels.confusion import ConfusionMatrix

LEGEND = Legend(
    (
        LandClass(1, "building", (219, 68, 55), "building"),
        LandClass(2, "road", (97, 97, 97), "road"),
        LandClass(3, "land", (225, 198, 153)),
        LandClass(5, "water", (51, 133, 219)),
    )
)
TRANSFORM = Affine(0.8, 0, 325_000, 0, -0.8, 2_785_000)
CRS = "EPSG:32640"
NASTY = "</script><img src=x onerror=alert(1)>"


def draw(height: int, width: int, legend: Legend = LEGEND, seed: int = 0, side: int = 24) -> np.ndarray:
    """Classes in squares, with a nodata corner."""
    rng = np.random.default_rng(seed)
    coarse = rng.choice(legend.ids, (height // side + 1, width // side + 1)).astype(np.uint8)
    labels = coarse.repeat(side, 0).repeat(side, 1)[:height, :width]
    rows, cols = np.mgrid[:height, :width]
    labels[rows + cols < min(height, width) // 6] = 255
    return labels


def write_raster(
    path: Path, pixels: np.ndarray, nodata: int | None = 255, crs: str | None = CRS, **tags: str
) -> Path:
    bands = pixels if pixels.ndim == 3 else pixels[None]
    profile = {
        "driver": "GTiff", "count": len(bands), "height": bands.shape[1], "width": bands.shape[2], "dtype": bands.dtype,
        "nodata": nodata, "crs": crs, "transform": TRANSFORM, "tiled": True, "blockxsize": 256, "blockysize": 256,
        "compress": "deflate",
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as out:
        out.write(bands)
        out.update_tags(**tags)
    return path


def write_layer(path: Path, layer: str, shapes: list[Any], names: list[str]) -> None:
    whole = shapely.multipolygons([shapely.get_parts(shape) for shape in shapes])
    pyogrio.raw.write(
        path, shapely.to_wkb(whole), [np.array(names, dtype=object)], ["region"], layer=layer, driver="GPKG",
        geometry_type="MultiPolygon", crs=CRS, append=path.exists(),
    )  # fmt: skip


def boxes(height: int, width: int, count: int) -> list[Any]:
    """Squares of a grid over a raster, in its CRS, the first `count` of them."""
    side = int(np.ceil(np.sqrt(count)))
    found = []
    for i in range(count):
        row, col = divmod(i, side)
        (x0, y0), (x1, y1) = (
            TRANSFORM @ (c * width / side, r * height / side) for r, c in ((row, col), (row + 1, col + 1))
        )
        found.append(shapely.box(x0, y1, x1, y0))
    return found


def write_run(
    output: Path,
    name: str = "scene",
    shape: tuple[int, int] = (420, 500),
    legend: Legend = LEGEND,
    mapped: np.ndarray | None = None,
    names: tuple[str, ...] = ("north", NASTY, "south", "east"),
    labels: bool = True,
    image: np.ndarray | None = None,
    confidence: np.ndarray | None = None,
    truth: np.ndarray | None = None,
    crs: str | None = CRS,
) -> Path:
    """A run of one scene in `output`; its sources lie beside. Returns the scene's folder."""
    height, width = shape
    folder, sources = output / name, output.parent / f"{output.name} sources"
    folder.mkdir(parents=True)
    sources.mkdir(exist_ok=True)
    rng = np.random.default_rng(3)
    found = draw(height, width, legend) if mapped is None else mapped
    tag = {TAG_LEGEND: json.dumps(legend.to_list())}
    write_raster(folder / "landcover.tif", found, crs=crs, **tag)
    if confidence is None:
        confidence = np.where(
            found == 255, 255, 40 + (np.add.outer(np.arange(height), np.arange(width)) // 9) % 60
        )
    write_raster(folder / "confidence.tif", confidence.astype(np.uint8), crs=crs)
    if image is None:
        image = np.stack(
            [np.where(found == 255, 0, found * 30 + rng.integers(0, 20, shape)) for _ in range(3)]
        )
    source = write_raster(sources / f"{name}.tif", image.astype(np.uint8), None, crs)
    entry: dict[str, Any] = {"path": str(source), "labels": None, "regions": None, "mask": None}
    shapes = boxes(height, width, len(names))
    if names:
        write_layer(folder / "vectors.gpkg", "regions", shapes, list(names))
    houses = [shape.buffer(-12) for shape in shapes] or boxes(height, width, 4)
    write_layer(folder / "vectors.gpkg", "buildings", houses, ["x"] * len(houses))
    if labels:
        if truth is None:
            truth = np.where(found == 255, 0, found)
            truth[height // 2 : height // 2 + 60, width // 2 : width // 2 + 60] = legend.ids[0]
        entry["labels"] = str(write_raster(sources / f"{name}_labels.tif", truth.astype(np.uint8), 0, crs))
        metrics = metrics_of(truth.astype(np.uint8), found, legend, names)
        (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "item.json").write_text(json.dumps(item_of(name)))
    counts = {c.id: int((found == c.id).sum()) for c in legend.classes}
    row = {
        "name": name, "status": "done", "error": None, "megapixels": height * width / 1e6,
        "seconds": {"open": 0.1, "map": 2.0, "vectorize": 0.4},
        "shares": {c.name: counts[c.id] / max(1, sum(counts.values())) for c in legend.classes},
    }  # fmt: skip
    _add_to_run(output, row, entry)
    return folder


def metrics_of(
    truth: np.ndarray, mapped: np.ndarray, legend: Legend, names: tuple[str, ...]
) -> dict[str, Any]:
    matrix = ConfusionMatrix.count(truth, mapped, legend, (0,))
    overall = {
        "pixels": matrix.pixels, "miou": matrix.miou, "accuracy": matrix.accuracy,
        "iou": dict(zip(legend.names, matrix.iou, strict=True)), "confusion": matrix.counts.tolist(),
        "intervals": {"miou": [0.6, 0.9], "iou": {legend.names[0]: [0.5, 0.7]}},
        "calibration": {"expected_error": 0.05, "curve": [[60, 100, 0.5], [80, 300, 0.75], [99, 900, 0.97]]},
    }  # fmt: skip
    regions = [
        {"region": name, "miou": 0.5 + 0.1 * (i % 5), "accuracy": 0.8, "pixels": 1000}
        for i, name in enumerate(names)
    ]
    return {"format": 2, "overall": overall, "regions": regions}


def item_of(name: str) -> dict[str, Any]:
    return {
        "type": "Feature", "id": name, "bbox": [55.2, 25.1, 55.3, 25.2],
        "properties": {"datetime": "2026-01-02T00:00:00Z", "processing:datetime": "2026-01-03T04:05:06Z"},
        "assets": {
            "landcover": {
                "title": "Land cover", "href": "./landcover.tif", "file:size": 1234, "file:checksum": "1220" + "ab" * 32
            }
        },
    }  # fmt: skip


def _add_to_run(output: Path, row: dict[str, Any], entry: dict[str, Any]) -> None:
    path = output / "run.json"
    run = json.loads(path.read_text()) if path.exists() else {
        "format": 1, "started": "2026-01-03T04:05:06+00:00", "ended": "2026-01-03T04:06:06+00:00",
        "versions": {"geoseg": "0.1.0"}, "model": {"name": "tiny", "version": "0", "digest": "cd" * 32},
        "job": {"scenes": [], "bands": [], "blend": "crop"}, "scenes": [], "failed": {},
    }  # fmt: skip
    run["scenes"].append(row)
    run["job"]["scenes"].append(entry)
    path.write_text(json.dumps(run))


def add_failure(output: Path, name: str, reason: str) -> None:
    """A scene that the run could not map."""
    row = {"name": name, "status": "failed", "error": reason, "megapixels": 0.0, "seconds": {}, "shares": {}}
    _add_to_run(output, row, {"path": f"/nowhere/{name}.tif", "labels": None, "regions": None, "mask": None})
