"""A finished run as a folder to hand over: equal to the run, complete in itself, whole or not at all."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import geopandas
import pystac
import pytest
import yaml
from click.testing import CliRunner, Result

from geoseg.errors import OutputError
from geoseg.io.published import Item
from geoseg.io.qgis import SIDECARS
from geoseg.model.bundle import CARD, INCLUDED, read_card
from geoseg.run import handover
from geoseg.run.handover import copy_card
from tests.conftest import CLASSES
from tests.run.results import contents, run, write_labels, write_polygons, write_scene

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "workflows" / "qgis_export.py"
PROBE = ROOT / "tests" / "qgis_probe.py"
RESULTS = {"landcover.tif", "confidence.tif", "vectors.gpkg", "item.json", "model.json", *SIDECARS}
SCORES = {"metrics.json", "regions.csv"}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("qgis_export", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Path:
    """The results of two scenes, one with scores; a third one failed in the last run."""
    folder = tmp_path_factory.mktemp("finished")
    town = write_scene(folder / "town ü.tif", 300, 320)
    labels = write_labels(folder / "labels.tif", town)
    regions = write_polygons(folder / "regions.gpkg", [(0, 0, 200, 200), (150, 0, 320, 300)])
    assert run(town, folder / "out", tiny_bundle, labels=str(labels), regions=str(regions)) == 0
    nowhere = write_scene(folder / "nowhere.tif", 200, 230, crs=None)
    assert run(nowhere, folder / "out", tiny_bundle, scenes=(str(nowhere), str(folder / "gone.tif"))) == 1
    return folder / "out"


@pytest.fixture
def results(finished: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    shutil.copytree(finished, tmp_path / "out")
    return tmp_path / "out"


def export(script: ModuleType, folder: Path, **job: Any) -> Result:
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump({"results": "out", "output": "package", **job}))
    result = CliRunner().invoke(script.main, [str(path)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def refused(result: Result, *words: object) -> None:
    lines = result.stderr.splitlines()
    assert result.exit_code == 2, result.stderr
    assert [line.startswith("error: ") for line in lines].count(True) == 1
    assert lines[-1].startswith("error: ")
    for word in words:
        assert str(word) in lines[-1]


def nothing_half_done(folder: Path) -> bool:
    return not [path.name for path in folder.iterdir() if path.name.endswith((".part", ".old"))]


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_package_holds_what_the_run_made(script: ModuleType, results: Path) -> None:
    before = files(results)
    result = export(script, results.parent)
    assert result.exit_code == 1
    package = results.parent / "package"
    assert {path.name for path in package.iterdir()} == {"town ü", "nowhere", "catalog.json", "README.txt"}
    assert {path.name for path in (package / "town ü").iterdir()} >= RESULTS | SCORES
    assert not {path.name for path in (package / "nowhere").iterdir()} & SCORES
    for name in ("town ü", "nowhere"):
        made, packed = contents(results / name), contents(package / name)
        assert packed.pop("model.json")
        made.pop("report.html", None)  # it names the scene by its path
        assert packed == made
    assert files(results) == before
    assert nothing_half_done(results.parent)


def test_nothing_in_it_speaks_of_the_old_place(script: ModuleType, finished: Path, tmp_path: Path) -> None:
    job = {"results": str(finished), "format": ["geojson", "parquet", "fgb", "gpkg"], "scenes": ["town ü"]}
    assert export(script, tmp_path, **job).exit_code == 0
    package = tmp_path / "package"
    old = [str(finished.parent), str(tmp_path), str(Path.home()), str(ROOT)]
    for name, content in files(package).items():
        if name.endswith(".qgz"):
            with zipfile.ZipFile(package / name) as archive:
                content = archive.read("project.qgs")
        assert not [place for place in old if place.encode() in content], name


def test_the_catalog_is_whole_in_its_new_place(script: ModuleType, finished: Path, tmp_path: Path) -> None:
    job = {"results": str(finished), "format": ["parquet"], "scenes": ["town ü"], "title": "Our town"}
    assert export(script, tmp_path, **job).exit_code == 0
    moved = (tmp_path / "package").rename(tmp_path / "elsewhere")
    catalog = pystac.Catalog.from_file(str(moved / "catalog.json"))
    assert catalog.title == "Our town"
    (item,) = catalog.get_items()
    old = json.loads((finished / "town ü" / "item.json").read_text())
    assert {k: v for k, v in item.properties.items() if v} == {
        k: v for k, v in old["properties"].items() if v
    }
    assert set(item.assets) == {*old["assets"], "buildings.parquet", "roads.parquet", "regions.parquet"}
    for asset in item.assets.values():
        content = (moved / "town ü" / asset.href).read_bytes()
        assert asset.extra_fields["file:checksum"] == f"1220{hashlib.sha256(content).hexdigest()}"
    raw = json.loads((moved / "town ü" / "item.json").read_text())
    targets = [(moved / "town ü" / link["href"]).resolve() for link in raw["links"]]
    assert targets[0].name == "model.json"
    assert all(target.is_file() and moved.resolve() in target.parents for target in targets)


def test_copies_are_in_the_crs_that_was_asked_for(script: ModuleType, finished: Path, tmp_path: Path) -> None:
    job = {"results": str(finished), "format": ["fgb", "geojson"], "crs": "EPSG:3857", "scenes": ["town ü"]}
    assert export(script, tmp_path, **job).exit_code == 0
    folder = tmp_path / "package" / "town ü"
    original = geopandas.read_file(folder / "vectors.gpkg", layer="buildings")
    copy = geopandas.read_file(folder / "buildings.fgb")
    assert copy.crs == "EPSG:3857"
    assert set(copy["id"]) == set(original["id"])
    assert geopandas.read_file(folder / "buildings.geojson").crs == "EPSG:4326"


def test_the_archive_unpacks_to_the_folder(script: ModuleType, finished: Path, tmp_path: Path) -> None:
    assert export(script, tmp_path, results=str(finished), zip=True).exit_code == 1
    with zipfile.ZipFile(tmp_path / "package.zip") as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path / "unpacked")
    assert os.listdir(tmp_path / "unpacked") == ["package"]
    assert files(tmp_path / "unpacked" / "package") == files(tmp_path / "package")


def test_the_readme_says_what_is_in_it(script: ModuleType, finished: Path, tmp_path: Path) -> None:
    assert (
        export(script, tmp_path, results=str(finished), format=["geojson"], scenes=["town ü"]).exit_code == 0
    )
    text = (tmp_path / "package" / "README.txt").read_text()
    for i, (name, color) in enumerate(CLASSES, 1):
        assert f"{i}  #{bytes(color).hex()}  {name}\n" in text
    for words in (
        "town ü\n------\n", "EPSG:32640, WGS 84 / UTM zone 40N", "320 x 300 px of 0.8 m", "tiny 0", "project.qgz",
        "not stated", "date unknown", "LAYER.geojson       a copy of each layer, in WGS 84\n",
    ):  # fmt: skip
        assert words in text, words
    assert max(map(len, text.splitlines())) <= 120


def test_the_readme_quotes_the_card(script: ModuleType, results: Path) -> None:
    card_path = None
    item_path = results / "town ü" / "item.json"
    item = json.loads(item_path.read_text())
    for link in item["links"]:
        if link["rel"] == "derived_from":
            card_path = Path(link["href"].removeprefix("file://"))
            own = results.parent / "own model"
            shutil.copytree(card_path.parent, own)
            card = json.loads((own / "model.json").read_text())
            card.update(
                license="CC-BY-4.0",
                description="Sees towns.",
                training_data=["Here.", "And where few go. " * 9 + "There."],
            )
            (own / "model.json").write_text(json.dumps(card))
            link["href"] = (own / "model.json").as_uri()
    item["properties"]["datetime"] = "2020-02-03T00:00:00Z"
    item_path.write_text(json.dumps(item))
    assert export(script, results.parent, scenes=["town ü"]).exit_code == 0
    text = (results.parent / "package" / "README.txt").read_text()
    for words in ("CC-BY-4.0", "Sees towns.", "Here.\n", "There.\n", "2020-02-03"):
        assert words in text
    assert max(map(len, text.splitlines())) <= 120


def test_a_model_that_cannot_be_found_is_named_without_a_dead_link(script: ModuleType, results: Path) -> None:
    item_path = results / "town ü" / "item.json"
    item = json.loads(item_path.read_text())
    item["links"] = [link for link in item["links"] if link["rel"] != "derived_from"]
    item_path.write_text(json.dumps(item))
    result = export(script, results.parent, scenes=["town ü"])
    assert result.exit_code == 0
    assert "the card of model tiny was not found" in result.stderr
    folder = results.parent / "package" / "town ü"
    assert not (folder / "model.json").exists()
    links = json.loads((folder / "item.json").read_text())["links"]
    assert {link["rel"] for link in links} == {"root", "parent"}


def test_failed_and_unfinished_scenes_are_named_and_left_out(script: ModuleType, results: Path) -> None:
    """A run that was killed while it published leaves a ledger that says so, whatever lies in the folder."""
    ledger = results / ".geoseg" / "nowhere" / "ledger.json"
    ledger.write_text(json.dumps({**json.loads(ledger.read_text()), "published": {}}))
    result = export(script, results.parent)
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert lines[0].startswith("warning: gone is left out: ")
    assert "gone.tif: no such file" in lines[0]
    assert lines[1] == "warning: nowhere is left out: is not finished; the same geoseg run goes on with it"
    package = results.parent / "package"
    assert {path.name for path in package.iterdir()} == {"town ü", "catalog.json", "README.txt"}
    assert "Left out, since they are not finished: gone, nowhere" in (package / "README.txt").read_text()
    catalog = json.loads((package / "catalog.json").read_text())
    assert [link["href"] for link in catalog["links"] if link["rel"] == "item"] == ["./town ü/item.json"]


def test_a_scene_that_cannot_be_exported_does_not_stop_the_others(script: ModuleType, results: Path) -> None:
    """GeoJSON needs a place on the ground."""
    result = export(script, results.parent, format=["geojson"], scenes=["nowhere", "town ü"])
    assert result.exit_code == 1
    assert "warning: nowhere is left out: " in result.stderr
    assert "has no CRS" in result.stderr
    assert not (results.parent / "package" / "nowhere").exists()
    assert (results.parent / "package" / "town ü" / "buildings.geojson").is_file()


def test_a_result_that_was_changed_is_taken_with_a_warning(script: ModuleType, results: Path) -> None:
    with closing(sqlite3.connect(results / "town ü" / "vectors.gpkg")) as database, database:
        database.execute("INSERT INTO layer_styles (f_table_name, styleName) VALUES ('roads', 'mine')")
    result = export(script, results.parent, scenes=["town ü"])
    assert result.exit_code == 0
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("warning")]
    assert "vectors.gpkg: has been changed since geoseg published it" in line
    with closing(sqlite3.connect(results.parent / "package" / "town ü" / "vectors.gpkg")) as database:
        names = {name for (name,) in database.execute("SELECT styleName FROM layer_styles")}
    assert names == {"mine", "geoseg"}


def test_a_geopackage_that_is_being_edited_is_left_out(script: ModuleType, results: Path) -> None:
    """Its last changes are still in the file beside it."""
    (results / "town ü" / "vectors.gpkg-wal").write_bytes(b"change")
    refused(export(script, results.parent, scenes=["town ü"]), "none of its scenes can be exported")
    assert not (results.parent / "package").exists()
    assert nothing_half_done(results.parent)


def test_an_existing_folder_stays_unless_it_may_be_replaced(script: ModuleType, results: Path) -> None:
    package = results.parent / "package"
    assert export(script, results.parent, scenes=["nowhere"], zip=True).exit_code == 0
    first = files(package)
    refused(export(script, results.parent, scenes=["town ü"]), package, "is there already")
    shutil.rmtree(package)
    refused(export(script, results.parent, scenes=["town ü"], zip=True), "package.zip", "is there already")
    assert not package.exists()
    (package / "nowhere").mkdir(parents=True)
    (package / "README.txt").write_bytes(first["README.txt"])
    (package / "nowhere" / "old.txt").write_text("")
    assert export(script, results.parent, scenes=["nowhere"], zip=True, overwrite=True).exit_code == 0
    assert set(files(package)) == set(first)
    assert nothing_half_done(results.parent)


def test_a_folder_that_is_no_export_is_never_replaced(script: ModuleType, results: Path) -> None:
    package = results.parent / "package"
    package.mkdir()
    (package / "diary.txt").write_text("mine")
    refused(export(script, results.parent, overwrite=True), package, "is no export of this workflow")
    for place in ("out", ".", "out/town ü"):
        refused(export(script, results.parent, output=place, overwrite=True))
    (package / "README.txt").write_text("How to read my diary")
    refused(export(script, results.parent, overwrite=True), package, "is no export of this workflow")
    assert (package / "diary.txt").read_text() == "mine"
    assert (results / "town ü" / "landcover.tif").is_file()


def test_a_full_disk_leaves_the_earlier_export(
    script: ModuleType, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert export(script, results.parent, scenes=["nowhere"]).exit_code == 0
    first = files(results.parent / "package")

    def full(*_: object) -> None:
        raise OutputError("cannot be written (No space left on device)", "x")

    for step in ("write_catalog", "write_item", "publish_bytes"):
        with monkeypatch.context() as patched:
            patched.setattr(handover, step, full)
            refused(export(script, results.parent, scenes=["town ü"], overwrite=True), "No space left")
        assert files(results.parent / "package") == first
        assert nothing_half_done(results.parent)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        refused(export(script, results.parent, scenes=["town ü"], overwrite=True), "Input/output error")
    assert files(results.parent / "package") == first
    assert nothing_half_done(results.parent)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "no such job file"),
        (b"results: [out\n", "cannot be read as YAML"),
        (b"", "a job file holds fields and values"),
        (b"- out", "a job file holds fields and values"),
        (b"results: out", "output: is missing"),
        (b"output: p", "results: is missing"),
        (b"{results: out, output: ''}", "output: String should have at least 1 character"),
        (b"{results: out, output: p, formats: [fgb]}", "formats: no such field"),
        (b"{results: out, output: p, format: [shp]}", "format.0: Input should be 'gpkg'"),
        (b"{results: out, output: p, crs: EPSG:4326}", "crs: is that of the copies"),
        (b"{results: out, output: p, crs: Mars, format: [fgb]}", "'Mars' is no coordinate reference system"),
        (b"{results: out, output: p, zip: perhaps}", "zip: Input should be a valid boolean"),
        (b"{results: out, output: p, scenes: [town]}", "there is no town; there are gone, nowhere, town"),
        (b"{results: out, output: p, scenes: [gone]}", "holds no finished scene"),
        (b"{results: nothing, output: p}", "nothing: no such folder of results"),
        (b"{results: ., output: p}", "is no output folder of geoseg run"),
        (b"results: !!python/object/apply:os.system ['touch p']", "cannot be read as YAML"),
    ],
)
def test_bad_jobs_are_one_line(script: ModuleType, results: Path, text: bytes | None, words: str) -> None:
    job = results.parent / "job.yaml"
    if text is not None:
        job.write_bytes(text)
    refused(CliRunner().invoke(script.main, [str(job)]), words)
    assert not (results.parent / "p").exists()
    assert nothing_half_done(results.parent)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("town ü/item.json", b"{}", "is not the STAC item that geoseg run writes"),
        ("town ü/item.json", b"not JSON", "is not the JSON that was written there"),
        ("town ü/landcover.tif", b"II*\0 no raster", "cannot be opened"),
        ("town ü/vectors.gpkg", b"no GeoPackage", "vectors.gpkg"),
        (".geoseg/town ü/ledger.json", b"{}", "is not a ledger of geoseg"),
        ("town ü/confidence.tif", None, "confidence.tif is not there"),
    ],
)
def test_broken_results_are_named(
    script: ModuleType, results: Path, name: str, content: bytes | None, words: str
) -> None:
    (results / name).unlink() if content is None else (results / name).write_bytes(content)
    result = export(script, results.parent, scenes=["town ü", "nowhere"])
    assert result.exit_code == 1
    assert words in "".join(
        li for li in result.stderr.splitlines() if li.startswith("warning: town ü is left out")
    )
    assert {p.name for p in (results.parent / "package").iterdir()} == {
        "nowhere",
        "catalog.json",
        "README.txt",
    }


def test_it_is_a_plain_script(results: Path) -> None:
    (results.parent / "job.yaml").write_text("{results: out, output: package, scenes: [nowhere]}")
    done = subprocess.run(
        [sys.executable, SCRIPT, results.parent / "job.yaml"], capture_output=True, text=True, cwd="/"
    )
    assert (done.returncode, done.stderr) == (0, f"{results.parent}/package: nowhere\n")
    assert (results.parent / "package" / "nowhere" / "project.qgz").is_file()
    again = subprocess.run(
        [sys.executable, SCRIPT, results.parent / "job.yaml"], capture_output=True, text=True
    )
    assert again.returncode == 2
    assert again.stderr.startswith("error: ")
    assert len(again.stderr.splitlines()) == 1


def test_the_help_teaches_every_field_and_the_example_holds(script: ModuleType) -> None:
    text = CliRunner().invoke(script.main, ["--help"]).output
    names = [field.alias or name for name, field in handover.ExportJob.model_fields.items()]
    assert all(f"  {name}: " in text for name in names)
    job = handover.read_job(SCRIPT.with_suffix(".yaml"))
    assert Path(job.results).resolve() == ROOT / "demo"


def test_qgis_opens_the_projects_in_another_place(script: ModuleType, results: Path, tmp_path: Path) -> None:
    """With the run gone, so that only relative paths can work."""
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen", "HOME": str(tmp_path)}
    python = "/usr/bin/python3"
    if not Path(python).exists() or subprocess.run(
        [python, "-c", "import qgis.core"], capture_output=True, env=environment
    ).returncode:  # fmt: skip
        pytest.skip(f"{python} has no PyQGIS (apt-get install qgis python3-qgis qgis-providers)")
    assert export(script, results.parent, scenes=["town ü", "nowhere"], zip=True).exit_code == 0
    with zipfile.ZipFile(results.parent / "package.zip") as archive:
        archive.extractall(tmp_path / "a new place")
    shutil.rmtree(results)
    shutil.rmtree(results.parent / "package")
    for name, layers in (("town ü", 6), ("nowhere", 4)):
        project = tmp_path / "a new place" / "package" / name / "project.qgz"
        done = subprocess.run(
            [python, PROBE, project], capture_output=True, text=True, env=environment, timeout=200
        )
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)["project.qgz"]
        assert (found["read"], found["error"], found["title"]) == (True, "", name)
        assert len(found["layers"]) == layers
        assert all(layer["valid"] for layer in found["layers"])
        (land,) = [layer for layer in found["layers"] if layer["name"] == "Land cover"]
        assert [label for _, label, _ in land["classes"]] == [name for name, _ in CLASSES]
        assert found["map"]["errors"] == []


@pytest.mark.parametrize("bundle", sorted(INCLUDED.iterdir()), ids=lambda folder: folder.name)
def test_the_card_of_a_bundled_model_is_found_wherever_the_run_was_made(bundle: Path, tmp_path: Path) -> None:
    card = read_card(bundle)
    told = {"datetime": "2024-01-01", "processing:datetime": "2024-01-01", "processing:software": {}}
    told |= {
        "geoseg:model": card.name,
        "geoseg:model_version": card.version,
        "geoseg:model_digest": card.digest,
    }
    elsewhere = {"rel": "derived_from", "href": "file:///nowhere/model.json"}
    item = Item.model_validate({"properties": told, "links": [elsewhere], "assets": {}})
    assert copy_card(item, tmp_path) == card
    assert (tmp_path / CARD).read_bytes() == (bundle / CARD).read_bytes()
