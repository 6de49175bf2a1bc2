"""What labels teach: the pixels that `geoseg run` would score, and sets where a data set knows less."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import rasterio.features
import shapely
from affine import Affine
from hypothesis import event, given, settings
from hypothesis import strategies as st

from geoseg.errors import GeosegError, SourceError, SpecError
from geoseg.grid.geogrid import GeoGrid
from geoseg.grid.window import Window
from geoseg.io.classmap import TAG_LEGEND
from geoseg.io.labels import LabelOptions, open_labels
from geoseg.legend import NODATA, LandClass, Legend
from geoseg.train.config import SceneEntry
from geoseg.train.labels import IGNORED, MOST_IN_SETS, SET, open_scene_labels
from geoseg.train.meanings import possible_classes

NAMES = ("building", "road", "land", "water")
LEGEND = Legend(tuple(LandClass(i, name, (i, i, i)) for i, name in zip((1, 2, 5, 9), NAMES, strict=True)))
OTHERS = Legend(tuple(LandClass(i, name, (i, i, i)) for i, name in ((1, "land"), (2, "sea"), (4, "road"))))
TRANSFORM = Affine(0.8, 0, 300_000, 0, -0.8, 2_700_000)
GRID = GeoGrid(90, 120, TRANSFORM, rasterio.CRS.from_epsg(32640).to_wkt(version="WKT2_2019"))
KINDS = ("building", "road", "2", "house", "shed")


def polygons(seed: int, count: int) -> geopandas.GeoDataFrame:
    """Overlapping turned rectangles of all kinds, some reaching beyond the scene."""
    rng = np.random.default_rng(seed)
    shapes = []
    for col, row, wide, high, angle in rng.uniform((0, 0, 3, 3, 0), (120, 90, 40, 40, 90), (count, 5)):
        box = shapely.box(col - wide / 2, row - high / 2, col + wide / 2, row + high / 2)
        turned = shapely.affinity.rotate(box, angle)
        shapes.append(shapely.transform(turned, lambda xy: np.array([TRANSFORM @ p for p in xy.tolist()])))
    kinds = [KINDS[i % len(KINDS)] for i in range(count)]
    return geopandas.GeoDataFrame({"kind": kinds}, geometry=shapes, crs=32640)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("polygons")
    found = []
    for seed, (crs, name) in enumerate([(32640, "a.gpkg"), (4326, "b.geojson"), (3857, "c.fgb")]):
        polygons(seed, 14).to_crs(crs).to_file(folder / name)
        found.append(folder / name)
    return found


def entry(labels: Path, **options: object) -> SceneEntry:
    return SceneEntry.model_validate({"scene": "scene.tif", "labels": labels, **options})


@st.composite
def windows(draw: st.DrawFn) -> Window:
    row, col = draw(st.integers(0, 89)), draw(st.integers(0, 119))
    return Window(row, col, draw(st.integers(1, 90 - row)), draw(st.integers(1, 120 - col)))


classes = st.sampled_from(["", *NAMES])


@settings(max_examples=40)
@given(
    st.integers(0, 2),
    st.fixed_dictionaries({"house": classes, "shed": classes}, optional={"road": classes, "2": classes}),
    st.sampled_from([None, *NAMES]),
    windows(),
)
def test_polygons_teach_what_a_run_would_score(files, number, mapping, background, window):
    """Pixel by pixel, for any window, mapping and background."""
    path = files[number]
    labels = open_scene_labels(
        entry(path, class_field="kind", map_class=mapping, background=background), GRID, LEGEND
    )
    scored = open_labels(str(path), GRID, LEGEND, LabelOptions("kind", mapping, (), background)).read(window)
    expected = np.full(scored.shape, IGNORED)
    for channel, value in enumerate(LEGEND.ids):
        expected[scored == value] = channel
    np.testing.assert_array_equal(labels.read(window), expected)


@settings(max_examples=20)
@given(windows())
def test_every_polygon_against_rasterio(files, window):
    labels = open_scene_labels(
        entry(files[0], every_polygon="building", background={"not": ["building"]}), GRID, LEGEND
    )
    shapes = polygons(0, 14).geometry
    burnt = rasterio.features.rasterize(shapes, (90, 120), transform=TRANSFORM).astype(bool)
    inside = burnt[window.within(GRID.window)]
    codes = labels.codes[labels.read(window)]
    np.testing.assert_array_equal(codes, np.where(inside, 0, SET + 0b1110))


@settings(max_examples=100)
@given(
    nodata=st.sampled_from([None, 0, 2, 255]),
    ignore=st.sets(st.integers(0, 9), max_size=3),
    mapping=st.dictionaries(st.sampled_from(["0", "1", "3", "7", "sea", "land"]), classes, max_size=3),
    named=st.booleans(),
    held=st.sets(st.sampled_from([0, 0, 1, 2, 4, 5, 9, 3, 7]), min_size=1, max_size=4),
)
def test_rasters_teach_what_a_run_would_score(tmp_path_factory, nodata, ignore, mapping, named, held):
    """By value or by the names of their legend; errors come from both or from none."""
    path = tmp_path_factory.mktemp("raster") / "labels.tif"
    values = np.resize(np.array(sorted(held), np.uint8), (90, 120))
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "crs": "EPSG:32640", "transform": TRANSFORM}
    with rasterio.open(path, "w", height=90, width=120, nodata=nodata, **profile) as dataset:
        dataset.write(values, 1)
        if named:
            dataset.update_tags(**{TAG_LEGEND: json.dumps(OTHERS.to_list())})
    mapping = {key: to for key, to in mapping.items() if not key.isdecimal() or int(key) not in ignore}
    if not named:
        mapping = {key: to for key, to in mapping.items() if key.isdecimal()}
    if nodata == 0:
        mapping.pop("0", None)
    if nodata == 2:
        mapping.pop("sea", None)

    def scored() -> np.ndarray:
        return open_labels(str(path), GRID, LEGEND, LabelOptions(None, mapping, tuple(ignore), None)).read(
            GRID.window
        )

    mine = entry(path, ignore=sorted(ignore), map_class=mapping)
    try:
        expected = scored()
    except SourceError:
        event("an error")
        with pytest.raises(SourceError, match="holds label values that are no class"):
            open_scene_labels(mine, GRID, LEGEND).read(GRID.window)
        return
    event("labels")
    lookup = np.full(256, IGNORED)
    lookup[list(LEGEND.ids)] = range(4)
    np.testing.assert_array_equal(open_scene_labels(mine, GRID, LEGEND).read(GRID.window), lookup[expected])


meanings = st.one_of(
    st.none(),
    st.just(""),
    st.sampled_from(NAMES),
    st.lists(st.sampled_from(NAMES), min_size=1),
    st.lists(st.sampled_from(NAMES), min_size=1).map(lambda names: {"not": names}),
)


@settings(max_examples=40)
@given(st.lists(meanings, min_size=1, max_size=9))
def test_a_set_holds_the_classes_that_are_possible(tmp_path_factory, chosen):
    path = write(
        tmp_path_factory.mktemp("sets") / "l.tif", np.resize(np.arange(20, dtype=np.uint8), (90, 120))
    )
    mapping = {value: chosen[value % len(chosen)] for value in range(20)}
    labels = open_scene_labels(entry(path, map_class=mapping), GRID, LEGEND)
    codes = labels.codes[labels.read(Window(0, 0, 1, 20))][0]
    for code, meaning in zip(codes.tolist(), (chosen[v % len(chosen)] for v in range(20)), strict=True):
        names = NAMES if isinstance(meaning, dict) else ()
        without = meaning["not"] if isinstance(meaning, dict) else ()
        listed = [meaning] if isinstance(meaning, str) and meaning else meaning or []
        expected = {n for n in names if n not in without} or (
            {*listed} if not isinstance(meaning, dict) else set()
        )
        if code == IGNORED:
            found = set()
        else:
            found = {NAMES[code]} if code < 4 else {n for i, n in enumerate(NAMES) if (code - SET) >> i & 1}
        assert found == (set() if expected == set(NAMES) else expected)
        assert set(possible_classes(meaning, LEGEND)) == found


def write(path: Path, values: np.ndarray, **changes: object) -> Path:
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "crs": "EPSG:32640", "transform": TRANSFORM}
    height, width = values.shape
    with rasterio.open(path, "w", height=height, width=width, **{**profile, **changes}) as dataset:
        dataset.write(values, 1)
    return path


def test_a_class_that_teaches_nothing_covers_what_lies_below(tmp_path):
    square = shapely.box(300_010, 2_699_950, 300_040, 2_699_990)
    frame = geopandas.GeoDataFrame({"kind": ["road", "unsure"]}, geometry=[square, square], crs=32640)
    frame.to_file(tmp_path / "p.gpkg")
    options = {"class_field": "kind", "map_class": {"unsure": None}, "background": "land"}
    targets = open_scene_labels(entry(tmp_path / "p.gpkg", **options), GRID, LEGEND).read(GRID.window)
    assert set(np.unique(targets)) == {2, IGNORED}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"class_field": "sort"}, r"has no field 'sort'; its fields are: kind"),
        (
            {"class_field": "kind"},
            r"holds classes that the training file does not know: house, shed;.*map_class: \{house: building\}",
        ),
        ({}, "name their class_field, or say what every_polygon is"),
    ],
)
def test_polygons_that_cannot_be_used_are_one_line(files, options, said):
    with pytest.raises(GeosegError, match=said) as caught:
        open_scene_labels(entry(files[0], **options), GRID, LEGEND)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(files[0]))


def test_polygons_that_miss_the_scene_are_one_line(tmp_path, files):
    far = GeoGrid(90, 120, Affine.translation(90_000, 0) @ TRANSFORM, GRID.crs)
    with pytest.raises(SourceError, match="none of its polygons overlaps the raster"):
        open_scene_labels(entry(files[0], every_polygon="building"), far, LEGEND)


def test_a_meaning_for_nodata_is_refused(tmp_path):
    path = write(tmp_path / "l.tif", np.zeros((90, 120), np.uint8), nodata=0)
    with pytest.raises(SpecError, match=r"gives a meaning to 0, which is nodata.*-unsetnodata"):
        open_scene_labels(entry(path, map_class={0: {"not": ["building"]}}), GRID, LEGEND)
    assert (
        open_scene_labels(entry(path, map_class={0: None}), GRID, LEGEND).read(GRID.window) == IGNORED
    ).all()


def test_sets_need_few_enough_classes(tmp_path):
    many = Legend(tuple(LandClass(i, f"c{i}", (0, 0, 0)) for i in range(MOST_IN_SETS + 1)))
    path = write(tmp_path / "l.tif", np.zeros((90, 120), np.uint8))
    with pytest.raises(SpecError, match=rf"at most {MOST_IN_SETS} classes"):
        open_scene_labels(entry(path, map_class={0: ["c1", "c2"]}), GRID, many)
    assert (open_scene_labels(entry(path, map_class={0: "c2"}), GRID, many).read(GRID.window) == 2).all()


def test_nodata_is_what_the_library_says():
    assert IGNORED == NODATA < SET
