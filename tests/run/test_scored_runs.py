"""What a run says of its map against labels is what `geoseg evaluate` says of its files, however it was cut."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.features import shapes

from geoseg.errors import SpecError
from geoseg.io.classmap import ClassMap
from geoseg.io.labels import LabelOptions, open_labels
from geoseg.parallel import threaded_map
from geoseg.run.errormap import ERROR_FILES, ERRORS_FILE, write_errors
from geoseg.run.evaluating import EvaluateOptions, evaluate_files
from geoseg.run.job import make_job
from geoseg.stages.evaluate import Sources
from geoseg.stages.scores import ScoreSettings
from tests.run.results import TRANSFORM, assert_equal, run, write_labels, write_polygons, write_scene

TINY = {"patch_px": 128, "margin_px": 52}
"""Patches every 24 px: many blocks of a small scene."""
BLOCKS = 272
ALL = {"objects": True, "errors": True}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("scored")
    scene = write_scene(folder / "scene.tif", 400, 380)
    labels = write_labels(folder / "labels.tif", scene)
    overlapping = [(10, 10, 200.5, 250), (150, 200, 375, 390), (-400, 300, 80, 900)]
    return {
        "folder": folder,
        "scene": scene,
        "model": tiny_bundle,
        "labels": labels,
        "coarse": coarse_labels(folder / "coarse.tif", labels),
        "drawn": drawn_labels(folder / "drawn.gpkg", labels),
        "regions": write_polygons(folder / "regions.gpkg", overlapping),
    }


def coarse_labels(path: Path, labels: Path) -> Path:
    """Every third label, half a pixel off."""
    with rasterio.open(labels) as source:
        values, profile = source.read(1)[1::3, 1::3], source.profile
    profile |= {"height": values.shape[0], "width": values.shape[1]}
    profile["transform"] = TRANSFORM @ Affine.translation(0.5, 0.5) @ Affine.scale(3)
    with rasterio.open(path, "w", **profile) as out:
        out.write(values, 1)
    return path


def drawn_labels(path: Path, labels: Path) -> Path:
    """The buildings and roads of the labels as polygons, under names of their own."""
    with rasterio.open(labels) as source:
        values = source.read(1)
    names = {1: "house", 2: "road"}
    found = list(shapes(values, np.isin(values, list(names)), transform=TRANSFORM))
    geometries = [shapely.geometry.shape(shape) for shape, _ in found]
    kinds = [names[int(value)] for _, value in found]
    geopandas.GeoDataFrame({"kind": kinds}, geometry=geometries, crs=32640).to_file(path)
    return path


DRAWN: dict[str, Any] = {"class_field": "kind", "map_class": {"house": "building"}, "background": "land"}
WAYS: dict[str, tuple[str, dict[str, Any], LabelOptions]] = {
    "the scene's grid": ("labels", {}, LabelOptions()),
    "another grid": ("coarse", {}, LabelOptions()),
    "polygons": ("drawn", DRAWN, LabelOptions("kind", {"house": "building"}, background="land")),
    "values left out": ("labels", {"ignore": (5,), "map_class": {"4": "water"}}, LabelOptions(
        class_names={"4": "water"}, ignore=(5,)
    )),
}  # fmt: skip


def scored(world: dict[str, Path], labels: str) -> dict[str, Any]:
    return {"labels": str(world[labels]), "regions": str(world["regions"]), "report": False, **ALL}


@pytest.fixture
def out(world: dict[str, Path], tmp_path: Path) -> Path:
    """A folder in which the scene is mapped, but nothing scored: a copy of one that was made once."""
    once = world["folder"] / "mapped"
    if not once.exists():
        assert run(world["scene"], once, world["model"], report=False) == 0
    return Path(shutil.copytree(once, tmp_path / "out"))


def row_of(out: Path) -> dict[str, Any]:
    row: dict[str, Any] = json.loads((out / "run.json").read_text())["scenes"][0]
    return row


@pytest.mark.parametrize("way", WAYS)
def test_a_run_writes_what_evaluate_says_of_its_files(
    world: dict[str, Path], out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], way: str
) -> None:
    labels, fields, options = WAYS[way]
    assert run(world["scene"], out, world["model"], **scored(world, labels), **fields) == 0
    told = capsys.readouterr().err
    made = out / "scene"
    chosen = EvaluateOptions(labels=options, scores=ScoreSettings(objects=True), errors=True)
    evaluate_files(
        str(made / "landcover.tif"), str(world[labels]), str(world["regions"]), "region", str(tmp_path),
        threaded_map, chosen,
    )  # fmt: skip
    for name in ("metrics.json", "regions.csv", *ERROR_FILES):
        assert (made / name).read_bytes() == (tmp_path / name).read_bytes(), name
    metrics = json.loads((made / "metrics.json").read_text())
    assert metrics["overall"]["objects"]["building"]["truth"] > 10
    assert metrics["overall"]["roads"]["road"]["truth_px"] > 100
    assert [r["region"] for r in metrics["regions"]] == ["box 0", "box 1", "box 2"]
    on_another_grid = "The labels lie on another grid: they were brought onto the map's, nearest neighbor."
    assert (on_another_grid in told) == (way == "another grid")
    assert metrics["remarks"] == [on_another_grid] * (way == "another grid")
    assert (metrics["overall"]["support"]["water"] > 0) == (way != "polygons")


def test_one_block_or_two_hundred(world: dict[str, Path], tmp_path: Path) -> None:
    """Rasters, scores, errors, areas, tables, styles: every file."""
    for block_px in (4000, 24):
        out = tmp_path / str(block_px)
        options = {**scored(world, "coarse"), **TINY, "block_px": block_px}
        assert run(world["scene"], out, world["model"], **options) == 0
        assert row_of(out)["blocks"] == (BLOCKS if block_px == 24 else 1)
        assert {"metrics.json", "regions.csv", "areas.csv", *ERROR_FILES} <= {
            p.name for p in (out / "scene").iterdir()
        }
    assert_equal(tmp_path / "4000" / "scene", tmp_path / "24" / "scene")
    errors = [(tmp_path / str(side) / "scene" / ERRORS_FILE).read_bytes() for side in (4000, 24)]
    assert errors[0] == errors[1]


def test_windows_change_no_byte_of_the_map_of_errors(
    world: dict[str, Path], out: Path, tmp_path: Path
) -> None:
    mapped = ClassMap.open(str(out / "scene" / "landcover.tif"))
    assert mapped.legend is not None
    sources = Sources(mapped, open_labels(str(world["coarse"]), mapped.grid, mapped.legend))
    files = []
    for block_px in (97, 256, 5000):
        write_errors(tmp_path / str(block_px), sources, mapped.legend, threaded_map, block_px)
        files.append([(tmp_path / str(block_px) / name).read_bytes() for name in ERROR_FILES])
        assert len(list((tmp_path / str(block_px)).iterdir())) == len(ERROR_FILES)  # no scratch stays
    assert files[0] == files[1] == files[2]
    with rasterio.open(tmp_path / "97" / ERRORS_FILE) as source:
        assert source.nodata == 255
        assert source.dtypes == ("uint8",)
        assert source.colormap(1)[1] == (200, 60, 60, 255)
        assert "missed building" in source.tags()["GEOSEG_LEGEND"]
        assert source.tags()["GEOSEG_ERRORS"].startswith("0: right; 255: not compared; ")
        assert source.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"


def test_what_is_asked_for_comes_and_goes(world: dict[str, Path], out: Path) -> None:
    options = scored(world, "labels")
    made = out / "scene"

    def go(**changes: Any) -> dict[str, Any]:
        assert run(world["scene"], out, world["model"], **{**options, **changes}) == 0
        return row_of(out)

    first = go()
    assert first["seconds"]["objects"] > 0
    assert first["seconds"]["errors"] > 0
    assert all((made / name).is_file() for name in ERROR_FILES)
    less = go(objects=False, errors=False)
    assert less["status"] == "done"
    assert not {"objects", "errors", "map"} & set(less["seconds"])
    assert not any((made / name).exists() for name in ERROR_FILES)
    assert "objects" not in json.loads((made / "metrics.json").read_text())["overall"]
    assert go(objects=False, errors=False)["status"] == "unchanged"
    assert go(objects=False, errors=False, ignore=(3,))["status"] == "done"
    (made / ERRORS_FILE).unlink(missing_ok=True)
    assert go()["status"] == "done"
    (made / "errors.qml").unlink()
    assert go()["status"] == "done"


def test_an_unchanged_scene_keeps_the_times_of_the_runs_that_made_it(
    world: dict[str, Path], tmp_path: Path
) -> None:
    options = {**scored(world, "labels"), "report": True}

    def go(**changes: Any) -> dict[str, Any]:
        assert run(world["scene"], tmp_path, world["model"], **{**options, **changes}) == 0
        return row_of(tmp_path)

    first, second = go(), go()
    assert second["status"] == "unchanged"
    for name in ("seconds", "shares", "miou"):
        assert second[name] == first[name]
    scored_again = go(errors=False)
    assert "map" not in scored_again["seconds"]  # it was not mapped again, and so no speed is told
    third = go(errors=False)
    assert third["status"] == "unchanged"
    assert third["seconds"]["map"] == first["seconds"]["map"]
    assert third["seconds"]["evaluate"] == scored_again["seconds"]["evaluate"]
    assert "errors" not in third["seconds"]
    assert third["shares"] == first["shares"]
    (tmp_path / "scene" / "report.html").unlink()
    go(errors=False)
    page = (tmp_path / "scene" / "report.html").read_text()
    assert "The bottleneck is" in page
    assert f"{first['seconds']['map']:.3f}" in page


def test_polygons_count_by_what_they_say_not_by_their_files_bytes(
    world: dict[str, Path], out: Path, tmp_path: Path
) -> None:
    frame = geopandas.read_file(world["drawn"])
    path = tmp_path / "drawn.gpkg"
    options = {**scored({**world, "drawn": path}, "drawn"), **DRAWN, "errors": False, "objects": False}

    def status(**changes: Any) -> str:
        frame.to_file(path)
        assert run(world["scene"], out, world["model"], **{**options, **changes}) == 0
        return str(row_of(out)["status"])

    assert status() == "done"
    frame["other"] = 1  # another file, the same labels
    assert status() == "unchanged"
    frame.loc[0, "kind"] = "road" if frame.loc[0, "kind"] == "house" else "house"
    assert status() == "done"
    assert status(background="water") == "done"
    assert status(map_class={"house": ""}) == "done"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"objects": True}, "objects: is about labels, and no scene has any; name them with --labels"),
        ({"errors": True}, "errors: is about labels"),
        ({"map_class": {"house": "building"}}, "map_class: is about labels"),
        ({"labels": "l.tif", "map_class": {"house": 3}}, "map_class.house: Input should be a valid string"),
    ],
)
def test_a_job_without_labels_has_nothing_to_score(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError) as caught:
        make_job({"scenes": ("a.tif",), "output": "out", **fields})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_job_file_may_name_values_and_leave_classes_out(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(
        "output: out\nscenes:\n  - path: a.tif\n    labels: l.tif\nmap_class: {7: road, cloud: }\n"
    )
    assert make_job({}, str(tmp_path / "job.yaml")).map_class == {"7": "road", "cloud": ""}


@pytest.mark.parametrize(
    ("labels", "fields", "words"),
    [
        ("labels", {"background": "land"}, "name their class field, too"),
        ("labels", {"ignore": (300,)}, "lie in 0..255, got 300"),
        ("drawn", {}, "is a vector file: name the field that holds the class with --class-field"),
        ("drawn", {"class_field": "kind"}, "holds classes that the map does not know: house"),
        ("labels", {"map_class": {"1": "hut"}}, "the map has no class 'hut'"),
        ("scene", {}, "a class raster has one band of uint8"),
    ],
)
def test_labels_that_cannot_be_used_are_refused_before_anything_is_mapped(
    world: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], labels: str,
    fields: dict[str, Any], words: str,
) -> None:  # fmt: skip
    options = {"labels": str(world[labels]), **fields}
    try:
        assert run(world["scene"], tmp_path / "out", world["model"], **options) == 2
        told = capsys.readouterr().err
    except SpecError as error:
        told = f"{error}\n"
    assert words in told
    assert told.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_labels_with_values_of_no_class_fail_the_scene_and_keep_the_blocks(
    world: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with rasterio.open(world["labels"]) as source:
        values, profile = source.read(1), source.profile
    values[200:210, 200:210] = 77
    with rasterio.open(tmp_path / "l.tif", "w", **profile) as out:
        out.write(values, 1)
    options = {"labels": str(tmp_path / "l.tif"), "report": False}
    assert run(world["scene"], tmp_path / "out", world["model"], **options) == 1
    told = capsys.readouterr().err
    assert "labels hold values that are no class: 77; the legend's ids are 1, 2, 3, 4, 5: say what" in told
    assert "--ignore" in told
    assert run(world["scene"], tmp_path / "out", world["model"], **options, ignore=(77,)) == 0
    row = row_of(tmp_path / "out")
    assert row["blocks_found"] == row["blocks"] > 0
