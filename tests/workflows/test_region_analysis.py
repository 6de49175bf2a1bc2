"""What lies in some regions, by one command: the run's own results, and its tables for all scenes in one."""

from __future__ import annotations

import csv
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import rasterio
import yaml
from click.testing import CliRunner, Result

from geoseg.demo.scene import render_demo
from geoseg.run.demo import LABELS, REGIONS, SCENE, write_demo
from geoseg.run.job import make_job

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "workflows" / "region_analysis.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("region_analysis", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the demo scene as north.tif, another as south.tif, labels of the first, and regions of both."""
    folder = tmp_path_factory.mktemp("scenes")
    for seed, name in ((0, "north"), (1, "south")):
        write_demo(render_demo(seed, 320), folder / name)
        shutil.move(folder / name / SCENE, folder / f"{name}.tif")
        shutil.move(folder / name / REGIONS, folder / f"{name}.gpkg")
    shutil.move(folder / "north" / LABELS, folder / "truth.tif")
    return folder


def job_of(scenes: Path, tiny_bundle: Path, folder: Path, /, **fields: Any) -> Path:
    path = folder / "job.yaml"
    north, south = (
        {"path": str(scenes / f"{name}.tif"), "regions": str(scenes / f"{name}.gpkg")}
        for name in ("north", "south")
    )
    north["labels"] = str(scenes / "truth.tif")
    given = {"output": "out", "model": str(tiny_bundle), "workers": 2, "scenes": [north, south]}
    path.write_text(yaml.safe_dump(given | fields))
    return path


def run(script: ModuleType, *arguments: object) -> Result:
    result = CliRunner().invoke(script.main, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def analysis(
    script: ModuleType, scenes: Path, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Result]:
    folder = tmp_path_factory.mktemp("analysis")
    return folder / "out", run(script, job_of(scenes, tiny_bundle, folder))


def test_the_tables_are_those_of_the_scenes_one_below_the_other(analysis: tuple[Path, Result]) -> None:
    out, result = analysis
    assert result.exit_code == 0, result.output
    expected = [
        {"scene": name, **row} for name in ("north", "south") for row in table(out / name / "areas.csv")
    ]
    assert table(out / "region_areas.csv") == expected
    assert {row["region"] for row in expected} > {"overall"}
    scores = table(out / "region_scores.csv")
    assert scores == [{"scene": "north", **row} for row in table(out / "north" / "regions.csv")]
    assert float(scores[0]["miou"]) > 0


def test_areas_are_corrected_where_there_are_labels_and_those_of_the_map_elsewhere(
    analysis: tuple[Path, Result],
) -> None:
    """By counting the pixels of the whole map."""
    out, _ = analysis
    rows = [row for row in table(out / "region_areas.csv") if row["region"] == "overall"]
    assert {row["scene"]: bool(row["adjusted_ha"]) for row in rows} == {"north": True, "south": False}
    for name in ("north", "south"):
        with rasterio.open(out / name / "landcover.tif") as source:
            values = source.read(1)
        found = {int(r["class_id"]): float(r["pixels"]) for r in rows if r["scene"] == name}
        assert found == {i: int((values == i).sum()) for i in found}
        assert sum(found.values()) == (values != 255).sum() > 0


def test_it_prints_the_areas_and_where_to_look(analysis: tuple[Path, Result]) -> None:
    out, result = analysis
    lines = result.stdout.splitlines()
    assert "adjusted ha" in lines[lines.index("north") + 1]
    assert "adjusted ha" not in lines[lines.index("south") + 1]
    paths = [out / "region_areas.csv", out / "region_scores.csv", out / "index.html"]
    paths += [out / name / "report.html" for name in ("north", "south")]
    assert lines[-5:] == [str(path) for path in paths]
    assert all(path.is_file() for path in paths)


def test_again_maps_nothing_and_changes_no_table(
    script: ModuleType, analysis: tuple[Path, Result], scenes: Path, tiny_bundle: Path
) -> None:
    out, _ = analysis
    before = {path.name: path.read_bytes() for path in out.glob("*.csv")}
    assert run(script, job_of(scenes, tiny_bundle, out.parent)).exit_code == 0
    assert {row["status"] for row in json.loads((out / "run.json").read_text())["scenes"]} == {"unchanged"}
    assert {path.name: path.read_bytes() for path in out.glob("*.csv")} == before


def test_only_the_regions_are_mapped_if_that_is_asked_for(
    script: ModuleType, scenes: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    """The figures of a region are the same, and nothing lies beside it."""
    only = {"path": str(scenes / "north.tif"), "regions": str(scenes / "north.gpkg")}
    job = job_of(scenes, tiny_bundle, tmp_path, scenes=[only], aoi=str(scenes / "north.gpkg"))
    assert run(script, job, "-o", tmp_path / "there").exit_code == 0
    assert not (tmp_path / "out").exists()
    rows = table(tmp_path / "there" / "region_areas.csv")
    assert all(float(row["nodata_ha"]) >= 0 for row in rows)
    with rasterio.open(tmp_path / "there/north/landcover.tif") as source:
        mapped = int((source.read(1) != 255).sum())
    inside = sum(float(row["pixels"]) for row in rows if row["region"] != "overall")
    assert mapped == sum(float(row["pixels"]) for row in rows if row["region"] == "overall")
    assert inside == pytest.approx(mapped, rel=0.02)  # but for pixels that borders cut
    assert not (tmp_path / "there" / "region_scores.csv").exists()


def test_a_scene_that_fails_does_not_stop_the_others(
    script: ModuleType, scenes: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.tif").write_bytes(b"no raster")
    entries = [{"path": str(path), "regions": str(scenes / "south.gpkg")}
               for path in (tmp_path / "broken.tif", scenes / "south.tif")]  # fmt: skip
    result = run(script, job_of(scenes, tiny_bundle, tmp_path, scenes=entries))
    assert result.exit_code == 1
    assert "broken.tif" in result.output
    assert {row["scene"] for row in table(tmp_path / "out/region_areas.csv")} == {"south"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"scenes": ["north.tif"]}, "north.tif: names no regions; add 'regions: FILE' to this scene"),
        ({"scenes": []}, "scenes:"),
        ({"region": "x"}, "region: no such field"),
        ({"model": "nowhere"}, "nowhere"),
    ],
)
def test_what_cannot_start_is_refused_in_one_line(
    script: ModuleType, scenes: Path, tiny_bundle: Path, tmp_path: Path, fields: dict[str, Any], words: str
) -> None:
    result = run(script, job_of(scenes, tiny_bundle, tmp_path, **fields))
    (line,) = result.stderr.splitlines()
    assert result.exit_code == 2
    assert line.startswith("error: ") and words in line
    assert not (tmp_path / "out").exists()


def test_a_damaged_table_is_named(
    script: ModuleType, analysis: tuple[Path, Result], scenes: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    shutil.copytree(analysis[0], tmp_path / "out")
    path = tmp_path / "out" / "south" / "areas.csv"
    path.write_bytes(b"scene\xff")
    result = run(script, job_of(scenes, tiny_bundle, tmp_path))
    assert result.exit_code == 2
    assert f"error: {path}: cannot be read as a table" in result.stderr


def test_the_help_teaches_and_the_example_holds() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--help"], capture_output=True, text=True, check=True)
    for word in ("regions:", "labels:", "region_field:", "aoi:", "output:", "region_areas.csv", "Exit codes"):
        assert word in done.stdout
    job = make_job({}, str(SCRIPT.with_suffix(".yaml")))
    assert all(scene.regions and scene.labels for scene in job.scenes)
    assert Path(job.output).resolve().parent == ROOT / "demo"
    missing = subprocess.run([sys.executable, SCRIPT, "none.yaml"], capture_output=True, text=True)
    assert (missing.returncode, missing.stderr) == (2, "error: none.yaml: no such job file\n")


def test_it_stays_thin() -> None:
    assert len(SCRIPT.read_text().splitlines()) < 150
