"""Footprints squared against raw ones: vertices, right angles, and how near both are to the label polygons."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import geopandas
import numpy as np
import rasterio
import rasterio.features
import shapely
from affine import Affine

from geoseg.pixels.squaring import square_footprints
from tests.data import DATA

PLACES = {
    "banepa": ("banepa_buildings", "banepa_train"),
    "zanzibar": ("zanzibar_tz_buildings", "zanzibar_tz_a"),
    "catanduanes": ("catanduanes_ph_buildings", "catanduanes_ph_a"),
    "kavre": ("kavre_np_buildings", "kavre_np_a"),
}
COARSER = (1, 4)
RIGHT_DEGREES = 5


@dataclass(frozen=True, eq=False)
class Case:
    """The labels of one image and their traced mask: polygons in metres on the ground."""

    truth: np.ndarray
    raw: np.ndarray
    pixel_m: float

    @classmethod
    def read(cls, image: Path, labels: Path, coarser: int) -> Case:
        """coarser: pixels of the mask are that many times as wide as those of the image."""
        with rasterio.open(image) as dataset:
            crs, bounds, shape = dataset.crs, dataset.bounds, dataset.shape
            transform = dataset.transform @ Affine.scale(coarser)
        frame = shapely.box(*bounds)
        # Labels touch and overlap; a mask of one class holds their union only.
        labeled = geopandas.read_file(labels).to_crs(crs).geometry.make_valid().to_numpy()
        truth = _polygons(shapely.intersection(shapely.union_all(labeled), frame))
        mask = rasterio.features.rasterize(
            truth, [n // coarser for n in shape], transform=transform, dtype="uint8"
        )
        traced = rasterio.features.shapes(mask, mask > 0, connectivity=4, transform=transform)
        raw = np.array([shapely.geometry.shape(geometry) for geometry, _ in traced], dtype=object)
        latitude = geopandas.GeoSeries([frame.centroid], crs=crs).to_crs(4326).y[0]
        ground = float(np.cos(np.radians(latitude)))  # that much is a metre of EPSG:3857
        corner = np.array(bounds[:2])
        truth, raw = (shapely.transform(p, lambda xy: (xy - corner) * ground) for p in (truth, raw))
        return cls(truth, raw, transform.a * ground)


def main(_pairs: int) -> None:
    """Masks of the labels of four places, at the pixels of the image and at coarser ones, traced and squared."""
    print("| place | pixel | outlines | number | vertices each | right angles | IoU | "
          "precision | recall | F1 | changed | a second |")  # fmt: skip
    print("| --- " * 12 + "|")
    for place, (labels, image) in PLACES.items():
        for coarser in COARSER:
            folder = DATA / "buildings"
            case = Case.read(folder / f"{image}.tif", folder / f"{labels}.geojson", coarser)
            begin = time.perf_counter()
            squared, changed = square_footprints(case.raw, case.pixel_m)
            rate = len(squared) / (time.perf_counter() - begin)
            head = f"| {place} | {case.pixel_m:.2f} m |"
            print(head, f"raw | {len(case.raw)} | {_row(case.raw, case.truth)} | | |")
            print(head, f"squared | {len(squared)} | {_row(squared, case.truth)} | "
                  f"{changed.mean():.0%} | {rate:.0f} |", flush=True)  # fmt: skip


def _row(found: np.ndarray, truth: np.ndarray) -> str:
    """Vertices, right angles, and mean IoU of the matches; precision, recall and F1 at an IoU of 0.5."""
    vertices = shapely.get_num_coordinates(found) - 1 - shapely.get_num_interior_rings(found)
    best = _best_iou(found, truth)
    hits = best[best >= 0.5]
    precision, recall = len(hits) / len(found), len(hits) / len(truth)
    f1 = 2 * len(hits) / (len(found) + len(truth))
    return (f"{vertices.mean():.1f} | {right_angles(found):.1%} | {hits.mean():.4f} | "
            f"{precision:.3f} | {recall:.3f} | {f1:.3f}")  # fmt: skip


def _best_iou(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The greatest IoU of each found polygon with a true one: above 0.5, no two share one."""
    true, near = shapely.STRtree(found).query(truth, predicate="intersects")
    both = shapely.area(shapely.intersection(truth[true], found[near]))
    iou = both / (shapely.area(truth[true]) + shapely.area(found[near]) - both)
    best = np.zeros(len(found))
    np.maximum.at(best, near, iou)
    return best


def right_angles(polygons: np.ndarray) -> float:
    """Share of the corners that are within some degrees of a right angle."""
    right = corners = 0
    for ring in shapely.get_rings(polygons):
        side = np.diff(shapely.get_coordinates(ring), axis=0)
        heading = np.degrees(np.arctan2(side[:, 1], side[:, 0]))
        bend = np.abs((heading - np.roll(heading, 1) + 180) % 360 - 180)
        right += int((np.abs(bend - 90) <= RIGHT_DEGREES).sum())
        corners += len(bend)
    return right / corners


def _polygons(geometry: shapely.Geometry) -> np.ndarray:
    parts = shapely.get_parts(shapely.get_parts(geometry))
    polygons: np.ndarray = parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON]
    return polygons


if __name__ == "__main__":
    main(1)
