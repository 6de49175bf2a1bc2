"""Networks with one output, the commonest that tell buildings from all else: sigmoid(z) for one class of two."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.torch import save_file

from geoseg.cli import main
from geoseg.errors import ModelError, SpecError
from geoseg.model.bundle import CARD, Bundle
from geoseg.model.card import ModelCard
from geoseg.model.export import export_bundle
from geoseg.model.importing import Foreign, import_model, template
from geoseg.model.mlm import item_of
from geoseg.model.network import Network, load_network
from geoseg.model.openvino_network import core, read_network
from geoseg.model.runtimes import RuntimeChoice, SegmenterRecipe
from geoseg.run.events import make_reporter
from geoseg.run.job import make_job
from geoseg.run.pipeline import Run
from geoseg.spec import SegmentSpec
from tests.model.networks import card_of, write_onnx
from tests.train.scenes import write

RNG = np.random.default_rng(0)
NAMES = ("building", "other")


def card_for(positive: str | None, order: tuple[str, ...] = NAMES, **changes: Any) -> dict[str, Any]:
    """Of a network of two classes; ids rise in this order."""
    card = card_of((120.0, 110.0, 100.0), (50.0, 45.0, 60.0), len(order), **changes)
    for entry, name in zip(card["classes"], order, strict=True):
        entry["name"] = name
    return card | ({"positive_class": positive} if positive else {})


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def logit_of(pixels: np.ndarray, weights: np.ndarray, bias: float, card: dict[str, Any]) -> np.ndarray:
    """What a 1 x 1 convolution of normalized pixels (band, row, col) answers: (row, col) float64."""
    mean, std = (np.array([b[key] for b in card["bands"]])[:, None, None] for key in ("mean", "std"))
    return np.einsum("b,brc->rc", weights, (pixels - mean) / std) + bias


def imported(source: Path, card: dict[str, Any], folder: Path) -> Bundle:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "card.yaml").write_text(yaml.safe_dump(card))
    return import_model(Foreign.open(source), folder / "bundle", folder / "card.yaml")


def answers(bundle: Bundle, pixels: np.ndarray, runtime: str = "auto") -> np.ndarray:
    choice = RuntimeChoice.decide(bundle.card, runtime, "float32")
    segmenter = SegmenterRecipe.of(bundle, SegmentSpec(64, 8, "hann"), choice).build(1, 1)
    return segmenter.probabilities(pixels[None])[0]


@settings(max_examples=10)
@given(st.data())
def test_an_onnx_file_of_one_output_is_a_sigmoid(tmp_path_factory: Any, data: st.DataObject) -> None:
    """For either order of the classes, for logits and probabilities, at any temperature, numpy says the same."""
    shares = data.draw(st.booleans())
    order = NAMES if data.draw(st.booleans()) else NAMES[::-1]
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    weights, bias, temperature = rng.normal(0, 1.5, 3), rng.normal(0, 0.5), rng.uniform(0.5, 2)
    how = {"input": "normalized", "output": "probabilities" if shares else "logits"}
    card = card_for("building", order, onnx=how, temperature=temperature)
    folder = tmp_path_factory.mktemp("one")
    source = write_onnx(
        folder / "net.onnx", weights[None], np.array([bias]), last=("Sigmoid", {}) if shares else None
    )
    bundle = imported(source, card, folder / "made")
    pixels = rng.integers(0, 256, (3, 64, 64)).astype(np.uint8)
    expected = sigmoid(logit_of(pixels, weights, bias, card) / temperature)
    found = answers(bundle, pixels)
    assert found.shape == (2, 64, 64)
    np.testing.assert_allclose(found[order.index("building")], expected, atol=2e-5)
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"blend": "hann"}, {"tta": "d4"}])
def test_a_scene_is_mapped_as_numpy_maps_it(tmp_path: Path, options: dict[str, str]) -> None:
    """Neither all of it nor nothing, as one class or a wrong order of two would give; confidence and all."""
    weights, bias, card = RNG.normal(0, 1.5, 3), 0.4, card_for("building", NAMES[::-1])
    source = write_onnx(tmp_path / "net.onnx", weights[None], np.array([bias]))
    bundle = imported(source, card, tmp_path / "made")
    pixels = RNG.integers(1, 255, (3, 110, 90), np.uint8)
    write(tmp_path / "scene.tif", pixels)
    job = make_job(
        {
            "scenes": (str(tmp_path / "scene.tif"),), "output": str(tmp_path / "out"), "precision": "float32",
            "model": str(bundle.folder), "margin_px": 8, "engine": "local", "workers": 1, "report": False, **options,
        },
        None,
    )  # fmt: skip
    assert Run(job, make_reporter(False)).go() == 0
    with rasterio.open(tmp_path / "out" / "scene" / "landcover.tif") as mapped:
        found = mapped.read(1)
    with rasterio.open(tmp_path / "out" / "scene" / "confidence.tif") as mapped:
        percent = mapped.read(1)
    share = sigmoid(logit_of(pixels, weights, bias, card))
    clear = np.abs(share - 0.5) > 1e-4
    assert np.array_equal(found[clear], np.where(share > 0.5, 2, 1)[clear]), (
        "building is the second class here"
    )
    assert {1, 2} == set(np.unique(found[clear]))
    assert np.abs(percent - 100 * np.maximum(share, 1 - share)).max() <= 0.51


@pytest.fixture(scope="module")
def saved(tmp_path_factory: Any) -> Path:
    """As segmentation-models-pytorch saves the commonest building model."""
    import segmentation_models_pytorch as smp

    folder: Path = tmp_path_factory.mktemp("smp") / "buildings"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = smp.Unet(
            "tu-test_resnet", encoder_weights=None, encoder_depth=4, decoder_channels=(32, 16, 8, 8),
            classes=1, activation="sigmoid",
        )  # fmt: skip
    network.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("order", [NAMES, NAMES[::-1]])
def test_a_folder_of_smp_answers_the_same_in_each_runtime(
    saved: Path, tmp_path: Path, order: tuple[str, ...]
) -> None:
    import segmentation_models_pytorch as smp

    card = card_for("building", order)
    bundle = imported(saved, card, tmp_path)
    original = smp.from_pretrained(saved).eval()
    pixels = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    mean, std = (
        torch.tensor([b[key] for b in card["bands"]])[None, :, None, None] for key in ("mean", "std")
    )
    with torch.inference_mode():
        expected = original((pixels[None].float() - mean) / std)[0, 0].numpy()
    place = order.index("building")
    for runtime, near in (("torch", 1e-6), ("openvino", 1e-3)):  # OpenVINO's weights are float16
        found = answers(bundle, pixels.numpy(), runtime)
        np.testing.assert_allclose(found[place], expected, atol=near)
        np.testing.assert_allclose(found[1 - place], 1 - expected, atol=near)


@pytest.mark.parametrize("positive", NAMES)
def test_equal_shares_go_to_the_lower_class(tmp_path: Path, positive: str) -> None:
    """A logit of 0, as the means give here, is half and half, whichever class the output stands for."""
    source = write_onnx(tmp_path / "net.onnx", np.ones((1, 3)), np.array([0.0]))
    bundle = imported(source, card_for(positive), tmp_path / "made")
    choice = RuntimeChoice.decide(bundle.card, "auto", "float32")
    segmenter = SegmenterRecipe.of(bundle, SegmentSpec(64, 8), choice).build(1, 1)
    means = np.broadcast_to(np.array([120, 110, 100], np.uint8)[:, None, None], (1, 3, 64, 64))
    ids, percent = segmenter.classify(means)
    assert (np.unique(ids), np.unique(percent)) == (1, 50)


def test_the_two_logits_are_zero_and_the_output() -> None:
    body = torch.nn.Conv2d(1, 1, 1)
    pixels = torch.randn(1, 1, 3, 3)
    bands = (ModelCard.model_fields["bands"].annotation.__args__[0](name="x", mean=0, std=1),)  # type: ignore[union-attr]
    for positive in (0, 1):
        logits = Network(body, bands, temperature=2.0, positive=positive)(pixels)
        assert torch.equal(logits[:, 1 - positive], torch.zeros(1, 3, 3))
        assert torch.equal(logits[:, positive], body(pixels)[:, 0] / 2)


@pytest.mark.parametrize("kind", ["onnx", "openvino", "mlm"])
def test_each_export_answers_as_the_bundle(saved: Path, tmp_path: Path, kind: Any) -> None:
    if kind == "onnx":
        pytest.importorskip("onnx")
    bundle = imported(saved, card_for("building"), tmp_path)
    written = export_bundle(bundle, tmp_path / "out", kind)
    pixels = RNG.integers(0, 255, (3, 64, 64), np.uint8)
    np.testing.assert_allclose(answers(written, pixels), answers(bundle, pixels), atol=1e-3)
    assert written.card.positive_class == (None if kind == "onnx" else "building"), (
        "ONNX answers both classes"
    )
    if kind == "mlm":
        assert written.card.digest == bundle.card.digest
        item = json.loads(written.described_by.read_text())
        assert item["properties"]["mlm:output"][0]["result"]["shape"][1] == 1, (
            "what the network itself answers"
        )


def test_openvinos_files_of_an_onnx_network_answer_the_same(tmp_path: Path) -> None:
    source = write_onnx(tmp_path / "net.onnx", RNG.normal(0, 1, (1, 3)), np.array([0.1]))
    bundle = imported(source, card_for("other"), tmp_path)
    written = export_bundle(bundle, tmp_path / "out", "openvino")
    assert written.ir is not None
    pixels = RNG.integers(0, 255, (3, 64, 64), np.uint8)
    np.testing.assert_allclose(answers(written, pixels), answers(bundle, pixels), atol=1e-3)
    compiled = core().compile_model(read_network(written, 64), "CPU")
    assert compiled(pixels[None].astype(np.float32))[0].shape == (1, 2, 64, 64)


def test_what_the_output_stands_for_decides_the_digest(tmp_path: Path) -> None:
    """The file is the same for both."""
    source = write_onnx(tmp_path / "net.onnx", np.ones((1, 3)), np.zeros(1))
    one, other = (imported(source, card_for(name), tmp_path / name).card for name in NAMES)
    assert one.files == other.files and one.digest != other.digest


def test_verify_and_show_take_it(saved: Path, tmp_path: Path) -> None:
    folder = imported(saved, card_for("building"), tmp_path).folder
    for command in ("verify", "show"):
        done = CliRunner().invoke(main, ["model", command, str(folder)])
        assert done.exit_code == 0, done.output
    assert "building (the network's only output)" in done.stdout


def test_a_template_asks_for_it(saved: Path, tmp_path: Path) -> None:
    onnx = write_onnx(tmp_path / "net.onnx", np.ones((1, 3)), np.zeros(1))
    for source in (saved, onnx):
        begun = yaml.safe_load(template(Foreign.open(source)))
        assert len(begun["classes"]) == 2 and begun["positive_class"] is None
        assert "# positive_class:" in template(Foreign.open(source))
        assert "positive_class" in Foreign.open(source).missing(begun)


@pytest.mark.parametrize("kind", ["smp", "onnx", "safetensors"])
@pytest.mark.parametrize(
    ("card", "words"),
    [
        (card_for(None, ("building",)), "1 class|one class says nothing"),
        (card_for(None), "positive_class"),
        (card_for("road"), "positive_class.*must be one of two classes"),
        (card_for("building", ("building", "road", "other")), "names 3 classes|must be one of two"),
    ],
)
def test_a_card_that_leaves_it_open_is_refused(
    saved: Path, tmp_path: Path, kind: str, card: dict[str, Any], words: str
) -> None:
    """It was a map of nothing but buildings."""
    source = saved
    if kind == "onnx":
        source = write_onnx(tmp_path / "net.onnx", np.ones((1, 3)), np.zeros(1))
    if kind == "safetensors":
        source = saved / "model.safetensors"
        known = {"encoder_depth": 4, "decoder_channels": [32, 16, 8, 8]}
        card = card | {"architecture": "Unet", "encoder": "tu-test_resnet", "options": known}
    with pytest.raises((ModelError, SpecError), match=words) as caught:
        imported(source, card, tmp_path / "made")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "made" / "bundle").exists()


def test_several_outputs_are_not_one(tmp_path: Path) -> None:
    source = write_onnx(tmp_path / "net.onnx", np.eye(2, 3), np.zeros(2))
    with pytest.raises(ModelError, match="positive_class is for a network with one output, this one has 2"):
        imported(source, card_for("building"), tmp_path / "made")


def test_a_bundle_altered_to_leave_it_open_is_refused(tmp_path: Path) -> None:
    """Also where it comes as a bundle, or as the item of others, and was never imported."""
    source = write_onnx(tmp_path / "net.onnx", np.ones((1, 3)), np.zeros(1))
    folder = imported(source, card_for("building"), tmp_path / "made").folder
    card = json.loads((folder / CARD).read_text())
    del card["positive_class"]
    (folder / CARD).write_text(json.dumps(card))
    with pytest.raises(ModelError, match="one output: say in positive_class"):
        read_network(Bundle.open(folder), 64)
    with pytest.raises(ValidationError, match="must be one of two classes"):
        ModelCard.model_validate(card | {"positive_class": "road"})


@pytest.mark.parametrize(
    ("activation", "classes", "words"),
    [
        ("sigmoid", 3, "of several"),
        ("tanh", 3, "no probabilities"),
        ("argmax2d", 3, "no probabilities"),
        ("softmax2d", 1, "no probabilities"),
        ("tanh", 1, "no probabilities"),
    ],
)
def test_activations_that_nothing_stands_in_for_are_refused(
    saved: Path, tmp_path: Path, activation: str, classes: int, words: str
) -> None:
    config = json.loads((saved / "config.json").read_text()) | {"activation": activation, "classes": classes}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=words) as caught:
        Foreign.open(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / "config.json"))


def test_the_weights_are_those_of_the_file(saved: Path, tmp_path: Path) -> None:
    network = load_network(imported(saved, card_for("building"), tmp_path))
    assert network.positive == 0
    assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 2, 64, 64)


def test_an_item_tells_it_in_its_own_property() -> None:
    fields = card_for("other", architecture="x", files={"model.safetensors": "0" * 64})
    item = item_of(ModelCard.model_validate(fields), {"model.safetensors": 3})
    assert item["properties"]["geoseg:card"]["positive_class"] == "other"
