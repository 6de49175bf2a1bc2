"""`geoseg vectorize` on class rasters of any kind: the same polygons for any data type, right areas in any place."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import rasterio
import rasterio.features
import shapely
from affine import Affine
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pyproj import CRS, Geod, Transformer

from geoseg.cli import main
from geoseg.errors import SpecError
from geoseg.io.classmap import TAG_LEGEND
from geoseg.legend import LandClass, Legend
from geoseg.run.vectorizing import VectorizeOptions, vectorize_file
from geoseg.stages.layers import FIELDS
from tests.run.results import TRANSFORM

GEOD = Geod(ellps="WGS84")
NETWORK = ("road_centerlines", "road_nodes")
FACTS = ["scene", "model", "date"]
UTM_1_AT_180 = Transformer.from_crs(4326, 32601, always_xy=True).transform(180, -17)
PDC_AT_180 = Transformer.from_crs(4326, 3832, always_xy=True).transform(180, -17)
PLACES = {
    "utm": ("EPSG:32640", TRANSFORM),
    "mercator": ("EPSG:3857", Affine(10, 0, 1_000_000, 0, -10, 9_000_000)),
    "degrees at 70 north": ("EPSG:4326", Affine(0.001, 0, 20, 0, -0.0005, 70)),
    "degrees across 180": ("EPSG:4326", Affine(0.2 / 40, 0, 179.9, 0, -0.2 / 40, -17)),
    "mercator across 180": ("EPSG:3832", Affine(500, 0, PDC_AT_180[0] - 10_000, 0, -500, PDC_AT_180[1])),
    "utm across 180": ("EPSG:32601", Affine(500, 0, UTM_1_AT_180[0] - 10_000, 0, -500, UTM_1_AT_180[1])),
    "rotated": ("EPSG:32640", TRANSFORM @ Affine.rotation(30)),
}


def write(path: Path, labels: np.ndarray, tags: dict[str, str] | None = None, **profile: Any) -> Path:
    """labels: (row, col), or (band, row, col). At the place of the other test scenes, unless told otherwise."""
    bands = np.atleast_3d(labels.T).T
    count, height, width = bands.shape
    size = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": bands.dtype}
    with rasterio.open(path, "w", **{"crs": "EPSG:32640", "transform": TRANSFORM, **size, **profile}) as out:
        out.write(bands)
        out.update_tags(**(tags or {}))
    return path


def vectorized(path: Path, *options: Any, expect: int = 0) -> Any:
    arguments = ["vectorize", path, "-o", path.with_name("out.gpkg"), *options]
    done = CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)
    assert done.exit_code == expect, done.output
    return done


def features(path: Path, layer: str = "polygons") -> list[dict[str, Any]]:
    """What a layer says, a dict per feature, with WKB under `wkb`."""
    meta, _, blobs, columns = pyogrio.raw.read(path, layer=layer)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    plain = [[None if isinstance(v, float) and np.isnan(v) else v for v in row] for row in rows]
    return [
        {**dict(zip(meta["fields"].tolist(), row, strict=True)), "wkb": bytes(blob)}
        for row, blob in zip(plain, blobs, strict=True)
    ]


@st.composite
def class_rasters(draw: st.DrawFn) -> tuple[np.ndarray, str, int | float | None]:
    """Labels of 0..4 where 4 stands for nodata, a data type, and the nodata value that the file declares."""
    labels = draw(
        hnp.arrays(
            np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 4)
        )
    )
    nodata = {
        "uint8": [0, 77, 255], "int8": [-128, -1, 0], "uint16": [0, 255, 65535], "int16": [-9999, 255, 300],
        "int32": [-(2**31), 999], "int64": [-9999], "float32": [float("nan"), -9999, -3.4028234663852886e38, 1e20],
        "float64": [float("nan"), -1.7976931348623157e308],
    }  # fmt: skip
    dtype = draw(st.sampled_from(sorted(nodata)))
    return labels, dtype, draw(st.sampled_from(nodata[dtype]))


@settings(max_examples=60)
@given(class_rasters(), st.integers(1, 13))
def test_data_type_nodata_and_blocks_change_no_polygon(
    tmp_path_factory: pytest.TempPathFactory, raster: tuple[np.ndarray, str, float], block_px: int
) -> None:
    """Classes are 10, 20, 30 and 0, whatever holds them; rasterio's polygons are the referee."""
    labels, dtype, nodata = raster
    folder = tmp_path_factory.mktemp("law")
    ids = np.array([10, 20, 30, 0 if nodata != 0 else 40, 0], np.float64)
    values = ids[labels]
    values[labels == 4] = nodata
    path = write(folder / "map.tif", values.astype(dtype), nodata=nodata)
    written = vectorize_file(str(path), str(folder / "out.gpkg"), False, block_px, map)
    shapes = rasterio.features.shapes(labels, mask=labels != 4, connectivity=4, transform=TRANSFORM)
    expected = [(ids[int(v)], shapely.normalize(shapely.geometry.shape(g)).wkb) for g, v in shapes]
    found = [(row["class_id"], row["wkb"]) for row in features(folder / "out.gpkg")]
    assert sorted(found) == sorted(expected)
    assert written.layers == {"polygons": len(expected)}


def outline(row: int, col: int, transform: Affine, steps: int = 4) -> tuple[np.ndarray, np.ndarray]:
    corners = [(col, row), (col, row + 1), (col + 1, row + 1), (col + 1, row), (col, row)]
    points = np.concatenate([np.linspace(a, b, steps, endpoint=False) for a, b in pairwise(corners)])
    return transform @ tuple(points.T)


@cache
def pixel_areas_m2(shape: tuple[int, int], crs: str, transform: Affine) -> np.ndarray:
    """Of each pixel by itself, its outline followed on the ellipsoid: (row, col)."""
    to_lonlat = Transformer.from_crs(crs, 4326, always_xy=True)
    areas = np.zeros(shape)
    for row, col in np.ndindex(shape):
        areas[row, col] = abs(
            GEOD.polygon_area_perimeter(*to_lonlat.transform(*outline(row, col, transform)))[0]
        )
    return areas


def blobs(shape: tuple[int, int] = (40, 40), seed: int = 0, classes: int = 4, side: int = 4) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, classes, (shape[0] // side + 1, shape[1] // side + 1), np.uint8)
    return coarse.repeat(side, 0).repeat(side, 1)[: shape[0], : shape[1]]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ["blobs", "noise", "one class"])
def test_areas_are_those_of_the_pixels(tmp_path: Path, place: str, kind: str) -> None:
    """Up to what long straight edges on coarse pixels cost: the polygons follow the ellipsoid in steps of 64 px."""
    crs, transform = PLACES[place]
    labels = {"blobs": blobs(), "noise": blobs(side=1), "one class": np.full((40, 40), 9, np.uint8)}[kind]
    areas = pixel_areas_m2(labels.shape, crs, transform)
    path = write(tmp_path / "map.tif", labels, crs=crs, transform=transform)
    vectorized(path, "--block-px", 17)
    found = features(tmp_path / "out.gpkg")
    for row in found:
        burnt = (
            rasterio.features.rasterize([shapely.from_wkb(row["wkb"])], labels.shape, transform=transform) > 0
        )
        assert row["area_m2"] == pytest.approx(areas[burnt].sum(), rel=2e-4, abs=1e-3)
        assert (labels[burnt] == row["class_id"]).all()
    assert sum(row["area_m2"] for row in found) == pytest.approx(areas.sum(), rel=1e-5)
    assert (len(found) == 1) == (kind == "one class")


@pytest.mark.parametrize("place", [place for place in PLACES if "across 180" in place])
def test_geojson_is_split_at_the_antimeridian(tmp_path: Path, place: str) -> None:
    crs, transform = PLACES[place]
    labels = blobs()
    labels[10:14] = 9  # one that crosses for sure
    vectorized(write(tmp_path / "map.tif", labels, crs=crs, transform=transform), "--format", "geojson")
    copied = json.loads((tmp_path / "out_polygons.geojson").read_text())["features"]
    rows = features(tmp_path / "out.gpkg")
    assert len(copied) == len(rows)
    crossing = 0
    for feature, row in zip(copied, rows, strict=True):
        assert feature["properties"]["id"] == row["id"]
        parts = shapely.get_parts(shapely.from_geojson(json.dumps(feature["geometry"])))
        west, _, east, _ = shapely.bounds(parts).T
        assert (east - west < 1).all()
        assert (np.abs([west, east]) <= 180).all()
        area = sum(abs(GEOD.geometry_area_perimeter(part)[0]) for part in parts)
        assert area == pytest.approx(row["area_m2"], rel=1e-3)  # straight lines in degrees, 7 decimals
        crossing += west.min() < 0 < east.max()
    assert crossing > 0


def test_without_a_crs_areas_are_null_and_a_line_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "map.tif", blobs(), crs=None)
    done = vectorized(path, "--format", "parquet")
    (warning,) = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert warning.startswith(f"warning: {path}: has no CRS: ") and "have no areas" in warning
    rows = features(tmp_path / "out.gpkg")
    assert {row["area_m2"] for row in rows} == {row["perimeter_m"] for row in rows} == {None}
    assert (tmp_path / "out_polygons.parquet").exists()


def test_all_nodata_gives_an_empty_layer_and_a_warning(tmp_path: Path) -> None:
    path = write(tmp_path / "map.tif", np.full((30, 20), -9999, np.int16), nodata=-9999)
    for option in ((), ("--raw",)):
        done = vectorized(path, *option, "--format", "geojson")
        assert "out.gpkg: 0 polygons" in done.stdout
        assert f"warning: {path}: holds no class, all its pixels are nodata" in done.stderr.splitlines()
        assert features(tmp_path / "out.gpkg") == []
        assert json.loads((tmp_path / "out_polygons.geojson").read_text())["features"] == []


@pytest.mark.parametrize("nodata", [None, -9999.0])
def test_what_is_not_a_number_is_nodata(tmp_path: Path, nodata: float | None) -> None:
    values = blobs().astype(np.float32)
    values[values == 2] = np.nan
    vectorized(write(tmp_path / "map.tif", values, nodata=nodata))
    rows = features(tmp_path / "out.gpkg")
    assert {row["class_id"] for row in rows} == {0, 1, 3}
    vectorized(write(tmp_path / "map.tif", np.where(blobs() == 2, 99, blobs()), nodata=99))
    assert rows == features(tmp_path / "out.gpkg")


def test_masks_and_alpha_are_nodata(tmp_path: Path) -> None:
    labels, keep = blobs(), blobs(seed=5, classes=2) > 0
    plain = write(tmp_path / "plain.tif", np.where(keep, labels, 200), nodata=200)
    alpha = np.stack([labels, np.where(keep, 255, 0).astype(np.uint8)])
    with_alpha = write(tmp_path / "alpha.tif", alpha, photometric="MINISBLACK", alpha="YES")
    masked = write(tmp_path / "mask.tif", labels)
    with rasterio.open(masked, "r+") as out:
        out.write_mask(keep)
    answers = []
    for path in (plain, with_alpha, masked):
        vectorized(path)
        answers.append([{**row, "scene": None} for row in features(tmp_path / "out.gpkg")])
    assert answers[0] == answers[1] == answers[2]


def test_each_band_is_a_raster_of_its_own(tmp_path: Path) -> None:
    bands = np.stack([blobs(seed=1), blobs(seed=2)]).astype(np.uint16)
    path = write(tmp_path / "map.tif", bands)
    for band in (1, 2):
        vectorized(path, "--band", band)
        answer = features(tmp_path / "out.gpkg")
        vectorized(write(tmp_path / "map.tif", bands[band - 1]))
        assert features(tmp_path / "out.gpkg") == answer
        write(path, bands)


NAMED = Legend(
    (
        LandClass(1, "house", (200, 60, 60), "building"),
        LandClass(2, "lane", (90, 90, 90), "road"),
        LandClass(3, "shed", (150, 60, 60), "building"),
    )
)


def test_roles_decide_the_layers(tmp_path: Path) -> None:
    untold = json.dumps([{**row, "role": None} for row in NAMED.to_list()])
    path = write(tmp_path / "map.tif", blobs())
    assert "polygons" in vectorized(path).stdout
    for text, roads in ((json.dumps(NAMED.to_list()), True), (untold, False)):
        write(path, blobs(), {TAG_LEGEND: text})
        done = vectorized(path)
        layers = [name for name, kind in pyogrio.list_layers(tmp_path / "out.gpkg") if kind is not None]
        assert layers == (["buildings", "roads"] if roads else ["polygons"])
        assert f"{path}: names of classes: its {TAG_LEGEND} tag" in done.stderr
    (tmp_path / "legend.csv").write_text("id,name\n0,grass\n1,Buildings\n2,water\n3,trees\n")
    done = vectorized(path, "--legend", tmp_path / "legend.csv")
    assert "'Buildings' (1) is a building; a legend with roles, or --raw, says otherwise" in done.stderr
    assert {row["class_name"] for row in features(tmp_path / "out.gpkg", "buildings")} == {"Buildings"}
    assert features(tmp_path / "out.gpkg", "roads") == []
    (tmp_path / "legend.csv").write_text("id,name,role\n0,grass,\n1,Buildings,\n3,trees,\n")
    done = vectorized(path, "--legend", tmp_path / "legend.csv")
    assert f"warning: {path}: classes without a name: 2" in done.stderr.splitlines()
    named = {row["class_id"]: row["class_name"] for row in features(tmp_path / "out.gpkg")}
    assert named == {0: "grass", 1: "Buildings", 2: "class 2", 3: "trees"}


def test_raw_polygons_have_class_and_area_only(tmp_path: Path) -> None:
    vectorized(write(tmp_path / "map.tif", blobs()), "--raw")
    rows = features(tmp_path / "out.gpkg")
    assert list(rows[0]) == ["class_id", "class_name", "area_m2", "wkb"]
    assert {row["class_name"] for row in rows} == {None}
    (tmp_path / "legend.yaml").write_text("- {id: 1, name: house}")
    vectorized(tmp_path / "map.tif", "--raw", "--legend", tmp_path / "legend.yaml")
    named = {(row["class_id"], row["class_name"]) for row in features(tmp_path / "out.gpkg")}
    assert named == {(0, None), (1, "house"), (2, None), (3, None)}


def test_confidence_and_facts(tmp_path: Path) -> None:
    labels = blobs()
    percent = np.random.default_rng(3).integers(0, 101, labels.shape).astype(np.uint8)
    percent[5:9, 5:9] = 255
    tags = {"GEOSEG_MODEL": "tiny 0", "TIFFTAG_DATETIME": "2021:05:06 07:08:09"}
    path = write(tmp_path / "my map.tif", labels, tags)
    vectorized(path, "--confidence", write(tmp_path / "c.tif", percent.astype(np.int16), nodata=255))
    rows = features(tmp_path / "out.gpkg")
    assert list(rows[0])[:-1] == [*FIELDS, *FACTS]
    assert {tuple(row[name] for name in FACTS) for row in rows} == {("my map", "tiny 0", "2021-05-06")}
    for row in rows:
        burnt = (
            rasterio.features.rasterize([shapely.from_wkb(row["wkb"])], labels.shape, transform=TRANSFORM) > 0
        )
        known = percent[burnt & (percent != 255)]
        assert row["confidence_mean"] == pytest.approx(known.mean())
        assert row["confidence_p10"] == np.percentile(known, 10, method="inverted_cdf")
    vectorized(path)
    assert {row["confidence_mean"] for row in features(tmp_path / "out.gpkg")} == {None}


def test_copies_lie_beside_the_geopackage_under_its_name(tmp_path: Path) -> None:
    path = write(tmp_path / "map.tif", blobs(), {TAG_LEGEND: json.dumps(NAMED.to_list())})
    (tmp_path / "deep").mkdir()
    arguments = [
        "vectorize",
        path,
        "-o",
        tmp_path / "deep/all.gpkg",
        "--format",
        "parquet",
        "--format",
        "fgb",
    ]
    done = CliRunner().invoke(main, [*map(str, arguments), "--crs", "EPSG:3035"])
    assert done.exit_code == 0, done.output
    names = ["all.gpkg"] + [
        f"all_{layer}.{f}" for layer in ("buildings", "roads") for f in ("fgb", "parquet")
    ]
    assert sorted(p.name for p in (tmp_path / "deep").iterdir()) == sorted(names)
    info = pyogrio.read_info(tmp_path / "deep/all_roads.fgb", force_feature_count=True)
    assert CRS(info["crs"]) == CRS.from_epsg(3035)
    assert info["features"] == len(features(tmp_path / "deep/all.gpkg", "roads"))
    assert CRS(pyogrio.read_info(tmp_path / "deep/all.gpkg", layer="roads")["crs"]) == CRS.from_epsg(32640)


def streets() -> np.ndarray:
    """Grass (0), two lanes of 6 px (2) that cross, and a house (1) beside them."""
    labels = np.zeros((120, 160), np.uint8)
    labels[57:63] = labels[:, 77:83] = 2
    labels[20:40, 20:40] = 1
    return labels


def test_centerlines_are_those_of_the_roads_for_any_blocks(tmp_path: Path) -> None:
    labels = streets()
    percent = np.where(labels == 2, 80, 30).astype(np.uint8)
    path = write(tmp_path / "map.tif", labels, {TAG_LEGEND: json.dumps(NAMED.to_list())}, nodata=0)
    confidence = write(tmp_path / "c.tif", percent)
    answers = []
    for block_px in (17, 1000):
        options = ["--centerlines", "--confidence", confidence, "--format", "geojson", "--block-px", block_px]
        done = vectorized(path, *options)
        answers.append([features(tmp_path / "out.gpkg", layer) for layer in NETWORK])
    assert answers[0] == answers[1]
    lines, nodes = answers[0]
    assert done.stdout.endswith("out.gpkg: 1 buildings, 1 roads, 4 road_centerlines, 5 road_nodes\n")
    assert [row["width_mean_m"] for row in lines] == pytest.approx([6 * abs(TRANSFORM.a)] * 4, rel=0.02)
    assert [row["confidence_mean"] for row in lines] == [80] * 4
    assert sorted(row["degree"] for row in nodes) == [1, 1, 1, 1, 4]
    roads = shapely.from_wkb(features(tmp_path / "out.gpkg", "roads")[0]["wkb"])
    assert shapely.covers(roads, shapely.from_wkb([row["wkb"] for row in lines])).all()
    assert [layer for layer, _ in styles(tmp_path / "out.gpkg")] == ["buildings", "roads", *NETWORK]
    for layer, count in zip(NETWORK, (4, 5), strict=True):
        assert len(json.loads((tmp_path / f"out_{layer}.geojson").read_text())["features"]) == count


def test_centerlines_need_a_class_that_is_a_road(tmp_path: Path) -> None:
    path = write(tmp_path / "map.tif", streets())
    (tmp_path / "houses.csv").write_text("id,name,role\n1,house,building\n2,lane,\n")
    for options in ((), ("--legend", tmp_path / "houses.csv")):
        done = vectorized(path, "--centerlines", *options, expect=2)
        assert done.stderr.splitlines()[-1].startswith(f"error: {path}: has no class that is a road")
    (tmp_path / "lanes.csv").write_text("id,name,role\n2,lane,road\n")
    done = vectorized(path, "--centerlines", "--raw", "--legend", tmp_path / "lanes.csv", expect=2)
    assert done.stderr.startswith("error: --centerlines are made of the layer roads, which --raw leaves out")
    assert not (tmp_path / "out.gpkg").exists()
    vectorized(path, "--centerlines", "--legend", tmp_path / "lanes.csv")
    assert len(features(tmp_path / "out.gpkg", "road_centerlines")) == 4


def test_json_says_what_was_written(tmp_path: Path) -> None:
    path = write(tmp_path / "map.tif", streets(), {TAG_LEGEND: json.dumps(NAMED.to_list())}, nodata=0)
    told = json.loads(vectorized(path, "--json", "--centerlines", "--format", "fgb").stdout)
    output = tmp_path / "out.gpkg"
    counts = {"buildings": 1, "roads": 1, "road_centerlines": 4, "road_nodes": 5}
    assert told.pop("seconds") > 0
    assert told == {
        "output": str(output),
        "layers": counts,
        "copies": [str(tmp_path / f"out_{layer}.fgb") for layer in counts],
        "crs": "EPSG:32640",
    }
    for layer, count in counts.items():
        assert pyogrio.read_info(output, layer=layer)["features"] == count
        assert pyogrio.read_info(tmp_path / f"out_{layer}.fgb", force_feature_count=True)["features"] == count
    write(path, blobs(), crs=None)
    assert json.loads(vectorized(path, "--json").stdout)["crs"] is None


@pytest.mark.parametrize("options", [("--format", "geojson"), ("--format", "fgb", "--crs", "EPSG:3857")])
def test_what_needs_a_crs_is_refused_before_a_pixel_is_read(tmp_path: Path, options: tuple[str, ...]) -> None:
    unreadable = np.full((30, 20), 999, np.int16)  # no class: reading it is an error of its own
    path = write(tmp_path / "map.tif", unreadable, crs=None)
    done = vectorized(path, *options, expect=2)
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {path}: has no CRS, so its polygons cannot be written ")
    assert line.endswith("; state it with gdal_edit.py")
    assert [p.name for p in tmp_path.iterdir()] == ["map.tif"]


@pytest.mark.parametrize("raw", [False, True])
def test_a_raster_without_any_place_is_not_mirrored(tmp_path: Path, raw: bool) -> None:
    """QGIS shows its first row at the top, from y = 0 downwards: so lie its polygons."""
    labels = np.zeros((4, 6), np.uint8)
    labels[0, 1:3] = 7
    path = write(tmp_path / "map.tif", labels, crs=None, transform=None, nodata=0)
    done = vectorized(path, "--confidence", path, *["--raw"] * raw)
    assert f"warning: {path}: has no CRS and no geotransform: " in done.stderr
    (row,) = features(tmp_path / "out.gpkg")
    assert shapely.from_wkb(row["wkb"]).bounds == (1, -1, 3, 0)
    write(path, labels, crs=None, transform=Affine.identity(), nodata=0)  # a stated one grows upwards
    vectorized(path, *["--raw"] * raw)
    (row,) = features(tmp_path / "out.gpkg")
    assert shapely.from_wkb(row["wkb"]).bounds == (1, 0, 3, 1)
    write(path, labels, crs=None, transform=Affine(2, 0, 100, 0, -2, 50), nodata=0)
    vectorized(path, *["--raw"] * raw)
    (row,) = features(tmp_path / "out.gpkg")
    assert shapely.from_wkb(row["wkb"]).bounds == (102, 48, 106, 50)


@pytest.mark.parametrize("raw", [False, True])
def test_styles_color_the_classes_that_occur(tmp_path: Path, raw: bool) -> None:
    path = write(tmp_path / "map.tif", blobs())
    (tmp_path / "legend.yaml").write_text("- {id: 1, name: grass, color: '#0a0b0c'}\n- {id: 77, name: sea}")
    vectorized(path, "--legend", tmp_path / "legend.yaml", *["--raw"] * raw)
    ((layer, style),) = styles(tmp_path / "out.gpkg")
    assert layer == "polygons"
    for text in ('label="class 0"', 'label="grass"', "10,11,12,255", 'attr="class_id"'):
        assert text in style
    assert "sea" not in style
    write(path, blobs(), {TAG_LEGEND: json.dumps(NAMED.to_list())})
    vectorized(path)
    assert [layer for layer, _ in styles(tmp_path / "out.gpkg")] == ["buildings", "roads"]


def styles(path: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute("SELECT f_table_name, styleQML FROM layer_styles ORDER BY id").fetchall()


@dataclass
class Heard:
    """A reporter that remembers."""

    total: float = 0.0
    done: float = 0.0
    ends: int = 0

    def stage(self, scene: str, stage: str, total_mpx: float, done_mpx: float = 0.0) -> None:
        self.total = total_mpx

    def advance(self, mpx: float) -> None:
        self.done += mpx

    def end_stage(self) -> None:
        self.ends += 1

    def say(self, kind: str, text: str, **facts: Any) -> None: ...


def test_progress_counts_every_pixel_once(tmp_path: Path) -> None:
    path, heard = write(tmp_path / "map.tif", blobs((50, 30))), Heard()
    vectorize_file(str(path), str(tmp_path / "out.gpkg"), False, 7, map, VectorizeOptions(), heard)
    assert heard.total == pytest.approx(50 * 30 / 1e6)
    assert heard.done == pytest.approx(heard.total)
    assert heard.ends == 1


def test_least_areas_and_a_coverage_of_any_raster(tmp_path):
    labels = np.ones((60, 60), np.uint8)
    labels[20:40, 20:40] = 2
    labels[5, 5] = labels[30, 30] = 3  # single pixels of 25 m2
    path = tmp_path / "classes.tif"
    profile = {
        "driver": "GTiff",
        "height": 60,
        "width": 60,
        "count": 1,
        "dtype": "uint8",
        "crs": "EPSG:32640",
    }
    with rasterio.open(path, "w", transform=Affine(5, 0, 400_000, 0, -5, 2_700_000), **profile) as out:
        out.write(labels, 1)
    options = VectorizeOptions(min_area={"all": 30.0}, coverage=True)
    written = vectorize_file(str(path), str(tmp_path / "out.gpkg"), False, None, map, options)
    assert written.layers == {"polygons": 2, "landcover": 2}
    _, _, wkb, _ = pyogrio.raw.read(tmp_path / "out.gpkg", layer="landcover")
    polygons = shapely.from_wkb(wkb)
    assert shapely.coverage_is_valid(polygons) and shapely.area(polygons).sum() == 60 * 60 * 25
    with pytest.raises(SpecError, match="--raw leaves polygons untouched"):
        vectorize_file(str(path), str(tmp_path / "raw.gpkg"), True, None, map, options)
