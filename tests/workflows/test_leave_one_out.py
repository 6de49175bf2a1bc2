"""Leaving one place out: what is scored is the map of a place that the network never saw."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml
from scipy import ndimage
from sklearn.metrics import jaccard_score

from tests.train.scenes import SMALL, labels_of, settings, write_scene

SCRIPT = Path(__file__).parents[2] / "workflows" / "leave_one_out.py"
SHORT = SMALL | {"steps": 2, "validate_every": 2}
SCENES = ("north", "south_a", "south_b")
CLASSES = [
    {"id": 1, "name": "building", "color": [219, 68, 55], "role": "building"},
    {"id": 2, "name": "other", "color": [225, 198, 153]},
]


def training_file(folder: Path, **more) -> Path:
    """Houses of 1 in a field of 0, which is called other; 9 teaches nothing. More is added to each data set."""
    datasets = []
    for seed, name in enumerate(SCENES):
        labels = (labels_of(96) == 1).astype(np.uint8)
        labels[:8] = 9
        write_scene(folder, name, labels, seed)
        named = {"scene": f"{name}.tif", "labels": f"{name}_labels.tif"}
        datasets.append({**named, "map_class": {0: "other"}, "ignore": [9], **more})
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump(settings(**SHORT, classes=CLASSES, datasets=datasets)))
    return path


def leave_out(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("places")
    process = leave_out(training_file(folder), "north", "south", "-o", folder / "out")
    assert process.returncode == 0, process.stderr
    assert str(folder / "out" / "places.csv") in process.stdout
    return folder


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as dataset:
        return dataset.read(1)


def test_a_place_is_scored_over_all_its_scenes(done):
    rows = {row["place"]: row for row in csv.DictReader((done / "out" / "places.csv").open())}
    assert list(rows) == ["north", "south"]
    for place, row in rows.items():
        scenes = [name for name in SCENES if name.startswith(place)]
        truth = np.stack([read(done / f"{name}_labels.tif") for name in scenes])
        mapped = np.stack([read(done / "out" / "maps" / name / "landcover.tif") for name in scenes])
        known = truth != 9
        truth = np.where(truth == 1, 1, 2)
        assert int(row["pixels"]) == known.sum()
        expected = jaccard_score(truth[known], mapped[known], labels=[1, 2], average=None, zero_division=0)
        assert [float(row["iou_building"]), float(row["iou_other"])] == pytest.approx(expected, abs=1e-4)
        houses = sum(ndimage.label((t == 1) & k)[1] for t, k in zip(truth, known, strict=True))
        assert int(row["building_objects"]) == houses


def test_what_is_scored_was_not_learned_from(done):
    for place in ("north", "south"):
        facts = json.loads((done / "out" / f"{place}.training" / "training.json").read_text())
        assert set(facts["tests"]) == {name for name in SCENES if name.startswith(place)}
        card = json.loads((done / "out" / place / "model.json").read_text())
        assert card["name"] == f"tiny-without-{place}"


def test_again_it_does_nothing_anew(done):
    times = {path: path.stat().st_mtime_ns for path in (done / "out" / "maps").rglob("landcover.tif")}
    table = (done / "out" / "places.csv").read_bytes()
    assert leave_out(done / "train.yaml", "north", "south", "-o", done / "out").returncode == 0
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert (done / "out" / "places.csv").read_bytes() == table


@pytest.mark.parametrize(
    ("places", "more", "said"),
    [
        (("north",), {}, "south_a.tif: belongs to no place"),
        (("north", "south", "south_a"), {}, "south_a.tif: belongs to south and south_a"),
        (("north", "south", "west"), {}, "begins with 'west'"),
        (("north", "south"), {"map_class": {0: ["building", "other"]}}, "one class for each label"),
    ],
)
def test_what_cannot_be_done_is_one_line_before_anything_is_trained(tmp_path, places, more, said):
    process = leave_out(training_file(tmp_path, **more), *places, "-o", tmp_path / "out")
    assert process.returncode == 2
    assert said in process.stderr
    assert len(process.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()
