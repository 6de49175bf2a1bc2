"""Labels on a map's grid: the same for any window, and those that a plain look-up finds."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer

from geoseg.errors import SourceError, SpecError
from geoseg.grid.geogrid import GeoGrid
from geoseg.grid.window import Window
from geoseg.io.classmap import TAG_LEGEND
from geoseg.io.labels import LabelOptions, open_labels
from geoseg.legend import NODATA, LandClass, Legend

LEGEND = Legend(
    tuple(LandClass(i, name, (i, i, i)) for i, name in ((1, "building"), (2, "road"), (5, "water")))
)
TRANSFORM = Affine(0.8, 0, 300_000, 0, -0.8, 2_700_000)
CRS_WKT = rasterio.CRS.from_epsg(32640).to_wkt(version="WKT2_2019")
GRID = GeoGrid(90, 120, TRANSFORM, CRS_WKT)


def write(path: Path, values: np.ndarray, **changes: Any) -> str:
    legend = changes.pop("legend", None)
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "crs": "EPSG:32640", "transform": TRANSFORM}
    height, width = values.shape
    with rasterio.open(path, "w", height=height, width=width, **{**profile, **changes}) as dataset:
        dataset.write(values, 1)
        if legend:
            dataset.update_tags(**{TAG_LEGEND: json.dumps(legend.to_list())})
    return str(path)


def noise(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).choice(np.array([0, 1, 2, 5], np.uint8), shape)


def whole(labels: Any) -> np.ndarray:
    return labels.read(labels.grid.window)


ELSEWHERE = {
    "coarser": ((50, 70), {"transform": TRANSFORM @ Affine.translation(-3.3, 2.2) @ Affine.scale(1.9, 1.7)}),
    "finer": ((400, 500), {"transform": TRANSFORM @ Affine.translation(1.3, 5.2) @ Affine.scale(0.23, 0.31)}),
    "half a pixel off": ((90, 120), {"transform": TRANSFORM @ Affine.translation(0.5, 0.5)}),
    "turned": ((150, 160), {"transform": TRANSFORM @ Affine.translation(-20, 20) @ Affine.rotation(-25)}),
    "degrees": ((300, 300), {"crs": "EPSG:4326", "transform": Affine(3e-6, 0, 55.02784, 0, -3e-6, 24.40056)}),
}


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("labels")
    return {
        f"{name} {nodata}": write(folder / f"{name} {nodata}.tif", noise(shape), nodata=nodata, **place)
        for name, (shape, place) in ELSEWHERE.items()
        for nodata in (None, 5)
    }


@settings(max_examples=10)
@given(
    st.sampled_from(sorted(ELSEWHERE)), st.sampled_from([None, 5]), st.integers(20, 130), st.integers(20, 130)
)
def test_windows_change_no_label(elsewhere, name, nodata, height, width) -> None:
    labels = open_labels(elsewhere[f"{name} {nodata}"], GRID, LEGEND)
    assert labels.resampled
    expected = whole(labels)
    for row in range(0, 90, height):
        for col in range(0, 120, width):
            window = Window(row, col, height, width).overlap(GRID.window)
            assert (labels.read(window) == expected[window.within(GRID.window)]).all()


@pytest.mark.parametrize("nodata", [None, 5])
@pytest.mark.parametrize("name", sorted(set(ELSEWHERE) - {"half a pixel off"}))
def test_each_pixel_gets_the_label_at_its_center(elsewhere, name, nodata) -> None:
    """Against a look-up of each center with pyproj; centers that lie on the edge of two labels may go either way."""
    path = elsewhere[f"{name} {nodata}"]
    with rasterio.open(path) as dataset:
        values, transform, crs = dataset.read(1), dataset.transform, dataset.crs
    cols, rows = np.meshgrid(np.arange(120) + 0.5, np.arange(90) + 0.5)
    x, y = TRANSFORM @ (cols, rows)
    col, row = ~transform @ Transformer.from_crs(32640, crs, always_xy=True).transform(x, y)
    inside = (row >= 0) & (row < values.shape[0]) & (col >= 0) & (col < values.shape[1])
    there = values[np.where(inside, row, 0).astype(int), np.where(inside, col, 0).astype(int)]
    expected = np.where(inside & (there != 0) & (there != nodata), there, NODATA)
    close = np.minimum(abs(col - np.round(col)), abs(row - np.round(row))) < 1e-3
    found = whole(open_labels(path, GRID, LEGEND))
    assert inside.mean() > 0.02
    assert close.mean() < 0.2
    assert (found == expected)[~close].all()


def test_a_legend_with_zero_does_not_fill_what_lies_beyond_the_labels(tmp_path: Path) -> None:
    legend = Legend((LandClass(0, "land", (0, 0, 0)), *LEGEND.classes))
    path = write(tmp_path / "l.tif", noise((40, 50)), transform=TRANSFORM @ Affine.translation(10.25, 0))
    found = whole(open_labels(path, GRID, legend))
    assert (found[:, :10] == NODATA).all()
    assert (found[45:] == NODATA).all()
    assert (found[:40, 10:60] == noise((40, 50))).all()


def test_values_names_and_what_is_ignored(tmp_path: Path) -> None:
    values = np.array([[0, 1, 2, 5, 255, 7, 9, 4]], np.uint8)
    grid = GeoGrid(1, 8, TRANSFORM, CRS_WKT)
    path = write(tmp_path / "l.tif", values, nodata=4)
    options = LabelOptions(class_names={"7": "building", "9": ""}, ignore=(2,))
    assert whole(open_labels(path, grid, LEGEND, options)).tolist() == [[255, 1, 255, 5, 255, 1, 255, 255]]
    with pytest.raises(
        SourceError, match=r"l\.tif: labels hold values that are no class: 7, 9; .* ids are 1, 2, 5: "
    ):
        whole(open_labels(path, grid, LEGEND))


def test_names_in_the_labels_win_over_numbers(tmp_path: Path) -> None:
    own = Legend(tuple(LandClass(i, n, (0, 0, 0)) for i, n in ((1, "water"), (2, "house"), (3, "road"))))
    values, grid = np.array([[1, 2, 3]], np.uint8), GeoGrid(1, 3, TRANSFORM, CRS_WKT)
    path = write(tmp_path / "l.tif", values, legend=own)
    options = LabelOptions(class_names={"house": "building"})
    assert whole(open_labels(path, grid, LEGEND, options)).tolist() == [[5, 1, 2]]
    with pytest.raises(SourceError, match="no class: 2;"):
        whole(open_labels(path, grid, LEGEND))
    with pytest.raises(SpecError, match="labels name no class 'hut'; theirs are water, house, road"):
        open_labels(path, grid, LEGEND, LabelOptions(class_names={"hut": "road"}))


def polygons(path: Path, boxes: list[tuple[str, tuple[float, float, float, float]]], crs: Any = 32640) -> str:
    """Named boxes in pixels: left, top, right, bottom."""
    shapes = [shapely.Polygon([TRANSFORM @ p for p in shapely.box(*box).exterior.coords]) for _, box in boxes]
    frame = geopandas.GeoDataFrame({"kind": [name for name, _ in boxes]}, geometry=shapes, crs=32640)
    frame.to_crs(crs).to_file(path)
    return str(path)


BOXES: list[tuple[str, tuple[float, float, float, float]]] = [
    ("road", (0, 0, 120, 90)), ("house", (10, 10, 20, 20)), ("lake", (15, 15, 40, 40)), ("5", (60, 0, 70, 10)),
]  # fmt: skip
OPTIONS = LabelOptions("kind", {"house": "building", "lake": ""})


@settings(max_examples=10)
@given(side=st.integers(7, 130))
def test_polygons_are_labels_too(tmp_path_factory: pytest.TempPathFactory, side: int) -> None:
    path = tmp_path_factory.mktemp("p") / "l.gpkg"
    labels = open_labels(polygons(path, BOXES), GRID, LEGEND, OPTIONS)
    assert (labels.kind, labels.resampled, labels.nodata) == ("polygons", False, NODATA)
    expected = np.full((90, 120), 2, np.uint8)
    expected[10:20, 10:20] = 1
    expected[15:40, 15:40] = NODATA
    expected[0:10, 60:70] = 5
    for row in range(0, 90, side):
        for col in range(0, 120, side):
            window = Window(row, col, side, side).overlap(GRID.window)
            assert (labels.read(window) == expected[window.within(GRID.window)]).all()


def test_polygons_in_another_crs_and_a_background(tmp_path: Path) -> None:
    path = polygons(tmp_path / "l.geojson", [("house", (10.3, 10.3, 20.6, 20.6))], crs=4326)
    names = {"house": "building"}
    found = whole(open_labels(path, GRID, LEGEND, LabelOptions("kind", names, background="water")))
    expected = np.full((90, 120), 5, np.uint8)
    expected[10:21, 10:21] = 1
    assert (found == expected).all()
    found = whole(open_labels(path, GRID, LEGEND, LabelOptions("kind", names)))
    assert (found == np.where(expected == 5, NODATA, expected)).all()


def test_what_cannot_be_used_is_said_in_one_line(tmp_path: Path) -> None:
    away = write(tmp_path / "away.tif", noise((9, 9)), transform=Affine(0.8, 0, 400_000, 0, -0.8, 2_700_000))
    vague = write(tmp_path / "vague.tif", noise((9, 9)), crs=None)
    other = polygons(tmp_path / "l.gpkg", BOXES)
    near = write(tmp_path / "near.tif", noise((9, 9)))
    for path, options, error, words in [
        (away, LabelOptions(), SourceError, "the labels do not overlap the map: they span x 400000 to"),
        (vague, LabelOptions(), SourceError, "the labels have no CRS: state it"),
        (
            other,
            LabelOptions(),
            SourceError,
            "vector file: name the field that holds the class with --class-field",
        ),
        (near, LabelOptions("kind"), SourceError, "cannot be read as a vector file"),
        (other, LabelOptions("sort"), SourceError, "has no field 'sort'; its fields are: kind"),
        (
            other,
            LabelOptions("kind"),
            SourceError,
            "does not know: house, lake; its classes are building, road, water",
        ),
        (
            other,
            LabelOptions("kind", {"house": "hut"}),
            SpecError,
            "map has no class 'hut'; its classes are building",
        ),
        (
            other,
            LabelOptions("kind", {"shed": "road", "house": "", "lake": ""}),
            SpecError,
            "holds no class 'shed'",
        ),
        (other, LabelOptions("kind", ignore=(3,)), SpecError, "--ignore is for values of a raster"),
        (near, LabelOptions(class_names={"house": "road"}), SpecError, "use their values, as in 7=building"),
        (str(tmp_path / "none.tif"), LabelOptions(), SourceError, "no such file"),
    ]:
        with pytest.raises(error, match=re.escape(words)) as caught:
            open_labels(path, GRID, LEGEND, options)
        assert "\n" not in str(caught.value)
    with pytest.raises(SpecError, match=r"lie in 0\.\.255, got 256"):
        LabelOptions(ignore=(256,))
    with pytest.raises(SpecError, match="name their class field, too"):
        LabelOptions(background="road")


def test_labels_of_any_kind_can_be_looked_at_on_a_smaller_grid(elsewhere, tmp_path: Path) -> None:
    """The centers of pixels three times as large are those of every third pixel."""
    small = GeoGrid(30, 40, TRANSFORM @ Affine.scale(3), CRS_WKT)
    same = write(tmp_path / "l.tif", noise((90, 120)))
    drawn = polygons(tmp_path / "l.gpkg", BOXES)
    turned = elsewhere["turned None"]
    for path, options in ((same, LabelOptions()), (turned, LabelOptions()), (drawn, OPTIONS)):
        labels = open_labels(path, GRID, LEGEND, options)
        found = whole(labels.on(small))
        assert (found == whole(labels)[1::3, 1::3]).all()
        assert len(np.unique(found)) > 2
