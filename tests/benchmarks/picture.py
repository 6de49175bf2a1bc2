"""The picture in the README: a part of the demo scene, its land cover and its confidence, side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window

ROOT = Path(__file__).resolve().parents[2]
PART = Window(1700, 900, 1200, 1200)
SIDE_PX = 600


def main(_pairs: int) -> None:
    """Needs the results of make demo."""
    demo = ROOT / "demo"
    with rasterio.open(demo / "seed_0_4096px" / "demo_scene.tif") as source:
        image = source.read(
            window=PART, out_shape=(3, SIDE_PX, SIDE_PX), resampling=rasterio.enums.Resampling.average
        )
    with rasterio.open(demo / "demo_scene" / "landcover.tif") as source:
        colors = np.array([source.colormap(1)[i][:3] for i in range(256)], np.uint8)
        classes = colors[source.read(1, window=PART, out_shape=(SIDE_PX, SIDE_PX))].transpose(2, 0, 1)
    with rasterio.open(demo / "demo_scene" / "confidence.tif") as source:
        percent = source.read(1, window=PART, out_shape=(SIDE_PX, SIDE_PX)).astype(float)
    shade = np.clip((percent - 20) / 80, 0, 1)[None]
    ramp = (
        np.array([68, 1, 84])[:, None, None] * (1 - shade) + np.array([253, 231, 37])[:, None, None] * shade
    ).astype(np.uint8)
    gap = np.full((3, SIDE_PX, 8), 255, np.uint8)
    row = np.concatenate([image, gap, classes, gap, ramp], axis=2)
    target = ROOT / ".github" / "demo.jpg"
    target.parent.mkdir(exist_ok=True)
    profile = {
        "driver": "JPEG",
        "count": 3,
        "height": row.shape[1],
        "width": row.shape[2],
        "dtype": "uint8",
        "quality": 88,
    }
    with rasterio.open(target, "w", **profile) as out:
        out.write(row)
    print(target)
