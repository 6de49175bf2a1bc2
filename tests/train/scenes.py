"""A small synthetic scene with labels and regions, and a training file over it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import yaml
from affine import Affine

SMALL = {
    "encoder": "tu-lcnet_035", "options": {"decoder_channels": 16}, "crop_px": 32, "patch_px": 64, "threads": 1,
}  # fmt: skip
"""Settings of a network that learns a few steps in a second."""
SIDE_PX = 384
GSD_M = 0.8
ORIGIN = (300_000.0, 2_800_000.0)
TRANSFORM = Affine.translation(*ORIGIN) * Affine.scale(GSD_M, -GSD_M)
COLORS = np.array([[0, 0, 0], [210, 200, 190], [90, 90, 95], [200, 170, 120], [60, 90, 50], [20, 40, 60]])


def labels_of(side_px: int = SIDE_PX) -> np.ndarray:
    """Squares of 48 px of five classes, and a few pixels of 0: (row, col) uint8."""
    row, col = np.mgrid[:side_px, :side_px]
    labels = (1 + (row // 48 + 2 * (col // 48)) % 5).astype(np.uint8)
    labels[:10, :10] = 0
    return labels


def place_of(seed: int) -> Affine:
    """Scenes of other seeds lie beside the first, with a gap."""
    return TRANSFORM @ Affine.translation(seed * 2 * SIDE_PX, 0)


def write_scene(folder: Path, name: str, labels: np.ndarray, seed: int = 0) -> None:
    """An image whose colors tell the classes, with noise, and its labels; each seed has a place of its own."""
    noise = np.random.default_rng(seed).normal(0, 8, (3, *labels.shape))
    image = np.clip(COLORS[np.minimum(labels, 5)].transpose(2, 0, 1) + noise, 0, 255).astype(np.uint8)
    write(folder / f"{name}.tif", image, place_of(seed))
    write(folder / f"{name}_labels.tif", labels[None], place_of(seed))


def write(
    path: Path, bands: np.ndarray, transform: Affine = TRANSFORM, crs: str | None = "EPSG:32640"
) -> None:
    count, height, width = bands.shape
    profile = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": bands.dtype}
    with rasterio.open(path, "w", crs=crs, transform=transform, **profile) as dataset:
        dataset.write(bands)


def write_regions(path: Path, boxes: dict[str, tuple[float, float, float, float]]) -> None:
    """boxes: first and last row, first and last column, in pixels of the raster."""
    features = []
    for name, (top, bottom, left, right) in boxes.items():
        corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
        ring = [list(TRANSFORM @ corner) for corner in corners]
        geometry = {"type": "Polygon", "coordinates": [ring]}
        features.append({"type": "Feature", "properties": {"region": name}, "geometry": geometry})
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32640"}}
    path.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": features}))


def settings(**changes: Any) -> dict[str, Any]:
    """A training file over scene `town`, as plain values; two steps, a small network input."""
    names = ("building", "road", "land", "vegetation", "water")
    town = {"scene": "town.tif", "labels": "town_labels.tif", "ignore": [0]}
    held_out = {"file": "regions.geojson", "field": "region", "names": ["south"]}
    plain = {
        "name": "tiny",
        "version": "1",
        "architecture": "DeepLabV3Plus",
        "encoder": "mobilenet_v2",
        "gsd_m": {"min": 0.5, "max": 1.25},
        "classes": [
            {"id": i, "name": name, "color": COLORS[i].tolist(), "role": name if i < 3 else None}
            for i, name in enumerate(names, 1)
        ],
        "patch_px": 128,
        "datasets": [{**town, "validation_regions": held_out}],
        "crop_px": 64,
        "batch": 2,
        "steps": 2,
        "validate_every": 2,
        "warmup_steps": 0,
    }
    return plain | changes


def write_run(folder: Path, **changes: Any) -> Path:
    """The scene, its regions and the training file; the file's path is returned."""
    write_scene(folder, "town", labels_of())
    write_regions(folder / "regions.geojson", {"north": (0, 256, 0, 384), "south": (256, 384, 0, 384)})
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump(settings(**changes)))
    return path
