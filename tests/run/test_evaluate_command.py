"""`geoseg evaluate`: what it prints and writes, and what it refuses."""

from __future__ import annotations

import csv
import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from click.testing import CliRunner, Result
from rasterio.warp import Resampling, calculate_default_transform, reproject

from geoseg.cli import main
from geoseg.io.classmap import TAG_LEGEND
from geoseg.legend import NODATA, LandClass, Legend

TRANSFORM = Affine(0.8, 0, 300_000, 0, -0.8, 2_700_000)
LEGEND = Legend(
    (
        LandClass(1, "building", (200, 0, 0), "building"),
        LandClass(2, "road", (90, 90, 90), "road"),
        LandClass(3, "land", (200, 200, 100)),
        LandClass(4, "water", (0, 0, 200)),
    )
)
SHAPE = (1100, 1000)


def truth() -> np.ndarray:
    """Land with houses in rows along roads, and a strip that nobody labelled."""
    labels = np.full(SHAPE, 3, np.uint8)
    for row in range(40, 1060, 100):
        labels[row : row + 9, 20:980] = 2
        for col in range(40, 940, 60):
            labels[row + 30 : row + 50, col : col + 25] = 1
    labels[:, 985:] = 0
    return labels


def a_map(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Houses a pixel too far south, worse in the east; a corner without answer; and how sure it is."""
    rng = np.random.default_rng(0)
    mapped = np.roll(np.where(labels == 0, np.uint8(3), labels), 1, 0)
    wrong = rng.random((SHAPE[0] // 20, SHAPE[1] // 20)) < np.linspace(0, 0.2, SHAPE[1] // 20)
    wrong = wrong.repeat(20, 0).repeat(20, 1)
    mapped[wrong] = 3
    percent = np.where(wrong, 55, 90).astype(np.uint8)
    mapped[:50, :50], percent[:50, :50] = NODATA, NODATA
    return mapped, percent


def write(path: Path, values: np.ndarray, legend: Legend | None = None, **changes: Any) -> str:
    height, width = values.shape
    profile = {
        "driver": "GTiff", "height": height, "width": width, "count": 1, "dtype": "uint8", "tiled": True,
        "crs": "EPSG:32640", "transform": TRANSFORM, "compress": "deflate",
    }  # fmt: skip
    with rasterio.open(path, "w", **{**profile, **changes}) as dataset:
        dataset.write(values, 1)
        if legend:
            dataset.update_tags(**{TAG_LEGEND: json.dumps(legend.to_list())})
    return str(path)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("world")
    labels = truth()
    mapped, percent = a_map(labels)
    halves = [
        shapely.box(300_000, 2_699_000, 300_400, 2_700_000),
        shapely.box(300_400, 2_699_000, 301_000, 2_700_000),
    ]
    frame = geopandas.GeoDataFrame({"region": ["west", "east"]}, geometry=halves, crs=32640)
    frame.to_file(folder / "regions.gpkg")
    (folder / "bare").mkdir()
    return {
        "map": write(folder / "landcover.tif", mapped, LEGEND, nodata=NODATA),
        "bare": write(folder / "bare" / "landcover.tif", mapped, LEGEND, nodata=NODATA),
        "confidence": write(folder / "confidence.tif", percent, nodata=NODATA),
        "labels": write(folder / "labels.tif", labels),
        "regions": str(folder / "regions.gpkg"),
        "folder": str(folder),
    }


def evaluate(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["evaluate", *map(str, arguments)])


def metrics(folder: Path) -> dict[str, Any]:
    jsonschema = pytest.importorskip("jsonschema")
    content = json.loads((folder / "metrics.json").read_text())
    schema = json.loads(resources.files("geoseg.stages").joinpath("metrics.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(content)
    assert isinstance(content, dict)
    return content


def test_everything_at_once(world: dict[str, str], tmp_path: Path) -> None:
    done = evaluate(world["map"], world["labels"], "--regions", world["regions"], "-o", tmp_path, "--objects")
    assert done.exit_code == 0, done.output
    for words in (
        "mIoU",
        "95 %",
        "boundary F1 at 3 px (2.4 m)",
        "kappa",
        "expected calibration error",
        "AP50",
    ):
        assert words in done.stdout
    assert re.search(r"^overall +[\d.]+ +[\d.]+ +[\d.]+ +- +[\d.]+ +[\d.]+ to [\d.]+ ", done.stdout, re.M)
    assert "in neither labels nor map, so in no mean: water" in done.stdout
    assert re.search(r"^pixels: [\d.]+ s$", done.stderr, re.M)
    assert re.search(r"^objects and roads: [\d.]+ s$", done.stderr, re.M)

    found = metrics(tmp_path)
    overall, (west, east) = found["overall"], found["regions"]
    assert (west["region"], east["region"]) == ("west", "east")
    assert west["iou"]["building"] > east["iou"]["building"]
    low, high = overall["intervals"]["miou"]
    assert low < overall["miou"] < high
    assert overall["intervals"]["cells"] == 20
    assert west["intervals"]["miou"][0] > east["intervals"]["miou"][1]
    assert overall["absent"] == ["water"]
    assert overall["unmapped"] > 0
    assert overall["strict_miou"] < overall["miou"]
    assert 0.4 < overall["calibration"]["accuracy"] < 1
    assert [row[0] for row in overall["calibration"]["curve"]] == [55, 90]
    assert found["settings"]["tolerance_m"] == pytest.approx(2.4, rel=0.01)
    houses = overall["objects"]["building"]
    assert (
        houses["truth"] == west["objects"]["building"]["truth"] + east["objects"]["building"]["truth"] == 165
    )
    assert 0.9 < west["objects"]["building"]["recall"] < 1
    assert east["objects"]["building"]["recall"] < west["objects"]["building"]["recall"]
    assert overall["roads"]["road"]["correctness"] == 1
    assert overall["roads"]["road"]["completeness"] > 0.8

    with (tmp_path / "regions.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["region"] for row in rows] == ["west", "east"]
    assert list(rows[0])[:8] == ["region", "miou", "building", "road", "land", "water", "pixels", "unmapped"]
    assert float(rows[0]["miou_low"]) < float(rows[0]["miou"]) < float(rows[0]["miou_high"])
    assert float(rows[0]["miou_low"]) == pytest.approx(west["intervals"]["miou"][0], abs=1e-6)


def test_without_objects_confidence_or_output(world: dict[str, str], tmp_path: Path) -> None:
    done = evaluate(world["bare"], world["labels"])
    assert done.exit_code == 0, done.output
    assert "AP50" not in done.output
    assert "calibration" not in done.output
    done = evaluate(world["bare"], world["labels"], "-o", tmp_path)
    overall = metrics(tmp_path)["overall"]
    assert overall["calibration"] is None
    assert "objects" not in overall
    assert not (tmp_path / "regions.csv").exists()
    done = evaluate(world["bare"], world["labels"], "-o", tmp_path / "c", "--confidence", world["confidence"])
    assert metrics(tmp_path / "c")["overall"]["calibration"]["pixels"] == overall["pixels"]


def test_settings_are_obeyed_and_told(world: dict[str, str], tmp_path: Path) -> None:
    strict = evaluate(world["bare"], world["labels"], "-o", tmp_path / "0", "--tolerance-px", 0)
    assert "boundary F1 at 0 px" in strict.output
    done = evaluate(world["bare"], world["labels"], "-o", tmp_path / "1", "--min-support", 100_000)
    assert "mIoU without classes of fewer than 100000 labelled pixels (building, road): " in done.output
    assert "(few)" in done.output
    found = metrics(tmp_path / "1")
    assert found["settings"]["min_support_px"] == 100_000
    assert found["overall"]["below_min_support"] == ["building", "road"]
    assert found["overall"]["supported_miou"] == found["overall"]["iou"]["land"]
    exact, near = metrics(tmp_path / "0")["overall"], found["overall"]
    assert exact["miou"] == near["miou"]
    assert exact["boundary"]["f1"]["building"] < 0.6 < near["boundary"]["f1"]["building"]


def test_small_maps_have_no_intervals_and_say_so(tmp_path: Path) -> None:
    labels = truth()[:300, :300]
    one = write(tmp_path / "landcover.tif", np.where(labels == 0, np.uint8(3), labels), LEGEND)
    done = evaluate(one, write(tmp_path / "labels.tif", labels), "-o", tmp_path / "o")
    assert "no intervals, fewer than 10 cells: overall" in done.output
    intervals = metrics(tmp_path / "o")["overall"]["intervals"]
    assert intervals["cells"] == 4
    assert intervals["miou"] is None


def test_labels_in_another_crs_are_brought_onto_the_map_and_it_says_so(
    world: dict[str, str], tmp_path: Path
) -> None:
    with rasterio.open(world["labels"]) as source:
        transform, width, height = calculate_default_transform(
            source.crs, "EPSG:4326", source.width, source.height, *source.bounds, resolution=2e-6
        )
        values = np.zeros((height, width), np.uint8)
        reproject(rasterio.band(source, 1), values, dst_transform=transform, dst_crs="EPSG:4326",
                  resampling=Resampling.nearest)  # fmt: skip
    path = write(tmp_path / "degrees.tif", values, crs="EPSG:4326", transform=transform)
    done = evaluate(world["map"], path, "-o", tmp_path / "o")
    assert done.exit_code == 0, done.output
    assert (
        "The labels lie on another grid: they were brought onto the map's, nearest neighbor." in done.output
    )
    evaluate(world["map"], world["labels"], "-o", tmp_path / "e")
    near, exact = metrics(tmp_path / "o"), metrics(tmp_path / "e")
    (remark,) = near["remarks"]
    assert remark.startswith("The labels lie on another grid")
    assert exact["remarks"] == []
    assert near["overall"]["miou"] == pytest.approx(exact["overall"]["miou"], abs=0.02)
    assert near["overall"]["pixels"] == pytest.approx(exact["overall"]["pixels"], rel=0.001)


def test_polygons_score_as_the_raster_they_are_drawn_from(world: dict[str, str], tmp_path: Path) -> None:
    labels = truth()
    found = list(rasterio.features.shapes(labels, labels != 0, transform=TRANSFORM))
    names = {1: "house", 2: "road", 3: "land"}
    frame = geopandas.GeoDataFrame(
        {"kind": [names[int(value)] for _, value in found]},
        geometry=[shapely.geometry.shape(geometry) for geometry, _ in found], crs=32640,
    )  # fmt: skip
    frame.to_file(tmp_path / "labels.gpkg")
    drawn = [world["map"], tmp_path / "labels.gpkg", "--class-field", "kind"]
    done = evaluate(*drawn, "--map-class", "house=building", "-o", tmp_path / "p")
    assert done.exit_code == 0, done.output
    evaluate(world["map"], world["labels"], "-o", tmp_path / "r")
    assert (tmp_path / "p" / "metrics.json").read_text() == (tmp_path / "r" / "metrics.json").read_text()
    refused = evaluate(*drawn)
    assert refused.exit_code == 2
    assert refused.stderr.count("\n") == 1
    assert (
        "holds classes that the map does not know: house; its classes are building, road, land"
        in refused.stderr
    )
    # Without land, what lies in no polygon is land.
    frame[frame["kind"] != "land"].to_file(tmp_path / "few.gpkg")
    few = [world["map"], tmp_path / "few.gpkg", "--class-field", "kind", "--map-class", "house=building"]
    evaluate(*few, "--background", "land", "-o", tmp_path / "b")
    assert metrics(tmp_path / "b")["overall"]["support"]["building"] == (labels == 1).sum()
    assert metrics(tmp_path / "b")["overall"]["support"]["land"] > 0.7 * labels.size


def test_values_can_be_left_out_and_renamed(world: dict[str, str], tmp_path: Path) -> None:
    labels = truth()
    labels[labels == 2] = 7
    labels[500:510, :] = 99
    path = write(tmp_path / "labels.tif", labels)
    refused = evaluate(world["map"], path)
    assert refused.exit_code == 2
    assert refused.stderr.startswith(f"error: {path}: labels hold values that are no class: 7")
    assert refused.stderr.count("\n") == 1
    done = evaluate(world["map"], path, "--map-class", "7=road", "--ignore", "99", "-o", tmp_path / "o")
    assert done.exit_code == 0, done.output
    support = metrics(tmp_path / "o")["overall"]["support"]
    assert 0 < support["road"] <= (labels == 7).sum()
    ignored = evaluate(world["map"], path, "--ignore", "99,7", "-o", tmp_path / "i")
    assert ignored.exit_code == 0
    assert metrics(tmp_path / "i")["overall"]["support"]["road"] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--confidence", "LABELS"), "holds"),
        (("--confidence", "none.tif"), "none.tif: no such file"),
        (("--map-class", "house"), "not of the form KEY=VALUE"),
        (("--ignore", "a"), "not a list of whole numbers"),
        (("--ignore", "300"), "lie in 0..255, got 300"),
        (("--min-support", "-1"), "-1"),
        (("--tolerance-px", "101"), "101"),
        (("--background", "land"), "name their class field, too"),
        (("--class-field", "kind"), "cannot be read as a vector file"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(
    world: dict[str, str], tmp_path: Path, arguments: tuple[str, str], words: str
) -> None:
    spoiled = write(tmp_path / "l.tif", np.full(SHAPE, 150, np.uint8))
    option, value = arguments
    done = evaluate(
        world["map"], world["labels"], option, spoiled if value == "LABELS" else value, "-o", tmp_path / "o"
    )
    assert done.exit_code == 2
    assert words in done.stderr
    assert "Traceback" not in done.output
    assert not (tmp_path / "o").exists()


def test_a_confidence_on_another_grid(world: dict[str, str], tmp_path: Path) -> None:
    """Named, it is refused; only found beside the map, it is none."""
    other = write(tmp_path / "confidence.tif", np.full((10, 10), 50, np.uint8))
    done = evaluate(world["bare"], world["labels"], "--confidence", other)
    assert done.exit_code == 2
    assert f"{other}: does not lie on the grid of" in done.stderr
    (tmp_path / "landcover.tif").write_bytes(Path(world["map"]).read_bytes())
    done = evaluate(tmp_path / "landcover.tif", world["labels"])
    assert done.exit_code == 0
    assert "calibration" not in done.output


def test_a_map_may_call_no_answer_what_it_likes_if_it_says_so(world: dict[str, str], tmp_path: Path) -> None:
    labels = truth()
    mapped, _ = a_map(labels)
    zero = np.where(mapped == NODATA, np.uint8(0), mapped)
    declared = write(tmp_path / "declared.tif", zero, LEGEND, nodata=0)
    told = write(tmp_path / "told.tif", zero, LEGEND)
    wanted = ["--objects", "--errors", "-o"]
    for number, one in enumerate((world["bare"], declared)):
        done = evaluate(one, world["labels"], *wanted, tmp_path / str(number))
        assert done.exit_code == 0, done.output
    for name in ("metrics.json", "errors.tif"):
        assert (tmp_path / "0" / name).read_bytes() == (tmp_path / "1" / name).read_bytes()
    refused = evaluate(told, world["labels"], *wanted, tmp_path / "2")
    assert refused.exit_code == 2
    assert refused.stderr.startswith(
        f"error: {told}: holds values that are no class: 0; the legend's ids are"
    )
    assert "declare it as nodata" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert not (tmp_path / "2" / "errors.tif").exists()


def test_errors_need_a_folder_and_are_those_that_the_matrix_counts(
    world: dict[str, str], tmp_path: Path
) -> None:
    refused = evaluate(world["map"], world["labels"], "--errors")
    assert refused.exit_code == 2
    assert refused.stderr == "error: --errors writes errors.tif: name a folder for it with -o\n"
    done = evaluate(world["map"], world["labels"], "--errors", "-o", tmp_path)
    assert done.exit_code == 0, done.output
    assert re.search(r"^errors: [\d.]+ s$", done.stderr, re.M)
    with rasterio.open(tmp_path / "errors.tif") as source:
        found = np.bincount(source.read(1).ravel(), minlength=256)
        names = [entry["name"] for entry in json.loads(source.tags()[TAG_LEGEND])]
    assert names == ["right", "missed building", "missed road", "missed land", "missed water"]
    overall = metrics(tmp_path)["overall"]
    confusion = np.array(overall["confusion"])[:, :-1]
    assert found[0] == np.trace(confusion)
    assert found[1:5].tolist() == (confusion.sum(axis=1) - np.diag(confusion)).tolist()
    assert found[NODATA] == SHAPE[0] * SHAPE[1] - overall["pixels"]
    assert {path.name for path in tmp_path.iterdir()} == {
        "errors.tif", "errors.tif.aux.xml", "errors.qml", "metrics.json"
    }  # fmt: skip


def test_many_regions_are_not_all_named_in_a_line(world: dict[str, str], tmp_path: Path) -> None:
    boxes = [shapely.box(300_000 + 8 * i, 2_699_900, 300_008 + 8 * i, 2_700_000) for i in range(90)]
    names = [f"strip\n{i}" for i in range(90)]
    geopandas.GeoDataFrame({"region": names}, geometry=boxes, crs=32640).to_file(tmp_path / "r.gpkg")
    done = evaluate(world["map"], world["labels"], "--regions", tmp_path / "r.gpkg")
    assert done.exit_code == 0, done.output
    assert "and 78 more" in done.stdout
    assert re.search(r"^strip 0 ", done.stdout, re.M)
