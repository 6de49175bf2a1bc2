"""Class rasters that `geoseg vectorize` cannot use: one line that says why and what to do, and nothing is written."""

from __future__ import annotations

import json
import os
import resource
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.control import GroundControlPoint

from geoseg.io.classmap import TAG_LEGEND
from tests.bad_input.attempt import NOTHING_STARTED, Attempt, attempt, cut_short, write_raster, write_vrt
from tests.bad_input.test_scenes import huge_header, sparse
from tests.run.results import TRANSFORM

SHAPE = (1, 60, 80)
ONES = np.ones(SHAPE, np.uint8)


def vectorize(path: Path, *options: object, output: Path | None = None) -> Attempt:
    """`geoseg vectorize path -o out/all.gpkg`; what it left in `out` counts as published."""
    folder = path.parent / "out"
    output = output or folder / "all.gpkg"
    tried = attempt(output, path, *options, command="vectorize")
    notes = [line for line in tried.stderr if ": names of classes: " in line or ": by their names, " in line]
    left = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    return Attempt(tried.code, [line for line in tried.stderr if line not in notes], tried.stdout, left)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return write_raster(tmp_path / "good.tif", ONES)


def placed(value: float, row: int, col: int, dtype: str) -> np.ndarray:
    pixels = np.full(SHAPE, 7, dtype)
    pixels[0, row, col] = value
    return pixels


@pytest.mark.parametrize(
    ("dtype", "value", "words"),
    [
        ("uint8", 255, "holds 255 at row 31, column 64; geoseg keeps that for nodata: declare it"),
        ("int16", 255, "holds 255 at row 31, column 64; geoseg keeps that for nodata"),
        ("uint16", 256, "holds 256 at row 31, column 64; classes are whole numbers from 0 to 254"),
        ("int16", -1, "holds -1 at row 31, column 64"),
        ("int8", -128, "holds -128 at row 31"),
        ("uint32", 4294967295, "holds 4294967295 at row 31"),
        ("int64", -9007199254740993, "holds -9007199254740993 at row 31"),
        (
            "float32",
            6.1,
            "holds 6.1 at row 31, column 64; classes are whole numbers from 0 to 254, so this is no class",
        ),
        ("float64", 1e300, "holds 1e+300 at row 31"),
        ("float32", np.inf, "holds inf at row 31"),
        ("float32", -0.25, "holds -0.25 at row 31"),
    ],
)
def test_a_value_that_is_no_class_is_named_with_its_place(
    tmp_path: Path, dtype: str, value: float, words: str
) -> None:
    path = write_raster(tmp_path / "map.tif", placed(value, 31, 64, dtype))
    vectorize(path, "--block-px", 16).refused(NOTHING_STARTED, path, words)
    vectorize(path, "--raw").refused(NOTHING_STARTED, path, words)


@settings(max_examples=30)
@given(st.integers(0, 59), st.integers(0, 79), st.integers(1, 90), st.booleans())
def test_the_named_pixel_holds_the_value_for_any_block(
    tmp_path_factory: pytest.TempPathFactory, row: int, col: int, block_px: int, second: bool
) -> None:
    pixels = placed(300, row, col, "int16")
    if second:
        pixels[0, 59 - row, 79 - col] = 300
    path = write_raster(tmp_path_factory.mktemp("law") / "map.tif", pixels)
    tried = vectorize(path, "--block-px", block_px)
    places = [f"holds 300 at row {r}, column {c};" for _, r, c in np.argwhere(pixels == 300)]
    assert len(tried.errors) == 1
    assert any(place in tried.errors[0] for place in places)


@pytest.mark.parametrize("value", [254, 0])
def test_the_last_values_that_are_classes(tmp_path: Path, value: int) -> None:
    path = write_raster(tmp_path / "map.tif", placed(value, 31, 64, "float32"))
    assert vectorize(path).code == 0


def test_255_is_nodata_where_the_file_says_so_or_geoseg_wrote_it(tmp_path: Path) -> None:
    pixels, legend = placed(255, 31, 64, "uint8"), [{"id": 7, "name": "a", "color": [1, 2, 3]}]
    assert vectorize(write_raster(tmp_path / "a.tif", pixels, nodata=255)).code == 0
    path = write_raster(tmp_path / "b.tif", pixels)
    with rasterio.open(path, "r+") as out:
        out.update_tags(**{TAG_LEGEND: json.dumps(legend)})
    assert vectorize(path).code == 0


def test_another_nodata_value_does_not_make_255_one(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "map.tif", placed(255, 31, 64, "uint8"), nodata=7)
    vectorize(path).refused(NOTHING_STARTED, path, "holds 255 at row 31, column 64")


@pytest.mark.parametrize(
    ("pixels", "options", "words"),
    [
        (np.ones((3, 60, 80), np.uint8), [], "has 3 bands (1 red, 2 green, 3 blue); say with --band N"),
        (np.ones((2, 60, 80), np.uint8), [], "has 2 bands"),
        (np.ones((40, 6, 8), np.uint8), [], ", ...); say with --band N"),
        (np.ones((2, 60, 80), np.uint8), ["--band", 3], "has 2 bands, counted from 1, and no band 3"),
        (ONES, ["--band", 0], "has 1 band, counted from 1, and no band 0"),
        (ONES, ["--band", -1], "no band -1"),
        (ONES.astype(np.complex64), [], "holds complex numbers"),
        (ONES, ["--block-px", 0], "block size must be at least 1 px, got 0"),
        (ONES, ["--crs", "EPSG:4326"], "--crs is that of the copies that --format writes"),
        (ONES, ["--crs", "EPSG:0", "--format", "fgb"], "is no coordinate reference system"),
        (ONES, ["--legend", "gone.csv"], "gone.csv: no such legend file"),
    ],
)
def test_what_cannot_be_asked_of_a_raster(
    tmp_path: Path, pixels: np.ndarray, options: list[Any], words: str
) -> None:
    photometric = {"photometric": "RGB"} if len(pixels) == 3 else {}
    path = write_raster(tmp_path / "map.tif", pixels, **photometric)
    vectorize(path, *options).refused(NOTHING_STARTED, words)


@pytest.mark.parametrize("content", [None, b"", b"hello", b"II*\0", os.urandom(3000)])
def test_what_is_no_raster_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "map.tif"
    if content is not None:
        path.write_bytes(content)
    words = "no such file" if content is None else "cannot be opened as GeoTIFF, COG or VRT"
    vectorize(path).refused(NOTHING_STARTED, path, words)


def test_folders_and_other_formats_are_refused(tmp_path: Path) -> None:
    vectorize(tmp_path).refused(NOTHING_STARTED, tmp_path, "is a folder")
    path = write_raster(tmp_path / "p.png", ONES, driver="PNG", crs=None, transform=Affine.identity())
    vectorize(path).refused(NOTHING_STARTED, path, "is PNG; convert it to GeoTIFF")


@pytest.mark.parametrize("size", [1000, 0.5])
def test_pixels_cut_short_are_refused(tmp_path: Path, size: float) -> None:
    noise = np.random.default_rng(0).integers(0, 9, (1, 200, 300), np.uint8)
    path = cut_short(write_raster(tmp_path / "map.tif", noise), size)
    vectorize(path).refused(NOTHING_STARTED, path, "pixels at row", "cut short or damaged")


@pytest.mark.parametrize("kind", ["vrt", "thin", "header", "tile", "sparse"])
def test_petabytes_are_refused_at_once(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    giant, free = 2_000_000_000, SimpleNamespace(available=100_000_000_000)
    monkeypatch.setattr("geoseg.run.vectorizing.psutil.virtual_memory", lambda: free)
    path, options = {
        "vrt": lambda: (write_vrt(tmp_path / "s.vrt", giant, giant, bands=1), []),
        "thin": lambda: (write_vrt(tmp_path / "s.vrt", 1, giant, bands=1), []),
        "header": lambda: (huge_header(tmp_path / "s.tif", giant, giant, 1 << 16), ["--band", 1]),
        "tile": lambda: (huge_header(tmp_path / "s.tif", 300, 400, 1 << 30), ["--band", 1]),
        "sparse": lambda: (sparse(tmp_path / "s.tif", 2_000_000), ["--band", 1]),
    }[kind]()
    before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    vectorize(path, *options).refused(NOTHING_STARTED, path)
    assert time.monotonic() - begin < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # KiB


def test_a_raster_placed_by_control_points_is_refused(tmp_path: Path) -> None:
    corners = [(0, 0), (0, 80), (60, 0), (60, 80)]
    points = [GroundControlPoint(row, col, 55 + col / 1e4, 25 - row / 1e4) for row, col in corners]
    path = write_raster(tmp_path / "map.tif", ONES, crs=None, transform=Affine.identity())
    with rasterio.open(path, "r+") as out:
        out.gcps = (points, rasterio.crs.CRS.from_epsg(4326))
    vectorize(path).refused(NOTHING_STARTED, path, "is placed by ground control points only")


@pytest.mark.parametrize(
    ("pixels", "profile", "words"),
    [
        (ONES[:, 1:], {}, "the confidence (80 x 59 px) does not lie on the grid of the classes (80 x 60 px)"),
        (ONES, {"transform": TRANSFORM @ Affine.translation(1, 0)}, "does not lie on the grid"),
        (ONES, {"crs": "EPSG:32639"}, "does not lie on the grid"),
        (np.vstack([ONES, ONES]), {}, "has 2 bands", ),
        (placed(101, 3, 4, "uint8"), {}, "holds 101 at row 3, column 4; confidence is in whole percent, 0 to 100"),
        (placed(0.87, 3, 4, "float32"), {}, "confidence is in whole percent"),
        (placed(-1, 3, 4, "int16"), {}, "holds -1 at row 3, column 4; confidence"),
    ],
)  # fmt: skip
def test_confidence_must_lie_on_the_grid_and_be_percent(
    good: Path, pixels: np.ndarray, profile: dict[str, Any], words: str
) -> None:
    path = write_raster(good.with_name("c.tif"), pixels, **profile)
    vectorize(good, "--confidence", path).refused(NOTHING_STARTED, path, words)


@pytest.mark.parametrize(
    ("tag", "words"),
    [
        ("no json", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ('[{"id": 1}]', "cannot be read"),
        (
            '[{"id": 1.5, "name": "a", "color": [1, 2, 3]}]',
            "class 1.5 has an id or a color that is not whole",
        ),
        ('[{"id": 1, "name": "a", "color": [1, 2, 3.5]}]', "not whole"),
        ('[{"id": 1, "name": 5, "color": [1, 2, 3]}]', "cannot be read"),
        ('[{"id": 1, "name": "a", "color": 7}]', "cannot be read"),
        ('[{"id": 300, "name": "a", "color": [1, 2, 3]}]', "class id must lie in 0..254"),
        ("7", "cannot be read"),
        ("[]", "at least one class"),
    ],
)
def test_a_broken_legend_tag_is_refused(good: Path, tag: str, words: str) -> None:
    with rasterio.open(good, "r+") as out:
        out.update_tags(**{TAG_LEGEND: tag})
    vectorize(good).refused(NOTHING_STARTED, good, f"its {TAG_LEGEND} tag cannot be read", words)
    if words == "no json":
        good.with_name("l.csv").write_text("id,name\n1,a\n")
        assert vectorize(good, "--legend", good.with_name("l.csv")).code == 0


def test_a_sidecar_without_end_is_refused_before_it_is_read(good: Path) -> None:
    with good.with_name("good.tif.aux.xml").open("wb") as stream:
        stream.truncate(5_000_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    vectorize(good).refused(NOTHING_STARTED, good, "its good.tif.aux.xml is larger than 32 MB; delete it")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 18  # KiB


@pytest.mark.parametrize("options", [["--format", "geojson"], ["--format", "fgb", "--crs", "EPSG:4326"]])
def test_without_a_crs_there_is_no_other_one(tmp_path: Path, options: list[str]) -> None:
    path = write_raster(tmp_path / "map.tif", ONES, crs=None)
    vectorize(path, *options).refused(NOTHING_STARTED, path, "has no CRS", "state it with gdal_edit.py")


@pytest.mark.parametrize("name", ["out", "out.tif", "out.geojson", "good.tif"])
def test_the_output_is_a_geopackage(good: Path, name: str) -> None:
    before = good.read_bytes()
    tried = vectorize(good, output=good.with_name(name))
    tried.refused(NOTHING_STARTED, good.with_name(name), "ends in .gpkg; --format adds copies")
    assert good.read_bytes() == before


def test_the_raster_itself_is_no_output(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "map.gpkg", ONES)
    vectorize(path, output=tmp_path / "." / "map.gpkg").refused(NOTHING_STARTED, path, "would be overwritten")


@pytest.mark.parametrize(
    ("folder", "words"), [("out/all.gpkg", "is a folder"), ("out/all_polygons.fgb", "Is a directory")]
)
def test_folders_in_the_way_are_left_alone(good: Path, folder: str, words: str) -> None:
    (good.parent / folder).mkdir(parents=True)
    tried = vectorize(good, "--format", "fgb")
    assert (tried.code, tried.published) == (NOTHING_STARTED, [Path(folder).name])
    assert words in tried.errors[0] and str(good.parent / folder) in tried.errors[0]


def test_an_output_in_no_folder_is_refused(good: Path) -> None:
    tried = vectorize(good, output=good / "all.gpkg")
    tried.refused(NOTHING_STARTED, good / "all.gpkg", "cannot be written")


def test_a_failure_keeps_the_files_of_before(good: Path) -> None:
    assert vectorize(good, "--format", "geojson").published == ["all.gpkg", "all_polygons.geojson"]
    before = {p.name: p.read_bytes() for p in (good.parent / "out").iterdir()}
    write_raster(good, placed(300, 1, 1, "int16"))
    assert vectorize(good, "--format", "geojson").code == NOTHING_STARTED
    assert {p.name: p.read_bytes() for p in (good.parent / "out").iterdir()} == before


def test_a_place_that_the_copies_crs_does_not_reach_leaves_nothing(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "map.tif", ONES, crs="EPSG:4326", transform=Affine(1, 0, 0, 0, -1, -30))
    tried = vectorize(path, "--format", "fgb", "--crs", "+proj=ortho +lat_0=90")
    tried.refused(NOTHING_STARTED, tmp_path / "out" / "all.gpkg", "have no place in")
