"""Scores of a map do not depend on windows, their order or the engine, and are those of torchmetrics."""

import importlib
import json
import os
import pickle
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from unittest.mock import patch

import geopandas
import numpy as np
import pytest
import rasterio
import rasterio.features
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg.errors import OutputError, SourceError, SpecError
from geoseg.grid.geogrid import GeoGrid
from geoseg.grid.window import Window
from geoseg.io.classmap import TAG_LEGEND, ClassMap
from geoseg.io.regions import NamedPolygon, read_polygons
from geoseg.legend import NODATA, LandClass, Legend
from geoseg.pixels.boundaries import BoundaryCounts, find_boundaries
from geoseg.pixels.burn import burn
from geoseg.pixels.calibration import Calibration, count_percents, percent_codes
from geoseg.pixels.confusion import ConfusionMatrix
from geoseg.run.evaluating import evaluate_files, format_csv, format_table
from geoseg.stages.evaluate import Sources, score_map, windows
from geoseg.stages.scores import ScoreSettings
from geoseg.stages.structures import score_structures

DATA = Path(os.environ.get("GEOSEG_DATA", Path(__file__).resolve().parents[2].parent / "shared" / "data"))
NAMES = ("building", "road", "land", "vegetation", "water")
ROLES = {"building": "building", "road": "road"}
LEGEND = Legend(tuple(LandClass(i + 1, name, (i, i, i), ROLES.get(name)) for i, name in enumerate(NAMES)))
NOTHING = {"miou": None, **dict.fromkeys(NAMES), "pixels": 0, "unmapped": 0}
MORE = ("miou_low", "miou_high", "accuracy", "kappa", "boundary_f1")
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


def blobs(seed, height=53, width=61, side=6):
    """Labels in squares, a map that is shifted and spoiled, and a confidence that knows a little of it."""
    rng = np.random.default_rng(seed)
    coarse = rng.choice(
        np.array([0, 1, 1, 2, 2, 3, 5, NODATA], np.uint8), (height // side + 1, width // side + 1)
    )
    labels = coarse.repeat(side, 0).repeat(side, 1)[:height, :width]
    mapped = np.roll(
        np.where((labels == 0) | (labels == NODATA), np.uint8(3), labels), rng.integers(-2, 3, 2), (0, 1)
    )
    spoiled = rng.random(labels.shape) < 0.05
    mapped[spoiled] = rng.choice(np.array([1, 2, 4, NODATA], np.uint8), spoiled.sum())
    percent = np.where(spoiled, rng.integers(20, 80, labels.shape), rng.integers(60, 101, labels.shape))
    percent[rng.random(labels.shape) < 0.02] = NODATA
    return Raster(labels, nodata=0), Raster(mapped, nodata=NODATA), Raster(percent.astype(np.uint8))


boxes = st.tuples(*[st.floats(-10, 70, allow_nan=False) for _ in range(4)])
small_cells = patch.multiple("geoseg.pixels.bootstrap", CELL_PX=7)


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 99), st.lists(boxes, max_size=3), st.integers(7, 70), st.integers(0, 4))
def test_windows_order_and_engine_change_no_score(seed, placed, window_px, tolerance):
    """Not only counts: every figure that is written, intervals, objects and lines too."""
    labels, mapped, percent = blobs(seed)
    regions = [region(str(i), *sorted(b[:2]), *sorted(b[2:])) for i, b in enumerate(placed)]
    chosen = ScoreSettings(min_support=50, tolerance_px=tolerance, objects=True)

    def score(mapper, window_px):
        found = score_map(mapped, labels, LEGEND, regions, mapper, window_px, percent, chosen)
        return score_structures(found, Sources(mapped, labels, percent), regions, mapper, window_px)

    with small_cells:
        whole = score(map, 4096)
        for mapper in (map, shuffled, in_threads):
            cut = score(mapper, window_px)
            assert cut == whole
            assert json.dumps(cut.to_dict()) == json.dumps(whole.to_dict())
    assert whole.whole.intervals.over_all["miou"] is not None
    assert whole.overall == ConfusionMatrix.count(labels.values, mapped.values, LEGEND, [0])

    channels = np.full(256, NODATA, np.uint8)
    channels[1:6] = range(5)
    edges = find_boundaries(channels[labels.values], channels[mapped.values], 5, tolerance)
    scored = np.isin(labels.values, LEGEND.ids) & (mapped.values != NODATA)
    everywhere = np.ones(scored.shape, bool)
    insides = [burn([polygon.geometry], labels.grid.window, labels.grid) for polygon in regions]
    for area, inside in zip([whole.whole, *whole.regions], [everywhere, *insides], strict=True):
        assert area.matrix == ConfusionMatrix.count(labels.values[inside], mapped.values[inside], LEGEND, [0])
        assert area.boundary == BoundaryCounts.of(edges.count(inside))
        expected = count_percents(
            percent_codes(percent.values, labels.values == mapped.values, scored & inside)
        )
        assert area.calibration == Calibration.of(expected)
    assert [area.name for area in whole.regions] == [polygon.name for polygon in regions]


def test_one_window_or_two_hundred():
    labels, mapped, percent = blobs(5, 400, 500, 17)
    regions = [region("a", 10, 10, 300.3, 250), region("b", 200, 0, 500, 400)]
    chosen = ScoreSettings(objects=True)

    def score(mapper, window_px):
        found = score_map(mapped, labels, LEGEND, regions, mapper, window_px, percent, chosen)
        return score_structures(found, Sources(mapped, labels, percent), regions, mapper, window_px)

    with patch.multiple("geoseg.pixels.bootstrap", CELL_PX=64):
        one = score(map, 512)
        many = score(shuffled, 32)
    assert len(list(windows(labels.grid, 32))) == 13 * 16
    assert many == one
    assert json.dumps(many.to_dict()) == json.dumps(one.to_dict())
    assert all(area.intervals.over_all["kappa"] is not None for area in one.regions)
    found = one.to_dict()["overall"]
    assert found["objects"]["building"]["matched"] > 20
    assert found["roads"]["road"]["truth_px"] > 100


def test_a_perfect_map_scores_one():
    labels, _, _ = blobs(1)
    mapped = Raster(np.where(labels.values == 0, np.uint8(NODATA), labels.values), nodata=NODATA)
    found = score_structures(
        score_map(mapped, labels, LEGEND, [], map, settings=ScoreSettings(0, 0, True)),
        Sources(mapped, labels),
        [],
        map,
    ).to_dict()["overall"]
    for name in ("miou", "kappa", "mean_dice", "frequency_weighted_iou", "supported_miou"):
        assert found[name] == 1
    assert set(found["boundary"]["f1"].values()) == {1, None}
    assert found["objects"]["building"]["f1"] == found["objects"]["building"]["panoptic_quality"] == 1
    assert found["objects"]["building"]["ap50"] is None
    assert found["calibration"] is None
    for name in ("completeness", "correctness", "quality"):
        assert found["roads"]["road"][name] == 1


def test_classes_with_few_labelled_pixels_are_listed_and_left_out_of_supported_means():
    labels = Raster(np.array([[1] * 60 + [2] * 5 + [3] * 0], np.uint8))
    mapped = Raster(np.array([[1] * 60 + [1] * 4 + [5]], np.uint8))
    found = score_map(mapped, labels, LEGEND, [], map, settings=ScoreSettings(min_support=6)).to_dict()[
        "overall"
    ]
    assert found["miou"] == pytest.approx((60 / 64 + 0 + 0) / 3)
    assert found["supported_miou"] == 60 / 64
    assert found["support"] == {"building": 60, "road": 5, "land": 0, "vegetation": 0, "water": 0}
    assert found["below_min_support"] == ["road", "water"]
    assert found["absent"] == ["land", "vegetation"]


@pytest.mark.parametrize("changes", [{"min_support": -1}, {"tolerance_px": -1}, {"tolerance_px": 101}])
def test_impossible_settings_are_refused(changes):
    with pytest.raises(SpecError):
        ScoreSettings(**changes)


def test_a_confidence_that_is_none_names_its_file():
    values = Raster(np.ones((2, 3), np.uint8))
    percent = Raster(np.full((2, 3), 200, np.uint8), path="percent.tif")
    with pytest.raises(SourceError, match=r"^percent\.tif: is no raster of whole percent: it holds 200"):
        score_map(values, values, LEGEND, [], map, confidence=percent)


@pytest.mark.parametrize("objects", [False, True])
def test_what_is_written_follows_its_schema(objects):
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(resources.files("geoseg.stages").joinpath("metrics.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    labels, mapped, percent = blobs(3)
    regions = [region("a", 0, 0, 30, 30), region("nowhere", 90, 90, 99, 99)]
    with small_cells:
        scores = score_map(mapped, labels, LEGEND, regions, map, 32, percent, ScoreSettings(objects=objects))
        bare = score_map(mapped, labels, LEGEND, [], map)
    if objects:
        scores = score_structures(scores, Sources(mapped, labels, percent), regions, map)
    for found in (scores, bare):
        content = json.loads(json.dumps(found.to_dict(), allow_nan=False))
        validator.validate(content)
        for spoil in ({"format": 1}, {"notes": [1]}, {"overall": {}}, {"more": 1}):
            assert not validator.is_valid({**content, **spoil})
        assert not validator.is_valid({**content, "regions": [content["overall"]]})  # it has no name


def test_overlapping_partly_outside_and_empty_regions():
    values = Raster(np.full((10, 20), 3, np.uint8))
    regions = [region("left", -5, -5, 10, 10), region("all", 0, 0, 20, 10), region("away", 30, 30, 40, 40)]
    regions += [region("between centers", 2.6, 2.6, 3.4, 3.4), NamedPolygon("empty", shapely.Polygon())]
    scores = score_map(values, values, LEGEND, regions, map, 8)
    assert [score.matrix.pixels for score in scores.regions] == [100, 200, 0, 0, 0]
    assert scores.overall.pixels == 200
    assert scores.rows()[2] == {"region": "away", **NOTHING, **dict.fromkeys(MORE)}


def test_content_is_plain_and_stable():
    labels, mapped = random_pair(1)
    scores = score_map(mapped, labels, LEGEND, [region("a", 0, 0, 9, 9), region("b", 90, 0, 99, 9)], map)
    content = json.loads(json.dumps(scores.to_dict(), allow_nan=False))
    assert list(content) == ["format", "classes", "settings", "overall", "regions", "notes", "remarks"]
    assert content["format"] == 2
    assert content["classes"][1] == {"id": 2, "name": "road"}
    assert content["overall"]["miou"] == scores.overall.miou
    assert content["overall"]["iou"]["road"] == scores.overall.iou[1]
    assert content["overall"]["confusion"] == scores.overall.counts.tolist()
    assert [entry["region"] for entry in content["regions"]] == ["a", "b"]
    assert content["regions"][1]["iou"] == dict.fromkeys(NAMES)
    assert content["regions"][1]["miou"] is None


def test_a_class_named_as_a_column_gets_a_prefix():
    legend = Legend((LandClass(1, "Pixels", (0, 0, 0)), LandClass(2, "road", (1, 1, 1))))
    one = Raster(np.ones((1, 1), np.uint8))
    columns = score_map(one, one, legend, [], map).columns()
    assert columns == ["region", "miou", "iou_Pixels", "road", "pixels", "unmapped", *MORE]


@pytest.mark.parametrize("side", ["labels", "map"])
def test_unknown_values_name_the_file_that_holds_them(side):
    rasters = {name: Raster(np.ones((4, 4), np.uint8), path=f"{name}.tif") for name in ("labels", "map")}
    rasters[side].values[2, 3] = 77
    advice = "; where one means no answer, declare it as nodata .*" * (side == "map")
    words = (
        rf"^{side}\.tif: .*holds? values that are no class: 77; the legend's ids are 1, 2, 3, 4, 5{advice}$"
    )
    with pytest.raises(SourceError, match=words):
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


HEADER = "region,miou,building,road,land,vegetation,water,pixels,unmapped," + ",".join(MORE)


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
        HEADER,
        "west,0.375000,0.750000,0.000000,,,,4,0,,,0.750000,0.000000,1.000000",
        "east,0.250000,,0.500000,,,0.000000,2,1,,,0.500000,0.000000,0.500000",
    ]
    assert json.loads((tmp_path / "out" / "scores" / "metrics.json").read_text()) == scores.to_dict()
    assert format_table(scores).splitlines()[:4] == [
        "region   building  road  land  vegetation  water  mIoU  95 %  strict mIoU  pixels  unmapped",
        "west         75.0   0.0     -           -      -  37.5     -         37.5       4         0",
        "east            -  50.0     -           -    0.0  25.0     -         16.7       2         1",
        "overall      75.0  33.3     -           -    0.0  36.1     -         33.3       6         1",
    ]
    assert format_csv(replace(scores, regions=())) == HEADER + "\n"


def test_without_regions_and_output(example, tmp_path):
    landcover, labels, _ = example
    before = sorted(tmp_path.iterdir())
    assert evaluate_files(landcover, labels, None, "region", None, map).overall.pixels == 6
    assert sorted(tmp_path.iterdir()) == before
    evaluate_files(landcover, labels, None, "region", str(tmp_path / "out"), map)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["metrics.json"]


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
    assert scores.whole.intervals.cells >= 10
    low, high = scores.whole.intervals.over_all["miou"]
    assert low < scores.overall.miou < high

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
