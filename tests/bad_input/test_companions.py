"""What goes with a scene - labels, regions, mask, area of interest - must lie on it and say what it should."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from affine import Affine

from tests.bad_input.attempt import NOTHING_STARTED, SOME_FAILED, Try, cut_short, write_raster
from tests.run.results import TRANSFORM, write_polygons

SHAPE = (1, 200, 300)
ONES = np.ones(SHAPE, np.uint8)
INSIDE, AWAY = [(20, 20, 120, 150)], [(5000, 5000, 5100, 5100)]


@pytest.mark.parametrize("option", ["--labels", "--regions", "--mask", "--aoi"])
@pytest.mark.parametrize("content", [None, "no raster, no vectors"])
def test_files_that_are_not_what_they_should_be(
    run: Try, good: Path, tmp_path: Path, option: str, content: str | None
) -> None:
    path = tmp_path / ("it.tif" if option in ("--labels", "--mask") else "it.gpkg")
    if content is not None:
        path.write_text(content)
    words = "no such file" if content is None else "supported file format"
    run(good, option, path).refused(NOTHING_STARTED, path, words)


@pytest.mark.parametrize("option", ["--regions", "--aoi", "--mask"])
def test_polygons_elsewhere_are_refused(run: Try, good: Path, tmp_path: Path, option: str) -> None:
    path = write_polygons(tmp_path / "away.gpkg", AWAY)
    run(good, option, path).refused(NOTHING_STARTED, path, "none of its polygons overlaps the raster")


def test_rasters_are_no_polygons(run: Try, good: Path) -> None:
    run(good, "--aoi", good).refused(NOTHING_STARTED, good, "cannot be read as a vector file")


def test_regions_without_the_field_name_those_they_have(run: Try, good: Path, tmp_path: Path) -> None:
    path = write_polygons(tmp_path / "r.gpkg", INSIDE)
    words = "has no field 'district'; its fields are: region"
    run(good, "--regions", path, "--region-field", "district").refused(NOTHING_STARTED, path, words)


def test_an_area_smaller_than_a_pixel_fails(run: Try, good: Path, tmp_path: Path) -> None:
    path = write_polygons(tmp_path / "a.gpkg", [(250.1, 150.1, 250.2, 150.2)])
    run(good, "--aoi", path).refused(SOME_FAILED, good, "holds no pixel to map")


@pytest.mark.parametrize(
    ("pixels", "profile", "words"),
    [
        (
            ONES,
            {"transform": TRANSFORM @ Affine.translation(900, 0)},
            "the labels do not overlap the map: they span",
        ),
        (ONES, {"crs": "EPSG:32639"}, "the labels do not overlap the map: they span"),
        (ONES[:, :, 1:], {"crs": None}, "lies on another grid than the map, and the labels have no CRS"),
        (ONES.astype(np.uint16), {}, "one band of uint8, this has 1 of uint16"),
        (np.vstack([ONES, ONES]), {}, "one band of uint8, this has 2 of uint8"),
    ],
)
def test_labels_must_lie_on_the_scene_and_hold_classes(
    run: Try, good: Path, tmp_path: Path, pixels: np.ndarray, profile: dict[str, object], words: str
) -> None:
    path = write_raster(tmp_path / "labels.tif", pixels, **profile)
    run(good, "--labels", path).refused(NOTHING_STARTED, path, words)


@pytest.mark.parametrize(
    ("pixels", "profile"), [(ONES, {"transform": TRANSFORM @ Affine.translation(1, 0)}), (ONES[:, :, 1:], {})]
)
def test_labels_on_another_grid_are_brought_onto_the_maps_and_it_says_so(
    run: Try, good: Path, tmp_path: Path, pixels: np.ndarray, profile: dict[str, object]
) -> None:
    path = write_raster(tmp_path / "labels.tif", pixels, **profile)
    tried = run(good, "--labels", path)
    assert tried.code == 0
    assert [line for line in tried.stderr if line.startswith(f"{path}: The labels lie on another grid")]


def test_labels_of_unknown_classes_fail_and_publish_nothing(run: Try, good: Path, tmp_path: Path) -> None:
    path = write_raster(tmp_path / "labels.tif", ONES * 77)
    run(good, "--labels", path).refused(SOME_FAILED, path, "no class: 77; the legend's ids are 1, 2, 3, 4, 5")
    assert run(good).code == 0  # without them the same folder is finished


def test_labels_that_say_nothing_give_no_score(run: Try, good: Path, tmp_path: Path) -> None:
    path = write_raster(tmp_path / "labels.tif", ONES * 9, nodata=9)
    tried = run(good, "--labels", path)
    assert tried.code == 0
    assert '"miou": null' in (tmp_path / "out" / "good" / "metrics.json").read_text()


@pytest.mark.parametrize("option", ["--labels", "--mask"])
def test_companions_cut_short_fail(run: Try, good: Path, tmp_path: Path, option: str) -> None:
    noise = np.random.default_rng(0).integers(1, 6, SHAPE, np.uint8)
    path = cut_short(write_raster(tmp_path / "it.tif", noise), 0.5)
    run(good, option, path).refused(SOME_FAILED, path, "cut short or damaged")


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        ({"transform": Affine(0.8, 0, 0, 0, -0.8, 0)}, "does not overlap the scene"),
        ({"crs": "EPSG:4326", "transform": Affine(1e-5, 0, 10, 0, -1e-5, 10)}, "does not overlap the scene"),
        ({"crs": None}, "without CRS on one side"),
        ({"crs": 'LOCAL_CS["x",UNIT["metre",1]]'}, "cannot be brought into the scene's CRS"),
        ({"dtype": "complex64"}, "complex"),
    ],
)
def test_masks_must_lie_on_the_scene(
    run: Try, good: Path, tmp_path: Path, profile: dict[str, object], words: str
) -> None:
    path = write_raster(tmp_path / "mask.tif", ONES.astype(str(profile.get("dtype", "uint8"))), **profile)
    run(good, "--mask", path).refused(NOTHING_STARTED, path, words)


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857"])
def test_a_mask_of_the_whole_world_overlaps(run: Try, good: Path, tmp_path: Path, crs: str) -> None:
    degrees = Affine(1, 0, -180, 0, -1, 90)
    metres = Affine(111_000, 0, -2e7, 0, -111_000, 1e7)
    world = np.zeros((1, 180, 360), np.uint8)
    path = write_raster(
        tmp_path / "w.tif", world, crs=crs, transform=degrees if crs == "EPSG:4326" else metres
    )
    assert run(good, "--mask", path).code == 0


def test_a_mask_of_everything_leaves_nothing(run: Try, good: Path, tmp_path: Path) -> None:
    run(good, "--mask", write_raster(tmp_path / "m.tif", ONES)).refused(SOME_FAILED, good, "no pixel to map")
