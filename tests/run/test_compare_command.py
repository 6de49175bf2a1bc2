"""`geoseg compare` as a user meets it."""

from __future__ import annotations

import csv
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from affine import Affine
from click.testing import CliRunner
from PIL import Image

from geoseg.cli import main
from geoseg.io.classmap import TAG_LEGEND, AnyClassRaster, ClassMap
from geoseg.io.legends import find_classes
from geoseg.io.qgis_styles import attribute_table
from geoseg.legend import NODATA, LandClass, Legend
from geoseg.report.changes import names_of

TRANSFORM = Affine(0.8, 0, 300_000, 0, -0.8, 2_700_000)
LEGEND = Legend((LandClass(1, "building", (200, 0, 0), "building"), LandClass(2, "land", (0, 200, 0))))
PIXEL_HA = 0.8 * 0.8 / 1e4


def write_run(folder: Path, values: np.ndarray, boxes: list[tuple[int, int, int, int]], **place) -> Path:
    """A scene's folder: landcover.tif, and buildings at boxes of columns and rows (left, top, right, bottom)."""
    folder.mkdir()
    height, width = values.shape
    profile = {
        "driver": "GTiff",
        "dtype": "uint8",
        "count": 1,
        "nodata": NODATA,
        "height": height,
        "width": width,
    }
    with rasterio.open(
        folder / "landcover.tif", "w", **{"crs": "EPSG:32640", "transform": TRANSFORM, **profile, **place}
    ) as out:
        out.write(values, 1)
        out.update_tags(**{TAG_LEGEND: json.dumps(LEGEND.to_list())})
    shapes = np.array([shapely.box(*(TRANSFORM @ (l, b)), *(TRANSFORM @ (r, t))) for l, t, r, b in boxes])  # noqa: E741
    fields = [np.array([f"{folder.name}{i}" for i in range(len(boxes))], object), np.full(len(boxes), 64.0)]
    pyogrio.raw.write(
        folder / "vectors.gpkg", shapely.to_wkb(shapes), fields, ["id", "area_m2"], layer="buildings",
        geometry_type="Polygon", crs="EPSG:32640", driver="GPKG",
    )  # fmt: skip
    return folder


def field_of_houses(boxes: list[tuple[int, int, int, int]]) -> np.ndarray:
    values = np.full((100, 80), 2, np.uint8)
    for left, top, right, bottom in boxes:
        values[top:bottom, left:right] = 1
    return values


OLD = [(0, 0, 10, 10), (20, 20, 30, 30), (60, 92, 70, 99)]  # the last lies where the later map has no answer
NEW = [(1, 0, 11, 10), (50, 60, 60, 80)]


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    later = field_of_houses(NEW)
    later[90:] = NODATA
    return write_run(tmp_path / "a", field_of_houses(OLD), OLD), write_run(tmp_path / "b", later, NEW)


def compare(*arguments: object) -> str:
    done = CliRunner().invoke(main, ["compare", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done.stdout


def refused(*arguments: object) -> str:
    done = CliRunner().invoke(main, ["compare", *map(str, arguments)])
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    return line


def test_two_runs_by_eye(runs: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    text = compare(*runs, "-o", out)
    assert sorted(p.name for p in out.iterdir()) == [
        "change.qml",
        "change.tif",
        "change.tif.aux.xml",
        "changed_buildings.gpkg",
        "changes.png",
        "transitions.csv",
    ]
    assert "buildings: 1 of 2 gone, 1 of 2 new" in text
    header = "overall (ha), from to building to land to (no answer)"
    assert " ".join(text.splitlines()[0].split()) == header
    assert "note: A difference between two maps is a change on the ground, or an error of either map." in text

    with (out / "transitions.csv").open(newline="") as stream:
        rows = {(r["from_class"], r["to_class"]): r for r in csv.DictReader(stream)}
    pixels = {pair: float(row["pixels"]) for pair, row in rows.items()}
    assert pixels["building", "building"] == 90
    assert pixels["building", "land"] == 110
    assert pixels["land", "building"] == 210
    assert pixels["building", "(no answer)"] == 70
    assert pixels["land", "(no answer)"] == 730
    assert sum(pixels.values()) == 8000
    assert float(rows["building", "land"]["hectares"]) == pytest.approx(110 * PIXEL_HA, rel=2e-3)
    assert float(rows["building", "land"]["share"]) == pytest.approx(0.55, abs=1e-6)
    assert rows["land", "(no answer)"]["share"] == ""

    with rasterio.open(out / "change.tif") as change:
        values = change.read(1)
        assert change.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert change.transform == TRANSFORM
        assert change.colormap(1)[3][:3] == (200, 0, 0)
    names = {c.id: c.name for c in ClassMap.open(str(out / "change.tif")).legend.classes}
    assert names == {0: "unchanged", 2: "building to land", 3: "land to building"}
    assert {int(v): int(n) for v, n in zip(*np.unique(values, return_counts=True), strict=True)} == {
        0: 8000 - 800 - 320, 2: 110, 3: 210, NODATA: 800,
    }  # fmt: skip

    meta, _, blobs, fields = pyogrio.raw.read(out / "changed_buildings.gpkg", layer="changed_buildings")
    found = dict(zip(meta["fields"], (column.tolist() for column in fields), strict=True))
    assert found["change"] == ["gone", "new"]
    assert found["id"] == ["a1", "b1"]
    assert found["covered"] == [0, 0]
    assert found["area_m2"] == [64, 64]
    assert np.isnan(found["confidence_mean"]).all()
    assert shapely.bounds(shapely.from_wkb(blobs))[0].tolist() == pytest.approx(
        [300_016, 2_699_976, 300_024, 2_699_984]
    )


def test_the_raster_of_changes_tells_its_names_and_colors(runs: tuple[Path, Path], tmp_path: Path) -> None:
    """As GDAL and as QGIS find them, of the pairs that occur; the tag of the raster has all."""
    out = tmp_path / "out"
    compare(*runs, "-o", out)
    table = find_classes(AnyClassRaster.open(str(out / "change.tif")))
    assert table.complete and len(table.legend.classes) == 3
    bare = tmp_path / "bare.tif"
    with (
        rasterio.open(out / "change.tif") as change,
        rasterio.open(
            bare, "w", driver="GTiff", height=1, width=1, count=1, dtype="uint8", crs=change.crs
        ) as copy,
    ):
        copy.write(change.read(1)[:1, :1], 1)
    shutil.copy(out / "change.tif.aux.xml", tmp_path / "bare.tif.aux.xml")
    named = find_classes(AnyClassRaster.open(str(bare)))
    assert named.origin == "its raster attribute table"
    expected = {
        0: ("unchanged", (235, 235, 235)),
        2: ("building to land", (0, 200, 0)),
        3: ("land to building", (200, 0, 0)),
    }
    assert {c.id: (c.name, c.color) for c in named.legend.classes} == expected
    entries = ElementTree.parse(out / "change.qml").iter("paletteEntry")
    assert {
        int(e.get("value")): (e.get("label"), tuple(bytes.fromhex(e.get("color")[1:]))) for e in entries
    } == expected


def test_a_pair_that_does_not_occur_is_in_no_legend(runs: tuple[Path, Path], tmp_path: Path) -> None:
    compare(runs[0], runs[0], "-o", tmp_path / "out")
    labels = [e.get("label") for e in ElementTree.parse(tmp_path / "out/change.qml").iter("paletteEntry")]
    assert labels == ["unchanged"]


def test_changed_buildings_bring_their_style(runs: tuple[Path, Path], tmp_path: Path) -> None:
    compare(*runs, "-o", tmp_path / "out")
    with closing(sqlite3.connect(tmp_path / "out/changed_buildings.gpkg")) as database:
        ((table, qml, default),) = database.execute(
            "SELECT f_table_name, styleQML, useAsDefault FROM layer_styles"
        )
    assert (table, default) == ("changed_buildings", 1)
    root = ElementTree.fromstring(qml)
    assert root.find("renderer-v2").get("attr") == "change"
    symbols = {
        s.get("name"): s.find(".//Option[@name='outline_color']").get("value") for s in root.iter("symbol")
    }
    found = {c.get("value"): symbols[c.get("symbol")] for c in root.iter("category")}
    assert found == {"gone": "213,94,0,255", "new": "0,114,178,255"}


def test_the_picture_shows_both_maps_and_what_changed(runs: tuple[Path, Path], tmp_path: Path) -> None:
    compare(*runs, "-o", tmp_path / "out")
    with Image.open(tmp_path / "out/changes.png") as picture:
        assert picture.width <= 1600 and picture.height <= 1200
        colors = {color for _, color in picture.convert("RGB").getcolors(1 << 24)}
    assert {(235, 235, 235), (200, 0, 0), (0, 200, 0)} <= colors


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        ("/a/old.tif", "/a/new.tif", ("old.tif", "new.tif")),
        ("/x/2020/town/landcover.tif", "/x/2024/town/landcover.tif", ("2020/town", "2024/town")),
        ("out/a/landcover.tif", "b.tif", ("a", "b.tif")),
        ("/x/town/landcover.tif", "/x/town/landcover.tif", ("town", "town")),
        ("landcover.tif", "new/landcover.tif", ("landcover.tif", "new")),
    ],
)
def test_a_picture_calls_maps_by_the_least_that_tells_them_apart(
    before: str, after: str, shown: tuple[str, str]
) -> None:
    assert names_of(before, after) == shown


def test_class_rasters_of_others_are_compared_by_name(runs: tuple[Path, Path], tmp_path: Path) -> None:
    """One by the raster's own category names, one with other ids that a file names; then by number."""
    with rasterio.open(runs[0] / "landcover.tif") as source:
        values, profile = source.read(1), source.profile
    moved = np.where(values == 1, 40, 50).astype(np.int16)
    for name, pixels, dtype in (("a.tif", values, "uint8"), ("b.tif", moved, "int16")):
        with rasterio.open(tmp_path / name, "w", **{**profile, "dtype": dtype, "nodata": None}) as out:
            out.write(pixels, 1)
    text = compare(tmp_path / "a.tif", tmp_path / "b.tif", "-o", tmp_path / "out")
    assert "from to class 40 to class 50" in " ".join(text.splitlines()[0].split())
    assert "100.0 % of what both maps know" in text
    names = "id,name\n1,house\n2,ground\n40, house \n50,ground\n"
    (tmp_path / "names.csv").write_text(names.replace(" house ", "house"))
    assert "row 3, field name" in refused(
        tmp_path / "a.tif", tmp_path / "b.tif", "-o", tmp_path / "no", "--legend", tmp_path / "names.csv"
    )
    (tmp_path / "a.tif.aux.xml").write_text(
        attribute_table(Legend((LandClass(1, "house", (1, 1, 1)), LandClass(2, "ground", (2, 2, 2)))))
    )
    (tmp_path / "b.tif.aux.xml").write_text(
        attribute_table(Legend((LandClass(40, "house", (1, 1, 1)), LandClass(50, "ground", (2, 2, 2)))))
    )
    text = compare(tmp_path / "a.tif", tmp_path / "b.tif", "-o", tmp_path / "out")
    assert "changed: 0.00 ha (0.0 % of what both maps know)" in text
    assert f"note: {tmp_path / 'a.tif'}: names of classes: its raster attribute table" in text
    compare(tmp_path / "b.tif", runs[0], "-o", tmp_path / "mixed")


def test_too_many_classes_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", height=40, width=40, count=1, dtype="uint8"
    ) as out:
        out.write(rng.integers(0, 40, (40, 40)).astype(np.uint8), 1)
    line = refused(tmp_path / "a.tif", tmp_path / "a.tif", "-o", tmp_path / "out")
    assert "1600 pairs of classes do not fit a raster of bytes" in line
    assert not (tmp_path / "out").exists()


def test_regions_and_the_overlap_that_a_building_needs(runs: tuple[Path, Path], tmp_path: Path) -> None:
    corners = [TRANSFORM @ p for p in ((0, 0), (40, 0), (40, 50), (0, 50))]
    pyogrio.raw.write(
        tmp_path / "r.gpkg", shapely.to_wkb(np.array([shapely.Polygon(corners)])), [np.array(["west"], object)],
        ["region"], geometry_type="Polygon", crs="EPSG:32640", driver="GPKG",
    )  # fmt: skip
    text = compare(*runs, "--regions", tmp_path / "r.gpkg", "--overlap", "0.95", "-o", tmp_path / "out")
    assert text.startswith("west (ha), from")
    assert "buildings: 2 of 2 gone, 2 of 2 new" in text
    with (tmp_path / "out/transitions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["region"] for row in rows] == ["west"] * 9 + ["overall"] * 9
    assert sum(float(row["pixels"]) for row in rows[:9]) == 2000
    assert sum(float(row["pixels"]) for row in rows[9:]) == 8000


def test_maps_alone_have_no_buildings(runs: tuple[Path, Path], tmp_path: Path) -> None:
    text = compare(runs[0] / "landcover.tif", runs[1], "-o", tmp_path / "out")
    assert "buildings are compared where both sides are folders with a vectors.gpkg" in text
    assert not (tmp_path / "out/changed_buildings.gpkg").exists()
    compare(*runs, "-o", tmp_path / "out")
    compare(runs[0] / "landcover.tif", runs[1], "-o", tmp_path / "out")
    assert not (tmp_path / "out/changed_buildings.gpkg").exists()  # it would be of another comparison


def test_a_map_compared_with_itself_has_not_changed(runs: tuple[Path, Path], tmp_path: Path) -> None:
    text = compare(runs[1], runs[1], "-o", tmp_path / "out")
    assert "changed: 0.00 ha (0.0 % of what both maps know)" in text
    assert "buildings: 0 of 2 gone, 0 of 2 new" in text
    with rasterio.open(tmp_path / "out/change.tif") as change:
        assert set(np.unique(change.read(1))) == {0, NODATA}
    assert (
        pyogrio.read_info(tmp_path / "out/changed_buildings.gpkg", layer="changed_buildings")["features"] == 0
    )


def test_grids_a_part_of_a_pixel_apart_are_aligned_and_that_is_said(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", field_of_houses(OLD), OLD)
    b = write_run(
        tmp_path / "b", field_of_houses(OLD), OLD, transform=TRANSFORM @ Affine.translation(0.3, 0.4)
    )
    text = compare(a, b, "-o", tmp_path / "out")
    assert "note: the grids are 0.5 px apart" in text
    assert "changed: 0.00 ha" in text


def test_a_comparison_larger_than_its_blocks_is_one_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    maps = rng.choice(np.array([1, 2, NODATA], np.uint8), (2, 150, 130))
    a, b = (write_run(tmp_path / name, values, []) for name, values in zip("ab", maps, strict=True))
    compare(a, b, "-o", tmp_path / "whole")
    monkeypatch.setattr("geoseg.run.compare.BLOCK_PX", 64)
    compare(a, b, "-o", tmp_path / "blocks")
    whole, blocks = (rasterio.open(tmp_path / name / "change.tif").read(1) for name in ("whole", "blocks"))
    np.testing.assert_array_equal(whole, blocks)


def test_what_cannot_be_compared_is_refused_in_one_line(runs: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "empty").mkdir()
    assert "holds no landcover.tif" in refused(runs[0], tmp_path / "empty", "-o", out)
    assert "no such file" in refused(tmp_path / "none", runs[0], "-o", out)
    far = write_run(tmp_path / "far", field_of_houses([]), [], transform=TRANSFORM @ Affine.translation(9, 0))
    line = refused(runs[0], far, "-o", out)
    assert str(far / "landcover.tif") in line
    assert "with a corner 9 px apart; warp it onto that of" in line
    elsewhere = write_run(tmp_path / "elsewhere", field_of_houses([]), [], crs="EPSG:32639")
    assert "different CRSs" in refused(runs[0], elsewhere, "-o", out)
    assert "overlap is a share above 0, up to 1, got 2" in refused(*runs, "--overlap", "2", "-o", out)
    (tmp_path / "b" / "vectors.gpkg").write_bytes(b"no")
    assert "cannot be read as a GeoPackage" in refused(*runs, "-o", out)
    assert not out.exists()
