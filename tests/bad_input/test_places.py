"""Labels and polygons lie where the scene's pixels lie, however its pixels are laid on the ground."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
import rasterio.features
import shapely
from affine import Affine

from geoseg.run.vectorizing import vectorize_file
from tests.bad_input.attempt import Try, attempt
from tests.run.results import TRANSFORM, write_scene

SOUTH_UP = TRANSFORM @ Affine.scale(1, -1)
PLACES = {
    "south up": SOUTH_UP,
    "mirrored": TRANSFORM @ Affine.scale(-1, 1),
    "rotated": TRANSFORM @ Affine.rotation(30),
    "sheared": SOUTH_UP @ Affine.shear(20, 5),
}
LAYERS = {"buildings": 1, "roads": 2}


@pytest.fixture(scope="module")
def north_up(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> np.ndarray:
    """The labels of the same pixels in the usual place."""
    folder = tmp_path_factory.mktemp("north_up")
    assert attempt(folder, write_scene(folder / "s.tif", 260, 300), "--model", tiny_bundle).code == 0
    with rasterio.open(folder / "s" / "landcover.tif") as mapped:
        labels: np.ndarray = mapped.read(1)
    assert (np.bincount(labels.ravel(), minlength=6)[1:6] > 100).sum() >= 3
    return labels


@pytest.mark.parametrize("transform", PLACES.values(), ids=PLACES)
def test_the_map_lies_where_the_scene_lies(
    run: Try, tmp_path: Path, transform: Affine, north_up: np.ndarray
) -> None:
    scene = write_scene(tmp_path / "s.tif", 260, 300, transform=transform)
    assert run(scene).code == 0
    results = tmp_path / "out" / "s"
    with rasterio.open(scene) as source, rasterio.open(results / "landcover.tif") as mapped:
        assert (mapped.transform, mapped.crs, mapped.shape) == (source.transform, source.crs, source.shape)
        labels = mapped.read(1)
    np.testing.assert_array_equal(labels, north_up)
    raw = tmp_path / "raw.gpkg"  # as traced: buildings in vectors.gpkg are squared
    vectorize_file(str(results / "landcover.tif"), str(raw), True, None, map)
    meta, _, blobs_of_all, fields = pyogrio.raw.read(raw, layer="polygons")
    class_ids = fields[list(meta["fields"]).index("class_id")]
    for layer, class_id in LAYERS.items():
        blobs = blobs_of_all[class_ids == class_id]
        assert len(pyogrio.raw.read(results / "vectors.gpkg", layer=layer)[2]) == len(blobs)
        pieces = rasterio.features.shapes(labels, mask=labels == class_id, transform=transform)
        expected = [shapely.geometry.shape(geometry) for geometry, _ in pieces]
        assert len(blobs) == len(expected) > 0
        off = shapely.symmetric_difference(
            shapely.union_all(shapely.from_wkb(blobs)), shapely.union_all(expected)
        )
        assert off.area < 1e-6


def test_a_place_off_the_globe_has_no_pixel_size(run: Try, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "s.tif", 200, 300, crs="EPSG:4326", transform=Affine.identity())
    tried = run(scene)
    assert (tried.code, tried.warnings) == (0, [])
    run(scene, "--gsd", 1, output=tmp_path / "other").refused(2, scene, "cannot be resampled to metres")


@pytest.mark.parametrize("transform", [TRANSFORM, Affine.identity()])
def test_without_a_crs_there_is_a_warning_and_no_area(run: Try, tmp_path: Path, transform: Affine) -> None:
    scene = write_scene(tmp_path / "s.tif", 200, 300, crs=None, transform=transform)
    tried = run(scene)
    assert tried.code == 0
    (warning,) = tried.warnings
    assert str(scene) in warning and "has no CRS" in warning
    with rasterio.open(tmp_path / "out" / "s" / "landcover.tif") as mapped:
        assert mapped.crs is None
        assert mapped.transform == transform
    for layer in LAYERS:
        meta, _, _, fields = pyogrio.raw.read(tmp_path / "out" / "s" / "vectors.gpkg", layer=layer)
        areas = fields[list(meta["fields"]).index("area_m2")]
        assert len(areas) > 0
        assert np.isnan(areas).all()
