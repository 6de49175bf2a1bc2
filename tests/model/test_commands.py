"""The commands about models, what they refuse, and what a bundle says of its runtimes."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner

from geoseg.cli import main
from geoseg.errors import ModelError, OutputError
from geoseg.model import measure, memory
from geoseg.model.bundle import CARD, DEFAULT_BUNDLE, INCLUDED, Bundle, sha256_of
from geoseg.model.card import IR_BIN, IR_XML, ONNX, WEIGHTS, ModelCard
from geoseg.model.export import export_bundle, write_bundle, write_ir
from geoseg.model.measure import compare_ways, note_equal_labels
from geoseg.model.network import build_body, load_network
from geoseg.model.runtimes import MIN_EQUAL_LABELS, RuntimeChoice, SegmenterRecipe
from geoseg.run.models import example_patches
from geoseg.spec import SegmentSpec
from tests.model.networks import card_of, write_onnx
from tests.train.scenes import write

DEFAULT_DIGEST = "cc9f3e7ef88c235dc5660b36e99e06d57bdd7422f7b70909bbb7d3bbdb3f94bb"
DIGESTS = {
    "landcover-rgb": DEFAULT_DIGEST,
    "buildings-drone": "0073eea6c37e5ebd8b705675c6b8ff613744e1869a1ee756a0cc35a73cd6ba44",
}


def call(*words: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture
def bundle(tmp_path: Path, tiny_bundle: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def alter(folder: Path, **changes: Any) -> None:
    """Change the card; its digests are made right."""
    card = json.loads((folder / CARD).read_text()) | changes
    card["files"] = {name: sha256_of(folder / name) for name in card["files"] if (folder / name).exists()}
    (folder / CARD).write_text(json.dumps(card))


@pytest.mark.parametrize(("name", "digest"), DIGESTS.items())
def test_a_bundled_card_keeps_its_text_and_digest(name: str, digest: str) -> None:
    """Else every map made with it would be made again."""
    card = Bundle.open(name).card
    assert card.digest == digest
    assert card.to_json() == (INCLUDED / name / CARD).read_text()


def test_what_decides_a_map_decides_the_digest() -> None:
    known = Bundle.open().card
    assert known.model_copy(update={"options": {"encoder_depth": 3}}).digest != known.digest
    told = card_of((1.0,), (1.0,), 2, architecture="ONNX", files={ONNX: "0" * 64})
    digests = {
        ModelCard.model_validate(told | {"onnx": {"input": i, "output": o}}).digest
        for i in ("raw", "normalized")
        for o in ("logits", "probabilities")
    }
    assert len(digests) == 4
    same = known.model_copy(update={"equal_labels": {}, "largest_difference": {"x": 1.0}, "notes": ["new"]})
    assert same.digest == known.digest


def test_models_lists_every_architecture() -> None:
    code, out, _ = call("models", "--json")
    rows = json.loads(out)
    assert code == 0 and len(rows) == 14
    counts = {row["name"]: row["parameters"] for row in rows}
    assert counts["Unet"] == 24_436_949, (
        "resnet34, 3 bands, 5 classes: counted by hand from the package's tables"
    )
    assert call("models")[1].count("\n") == 15
    assert call("models", "--encoders", "MIT_B")[1].split() == [f"mit_b{i}" for i in range(6)]
    assert "resnet34" in json.loads(call("models", "--encoders", "--json")[1])
    code, out, error = call("models", "--encoders", "nosuch")
    assert code != 0 and not out and "no encoder has 'nosuch' in its name" in error


def test_show_tells_the_card() -> None:
    code, out, _ = call("model", "show")
    assert code == 0
    assert all(word in out for word in ("landcover-rgb 2", DEFAULT_DIGEST, "#db4437 building  role building"))
    told = json.loads(call("model", "show", DEFAULT_BUNDLE, "--json")[1])
    assert told["digest"] == DEFAULT_DIGEST
    assert told["bytes"] == sum((DEFAULT_BUNDLE / name).stat().st_size for name in told["files"])
    assert call("model", "show", "gone")[0] == 2


def test_verify_passes_the_bundled_model() -> None:
    code, out, err = call("model", "verify")
    assert (code, err) == (0, "")
    assert "openvino-float32" in out


def halve_the_weights_of_the_ir(folder: Path) -> None:
    content = np.fromfile(folder / IR_BIN, np.uint8)
    content[: len(content) // 2] = 0
    content.tofile(folder / IR_BIN)


def swap_two_bands(folder: Path) -> None:
    """Of the IR: the card and the weights stay."""
    card = json.loads((folder / CARD).read_text())
    twin = folder.parent / "twin"
    shutil.copytree(folder, twin)
    alter(twin, bands=[card["bands"][i] | {"mean": 250.0} for i in (0, 1, 2)])
    write_ir(Bundle.open(twin), folder, 256)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: alter(folder, architecture="Unet"), "does not fit Unet with mobilenet_v2"),
        (lambda folder: alter(folder, options={"encoder_depth": 3}), "does not fit DeepLabV3Plus"),
        (lambda folder: (folder / WEIGHTS).write_bytes(b""), "does not have the digest"),
        (lambda folder: (folder / CARD).write_text("{}"), "Field required"),
        (halve_the_weights_of_the_ir, "openvino-float32 does not answer as the reference does"),
        (swap_two_bands, "openvino-float32 does not answer as the reference does"),
    ],
)
def test_verify_says_in_one_line_what_does_not_hold(bundle: Path, spoil: Any, words: str) -> None:
    spoil(bundle)
    if spoil in (halve_the_weights_of_the_ir, swap_two_bands):
        alter(bundle)
    code, out, err = call("model", "verify", bundle)
    assert (code, out) == (1, "")
    assert err.startswith(f"error: {bundle}") and err.count("\n") == 1
    assert words in err


def test_verify_on_a_scene_of_ones_own(bundle: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    write(tmp_path / "scene.tif", rng.integers(1, 255, (3, 20, 25), np.uint8).repeat(16, 1).repeat(16, 2))
    code, out, _ = call("model", "verify", bundle, "--scene", tmp_path / "scene.tif")
    assert code == 0 and "openvino-float32" in out
    assert call("model", "verify", bundle, "--scene", tmp_path / "gone.tif")[0] == 1


def test_onnx_that_we_export_answers_as_torch(tmp_path: Path) -> None:
    """By ONNX's own reference evaluator, and by geoseg, at another patch size and batch than it was traced with."""
    onnx = pytest.importorskip("onnx")
    evaluator = importlib.import_module("onnx.reference").ReferenceEvaluator
    card = card_of((100.0,) * 3, (50.0,) * 3, 4, architecture="Linknet", encoder="tu-test_resnet")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        body = build_body("Linknet", "tu-test_resnet", 3, 4)
    source = write_bundle(body, card | {"temperature": 0.25}, tmp_path / "bundle", with_ir=False)
    code, out, _ = call("model", "export", source.folder, "-o", tmp_path / "out", "--format", "onnx")
    assert code == 0 and out.strip() == str(tmp_path / "out" / CARD)
    written = Bundle.open(tmp_path / "out")
    assert written.card.equal_labels["openvino-float32"] > 0.999
    assert written.card.largest_difference["openvino-float32"] < 0.001
    onnx.checker.check_model(str(written.weights), full_check=True)
    network = load_network(source)
    pixels = np.random.default_rng(0).integers(0, 255, (2, 3, 32, 32), np.uint8)
    expected = network(torch.from_numpy(pixels)).numpy()
    (found,) = evaluator(str(written.weights)).run(None, {"pixels": pixels.astype(np.float32)})
    np.testing.assert_allclose(found / 0.25, expected, atol=1e-4 * expected.std())
    choice = RuntimeChoice.decide(written.card, "auto", "float32")
    ours = SegmenterRecipe.of(written, SegmentSpec(32, 4, "hann"), choice).build(1, 1)
    shares = torch.from_numpy(expected).softmax(1).numpy()
    np.testing.assert_allclose(ours.probabilities(pixels[:1]), shares[:1], atol=1e-4)


def test_exporting_openvino_adds_it(bundle: Path, tmp_path: Path) -> None:
    for name in (IR_XML, IR_BIN):
        (bundle / name).unlink()
    alter(bundle)
    assert Bundle.open(bundle).ir is None
    assert call("model", "export", bundle, "-o", tmp_path / "out")[0] == 0
    written = Bundle.open(tmp_path / "out")
    assert written.ir is not None
    found = compare_ways(written, example_patches(written.card))
    assert found["openvino-float32"].labels > 0.999


def test_only_a_bundle_is_replaced(bundle: Path, tmp_path: Path) -> None:
    """Never a folder with anything else in it, however it was named."""
    home = tmp_path / "home"
    home.mkdir()
    export_bundle(Bundle.open(bundle), home, "mlm")
    export_bundle(Bundle.open(bundle), home, "mlm")
    (home / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="no model bundle, so it is not replaced"):
        export_bundle(Bundle.open(bundle), home, "mlm")
    with pytest.raises(OutputError):
        write_bundle(torch.nn.Identity(), {}, home)
    assert (home / "thesis.txt").read_text() == "years of work"
    assert {path.name for path in tmp_path.iterdir()} == {"home", "bundle"}, "nothing half-written is left"


def test_import_makes_a_bundle_of_an_onnx_file(tmp_path: Path) -> None:
    net = write_onnx(tmp_path / "net.onnx", np.eye(3), np.zeros(3))
    code, out, _ = call("model", "import", net, "--template", tmp_path / "card.yaml")
    assert code == 0 and "bands" in out and (tmp_path / "card.yaml").is_file()
    assert "version" not in out.split(":")[1].replace(" ", "").split(","), "it is filled in"
    (tmp_path / "card.yaml").write_text("an evening's work")
    code, _, err = call("model", "import", net, "--template", tmp_path / "card.yaml")
    assert code == 2 and "--overwrite" in err and (tmp_path / "card.yaml").read_text() == "an evening's work"
    assert call("model", "import", net, "--template", tmp_path / "card.yaml", "--overwrite")[0] == 0
    assert "work" not in (tmp_path / "card.yaml").read_text()
    assert call("model", "import", net)[0] == 2
    code, _, err = call("model", "import", net, "-o", tmp_path / "out")
    assert code == 2 and err.count("\n") == 1 and "the card lacks name" in err
    card = card_of((100.0,) * 3, (50.0,) * 3, 3)
    (tmp_path / "full.yaml").write_text(yaml.safe_dump(card))
    assert call("model", "import", net, "--card", tmp_path / "full.yaml", "-o", tmp_path / "out")[0] == 0
    assert call("model", "verify", tmp_path / "out")[0] == 0


def test_import_takes_the_weights_of_a_known_architecture(tiny_bundle: Path, tmp_path: Path) -> None:
    card = Bundle.open(tiny_bundle).card.to_dict()
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(card))
    code, _, _ = call(
        "model", "import", tiny_bundle / WEIGHTS, "--card", tmp_path / "card.yaml", "-o", tmp_path / "out"
    )
    assert code == 0
    again = Bundle.open(tmp_path / "out")
    for a, b in zip(
        load_network(again).state_dict().values(),
        load_network(Bundle.open(tiny_bundle)).state_dict().values(),
        strict=True,
    ):
        assert torch.equal(a, b)


def test_equality_is_stored_and_decides_the_default(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noted = note_equal_labels(Bundle.open(bundle), example_patches(Bundle.open(bundle).card))
    stored = Bundle.open(bundle).card
    assert stored == noted.card
    assert stored.equal_labels.keys() == stored.largest_difference.keys() >= {"openvino-float32"}
    assert 0 < stored.largest_difference["openvino-float32"] < 0.02
    monkeypatch.setattr("geoseg.model.runtimes._native_bfloat16", lambda *_: True)
    monkeypatch.setattr("geoseg.model.runtimes.cuda_devices", lambda: 0)
    for share, precision in ((MIN_EQUAL_LABELS, "bfloat16"), (MIN_EQUAL_LABELS - 1e-6, "float32")):
        card = stored.model_copy(update={"equal_labels": {"openvino-bfloat16": share}})
        assert RuntimeChoice.decide(card).precision == precision
    assert RuntimeChoice.decide(stored.model_copy(update={"equal_labels": {}})).precision == "float32"


def test_equality_is_that_of_the_answers_themselves(bundle: Path) -> None:
    """Against two networks run by hand."""
    opened = Bundle.open(bundle)
    patches = list(example_patches(opened.card))
    (network,) = (load_network(opened),)
    choice = RuntimeChoice.decide(opened.card, "openvino", "float32")
    other = SegmenterRecipe.of(opened, SegmentSpec(256, 0, "hann"), choice).build(1, 1)
    ours = [network(torch.from_numpy(p[None])).softmax(1).numpy() for p in patches]
    theirs = [other.probabilities(p[None]) for p in patches]
    found = compare_ways(opened, patches)["openvino-float32"]
    equal = np.mean([a.argmax(1) == b.argmax(1) for a, b in zip(ours, theirs, strict=True)])
    largest = max(np.abs(a - b).max() for a, b in zip(ours, theirs, strict=True))
    assert found.labels == pytest.approx(equal, abs=2e-5)
    assert found.difference == pytest.approx(largest, abs=2e-5)
    assert compare_ways(opened, patches[::-1])["openvino-float32"].difference == found.difference


def test_a_network_that_answers_no_numbers_is_told(bundle: Path, tmp_path: Path) -> None:
    body = load_network(Bundle.open(bundle)).body
    with torch.no_grad():
        for weight in body.parameters():
            weight.fill_(torch.nan)
    card = {k: v for k, v in Bundle.open(bundle).card.to_dict().items() if k not in ("format", "files")}
    spoilt = write_bundle(body, card, tmp_path / "spoilt", with_ir=False)
    code, out, error = call("model", "verify", spoilt.folder)
    assert (code, out) == (1, "") and "not numbers" in error and error.count("\n") == 1


def test_a_way_that_answers_no_numbers_differs_most(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Bundle.open(bundle)
    real = measure._built

    def built(bundle: Bundle, runtime: str, precision: str) -> Any:
        segmenter = real(bundle, runtime, precision)
        return Spoilt(segmenter) if (runtime, precision) == ("openvino", "float32") else segmenter

    class Spoilt:
        def __init__(self, whole: Any) -> None:
            self.whole = whole

        def probabilities(self, patches: np.ndarray) -> np.ndarray:
            found: np.ndarray = self.whole.probabilities(patches)
            found[0, :, 3, 5] = np.nan
            return found

    monkeypatch.setattr(measure, "_built", built)
    found = compare_ways(opened, example_patches(opened.card))
    assert found["openvino-float32"].difference == 1.0


def test_a_model_larger_than_the_memory_is_refused(bundle: Path, tmp_path: Path, monkeypatch: Any) -> None:
    opened = Bundle.open(bundle)
    size = opened.weights.stat().st_size
    recipe = SegmenterRecipe.of(opened, SegmentSpec(256, 32), RuntimeChoice.decide(opened.card))
    monkeypatch.setattr(memory, "available_bytes", lambda: 2 * size)
    memory.check_memory(opened)
    monkeypatch.setattr(memory, "available_bytes", lambda: 2 * size - 1)
    for load in (lambda: recipe.build(1, 1), lambda: load_network(opened)):
        with pytest.raises(ModelError, match=r"of memory, and .* are free") as caught:
            load()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_example_patches_are_such_as_the_card_tells(dtype: str) -> None:
    card = ModelCard.model_validate(
        card_of((100.0, 2.0), (40.0, 9.0), 2, dtype=dtype, architecture="x", files={WEIGHTS: "0" * 64})
    )
    first, again = (list(example_patches(card)) for _ in range(2))
    assert len(first) == 4 and len({p.tobytes() for p in first}) == 4
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(p.shape == (2, 64, 64) and p.dtype == dtype for p in first)
    values = np.stack(first).astype(float)
    assert values[:, 0].mean() == pytest.approx(100, abs=10)
    assert values[:, 0].std() == pytest.approx(40, rel=0.3)


def test_verify_fails_where_the_card_says_clearly_more_than_is_found(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both stand side by side; what the card does not tell, or tells lower, fails nothing."""
    found = {
        "openvino-float32": measure.Equality(0.9961, 0.01),
        "torch-bfloat16": measure.Equality(0.991, 0.05),
    }
    monkeypatch.setattr("geoseg.run.models.compare_ways", lambda *_: found)
    for stated, share in (({"openvino-float32": 0.3}, "30.0000%"), ({}, "not told")):
        alter(bundle, equal_labels=stated)
        code, out, err = call("model", "verify", bundle)
        assert (code, err) == (0, "")
        line = next(line for line in out.splitlines() if "openvino-float32" in line)
        assert share in line and line.index(share) < line.index("99.6100%") < line.index("0.0100")
    for way, stated, fails in (
        ("openvino-float32", 1.0, False),  # within the tolerance for other patches
        ("torch-bfloat16", 0.9963, True),
        ("torch-bfloat16", 0.99, False),
    ):
        alter(bundle, equal_labels={way: stated})
        code, _, err = call("model", "verify", bundle)
        assert code == int(fails)
        assert err.count("\n") == int(fails) and ("less than the card says" in err) == fails


def test_no_bundle_is_replaced_without_being_told_to(bundle: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert call("model", "export", bundle, "-o", home, "--format", "mlm")[0] == 0
    before = {path.name: path.read_bytes() for path in home.iterdir()}
    shutil.copy(bundle / WEIGHTS, tmp_path / "w.safetensors")
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(json.loads((bundle / CARD).read_text())))
    again = ("model", "import", tmp_path / "w.safetensors", "--card", tmp_path / "card.yaml", "-o", home)
    for words in (("model", "export", bundle, "-o", home), again):
        code, out, err = call(*words)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith(f"error: {home}: is a bundle already") and "--overwrite" in err
        assert {path.name: path.read_bytes() for path in home.iterdir()} == before
    code, out, err = call(*again, "--overwrite")
    assert code == 0 and out.strip() == str(home / CARD)
    assert "converting" in err and "comparing runtimes on 4 patches" in err, "it takes a while"
    assert Bundle.open(home).card.name == "tiny"


def test_a_network_without_a_card_is_told_how_it_becomes_a_bundle(bundle: Path, tmp_path: Path) -> None:
    net = write_onnx(tmp_path / "net.onnx", np.eye(3), np.zeros(3))
    saved = tmp_path / "saved"
    saved.mkdir()
    (saved / "config.json").write_text('{"_model_class": "Unet"}')
    shutil.copy(bundle / WEIGHTS, saved)
    for path in (net, saved, saved / WEIGHTS):
        with pytest.raises(ModelError, match=rf"make a bundle of it: geoseg model import {path} ") as caught:
            Bundle.open(path)
        assert "\n" not in str(caught.value)
    for path in (bundle / CARD, bundle):
        code, _, err = call("model", "import", path, "-o", tmp_path / "out")
        assert code == 2 and err.count("\n") == 1 and "runs as it is, with --model" in err


def test_a_card_tells_three_of_its_faults_and_takes_a_number_for_a_version(bundle: Path) -> None:
    alter(bundle, version=2)
    assert Bundle.open(bundle).card.version == "2"
    alter(bundle, version=True)
    with pytest.raises(ModelError, match=r"version: Input should be a valid string"):
        Bundle.open(bundle)
    alter(bundle, dtype="int3", patch_px="x", gsd_m={"min": 2, "max": 1}, temperature=-1, surprise=1)
    with pytest.raises(ModelError, match=r"version: .*; dtype: .*; gsd_m: .*; and 3 more$") as caught:
        Bundle.open(bundle)
    assert "\n" not in str(caught.value) and "Value error" not in str(caught.value)
