"""Scores of a map do not depend on windows, their order or the engine, and are those of torchmetrics."""

import importlib
import json
import os
import pickle
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import rasterio.features
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg.errors import OutputError, SourceError
from geoseg.grid.geogrid import GeoGrid
from geoseg.grid.window import Window
from geoseg.io.classmap import TAG_LEGEND, ClassMap
from geoseg.io.regions import NamedPolygon, read_polygons
from geoseg.legend import NODATA, LandClass, Legend
from geoseg.pixels.burn import burn
from geoseg.pixels.confusion import ConfusionMatrix
from geoseg.run.evaluating import evaluate_files, format_csv, format_table
from geoseg.stages.evaluate import Scores, score_map

DATA = Path(os.environ.get("GEOSEG_DATA", Path(__file__).resolve().parents[2].parent / "shared" / "data"))
NAMES = ("building", "road", "land", "vegetation", "water")
LEGEND = Legend(tuple(LandClass(i + 1, name, (i, i, i)) for i, name in enumerate(NAMES)))
TRANSFORM = Affine(0.5, 0, 1000, 0, -0.5, 2000)


@dataclass(frozen=True)
class Raster:
    """A class raster in memory."""

    values: np.ndarray = field(repr=False)
    nodata: int | None = None
    path: str = "raster"

    @property
    def grid(self):
        return GeoGrid(*self.values.shape, TRANSFORM)

    def read(self, window: Window):
        return self.values[window.within(self.grid.window)]


def in_threads(function, items):
    with ThreadPoolExecutor(3) as pool:
        yield from pool.map(function, items)


def shuffled(function, items):
    tasks = [pickle.loads(pickle.dumps(item)) for item in items]
    random.Random(3).shuffle(tasks)
    return map(pickle.loads(pickle.dumps(function)), tasks)


def region(name, *box_px):
    """A box of columns and rows: left, top, right, bottom."""
    corners = shapely.get_coordinates(shapely.box(*box_px))
    return NamedPolygon(name, shapely.Polygon([TRANSFORM @ tuple(corner) for corner in corners]))


def random_pair(seed, height=37, width=41):
    rng = np.random.default_rng(seed)
    labels = rng.choice(np.array([0, 1, 2, 3, 5, NODATA], np.uint8), (height, width))
    mapped = np.where(rng.random(labels.shape) < 0.6, labels, rng.integers(1, 6, labels.shape)).astype(
        np.uint8
    )
    mapped[mapped == 0] = NODATA
    return Raster(labels, nodata=0), Raster(mapped, nodata=NODATA)


boxes = st.tuples(*[st.floats(-10, 50, allow_nan=False) for _ in range(4)])


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 99), st.lists(boxes, max_size=4), st.integers(5, 60))
def test_windows_order_and_engine_change_no_score(seed, placed, window_px):
    labels, mapped = random_pair(seed)
    regions = [region(str(i), *sorted(b[:2]), *sorted(b[2:])) for i, b in enumerate(placed)]
    whole = score_map(mapped, labels, LEGEND, regions, map, 4096)
    for mapper in (map, shuffled, in_threads):
        assert score_map(mapped, labels, LEGEND, regions, mapper, window_px) == whole
    assert whole.overall == ConfusionMatrix.count(labels.values, mapped.values, LEGEND, [0])
    for score, polygon in zip(whole.regions, regions, strict=True):
        inside = burn([polygon.geometry], labels.grid.window, labels.grid)
        assert score.name == polygon.name
        assert score.matrix == ConfusionMatrix.count(
            labels.values[inside], mapped.values[inside], LEGEND, [0]
        )


def test_overlapping_partly_outside_and_empty_regions():
    values = Raster(np.full((10, 20), 3, np.uint8))
    regions = [region("left", -5, -5, 10, 10), region("all", 0, 0, 20, 10), region("away", 30, 30, 40, 40)]
    regions += [region("between centers", 2.6, 2.6, 3.4, 3.4), NamedPolygon("empty", shapely.Polygon())]
    scores = score_map(values, values, LEGEND, regions, map, 8)
    assert [score.matrix.pixels for score in scores.regions] == [100, 200, 0, 0, 0]
    assert scores.overall.pixels == 200
    assert scores.rows()[2] == {
        "region": "away",
        "miou": None,
        **dict.fromkeys(NAMES),
        "pixels": 0,
        "unmapped": 0,
    }


def test_content_is_plain_and_stable():
    labels, mapped = random_pair(1)
    scores = score_map(mapped, labels, LEGEND, [region("a", 0, 0, 9, 9), region("b", 90, 0, 99, 9)], map)
    content = json.loads(json.dumps(scores.to_dict(), allow_nan=False))
    assert list(content) == ["format", "classes", "overall", "regions", "notes"]
    assert content["format"] == 1
    assert content["classes"][1] == {"id": 2, "name": "road"}
    assert content["overall"]["miou"] == scores.overall.miou
    assert content["overall"]["iou"]["road"] == scores.overall.iou[1]
    assert content["overall"]["confusion"] == scores.overall.counts.tolist()
    assert [entry["region"] for entry in content["regions"]] == ["a", "b"]
    assert content["regions"][1]["iou"] == dict.fromkeys(NAMES)
    assert content["regions"][1]["miou"] is None


def test_a_class_named_as_a_column_gets_a_prefix():
    legend = Legend((LandClass(1, "Pixels", (0, 0, 0)), LandClass(2, "road", (1, 1, 1))))
    columns = Scores(ConfusionMatrix.zero(legend)).columns()
    assert columns == ["region", "miou", "iou_Pixels", "road", "pixels", "unmapped"]


@pytest.mark.parametrize("side", ["labels", "map"])
def test_unknown_values_name_the_file_that_holds_them(side):
    rasters = {name: Raster(np.ones((4, 4), np.uint8), path=f"{name}.tif") for name in ("labels", "map")}
    rasters[side].values[2, 3] = 77
    with pytest.raises(
        SourceError, match=rf"^{side}\.tif: .* no class: 77; the legend's ids are 1, 2, 3, 4, 5$"
    ):
        score_map(rasters["map"], rasters["labels"], LEGEND, [], map, 2)


def write_map(path, values, like=None, legend=LEGEND, **changes):
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "nodata": NODATA, "compress": "deflate"}
    place = (
        {"crs": "EPSG:32640", "transform": TRANSFORM}
        if like is None
        else {"crs": like.crs, "transform": like.transform}
    )
    height, width = values.shape
    with rasterio.open(path, "w", height=height, width=width, **{**profile, **place, **changes}) as dataset:
        dataset.write(values, 1)
        if legend:
            dataset.update_tags(**{TAG_LEGEND: json.dumps(legend.to_list())})
    return str(path)


@pytest.fixture
def example(tmp_path):
    """Two rows: west is right but for a pixel, east has a pixel right and one without answer."""
    labels = np.array([[1, 1, 2, 2], [1, 2, 2, 0]], np.uint8)
    mapped = np.array([[1, 1, 2, 5], [1, 1, NODATA, 5]], np.uint8)
    west, east = region("west", 0, 0, 2, 2), region("east", 2, 0, 4, 2)
    frame = geopandas.GeoDataFrame(
        {"region": ["west", "east"]}, geometry=[west.geometry, east.geometry], crs=32640
    )
    frame.to_file(tmp_path / "regions.gpkg")
    return (
        write_map(tmp_path / "landcover.tif", mapped),
        write_map(tmp_path / "labels.tif", labels, legend=None, nodata=0),
        str(tmp_path / "regions.gpkg"),
    )


def test_files_and_table_by_eye(example, tmp_path):
    scores = evaluate_files(*example, "region", str(tmp_path / "out" / "scores"), map)
    assert sorted(path.name for path in (tmp_path / "out" / "scores").iterdir()) == [
        "metrics.json",
        "regions.csv",
    ]
    assert (tmp_path / "out" / "scores" / "regions.csv").read_text().splitlines() == [
        "region,miou,building,road,land,vegetation,water,pixels,unmapped",
        "west,0.375000,0.750000,0.000000,,,,4,0",
        "east,0.250000,,0.500000,,,0.000000,2,1",
    ]
    assert json.loads((tmp_path / "out" / "scores" / "metrics.json").read_text()) == scores.to_dict()
    assert format_table(scores).splitlines() == [
        "region   building  road  land  vegetation  water  mIoU  strict mIoU  pixels  unmapped",
        "west         75.0   0.0     -           -      -  37.5         37.5       4         0",
        "east            -  50.0     -           -    0.0  25.0         16.7       2         1",
        "overall      75.0  33.3     -           -    0.0  36.1         33.3       6         1",
    ]
    assert (
        format_csv(replace(scores, regions=()))
        == "region,miou,building,road,land,vegetation,water,pixels,unmapped\n"
    )


def test_without_regions_and_output(example, tmp_path):
    landcover, labels, _ = example
    before = sorted(tmp_path.iterdir())
    assert evaluate_files(landcover, labels, None, "region", None, map).overall.pixels == 6
    assert sorted(tmp_path.iterdir()) == before
    evaluate_files(landcover, labels, None, "region", str(tmp_path / "out"), map)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["metrics.json"]


def test_labels_on_another_grid_are_refused(example, tmp_path):
    landcover, _, _ = example
    values = np.ones((2, 4), np.uint8)
    shifted = write_map(tmp_path / "shifted.tif", values, transform=TRANSFORM @ Affine.translation(1, 0))
    other = write_map(tmp_path / "other.tif", values, crs="EPSG:32639")
    expected = r"another grid \(2 x 4 px, origin 1000.5, 2000, pixel size 0.5, -0.5, .*40N\) than the map"
    with pytest.raises(SourceError, match=expected):
        evaluate_files(landcover, shifted, None, "region", None, map)
    with pytest.raises(SourceError, match=r"39N\) than .*40N\)"):
        evaluate_files(landcover, other, None, "region", None, map)


def test_a_map_without_legend_is_refused(example):
    _, labels, _ = example
    with pytest.raises(SourceError, match="has no legend tag"):
        evaluate_files(labels, labels, None, "region", None, map)


def test_an_output_that_cannot_be_written(example, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be made a folder"):
        evaluate_files(*example, "region", str(tmp_path / "file"), map)


@pytest.mark.skipif(not (DATA / "dubai").is_dir(), reason=f"no imagery in {DATA} (set GEOSEG_DATA)")
def test_a_real_scene_scores_as_torchmetrics_over_whole_arrays(tmp_path):
    torch = pytest.importorskip("torch")
    importlib.import_module("geoseg.model._torchvision")  # torchmetrics imports torchvision
    jaccard = pytest.importorskip("torchmetrics.functional.classification").multiclass_jaccard_index
    labels_path, regions_path = (
        DATA / "dubai" / f"dubai_2_{name}" for name in ("labels.tif", "regions.gpkg")
    )
    with rasterio.open(labels_path) as dataset:
        labels = dataset.read(1)
        mapped = perturb(labels)
        landcover = write_map(tmp_path / "landcover.tif", mapped, dataset)
    scores = evaluate_files(landcover, str(labels_path), str(regions_path), "region", None, in_threads)
    small = score_map(
        *map(ClassMap.open, (landcover, str(labels_path))), LEGEND, named(regions_path), map, 300
    )
    assert small == scores

    frame = geopandas.read_file(regions_path)
    assert [score.name for score in scores.regions] == list(frame["region"])
    scored = (labels != 0) & (mapped != NODATA)
    insides = [
        rasterio.features.rasterize([g], labels.shape, transform=dataset.transform) == 1
        for g in frame.geometry
    ]
    matrices = [scores.overall, *(score.matrix for score in scores.regions)]
    for matrix, inside in zip(matrices, [np.ones_like(scored), *insides], strict=True):
        pair = [torch.from_numpy(a[inside & scored].astype(np.int64) - 1) for a in (mapped, labels)]
        assert matrix.pixels == len(pair[0])
        assert matrix.unmapped == (inside & (labels != 0) & (mapped == NODATA)).sum()
        assert matrix.miou == pytest.approx(float(jaccard(*pair, num_classes=5, average="macro")), abs=1e-6)
        per_class = jaccard(*pair, num_classes=5, average=None).tolist()
        assert [value or 0 for value in matrix.iou] == pytest.approx(per_class, abs=1e-6)
    assert sum(score.matrix.pixels for score in scores.regions) == scores.overall.pixels


def named(path):
    with rasterio.open(DATA / "dubai" / "dubai_2_labels.tif") as dataset:
        grid = GeoGrid(dataset.height, dataset.width, dataset.transform, dataset.crs.to_wkt())
    return read_polygons(str(path), grid, "region")


def perturb(labels):
    """Shift the labels, change a tenth of them, and leave a corner without answer."""
    rng = np.random.default_rng(2)
    mapped = np.roll(labels, (7, -5), (0, 1))
    mapped = np.where(rng.random(labels.shape) < 0.1, rng.integers(1, 6, labels.shape), mapped).astype(
        np.uint8
    )
    mapped[mapped == 0] = 3
    mapped[:200, :450] = NODATA
    return mapped
