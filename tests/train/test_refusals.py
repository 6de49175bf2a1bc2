"""What `geoseg train` refuses, on the command line: one line that names the file, what is wrong and what to do."""

from __future__ import annotations

import os
import signal
import struct
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from click.testing import CliRunner
from safetensors.torch import save

from geoseg.cli import main
from geoseg.errors import SpecError
from geoseg.train.data import TrainingPatches
from geoseg.train.reading import load_config
from geoseg.train.trainer import learn
from tests.train.scenes import SMALL, TRANSFORM, labels_of, write, write_run, write_scene

TOWN = {"scene": "town.tif", "labels": "town_labels.tif", "ignore": [0]}
OTHER = {"scene": "other.tif", "labels": "other_labels.tif", "ignore": [0]}


def refused(folder: Path) -> str:
    """The one line with which `geoseg train` ends in a folder; it leaves nothing, though the lock was taken."""
    words = ["train", str(folder / "train.yaml"), "-o", str(folder / "bundle")]
    done = CliRunner().invoke(main, words)
    assert isinstance(done.exception, SystemExit), done.exception
    lines = done.stderr.splitlines()
    assert (done.exit_code, len(lines), done.stdout) == (2, 1, ""), done.output
    assert lines[0].startswith(f"error: {folder}"), "the file is named first"
    assert not list(folder.glob("bundle*"))
    return lines[0].removeprefix(f"error: {folder}/")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"datasets": []}, "train.yaml: nothing to train from: give datasets"),
        ({"datasets": TOWN}, "train.yaml: datasets: Input should be a list"),
        (
            {"datasets": [TOWN | {"lables": 3}]},
            "train.yaml: datasets.0.lables: there is no such key; is it labels?",
        ),
        (
            {"encoder": "resnet999", "options": {}},
            "train.yaml: no network 'DeepLabV3Plus' with encoder 'resnet999' (no such encoder; did you mean resnet",
        ),
        (
            {"architecture": "Unett"},
            "train.yaml: no network 'Unett' with encoder 'tu-lcnet_035' (no such architecture; did you mean Unet?",
        ),
        (
            {"architecture": "FPN", "encoder": "resnet18", "options": {"encoder_depth": 2}},
            "train.yaml: no network 'FPN' with encoder 'resnet18' (Encoder depth for FPN decoder cannot be less than 3",
        ),
        (
            {"architecture": "PAN", "encoder": "resnet18", "options": {}},
            "train.yaml: PAN with resnet18 does not take patches of crop_px: 32 (",
        ),
        (
            {"options": {"decoder_channels": 16, "upsampling": 2}},
            "answers 16 x 16 px to patches of crop_px: 32; every pixel needs an answer",
        ),
        ({"datasets": [TOWN | {"scene": "gone.tif"}]}, "gone.tif: no such file"),
        ({"start": {"encoder": "gone.safetensors"}}, "gone.safetensors: no such file"),
        (
            {"datasets": [TOWN | {"labels": "regions.geojson"}]},
            "if it holds polygons, name their class_field",
        ),
        (
            {"datasets": [TOWN], "patience": 2},
            "train.yaml: patience counts validations, but nothing is for validation",
        ),
        ({"dtype": "uint16"}, "town.tif: holds uint8 values"),
        ({"bands": ["red", "green", "blue", "nir"]}, "town.tif: has 3 bands; the model takes 4"),
    ],
)
def test_a_training_file_that_cannot_be_followed(tmp_path, changes, said):
    write_run(tmp_path, **SMALL | changes)
    assert said in refused(tmp_path)


def test_an_anchor_that_holds_itself(tmp_path):
    (tmp_path / "train.yaml").write_text("a: &a [*a]")
    assert "an anchor in it holds itself" in refused(tmp_path)


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        (
            {"crs": "EPSG:32639"},
            "theirs has WGS 84 / UTM zone 39N, the scene's WGS 84 / UTM zone 40N; bring them",
        ),
        (
            {"crs": None},
            "theirs has no CRS, the scene's WGS 84 / UTM zone 40N; state it: gdal_edit.py -a_srs",
        ),
        ({"rows": 383}, "theirs is 384 x 383 px, the scene's 384 x 384 px; bring them onto it: rio warp"),
        ({"shift": 3}, "their corners lie at column 3, row 0 and column 387, row 384 of the scene"),
        ({"scale": 2}, "their corners lie at column 0, row 0 and column 768, row 768 of the scene"),
    ],
)
def test_labels_on_another_grid(tmp_path, grid, said):
    write_run(tmp_path, **SMALL)
    place = TRANSFORM @ TRANSFORM.translation(grid.get("shift", 0), 0) @ TRANSFORM.scale(grid.get("scale", 1))
    labels = labels_of()[None, : grid.get("rows", 384)]
    write(tmp_path / "town_labels.tif", labels, place, grid.get("crs", "EPSG:32640"))
    line = refused(tmp_path)
    assert line.startswith("town_labels.tif: labels and scene must share one grid: ") and said in line


def blank(path: Path, rows: slice) -> None:
    """Make rows of an image nodata."""
    with rasterio.open(path, "r+") as dataset:
        pixels = dataset.read()
        pixels[:, rows] = 0
        dataset.write(pixels)
        dataset.nodata = 0


@pytest.mark.parametrize("why", ["nodata", "sets", "unlabelled"])
@pytest.mark.parametrize("split", ["validation regions", "validation", "test"])
def test_nothing_to_score(tmp_path, split, why):
    """Labels where the scene has no data, labels that know no class for certain, and none at all."""
    regions = split == "validation regions"
    entry = TOWN if regions else OTHER
    if why == "sets":
        several = {str(value): ["building", "road"] for value in range(1, 6)}
        entry = entry | {"map_class": several}
    town = TOWN | {"validation_regions": {"file": "regions.geojson", "field": "region", "names": ["south"]}}
    datasets = [town | entry] if regions else [TOWN, entry | {"split": split}]
    write_run(tmp_path, **SMALL | {"datasets": datasets})
    write_scene(tmp_path, "other", labels_of(128), seed=1)
    name, rows = ("town", slice(256, 384)) if regions else ("other", slice(None))
    if why == "nodata":
        blank(tmp_path / f"{name}.tif", rows)
    if why == "unlabelled":
        blank(tmp_path / f"{name}_labels.tif", rows)
    where = "in its validation regions (south) " if regions else ""
    said = f"{name}_labels.tif: no pixel {where}is labelled with one class where the scene has data"
    assert refused(tmp_path).startswith(said)


@pytest.mark.parametrize("what", ["town", "town_labels"])
def test_nothing_to_learn_from(tmp_path, what):
    write_run(tmp_path, **SMALL | {"datasets": [TOWN]})
    blank(tmp_path / f"{what}.tif", slice(None))
    line = refused(tmp_path).splitlines()[-1]
    assert "train.yaml: no labelled pixel is left to train on" in line


def header(text: bytes, values: bytes = bytes(8)) -> bytes:
    return struct.pack("<Q", len(text)) + text + values


GOOD = save({"a": torch.zeros(100)})
DAMAGED = {
    "cut short": GOOD[:-10],
    "cut in its header": GOOD[:20],
    "empty": b"",
    "garbage": b"hello" * 20,
    "of a huge header": struct.pack("<Q", 1 << 62) + GOOD[8:],
    "of a header longer than the file": struct.pack("<Q", 99_000_000) + GOOD[8:],
    "of no JSON": header(b"abcd"),
    "of a list": header(b"[]"),
    "of an unknown type": header(b'{"a":{"dtype":"Q7","shape":[1],"data_offsets":[0,8]}}'),
    "of wrong offsets": header(b'{"a":{"dtype":"F32","shape":[100],"data_offsets":[0,8]}}'),
    "of four bits": header(b'{"a":{"dtype":"F4","shape":[16],"data_offsets":[0,8]}}'),
    "complex": header(b'{"a":{"dtype":"C64","shape":[1],"data_offsets":[0,8]}}'),
}


@pytest.mark.parametrize("how", DAMAGED)
def test_damaged_weights(tmp_path, how):
    """Of an encoder to begin with, and of a network to import: by the same check."""
    path = tmp_path / "e.safetensors"
    path.write_bytes(DAMAGED[how])
    write_run(tmp_path, **SMALL | {"start": {"encoder": path.name}})
    line = refused(tmp_path)
    assert line.startswith(
        ("e.safetensors: is not a safetensors file (", "e.safetensors: holds numbers of type ")
    )
    done = CliRunner().invoke(main, ["model", "import", str(path), "-o", str(tmp_path / "bundle")])
    assert done.exit_code == 2 and done.stderr == f"error: {tmp_path}/{line}\n"


def test_a_loader_that_dies_is_one_line(tmp_path, monkeypatch):
    """As the kernel kills a process where memory is short."""
    monkeypatch.setattr(TrainingPatches, "__getitem__", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    config = load_config(write_run(tmp_path, **SMALL | {"workers": 1}), {})
    with pytest.raises(SpecError, match=r"a process that reads patches has died .*; lower workers") as told:
        learn(config, tmp_path / "work", False)
    assert "\n" not in str(told.value)


def test_a_training_that_diverges_keeps_the_checkpoint_before(tmp_path, monkeypatch):
    """From its second checkpoint on, weights are no numbers."""
    from geoseg.train.checkpoints import FOLDER, LAST, read_checkpoint
    from geoseg.train.losses import WeightedLoss

    plain, calls = WeightedLoss.forward, []

    def forward(self, logits, targets):
        calls.append(1)
        return plain(self, logits, targets) * (float("nan") if len(calls) > 3 else 1)

    monkeypatch.setattr(WeightedLoss, "forward", forward)
    config = load_config(write_run(tmp_path, **SMALL | {"steps": 6, "validate_every": 2}), {})
    with pytest.raises(
        SpecError, match=r"diverged: its weights are no numbers after step 4; lower learning_rate"
    ):
        learn(config, tmp_path / "work", False)
    assert read_checkpoint(tmp_path / "work" / FOLDER / LAST)["global_step"] == 2
    assert np.isfinite(read_checkpoint(tmp_path / "work" / FOLDER / LAST)["geoseg"]["best"]["score"])
