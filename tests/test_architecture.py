"""The floors, the public names, and errors that cross processes."""

from __future__ import annotations

import ast
import inspect
import pickle
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import geoseg
from geoseg import errors

PACKAGE = Path(geoseg.__file__).parent
FLOORS = {
    "errors": 0, "legend": 0, "spec": 0, "parallel": 0, "grid": 0,
    "pixels": 1,
    "stages": 2,
    "io": 3, "model": 3, "demo": 3,
    "train": 4, "run": 4, "report": 4,
    "cli": 5,
}  # fmt: skip
ONLY_IN = {
    "torch": {"model", "train"},
    "openvino": {"model"},
    "segmentation_models_pytorch": {"model", "train"},
    "lightning": {"train"},
    "ray": {"run/on_ray.py", "run/pool.py", "run/meters.py"},
    "pyogrio": {"io"},
    "obstore": {"io/remote.py"},
}
MODULES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_downwards(path: Path) -> None:
    here = FLOORS.get(room(path), 0)
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "geoseg" and len(parts) > 1 and parts[1] in FLOORS:
            assert parts[1] == room(path) or FLOORS[parts[1]] <= here, (
                f"{path.name} imports {name} from above"
            )
        places = ONLY_IN.get(parts[0])
        if places is not None:
            inside = {room(path), path.relative_to(PACKAGE).as_posix()}
            assert places & inside, f"only {sorted(places)} may import {parts[0]}"


def test_only_io_opens_rasters() -> None:
    openers = ("rasterio.open", "pyogrio.", "MemoryFile(", "WarpedVRT(")
    allowed = {"io", "run/demo.py", "train/demos.py"}
    for path in MODULES:
        if {room(path), path.relative_to(PACKAGE).as_posix()} & allowed:
            continue
        assert not [o for o in openers if o in path.read_text()], path


def test_public_names_are_those_meant() -> None:
    public = {name for name in vars(geoseg) if not name.startswith("_")}
    modules = {p.stem if p.suffix else p.name for p in PACKAGE.iterdir()}
    assert public <= modules
    assert geoseg.__version__


@pytest.mark.parametrize(
    "kind", [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, errors.GeosegError)]
)
def test_every_error_survives_pickling(kind: type[errors.GeosegError]) -> None:
    error = kind("broken\n  in two", "a.tif", window=(1, 2))
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.path, again.facts) == (
        kind,
        "a.tif: broken in two",
        "a.tif",
        {"window": (1, 2)},
    )


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom geoseg.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'ray', 'rasterio', 'openvino', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "land-cover maps" in done.stdout


def test_mapping_on_a_cpu_imports_neither_torch_nor_ray() -> None:
    code = (
        "import sys\nimport geoseg.run.pipeline, geoseg.run.local, geoseg.model.openvino_segmenter\n"
        "heavy = {'torch', 'ray', 'segmentation_models_pytorch'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_openvino_reports_to_nobody() -> None:
    code = (
        "import geoseg.model.openvino_segmenter, openvino.tools.ovc.telemetry_utils as utils, sys\n"
        "sys.exit(None if utils.tm.__name__.endswith('telemetry_stub') else utils.tm.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_field_of_a_job_is_an_option() -> None:
    from geoseg.cli.run import plan, run
    from geoseg.run.job import SCENE_FILES, Job

    fields = {field.alias or name for name, field in Job.model_fields.items()}
    for command in (run, plan):
        assert {p.name for p in command.params} == fields | set(SCENE_FILES) | {"job_file"}


def test_lower_bounds_are_versions_that_these_tests_run_with() -> None:
    """torch and torchvision reach lower: GPU hosts come with theirs."""
    root = PACKAGE.parent
    pins = dict(
        re.findall(
            r"^([\w.-]+)==(\S+)$", (root / "constraints.txt").read_text().lower().replace("_", "-"), re.M
        )
    )
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(d for extra in project["optional-dependencies"].values() for d in extra),
    ]
    for requirement in wanted:
        name, _, bound = requirement.partition(">=")
        if bound and name not in ("torch", "torchvision"):
            assert pins[name.partition("[")[0]].split(".")[:2] == bound.split("."), requirement
