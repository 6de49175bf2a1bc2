"""The command line as a user meets it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from geoseg.cli import main
from tests.run.results import write_labels, write_polygons, write_scene

BIN = Path(sys.executable).parent


def test_it_is_a_plugin_of_rasterios_command_line() -> None:
    done = subprocess.run([BIN / "rio", "geoseg", "--help"], capture_output=True, text=True, check=True)
    assert "land-cover maps" in done.stdout


def test_version_names_what_decides_results() -> None:
    lines = CliRunner().invoke(main, ["--version"]).output.split()
    assert {"geoseg", "gdal", "proj", "torch", "ray", "openvino"} <= set(lines)


@pytest.mark.parametrize("name", sorted(main.commands))
def test_every_option_says_what_it_does(name: str) -> None:
    assert CliRunner().invoke(main, [name, "--help"]).exit_code == 0
    for parameter in main.commands[name].params:
        if parameter.param_type_name == "option":
            assert parameter.help, parameter.name


def test_a_plan_writes_nothing_and_counts_what_a_run_does(tiny_bundle: Path, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif")
    arguments = [str(scene), "-o", str(tmp_path / "out"), "--model", str(tiny_bundle), "--block-px", "128"]
    done = CliRunner().invoke(main, ["plan", *arguments, "--json"])
    assert done.exit_code == 0, done.output
    assert not (tmp_path / "out").exists()
    plan = json.loads(done.stdout)["scenes"][0]
    assert CliRunner().invoke(main, ["run", *arguments]).exit_code == 0
    report = json.loads((tmp_path / "out/run.json").read_text())["scenes"][0]
    assert plan["needs"]["blocks"] == report["blocks"] == 30
    assert plan["needs"]["patches"] == plan["needs"]["lattice_patches"] == 30
    text = CliRunner().invoke(main, ["plan", *arguments]).output
    for word in ("blocks", "patches", "reads", "disk", "memory", "time"):
        assert f"  {word} " in text


def test_events_are_json_lines(tiny_bundle: Path, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif")
    done = CliRunner().invoke(
        main, ["run", str(scene), "-o", str(tmp_path / "out"), "--model", str(tiny_bundle), "--json"]
    )
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [e["stage"] for e in events if e["event"] == "stage"] == ["map", "merge", "vectorize"]
    assert events[-1]["event"] == "scene"


def test_the_last_stages_alone_give_what_the_run_gave(tiny_bundle: Path, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif")
    labels = write_labels(tmp_path / "labels.tif", scene)
    regions = write_polygons(tmp_path / "regions.gpkg", [(10, 10, 300, 400)])
    out = tmp_path / "out"
    files = ["--labels", str(labels), "--regions", str(regions)]
    assert (
        CliRunner()
        .invoke(main, ["run", str(scene), "-o", str(out), "--model", str(tiny_bundle), *files])
        .exit_code
        == 0
    )
    again = [
        "evaluate",
        str(out / "scene/landcover.tif"),
        str(labels),
        "--regions",
        str(regions),
        "-o",
        str(tmp_path / "e"),
    ]
    done = CliRunner().invoke(main, again)
    assert "box 0" in done.output
    assert "mIoU" in done.output
    for name in ("metrics.json", "regions.csv"):
        assert (tmp_path / "e" / name).read_text() == (out / "scene" / name).read_text()
    vectors = [
        "vectorize",
        str(out / "scene/landcover.tif"),
        "-o",
        str(tmp_path / "v.gpkg"),
        "--block-px",
        "100",
    ]
    assert "buildings" in CliRunner().invoke(main, vectors).output


def test_the_demo_is_scored(tmp_path: Path) -> None:
    """A small one: drawn, mapped with the bundled model, scored, and pointed at."""
    done = CliRunner().invoke(main, ["demo", "-o", str(tmp_path), "--size", "512", "--seed", "2"])
    assert done.exit_code == 0, done.output
    for name in ("landcover.tif", "confidence.tif", "vectors.gpkg", "metrics.json", "regions.csv"):
        assert (tmp_path / "demo_scene" / name).is_file()
        assert name in done.output
