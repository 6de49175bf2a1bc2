"""Labels and polygons lie where the scene's pixels lie, however its pixels are laid on the ground, or not at all."""

from __future__ import annotations

import json
import os
import subprocess
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

import numpy as np
import pyogrio
import pytest
import rasterio
import rasterio.features
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from geoseg.io.classmap import tagged_legend
from geoseg.io.labels import open_labels
from geoseg.io.rasters import grid_of, open_raster
from geoseg.legend import NODATA
from geoseg.report.views import view_grid
from geoseg.run.vectorizing import vectorize_file
from tests.bad_input.attempt import Try, attempt
from tests.run.results import TRANSFORM, write_polygons, write_scene

SOUTH_UP = TRANSFORM @ Affine.scale(1, -1)
PLACES = {
    "south up": SOUTH_UP,
    "mirrored": TRANSFORM @ Affine.scale(-1, 1),
    "rotated": TRANSFORM @ Affine.rotation(30),
    "sheared": SOUTH_UP @ Affine.shear(20, 5),
}
LAYERS = {"buildings": 1, "roads": 2}
ZONES = Path(__file__).parents[1] / "qgis_zones.py"

DOWNWARDS, UPWARDS = Affine.scale(1, -1), Affine.identity()
NOWHERE = {
    "nothing": (None, None, DOWNWARDS),
    "only a CRS": ("EPSG:32640", None, DOWNWARDS),
    "the identity, stated": (None, UPWARDS, UPWARDS),
    "the identity and a CRS": ("EPSG:32640", UPWARDS, UPWARDS),
    "downwards, stated": (None, DOWNWARDS, DOWNWARDS),
}
"""CRS and geotransform that a file states, and with which geotransform QGIS shows it; a test below asks QGIS."""


def place(path: Path, pixels: np.ndarray, kind: str) -> Path:
    """A raster (band, row, col) that states no more of its place than that."""
    crs, transform, _ = NOWHERE[kind]
    stated = {} if transform is None else {"transform": transform}
    count, height, width = pixels.shape
    profile = {
        "driver": "GTiff",
        "height": height,
        "width": width,
        "count": count,
        "dtype": "uint8",
        "nodata": 0,
    }
    with rasterio.open(path, "w", crs=crs, **stated, **profile) as out:
        out.write(pixels)
    return path


def scene_of(path: Path, kind: str) -> Path:
    with rasterio.open(write_scene(path.with_name("placed.tif"), 200, 300)) as placed:
        return place(path, placed.read(), kind)


def polygons_of(path: Path, layer: str) -> tuple[np.ndarray, np.ndarray]:
    """Geometries and class ids."""
    meta, _, blobs, fields = pyogrio.raw.read(path, layer=layer)
    return shapely.from_wkb(blobs), fields[list(meta["fields"]).index("class_id")]


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
    polygons, class_ids = polygons_of(raw, "polygons")
    for layer, class_id in LAYERS.items():
        own = polygons[class_ids == class_id]
        assert len(polygons_of(results / "vectors.gpkg", layer)[0]) == len(own)
        pieces = rasterio.features.shapes(labels, mask=labels == class_id, transform=transform)
        expected = [shapely.geometry.shape(geometry) for geometry, _ in pieces]
        assert len(own) == len(expected) > 0
        off = shapely.symmetric_difference(shapely.union_all(own), shapely.union_all(expected))
        assert off.area < 1e-6


@pytest.mark.parametrize("kind", NOWHERE)
@settings(max_examples=15, deadline=None)
@given(labels=arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 3)))
def test_each_polygon_covers_its_pixels_where_they_are_shown(kind: str, labels: np.ndarray) -> None:
    with TemporaryDirectory() as folder:
        path = place(Path(folder, "map.tif"), labels[None], kind)
        vectorize_file(str(path), f"{folder}/out.gpkg", True, None, map)
        polygons, class_ids = polygons_of(Path(folder, "out.gpkg"), "polygons")
    covered = np.zeros(labels.shape, int)
    for polygon, class_id in zip(polygons, class_ids, strict=True):
        inside = rasterio.features.rasterize([polygon], labels.shape, transform=NOWHERE[kind][2]).astype(bool)
        assert (labels[inside] == class_id).all()
        covered += inside
    np.testing.assert_array_equal(covered, labels != 0)


@pytest.mark.parametrize("kind", NOWHERE)
def test_all_results_of_a_scene_lie_where_it_is_shown(run: Try, tmp_path: Path, kind: str) -> None:
    crs, stated, shown = NOWHERE[kind]
    scene = scene_of(tmp_path / "s.tif", kind)
    truth = np.tile(np.repeat(np.arange(6, dtype=np.uint8), 50), (200, 1))
    truth[:70] = 1
    labels = place(tmp_path / "labels.tif", truth[None], kind)
    inside = np.s_[30:150, 20:180]
    regions = write_polygons(tmp_path / "regions.gpkg", [(20, 30, 180, 150)], shown, crs)
    tried = run(scene, "--labels", labels, "--regions", regions)
    assert tried.code == 0, tried.stderr
    results = tmp_path / "out" / "s"

    with open_raster(results / "landcover.tif") as mapped, open_raster(scene) as source:
        grid = grid_of(mapped)
        assert grid == grid_of(source)
        assert (mapped.transform, mapped.crs) == (stated or Affine.identity(), source.crs)
        classes, legend = mapped.read(1), tagged_legend(mapped)
    roads, _ = polygons_of(results / "vectors.gpkg", "roads")
    burnt = rasterio.features.rasterize(roads, classes.shape, transform=shown)
    np.testing.assert_array_equal(burnt == 1, classes == LAYERS["roads"])

    scored = (truth[inside] != 0) & (classes[inside] != NODATA)
    metrics = json.loads((results / "metrics.json").read_text())
    (region,) = metrics["regions"]
    assert region["pixels"] == scored.sum()
    assert region["accuracy"] == (truth == classes)[inside][scored].mean()
    assert legend is not None
    small = open_labels(str(labels), grid, legend).on(view_grid(grid, (100, 150)))
    expected = np.where(truth == 0, NODATA, truth)[1::2, 1::2]
    np.testing.assert_array_equal(small.read(small.grid.window), expected)

    with zipfile.ZipFile(results / "project.qgz") as archive:
        extent = ElementTree.fromstring(archive.read("project.qgs")).find("mapcanvas/extent")
    assert extent is not None
    sides = [float(extent.findtext(side) or "nan") for side in ("xmin", "ymin", "xmax", "ymax")]
    assert sides == ([0, -200, 300, 0] if shown == DOWNWARDS else [0, 0, 300, 200])


@pytest.mark.parametrize("kind", NOWHERE)
def test_qgis_shows_each_polygon_over_its_pixels(kind: str, tmp_path: Path) -> None:
    python, environment = "/usr/bin/python3", {**os.environ, "QT_QPA_PLATFORM": "offscreen"}
    if subprocess.run(
        [python, "-c", "import qgis.analysis"], capture_output=True, env=environment
    ).returncode:
        pytest.skip(f"{python} has no PyQGIS (apt-get install qgis python3-qgis qgis-providers)")
    labels = np.random.default_rng(0).integers(0, 4, (20, 30), dtype=np.uint8).repeat(3, 0).repeat(3, 1)
    path, polygons = place(tmp_path / "map.tif", labels[None], kind), tmp_path / "out.gpkg"
    vectorize_file(str(path), str(polygons), True, None, map)
    command = [python, str(ZONES), str(polygons), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment)
    assert done.returncode == 0, done.stderr
    zones = json.loads(done.stdout)
    assert sum(area for _, area, *_ in zones) == np.count_nonzero(labels)
    assert all(found == [area, class_id, class_id] for class_id, area, *found in zones)


def test_a_place_off_the_globe_has_no_pixel_size(run: Try, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "s.tif", 200, 300, crs="EPSG:4326", transform=Affine.identity())
    tried = run(scene)
    assert (tried.code, tried.warnings) == (0, [])
    run(scene, "--gsd", 1, output=tmp_path / "other").refused(2, scene, "cannot be resampled to metres")


@pytest.mark.parametrize("kind", ["placed", "nothing", "the identity, stated"])
def test_without_a_crs_there_is_a_warning_and_no_area(run: Try, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "s.tif"
    scene = write_scene(path, 200, 300, crs=None) if kind == "placed" else scene_of(path, kind)
    tried = run(scene)
    assert tried.code == 0
    (warning,) = tried.warnings
    assert str(scene) in warning and "has no CRS" in warning and "have no areas" in warning
    assert ("no geotransform" in warning) == (kind == "nothing")
    for layer in LAYERS:
        meta, _, _, fields = pyogrio.raw.read(tmp_path / "out" / "s" / "vectors.gpkg", layer=layer)
        areas = fields[list(meta["fields"]).index("area_m2")]
        assert len(areas) > 0
        assert np.isnan(areas).all()


def test_regions_mirrored_below_a_scene_that_is_shown_downwards_are_refused(run: Try, tmp_path: Path) -> None:
    scene = scene_of(tmp_path / "s.tif", "nothing")
    regions = write_polygons(tmp_path / "regions.gpkg", [(20, 30, 180, 150)], Affine.identity(), None)
    run(scene, "--regions", regions).refused(2, regions, "y 30 to 150, the raster x 0 to 300, y -200 to 0")
