"""Road networks of real labels against a ridge of the distance transform, which knows no polygons."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
import shapely
from PIL import Image, ImageDraw
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree

from geoseg.grid.window import Window
from geoseg.pixels.polygons import polygonize_block
from geoseg.pixels.roadnet import RoadNetwork, road_network
from tests.data import DATA

SCENES = ("dubai_7", "dubai_8")
ROAD, PIXEL_M, NEAR_M = 2, 0.8, 3.0
PART = (slice(1000, 2600), slice(1000, 2600))


def main(_pairs: int) -> None:
    """One row per scene, and a picture of a part of each."""
    print(
        "| scene | polygons | vertices | km | of it bridges | lines | nodes | completeness | correctness | s |"
    )
    print("| --- " * 10 + "|")
    pictures = []
    for scene in SCENES:
        with rasterio.open(DATA / "dubai" / f"{scene}_labels.tif") as source:
            labels = source.read(1)
        pieces = polygonize_block(labels, Window(0, 0, *labels.shape), [ROAD])
        polygons = shapely.transform(pieces.geometries(), lambda xy: xy * (PIXEL_M, -PIXEL_M))
        begin = time.perf_counter()
        net = road_network(polygons, PIXEL_M)
        seconds = time.perf_counter() - begin
        complete, correct = agreement(net, ridge(labels == ROAD))
        km = shapely.length(net.lines).sum() / 1000
        print(
            f"| {scene} | {len(pieces)} | {len(pieces.coords)} | {km:.1f} | {net.bridge_m.sum() / 1000:.2f} "
            f"| {len(net)} | {len(net.nodes)} | {complete:.3f} | {correct:.3f} | {seconds:.1f} |",
            flush=True,
        )
        pictures.append(draw(scene, net))
    print("\n" + "\n".join(map(str, pictures)))


def ridge(road: np.ndarray) -> np.ndarray:
    """Where the distance to the boundary has a ridge: (point, 2), metres.

    Between two neighboring pixels whose nearest boundary pixels lie far apart, as seen from there: the integer
    medial axis (Hesselink and Roerdink 2008). 1.7 radii leave out the branches to corners, which have 1.4.
    """
    near = distance_transform_edt(np.pad(road, 1), return_distances=False, return_indices=True)
    points = []
    for axis in (0, 1):
        a, b = (near[:, :-1], near[:, 1:]) if axis == 0 else (near[:, :, :-1], near[:, :, 1:])
        row, col = np.nonzero(((a - b) ** 2).sum(axis=0) > 9)
        apart = np.hypot(*(a - b)[:, row, col])
        radius = np.hypot(*(a[:, row, col] - (row, col)))
        row, col = row[apart > 1.7 * radius], col[apart > 1.7 * radius]
        half = np.array([0.5, 0]) if axis == 0 else np.array([0, 0.5])
        points.append((np.column_stack([col, row]) - 0.5 + half[::-1]) * (PIXEL_M, -PIXEL_M))
    return np.concatenate(points)


def agreement(net: RoadNetwork, reference: np.ndarray) -> tuple[float, float]:
    """Share of the reference near the network, and of the network near the reference."""
    steps = [np.linspace(0, line.length, int(line.length) + 2) for line in net.lines]
    owner = np.repeat(np.arange(len(net)), [len(s) for s in steps])
    sampled = shapely.get_coordinates(shapely.line_interpolate_point(net.lines[owner], np.concatenate(steps)))
    complete = cKDTree(sampled).query(reference, distance_upper_bound=NEAR_M)[0]
    correct = cKDTree(reference).query(sampled, distance_upper_bound=NEAR_M)[0]
    return float(np.isfinite(complete).mean()), float(np.isfinite(correct).mean())


def draw(scene: str, net: RoadNetwork) -> Path:
    """A part of the image with labeled roads tinted, lines in red, nodes in yellow, dead ends in blue."""
    window = rasterio.windows.Window.from_slices(*PART)
    with rasterio.open(DATA / "dubai" / f"{scene}.tif") as source:
        image = source.read(window=window).transpose(1, 2, 0)
    with rasterio.open(DATA / "dubai" / f"{scene}_labels.tif") as source:
        road = source.read(1, window=window) == ROAD
    shade = np.where(road[:, :, None], image // 2 + 110, image // 3).astype(np.uint8)
    picture = Image.fromarray(shade)
    pen = ImageDraw.Draw(picture)
    corner = np.array([PART[1].start, PART[0].start])
    for line, bridged in zip(net.lines, net.bridge_m, strict=True):
        xy = shapely.get_coordinates(line) / (PIXEL_M, -PIXEL_M) - corner
        pen.line(xy.ravel().tolist(), fill=(255, 0, 255) if bridged else (255, 0, 0), width=2)
    for (x, y), degree in zip(net.nodes / (PIXEL_M, -PIXEL_M) - corner, net.degree, strict=True):
        pen.ellipse((x - 3, y - 3, x + 3, y + 3), fill=(255, 230, 0) if degree > 1 else (0, 120, 255))
    path = Path(tempfile.gettempdir()) / f"geoseg_roads_{scene}.png"
    picture.save(path)
    return path
