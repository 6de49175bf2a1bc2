"""Bundles on disks that are too small: one line, nothing under the final name, and the same command goes on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner

from geoseg.cli import main
from geoseg.errors import OutputError
from geoseg.model.bundle import CARD, Bundle
from geoseg.model.card import IR_BIN, WEIGHTS
from geoseg.model.export import as_stored, staged_bundle, write_bundle
from geoseg.model.network import build_body
from geoseg.model.openvino_network import read_network
from tests.model.networks import card_of

SMALL = {"architecture": "DeepLabV3Plus", "encoder": "tu-lcnet_035", "options": {"decoder_channels": 16}}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[torch.nn.Module, dict, Path]:
    """A small network, its card, and both as a bundle without OpenVINO's files."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        body = build_body(SMALL["architecture"], SMALL["encoder"], 3, 4, SMALL["options"])
    card = card_of((100.0,) * 3, (50.0,) * 3, 4, **SMALL)
    return (
        body,
        card,
        write_bundle(body, card, tmp_path_factory.mktemp("made") / "tiny", with_ir=False).folder,
    )


@pytest.fixture(scope="module")
def whole(made, tmp_path_factory) -> int:
    """KiB of the bundle with OpenVINO's files."""
    bundle = write_bundle(*made[:2], tmp_path_factory.mktemp("whole") / "tiny")
    assert bundle.path_of(IR_BIN).stat().st_size > 0.5 * bundle.weights.stat().st_size
    return size_of(bundle.folder)


def size_of(folder: Path) -> int:
    """In pages, as a disk counts: KiB."""
    return sum(-(-path.stat().st_size // 4096) * 4 for path in folder.rglob("*"))


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.9])
def test_a_bundle_is_whole_or_not_there(made, whole, small_disk, share):
    """At each place where the disk may fill up: weights (safetensors), OpenVINO's files, the card."""
    body, card, _ = made
    disk = small_disk(int(whole * share))
    with pytest.raises(OutputError) as told:
        write_bundle(body, card, disk / "b")
    assert str(told.value).startswith(f"{disk / 'b'}: could not be written (") and "MB are free" in str(
        told.value
    )
    assert not list(disk.iterdir())


def test_the_bundle_before_stays_until_there_is_room_for_the_next(made, whole, small_disk):
    body, card, first = made
    disk = small_disk(whole + size_of(first) // 2)
    before = write_bundle(body, card, disk / "b", with_ir=False).card.digest
    with pytest.raises(OutputError):
        write_bundle(body, card | {"version": "2"}, disk / "b")
    assert Bundle.open(disk / "b").card.digest == before
    assert [path.name for path in disk.iterdir()] == ["b"]
    small_disk(2 * whole)
    assert Bundle.open(write_bundle(body, card | {"version": "2"}, disk / "b").folder).ir is not None
    assert [path.name for path in disk.iterdir()] == ["b"]


DOING = ("converting ", "reading ")
"""Lines that tell what is going on."""


def call(*words: object) -> tuple[int, list[str]]:
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    lines = done.stderr.splitlines()
    assert len(lines) < 3, "what is going on, and what went wrong"
    return done.exit_code, [line for line in lines if not line.startswith(DOING)]


@pytest.mark.parametrize("kind", ["openvino", "onnx", "mlm"])
def test_an_export_to_a_full_disk_is_one_line(made, small_disk, kind):
    if kind == "onnx":
        pytest.importorskip("onnx")
    disk = small_disk(300)
    code, lines = call("model", "export", made[2], "-o", disk / "b", "--format", kind)
    assert (code, len(lines)) == (2, 1)
    assert lines[0].startswith(f"error: {disk / 'b'}") and "No space left on device" in lines[0]
    assert not list(disk.iterdir())


@pytest.mark.parametrize("kib", [300, 1000])
def test_an_import_to_a_full_disk_is_one_line(made, tmp_path, small_disk, kib):
    """Of 1000 KiB the weights take most; OpenVINO finds too little left."""
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(made[1]))
    disk = small_disk(kib)
    source = shutil.copyfile(made[2] / WEIGHTS, tmp_path / "w.safetensors")
    code, lines = call("model", "import", source, "--card", tmp_path / "card.yaml", "-o", disk / "b")
    assert (code, len(lines)) == (2, 1)
    assert lines[0].startswith(f"error: {disk / 'b'}: could not be written (")
    assert not list(disk.iterdir())


def test_a_cache_on_a_full_disk_is_one_line(made, small_disk, monkeypatch):
    """What a bundle lacks of OpenVINO's is made once, in the user's cache."""
    disk = small_disk(300)
    monkeypatch.setenv("XDG_CACHE_HOME", str(disk))
    with pytest.raises(OutputError, match=r"openvino/.*could not be written \(.*MB are free there") as told:
        read_network(Bundle.open(made[2]), 64)
    assert "\n" not in str(told.value)
    assert not list(disk.rglob("openvino.*"))


def test_a_new_bundle_takes_the_place_of_the_one_before_at_once(made, tmp_path):
    """While it is written, and where that fails, the old one is there, whole."""
    folder = Path(shutil.copytree(made[2], tmp_path / "b"))
    with pytest.raises(ZeroDivisionError), staged_bundle(folder) as staged:
        (staged / CARD).write_text("{")
        assert Bundle.open(folder)
        raise ZeroDivisionError
    assert Bundle.open(folder)
    with staged_bundle(folder) as staged:
        (staged / CARD).write_text("{}")
    assert {path.name for path in folder.iterdir()} == {CARD}
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_weights_that_float16_does_not_hold_stay_as_they_are():
    large, small = torch.tensor([1.0, 70_000.0]), torch.tensor([1.0, 60_000.0])
    assert torch.equal(as_stored(large), large) and as_stored(large).dtype == torch.float32
    assert torch.equal(as_stored(small), small.half()) and as_stored(small).dtype == torch.float16
    assert as_stored(torch.tensor([3])).dtype == torch.int64


def test_a_bundle_keeps_a_variance_that_float16_does_not_hold(made, tmp_path):
    """It would answer with infinities."""
    body, card, _ = made
    state = {k: v.clone() for k, v in body.state_dict().items()}
    name = next(k for k in state if k.endswith("running_var"))
    try:
        body.state_dict()[name].fill_(1e6)
        bundle = write_bundle(body, card, tmp_path / "b", with_ir=False)
    finally:
        body.load_state_dict(state)
    from safetensors.torch import load_file

    stored = load_file(bundle.folder / WEIGHTS)
    assert float(stored[name].max()) == 1e6
    assert all(bool(value.isfinite().all()) for value in stored.values())
