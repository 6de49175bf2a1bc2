"""The QGIS plugin: geoseg's own results, errors and progress reach QGIS, and Cancel stops the process for good."""

from __future__ import annotations

import ast
import json
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyogrio
import pytest
import shapely

from tests.conftest import CLASSES
from tests.run.results import (
    TRANSFORM,
    assert_equal,
    contents,
    run,
    write_labels,
    write_polygons,
    write_scene,
)

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "infra" / "qgis" / "geoseg_processing"
DRIVER = Path(__file__).with_name("qgis_driver.py")
PYTHON = "/usr/bin/python3"
GEOSEG = Path(sys.executable).with_name("geoseg")
MODULES = sorted(PLUGIN.glob("*.py"))
NAMES = [name for name, _ in CLASSES]

Environment = dict[str, str]
Answers = list[dict[str, Any]]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_the_plugin_imports_nothing_but_qgis_and_the_standard_library(path: Path) -> None:
    """So that it runs in any QGIS from 3.22 on; its Python may be 3.9."""
    tree = ast.parse(path.read_text(), feature_version=(3, 9))
    found = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level}
    found |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    allowed = sys.stdlib_module_names | {"qgis", "processing"}
    assert not {name for name in found if name and name.split(".")[0] not in allowed}
    assert not [name for name in found if name and name.startswith("PyQt")]


def test_no_command_is_a_shell_string() -> None:
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                assert "shell" not in {keyword.arg for keyword in node.keywords}
                assert ast.unparse(node.func) not in ("os.system", "os.popen", "eval", "exec")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """A home of its own for QGIS, and geoseg named by the variable."""
    home = tmp_path_factory.mktemp("home")
    home.chmod(0o700)
    places = {"HOME": str(home), "XDG_RUNTIME_DIR": str(home), "GEOSEG": str(GEOSEG)}
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "QGIS_"))}
    found = {**ours, **places, "QT_QPA_PLATFORM": "offscreen"}
    try:
        done = subprocess.run([PYTHON, "-c", "import qgis.core"], capture_output=True, env=found)
    except OSError as error:
        pytest.skip(f"{PYTHON} cannot be run ({error})")
    if done.returncode:
        pytest.skip(f"{PYTHON} has no PyQGIS (apt-get install qgis python3-qgis qgis-providers)")
    return found


@pytest.fixture(scope="module")
def drive(environment: Environment) -> Callable[..., Answers]:
    """Runs tasks as the toolbox does; see qgis_driver.py."""

    def call(*tasks: dict[str, Any], **variables: str) -> Answers:
        done = subprocess.run(
            [PYTHON, DRIVER], input=json.dumps(tasks), capture_output=True, text=True, timeout=280,
            env={**environment, **variables},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]

    return call


@pytest.fixture(scope="module")
def profile(environment: Environment) -> Environment:
    """The plugin is installed and enabled as a user does it."""
    plugins = Path(environment["HOME"], ".local/share/QGIS/QGIS3/profiles/default/python/plugins")
    shutil.copytree(PLUGIN, plugins / PLUGIN.name)
    done = qgis_process(environment, "plugins", "enable", PLUGIN.name)
    assert done.returncode == 0, done.stderr
    return environment


def qgis_process(environment: Environment, *arguments: str) -> subprocess.CompletedProcess[str]:
    # Debian's wrapper hands an option over that this version does not know.
    program = shutil.which("qgis_process.bin") or shutil.which("qgis_process")
    if program is None:
        pytest.skip("qgis_process is not installed (apt-get install qgis)")
    return subprocess.run([program, *arguments], capture_output=True, text=True, env=environment, timeout=280)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scene(tmp_path_factory.mktemp("a scene's") / "town ü.tif", 300, 320)


@pytest.fixture(scope="module")
def expected(scene: Path, tiny_bundle: Path) -> Path:
    """The same run without QGIS."""
    assert run(scene, scene.parent / "expected", tiny_bundle, report=False) == 0
    return scene.parent / "expected" / "town ü"


def land_cover(scene: Path, output: Path, model: Path, **more: Any) -> dict[str, Any]:
    """Nothing is loaded, since QGIS keeps statistics beside a raster; no report, which holds times."""
    paths = {"INPUT": str(scene), "OUTPUT": str(output), "MODEL": str(model)}
    return {**paths, "LOAD": False, "PAGES": False, **more}


def task(algorithm: str, parameters: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"algorithm": f"geoseg:{algorithm}", "parameters": parameters, **more}


def texts(answer: dict[str, Any], kind: str) -> list[str]:
    return [text for found, text in answer["log"] if found == kind]


def test_qgis_process_maps_and_vectorizes(
    profile: Environment, scene: Path, expected: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    parameters = land_cover(scene, tmp_path / "out", tiny_bundle, FORMATS="parquet", CRS="EPSG:3857")
    given = [f"{name}={value}" for name, value in parameters.items()]
    done = qgis_process(profile, "--json", "run", "geoseg:maplandcover", "--", *given)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)["results"]
    folder = tmp_path / "out" / "town ü"
    assert results == {
        "OUTPUT": str(tmp_path / "out"),
        "LANDCOVER": str(folder / "landcover.tif"),
        "CONFIDENCE": str(folder / "confidence.tif"),
        "BUILDINGS": f"{folder / 'vectors.gpkg'}|layername=buildings",
        "ROADS": f"{folder / 'vectors.gpkg'}|layername=roads",
        "PROJECT": str(folder / "project.qgz"),
    }
    made = contents(folder)
    for layer in ("buildings", "roads"):
        assert made.pop(f"{layer}.parquet")
    assert made == contents(expected)
    polygons = tmp_path / "all polygons.gpkg"
    given = [f"INPUT={folder / 'landcover.tif'}", "RAW=1", f"OUTPUT={polygons}"]
    done = qgis_process(profile, "--json", "run", "geoseg:vectorizeclassmap", "--", *given)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["results"] == {"OUTPUT": str(polygons)}
    _, _, blobs, (classes, *_) = pyogrio.raw.read(polygons, layer="polygons", columns=["class_id"])
    assert set(classes) == {1, 2, 3, 4, 5}
    assert shapely.area(shapely.from_wkb(blobs)).sum() > 0


def test_the_help_of_each_algorithm_explains_each_parameter(profile: Environment) -> None:
    for name in ("maplandcover", "vectorizeclassmap"):
        done = qgis_process(profile, "--json", "help", f"geoseg:{name}")
        for parameter in json.loads(done.stdout)["parameters"].values():
            assert parameter["help"], parameter["name"]


def test_results_are_loaded_with_their_styles(
    drive: Callable[..., Answers], scene: Path, expected: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    """Then again: a finished run does nothing and loads the same; or loads nothing, if that is wanted."""
    parameters = land_cover(scene, tmp_path / "out", tiny_bundle, LOAD=True)
    polygons = {"INPUT": str(expected / "landcover.tif"), "CONFIDENCE": str(expected / "confidence.tif")}
    first, again, silent, vectors = drive(
        task("maplandcover", parameters, thread=True),
        task("maplandcover", parameters, keep=True),
        task("maplandcover", {**parameters, "LOAD": False}),
        task(
            "vectorizeclassmap",
            {**polygons, "OUTPUT": str(tmp_path / "p.gpkg"), "FORMATS": ["fgb"]},
            thread=True,
        ),
    )
    assert [first["error"], again["error"], silent["error"], vectors["error"]] == [None] * 4
    by_name = {layer["name"]: layer for layer in first["layers"]}
    assert set(by_name) == {
        f"town ü: {title}" for title in ("Land cover", "Confidence", "Buildings", "Roads")
    }
    assert all(layer["valid"] for layer in by_name.values())
    assert by_name["town ü: Land cover"]["classes"] == NAMES
    assert by_name["town ü: Confidence"]["kind"] == "singlebandpseudocolor"
    assert by_name["town ü: Buildings"]["colors"] == ["#c83c3c"]
    assert by_name["town ü: Roads"]["colors"] == ["#5a5a5a"]
    order = [layer["name"] for layer in first["layers"]]
    assert order.index("town ü: Land cover") < order.index("town ü: Confidence")  # which is below
    assert again["layers"] == first["layers"]  # the same, not twice
    assert any("unchanged, nothing to do" in text for text in texts(again, "info"))
    assert silent["layers"] == []
    assert {layer["name"] for layer in vectors["layers"]} == {"p: Buildings", "p: Roads"}
    assert {color for layer in vectors["layers"] for color in layer["colors"]} == {"#c83c3c", "#5a5a5a"}
    assert (tmp_path / "p_roads.fgb").is_file()
    assert pyogrio.read_info(tmp_path / "p.gpkg", layer="buildings")["features"] > 0


def test_options_reach_geoseg(
    drive: Callable[..., Answers], scene: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    """A box for each, ticked; the same on the command line. The simplified layer does not hide the others."""
    mask = write_labels(tmp_path / "mask.tif", scene)
    ticked = {
        "COVERAGE": True,
        "CENTERLINES": True,
        "MIN_AREA": "4, road=9",
        "MIN_HOLE": "2",
        "BLEND": "hann",
    }
    chosen = {"BANDS": "3,2,1", "MASK": str(mask), "MASK_VALUES": "0,1", "GSD": 1.0, "WORKERS": 1}
    parameters = land_cover(scene, tmp_path / "a", tiny_bundle, **ticked, **chosen)
    (first,) = drive(task("maplandcover", parameters))
    assert first["error"] is None
    command = [
        GEOSEG, "run", scene, "-o", tmp_path / "b", "--model", tiny_bundle, "--coverage", "--centerlines", "--min-area",
        "4", "--min-area", "road=9", "--min-hole", "2", "--blend", "hann", "--bands", "3,2,1", "--mask", mask,
        "--mask-values", "0,1", "--gsd", "1", "--workers", "1", "--no-report",
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    assert_equal(tmp_path / "a" / "town ü", tmp_path / "b" / "town ü")
    assert "REPORT" not in first["results"]
    (second,) = drive(task("maplandcover", {**parameters, "LOAD": True, "PAGES": True}))
    assert Path(second["results"]["REPORT"]).is_file()
    hidden = [layer["name"] for layer in second["layers"] if not layer["shown"]]
    assert hidden == ["town ü: Land cover, simplified"]
    assert "town ü: Road centerlines" in [layer["name"] for layer in second["layers"]]


def test_progress_runs_from_0_to_100_and_the_log_says_what_is_done(
    drive: Callable[..., Answers], scene: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    (answer,) = drive(task("maplandcover", land_cover(scene, tmp_path / "out", tiny_bundle)))
    bar = answer["bar"][: answer["bar"].index(99.0) + 1]  # then QGIS counts the layers that it loads
    assert bar == sorted(bar)
    assert {85.0, 90.0, 99.0} <= set(bar)
    stages = [text for text in texts(answer, "stage") if text.startswith("town ü: ")]
    assert stages == [f"town ü: {stage}" for stage in ("map", "merge", "vectorize")]
    assert any(text.startswith("town ü: 0.1 Mpx in ") for text in texts(answer, "info"))
    (command,) = texts(answer, "command")
    assert command.startswith(f"{GEOSEG} run --json")


def test_files_selections_and_layers_in_memory_are_the_same(
    drive: Callable[..., Answers], scene: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    """Regions and area from files, from selected features, and the mask from a layer in memory."""
    labels = write_labels(tmp_path / "labels.tif", scene)
    boxes = {"box 0": (0, 0, 200, 200), "box 1": (150, 0, 320, 300)}
    wkt = {name: _wkt(box) for name, box in boxes.items()}
    regions = write_polygons(tmp_path / "regions.gpkg", list(boxes.values()))
    mask = write_polygons(tmp_path / "mask.gpkg", [(40, 180, 120, 260)])
    parameters = {"LABELS": str(labels), "REGION_FIELD": "region"}
    files = {**parameters, "REGIONS": str(regions), "AOI": str(regions), "MASK": str(mask)}
    more = write_polygons(tmp_path / "more.gpkg", [*boxes.values(), (0, 200, 320, 300)])
    layers = {
        "REGIONS": {"polygons": wkt},
        "AOI": {"file": str(more), "select": list(wkt)},
        "MASK": {"polygons": {"cloud": _wkt((40, 180, 120, 260))}},
    }
    in_memory = land_cover(scene, tmp_path / "b", tiny_bundle, **parameters)
    first, second, again = drive(
        task("maplandcover", land_cover(scene, tmp_path / "a", tiny_bundle, **files)),
        task("maplandcover", in_memory, layers=layers),
        task("maplandcover", in_memory, layers=layers),
    )
    assert [first["error"], second["error"], again["error"]] == [None] * 3
    assert same_results(tmp_path / "a" / "town ü", tmp_path / "b" / "town ü")
    assert "REGIONS" in second["results"]
    assert not any("exported" in text for text in texts(first, "info"))
    assert sum("exported" in text for text in texts(second, "info")) == 3
    # Exported anew to another place, and still known as the same.
    assert any("unchanged, nothing to do" in text for text in texts(again, "info"))


def same_results(a: Path, b: Path) -> bool:
    """All but the digest of the recipe: files that say the same in other bytes are other files to it."""
    first, second = contents(a), contents(b)
    for made in (first, second):
        for name in ("landcover.tif", "confidence.tif"):
            assert made[name][4].pop("GEOSEG_RECIPE")
    return first == second


def _wkt(box: tuple[int, int, int, int]) -> str:
    (left, top), (right, bottom) = TRANSFORM @ box[:2], TRANSFORM @ box[2:]
    return str(shapely.box(left, bottom, right, top).wkt)


def test_a_layer_of_several_in_a_file_is_the_one_that_is_used(
    drive: Callable[..., Answers], scene: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    """geoseg itself reads the first."""
    path = write_polygons(tmp_path / "two.gpkg", [(0, 0, 10, 10)])
    box = shapely.to_wkb([shapely.box(*_bounds((100, 100, 320, 300)))])
    pyogrio.raw.write(path, box, [], [], layer="second", geometry_type="Polygon", crs="EPSG:32640", driver="GPKG",
                      append=True)  # fmt: skip
    (answer,) = drive(
        task("maplandcover", land_cover(scene, tmp_path / "a", tiny_bundle, AOI=f"{path}|layername=second"))
    )
    assert answer["error"] is None
    alone = write_polygons(tmp_path / "alone.gpkg", [(100, 100, 320, 300)])
    assert run(scene, tmp_path / "b", tiny_bundle, aoi=str(alone), report=False) == 0
    assert same_results(tmp_path / "a" / "town ü", tmp_path / "b" / "town ü")


def _bounds(box: tuple[int, int, int, int]) -> tuple[float, float, float, float]:
    (left, top), (right, bottom) = TRANSFORM @ box[:2], TRANSFORM @ box[2:]
    return left, bottom, right, top


def test_errors_of_geoseg_reach_the_user_as_they_are(
    drive: Callable[..., Answers], scene: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    gray = write_labels(tmp_path / "gray.tif", scene)
    good = land_cover(scene, tmp_path / "out", tiny_bundle)
    layers = {"REGIONS": {"polygons": {"a": _wkt((0, 0, 9, 9))}}}
    answers = drive(
        task("maplandcover", {**good, "INPUT": str(gray)}),
        task("maplandcover", {**good, "MODEL": str(tmp_path)}, thread=True),
        task("maplandcover", {**good, "BANDS": "red"}),
        task("maplandcover", {**good, "REGION_FIELD": "name"}, layers=layers),
        task("maplandcover", {**good, "INPUT": str(tmp_path / "gone.tif")}),
        task("vectorizeclassmap", {"INPUT": str(scene), "OUTPUT": str(tmp_path / "p.gpkg")}),
    )  # fmt: skip
    errors = [answer["error"] for answer in answers]
    assert errors[0] == f"{gray}: has 1 band; the model takes 3 (red, green, blue), looked for as 1, 2, 3"
    assert (
        errors[1]
        == f"{tmp_path}: has no model.json; a bundle is a folder with model.json and model.safetensors"
    )
    assert "'red' is not a list of whole numbers such as 4,3,2" in errors[2]
    assert "REGIONS: has no field 'name'; its fields are: region" in texts(answers[3], "error")
    assert "INPUT" in errors[4]
    assert errors[5].startswith(f"{scene}: ")
    assert all(answer["results"] is None for answer in answers)
    assert not (tmp_path / "p.gpkg").exists()


def test_a_missing_or_wrong_program_is_named(
    drive: Callable[..., Answers], scene: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    job = task("maplandcover", land_cover(scene, tmp_path / "out", tiny_bundle))
    text = tmp_path / "geoseg"
    text.write_bytes(b"\x7fELF no program")
    text.chmod(0o755)
    for variables, words in (
        (
            {"GEOSEG": str(tmp_path / "gone")},
            f"{tmp_path}/gone: no such program (environment variable GEOSEG)",
        ),
        ({"GEOSEG": str(text)}, f"{text}: cannot be started (Exec format error)"),
        ({"GEOSEG": "", "PATH": "/usr/bin:/bin"}, "geoseg was not found; install it, then name the program"),
        ({"GEOSEG": "/bin/false"}, "geoseg ended with exit code 1"),
        ({"GEOSEG": "/bin/true"}, "geoseg ended without naming the scene"),
    ):
        (answer,) = drive(job, **variables)
        assert words in answer["error"]
        assert "Traceback" not in answer["error"]


def test_the_setting_wins_over_the_variable(
    profile: Environment, scene: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    given = [f"{name}={value}" for name, value in land_cover(scene, tmp_path / "out", tiny_bundle).items()]
    ini = Path(profile["HOME"], ".local/share/QGIS/QGIS3/profiles/default/QGIS/QGIS3.ini")
    before = ini.read_text()
    ini.write_text(before + f"\n[Processing]\nConfiguration\\GEOSEG_EXECUTABLE={tmp_path / 'gone'}\n")
    try:
        done = qgis_process(profile, "run", "geoseg:maplandcover", "--", *given)
    finally:
        ini.write_text(before)
    assert done.returncode != 0
    assert f"{tmp_path / 'gone'}: no such program (setting GEOSEG_EXECUTABLE)" in done.stdout + done.stderr


def test_variables_of_qgis_do_not_reach_geoseg(
    drive: Callable[..., Answers], scene: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    """QGIS on Windows and macOS points these at its own Python, GDAL and PROJ."""
    astray = {name: str(tmp_path) for name in ("GDAL_DATA", "GDAL_DRIVER_PATH")}
    program = _program(tmp_path / "told", "env > $0.txt; exit 3")
    (answer,) = drive(
        task("maplandcover", land_cover(scene, tmp_path / "o", tiny_bundle)), GEOSEG=str(program), **astray
    )
    assert answer["error"] == "geoseg ended with exit code 3"
    told = dict(
        line.split("=", 1) for line in (tmp_path / "told.txt").read_text().splitlines() if "=" in line
    )
    assert not set(astray) & set(told)
    assert told["PYTHONUTF8"] == "1"


def _program(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/bash\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_whatever_a_program_says_is_passed_on(
    drive: Callable[..., Answers], scene: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    """Bytes that are no text, events that are none of ours, a child that holds the pipe open, a signal."""
    noisy = """
printf 'no \\xff text\\n[1]\\n{"event": "stage", "scene": "x", "stage": "new", "total_mpx": 0, "done_mpx": 0}\\n'
printf '{"event": "stage_done"}\\n{"event": "warning", "text": "thin ice"}\\n{"event": "error", "text": "a: b"}\\n'
printf 'warning: fog\\nerror: c: d\\nlast\\n' >&2
sleep 60 &
kill -9 $$"""
    silent = "sleep 60 & kill -11 $$"
    begin = time.monotonic()
    jobs = task("maplandcover", land_cover(scene, tmp_path / "o", tiny_bundle))
    (first,) = drive(jobs, GEOSEG=str(_program(tmp_path / "noisy", noisy)))
    (second,) = drive(jobs, GEOSEG=str(_program(tmp_path / "silent", silent)))
    assert time.monotonic() - begin < 50
    assert sorted(first["error"].splitlines()) == ["a: b", "c: d"]
    assert texts(first, "warning") == ["thin ice", "fog"] or texts(first, "warning") == ["fog", "thin ice"]
    assert {"no \ufffd text", "[1]", "last"} <= set(texts(first, "console"))
    assert second["error"] == "geoseg was ended by signal 11"


def test_cancel_stops_geoseg_and_the_next_start_goes_on(
    drive: Callable[..., Answers], tiny_bundle: Path, tmp_path: Path
) -> None:
    scene = write_scene(tmp_path / "large.tif", 900, 1000)
    out = tmp_path / "out"
    parameters = land_cover(scene, out, tiny_bundle)
    (first,) = drive(task("maplandcover", parameters, cancel_above=0.1, thread=True))
    assert first["error"] == ""  # not done, but no error either
    assert max(first["bar"]) < 85
    assert not (out / "large").exists()
    log = texts(first, "info")
    assert "Stopping geoseg..." in log
    assert "Stopped. Started again with the same input and output folder, geoseg goes on from here." in log
    assert "stopped; the same command goes on from here" in texts(first, "console")
    assert not any("Mpx in" in text for text in log)
    (second,) = drive(task("maplandcover", parameters))
    assert second["error"] is None
    report = json.loads((out / "run.json").read_text())["scenes"][0]
    assert report["status"] == "done"
    assert report["blocks_found"] > 0
    assert run(scene, tmp_path / "whole", tiny_bundle, report=False) == 0
    assert_equal(out / "large", tmp_path / "whole" / "large")


def test_cancel_ends_a_process_that_does_not_listen(
    drive: Callable[..., Answers], scene: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    """As a network call that hangs: asked as Ctrl+C does, then terminated; patience is cut short for the test."""
    plugin = tmp_path / "geoseg_processing"
    shutil.copytree(PLUGIN, plugin)
    code = (plugin / "process.py").read_text()
    assert code.count("PATIENCE_S = (20.0, 5.0)") == 1
    (plugin / "process.py").write_text(code.replace("PATIENCE_S = (20.0, 5.0)", "PATIENCE_S = (0.5, 0.5)"))
    deaf = """trap 'echo heard >> $0.txt' INT TERM
echo $$ > $0.pid
printf '{"event": "note", "text": "cancel now"}\\n'
while true; do sleep 0.1; done"""
    program = _program(tmp_path / "deaf", deaf)
    job = task("maplandcover", land_cover(scene, tmp_path / "o", tiny_bundle), cancel_at="cancel now")
    (answer,) = drive(job, GEOSEG=str(program), GEOSEG_PLUGIN=str(tmp_path))
    assert answer["error"] is None
    assert (tmp_path / "deaf.txt").read_text() == "heard\nheard\n"
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "deaf.pid").read_text()), 0)
