"""`geoseg areas` as a user meets it."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from affine import Affine
from click.testing import CliRunner
from pyproj import Transformer

from geoseg.cli import main
from geoseg.io.classmap import TAG_LEGEND, ClassMap
from geoseg.io.regions import read_polygons
from geoseg.legend import NODATA, LandClass, Legend
from geoseg.run.areas import write_areas
from geoseg.run.evaluating import evaluate_files

LEGEND = Legend((LandClass(1, "building", (200, 0, 0), "building"), LandClass(2, "land", (0, 200, 0))))
TRANSFORM = Affine(0.8, 0, 300_000, 0, -0.8, 2_700_000)
PIXEL_HA = 0.8 * 0.8 / 1e4


def write_map(
    path: Path, values: np.ndarray, crs: str | None = "EPSG:32640", legend: Legend | None = LEGEND
) -> Path:
    height, width = values.shape
    profile = {
        "driver": "GTiff",
        "dtype": "uint8",
        "count": 1,
        "nodata": NODATA,
        "height": height,
        "width": width,
    }
    with rasterio.open(path, "w", crs=crs, transform=TRANSFORM, **profile) as out:
        out.write(values, 1)
        if legend:
            out.update_tags(**{TAG_LEGEND: json.dumps(legend.to_list())})
    return path


def write_polygons(path: Path, boxes: Sequence[tuple[float, float, float, float]]) -> Path:
    """Boxes of columns and rows, left, top, right, bottom; named by number."""
    shapes = [
        shapely.box(*(TRANSFORM @ (left, bottom)), *(TRANSFORM @ (right, top)))
        for left, top, right, bottom in boxes
    ]
    names = np.array([f"box {i}" for i in range(len(boxes))], dtype=object)
    pyogrio.raw.write(
        path, shapely.to_wkb(np.array(shapes)), [names], ["region"], geometry_type="Polygon", crs="EPSG:32640",
        driver="GPKG",
    )  # fmt: skip
    return path


@pytest.fixture
def landcover(tmp_path: Path) -> Path:
    """A quarter building, a quarter without answer, the rest land: 100 x 80 pixels."""
    values = np.full((100, 80), 2, np.uint8)
    values[:50, :40] = 1
    values[50:, :40] = NODATA
    return write_map(tmp_path / "landcover.tif", values)


@pytest.fixture
def labels(tmp_path: Path, landcover: Path) -> Path:
    rng = np.random.default_rng(0)
    with rasterio.open(landcover) as source:
        values = source.read(1)
    wrong = rng.random(values.shape) < 0.1
    return write_map(tmp_path / "labels.tif", np.where(wrong, 3 - np.minimum(values, 2), values), legend=None)


@pytest.fixture
def regions(tmp_path: Path) -> Path:
    return write_polygons(tmp_path / "regions.gpkg", [(0, 0, 80, 50), (30.5, 40, 50, 60), (300, 0, 310, 5)])


def areas(*arguments: object) -> str:
    done = CliRunner().invoke(main, ["areas", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done.stdout


def refused(*arguments: object) -> str:
    done = CliRunner().invoke(main, ["areas", *map(str, arguments)])
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_table_and_the_file_by_eye(landcover: Path, regions: Path, tmp_path: Path) -> None:
    text = areas(landcover, regions, "-o", tmp_path / "out" / "areas.csv").splitlines()
    assert text[0].split() == ["region", "class", "ha", "share", "%"]
    assert text[1].split() == ["box", "0", "building", "0.13", "50.0"]
    assert text[2].split() == ["land", "0.13", "50.0"]
    assert "note: no pixel of the map lies in 1 regions: box 2" in text
    rows = table(tmp_path / "out" / "areas.csv")
    assert list(rows[0]) == [
        "region", "class_id", "class_name", "pixels", "hectares", "share", "adjusted_ha", "adjusted_ci95_ha",
        "users_accuracy", "producers_accuracy", "nodata_ha", "outside_ha",
    ]  # fmt: skip
    assert [(r["region"], r["class_name"], r["pixels"]) for r in rows] == [
        ("box 0", "building", "2000.000"), ("box 0", "land", "2000.000"),
        ("box 1", "building", "95.000"), ("box 1", "land", "200.000"),
        ("box 2", "building", "0.000"), ("box 2", "land", "0.000"),
        ("overall", "building", "2000.000"), ("overall", "land", "4000.000"),
    ]  # fmt: skip
    scale = float(rows[0]["hectares"]) / (2000 * PIXEL_HA)
    assert scale == pytest.approx(1, abs=2e-3)  # UTM is off by up to 1 in 1000
    assert float(rows[2]["hectares"]) == pytest.approx(95 * PIXEL_HA * scale, rel=1e-4)
    assert float(rows[2]["nodata_ha"]) == pytest.approx(95 * PIXEL_HA * scale, rel=1e-4)
    assert float(rows[4]["outside_ha"]) == pytest.approx(50 * PIXEL_HA * scale, rel=1e-3)
    assert rows[4]["share"] == rows[0]["adjusted_ha"] == ""
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["areas.csv"]


def test_a_map_as_a_whole(landcover: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    content = json.loads(areas(landcover, "--json"))
    assert sorted(tmp_path.iterdir()) == before
    whole = content["overall"]
    assert content["regions"] == []
    assert (whole["mapped_pixels"], whole["nodata_pixels"]) == (6000, 2000)
    assert [c["share"] for c in whole["classes"]] == pytest.approx([1 / 3, 2 / 3], rel=1e-6)
    assert whole["outside_ha"] == 0
    assert "(no answer)" in areas(landcover)


def test_labels_and_the_metrics_made_of_them_say_the_same(
    landcover: Path, labels: Path, regions: Path, tmp_path: Path
) -> None:
    evaluate_files(str(landcover), str(labels), str(regions), "region", str(tmp_path / "e"), map)
    for where in ([], [regions]):
        one = json.loads(areas(landcover, *where, "--labels", labels, "--json"))
        other = json.loads(areas(landcover, *where, "--metrics", tmp_path / "e" / "metrics.json", "--json"))
        assert one == other
        first = (one["regions"] or [one["overall"]])[0]
        assert first["overall_accuracy"] == pytest.approx(0.9, abs=0.02)
        building = first["classes"][0]
        assert building["adjusted_ha"] == pytest.approx(
            building["hectares"] * building["users_accuracy"]
            + first["classes"][1]["hectares"] * (1 - first["classes"][1]["users_accuracy"])
        )
    text = areas(landcover, "--labels", labels)
    assert "95 % +-" in text
    assert "too narrow" in text


def test_what_a_run_writes_is_what_the_command_writes(
    landcover: Path, labels: Path, regions: Path, tmp_path: Path
) -> None:
    polygons = read_polygons(str(regions), ClassMap.open(str(landcover)).grid, "region")
    write_areas(str(landcover), polygons, tmp_path / "areas.csv", map)
    areas(landcover, regions, "-o", tmp_path / "again.csv")
    assert (tmp_path / "areas.csv").read_bytes() == (tmp_path / "again.csv").read_bytes()
    scores = evaluate_files(str(landcover), str(labels), str(regions), "region", None, map)
    write_areas(str(landcover), polygons, tmp_path / "areas.csv", map, scores)
    areas(landcover, regions, "--labels", labels, "-o", tmp_path / "again.csv")
    assert (tmp_path / "areas.csv").read_bytes() == (tmp_path / "again.csv").read_bytes()
    assert table(tmp_path / "areas.csv")[0]["adjusted_ha"]


def test_invalid_regions_of_another_crs_are_measured(landcover: Path, tmp_path: Path) -> None:
    """A bow tie in degrees: both its wings count."""
    points = [TRANSFORM @ p for p in ((10, 10), (30, 30), (30, 10), (10, 30), (10, 10))]
    to_degrees = Transformer.from_crs(32640, 4326, always_xy=True)
    bow = shapely.Polygon([to_degrees.transform(*p) for p in points])
    path = tmp_path / "bow.gpkg"
    pyogrio.raw.write(
        path, shapely.to_wkb(np.array([bow])), [np.array(["bow"], object)], ["region"], geometry_type="Polygon",
        crs="EPSG:4326", driver="GPKG",
    )  # fmt: skip
    (one,) = json.loads(areas(landcover, path, "--json"))["regions"]
    assert one["mapped_pixels"] == pytest.approx(200, abs=0.1)


def figures(text: str) -> list[list[object]]:
    """All rows without names of classes."""
    content = json.loads(text)
    every = [*content["regions"], content["overall"]]
    return [
        [(c["class_id"], c["pixels"], c["hectares"], c.get("adjusted_ha")) for c in area["classes"]]
        for area in every
    ]


def test_any_class_raster_has_the_figures_of_our_own(
    landcover: Path, labels: Path, regions: Path, tmp_path: Path
) -> None:
    """The same pixels in another type, with other nodata, beside another band; named by file, table or not at all."""
    with rasterio.open(landcover) as source:
        values, profile = source.read(1), source.profile
    other = np.where(values == NODATA, np.int16(-32768), values.astype(np.int16))
    with rasterio.open(
        tmp_path / "other.tif", "w", **{**profile, "dtype": "int16", "count": 2, "nodata": -32768}
    ) as out:
        out.write(np.stack([other * 0 + 99, other]))
    (tmp_path / "names.csv").write_text("id,name\n1,building\n2,land\n7,sea\n")
    expected = figures(areas(landcover, regions, "--labels", labels, "--json"))
    bare = areas(tmp_path / "other.tif", regions, "--band", 2, "--labels", labels, "--json")
    assert figures(bare) == expected
    assert [c["name"] for c in json.loads(bare)["classes"]] == ["class 1", "class 2"]
    assert "names of classes: none found, so classes go by their number" in bare
    named = areas(
        tmp_path / "other.tif", regions, "--band", 2, "--labels", labels, "--json",
        "--legend", tmp_path / "names.csv",
    )  # fmt: skip
    assert [c["name"] for c in json.loads(named)["classes"]] == ["building", "land", "sea"]
    assert [area[:2] for area in figures(named)] == expected
    assert [area[2][1] for area in figures(named)] == [0] * len(expected)
    assert f"note: names of classes: {tmp_path / 'names.csv'}" in areas(
        tmp_path / "other.tif", "--band", 2, "--legend", tmp_path / "names.csv"
    )
    assert "note: names of classes: its GEOSEG_LEGEND tag" in areas(landcover)


def test_classes_beyond_the_names_are_counted_and_remarked(landcover: Path, tmp_path: Path) -> None:
    bare = write_map(tmp_path / "bare.tif", np.array([[1, 2, 9, 255]], np.uint8), legend=None)
    (tmp_path / "names.yaml").write_text("[{id: 1, name: building}, {id: 2, name: land}]")
    content = json.loads(areas(bare, "--legend", tmp_path / "names.yaml", "--json"))
    assert [(c["class_name"], c["pixels"]) for c in content["overall"]["classes"]] == [
        ("building", 1), ("land", 1), ("class 9", 1),
    ]  # fmt: skip
    assert "classes without a name: 9" in content["remarks"]
    own = write_map(tmp_path / "own.tif", np.array([[1, 2, 9, 255]], np.uint8))
    assert "holds values that are no class: 9" in refused(own)
    empty = write_map(tmp_path / "empty.tif", np.array([[255, 255]], np.uint8), legend=None)
    assert "holds no class, all its pixels are nodata" in refused(empty)
    assert "no such legend file" in refused(bare, "--legend", tmp_path / "none.csv")
    assert "no band 3" in refused(bare, "--band", 3)


def test_labels_on_another_grid_are_said_to_be(landcover: Path, labels: Path, tmp_path: Path) -> None:
    with rasterio.open(labels) as source:
        values, profile = source.read(1), source.profile
    moved = {**profile, "transform": TRANSFORM @ Affine.translation(-1, 0), "width": values.shape[1] + 1}
    with rasterio.open(tmp_path / "moved.tif", "w", **moved) as out:
        out.write(np.pad(values, ((0, 0), (1, 0)), "edge"), 1)
    here, there = (json.loads(areas(landcover, "--labels", one, "--json"))
                   for one in (labels, tmp_path / "moved.tif"))  # fmt: skip
    assert there["overall"] == here["overall"]
    assert any("another grid" in remark for remark in there["remarks"])
    assert not any("another grid" in remark for remark in here["remarks"])


def test_a_map_without_crs(tmp_path: Path) -> None:
    bare = write_map(tmp_path / "bare.tif", np.full((5, 4), 2, np.uint8), crs=None)
    text = areas(bare)
    assert text.splitlines()[0].split() == ["region", "class", "pixels", "share", "%"]
    assert "has no CRS, so its pixels have no known size on the ground" in text
    assert json.loads(areas(bare, "--json"))["overall"]["mapped_ha"] is None


def test_what_cannot_be_measured_is_refused_in_one_line(
    landcover: Path, labels: Path, regions: Path, tmp_path: Path
) -> None:
    assert "no such file" in refused(tmp_path / "none.tif")
    assert "has no field 'name'; its fields are: region" in refused(
        landcover, regions, "--region-field", "name"
    )
    away = write_polygons(tmp_path / "away.gpkg", [(3000, 0, 3010, 5)])
    assert "none of its polygons overlaps the raster" in refused(landcover, away)
    assert "not both" in refused(landcover, "--labels", labels, "--metrics", "m.json")
    assert "Is a directory" in refused(landcover, "-o", tmp_path)
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "a.csv"
    assert str(out) in refused(landcover, "-o", out)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"classes": 3}', '{"classes": [], "overall": 1, "regions": []}']
)
def test_files_that_are_no_metrics_are_refused(landcover: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "m.json").write_text(content)
    assert str(tmp_path / "m.json") in refused(landcover, "--metrics", tmp_path / "m.json")


def test_metrics_of_other_classes_or_shapes_are_refused(landcover: Path, tmp_path: Path) -> None:
    classes = [{"id": 1, "name": "building"}, {"id": 2, "name": "land"}]
    path = tmp_path / "m.json"
    assert "no such file" in refused(landcover, "--metrics", path)
    path.write_text(json.dumps({"classes": classes[:1], "overall": {"confusion": [[1, 0]]}, "regions": []}))
    assert "scores other classes (1 building) than the map has (1 building, 2 land)" in refused(
        landcover, "--metrics", path
    )
    path.write_text(json.dumps({"classes": classes, "overall": {"confusion": [[1, 0]]}, "regions": []}))
    assert "is not a metrics.json" in refused(landcover, "--metrics", path)
