"""`geoseg compare` as a user meets it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from affine import Affine
from click.testing import CliRunner

from geoseg.cli import main
from geoseg.io.classmap import TAG_LEGEND, ClassMap
from geoseg.legend import NODATA, LandClass, Legend

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
        "change.tif",
        "changed_buildings.gpkg",
        "transitions.csv",
    ]
    assert "buildings: 1 of 2 gone, 1 of 2 new" in text
    header = "all (ha), from to building to land to (no answer)"
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
    assert {row["region"] for row in rows} == {"west"}
    assert sum(float(row["pixels"]) for row in rows) == 2000


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
