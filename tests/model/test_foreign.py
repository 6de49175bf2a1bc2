"""Networks of others: ONNX files, folders of segmentation-models-pytorch, and formats that are refused."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg.errors import ModelError, SpecError
from geoseg.model.bundle import Bundle
from geoseg.model.importing import Foreign, import_model, template
from geoseg.model.network import load_network
from geoseg.model.runtimes import RuntimeChoice, SegmenterRecipe
from geoseg.model.unsafe import PICKLES
from geoseg.run.events import make_reporter
from geoseg.run.job import make_job
from geoseg.run.pipeline import Run
from geoseg.spec import SegmentSpec
from tests.model.networks import card_of, shares_of, write_onnx
from tests.train.scenes import write

RNG = np.random.default_rng(0)
WEIGHTS, BIAS = RNG.normal(0, 1.5, (4, 3)), RNG.normal(0, 0.5, 4)
CARD = card_of((120.0, 110.0, 100.0), (50.0, 45.0, 60.0), 4)


def bundle_of(folder: Path, card: dict[str, Any] = CARD, **network: Any) -> Bundle:
    folder.mkdir(parents=True, exist_ok=True)
    path = write_onnx(folder / "net.onnx", **({"weights": WEIGHTS, "bias": BIAS} | network))
    (folder / "card.yaml").write_text(yaml.safe_dump(card))
    return import_model(Foreign.open(path), folder / "bundle", folder / "card.yaml")


def segmenter_of(bundle: Bundle, patch_px: int = 64, **spec: Any):
    choice = RuntimeChoice.decide(bundle.card, "auto", "float32")
    return SegmenterRecipe.of(bundle, SegmentSpec(patch_px, **spec), choice).build(1, 1)


@settings(max_examples=12)
@given(st.data())
def test_an_onnx_file_answers_what_numpy_says(tmp_path_factory, data: st.DataObject) -> None:
    """Any bands, classes and dtype; taking raw or normalized values, answering logits or probabilities."""
    seed = data.draw(st.integers(0, 2**32 - 1))
    bands, classes = data.draw(st.integers(1, 5)), data.draw(st.integers(2, 4))
    dtype = data.draw(st.sampled_from(["uint8", "uint16", "int16", "float32"]))
    normalized, softmax = data.draw(st.booleans()), data.draw(st.booleans())
    rng = np.random.default_rng(seed)
    means, stds = rng.uniform(50, 200, bands), rng.uniform(20, 80, bands)
    how = {
        "input": "normalized" if normalized else "raw",
        "output": "probabilities" if softmax else "logits",
    }
    card = card_of(
        means.tolist(), stds.tolist(), classes, dtype=dtype, onnx=how, temperature=rng.uniform(0.5, 2)
    )
    weights = rng.normal(0, 1 if normalized else 0.01, (classes, bands)).astype(np.float32)
    bias = rng.normal(0, 0.5, classes).astype(np.float32)
    folder = tmp_path_factory.mktemp("onnx")
    bundle = bundle_of(folder, card, weights=weights, bias=bias, softmax=softmax)
    pixels = rng.uniform(0, 250, (bands, 64, 64)).astype(dtype)
    found = segmenter_of(bundle, blend="hann", margin_px=8).probabilities(pixels[None])[0]
    np.testing.assert_allclose(found, shares_of(pixels, weights, bias, card, normalized), atol=2e-5)


def test_an_onnx_bundle_maps_a_scene_as_numpy_maps_it_whole(tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path / "made")
    pixels = RNG.integers(1, 255, (3, 150, 170), np.uint8)
    write(tmp_path / "scene.tif", pixels)
    job = make_job(
        {
            "scenes": (str(tmp_path / "scene.tif"),), "output": str(tmp_path / "out"), "precision": "float32",
            "model": str(bundle.folder), "margin_px": 8, "engine": "local", "workers": 1, "report": False,
        },
        None,
    )  # fmt: skip
    assert Run(job, make_reporter(False)).go() == 0
    with rasterio.open(tmp_path / "out" / "scene" / "landcover.tif") as mapped:
        found = mapped.read(1)
    shares = shares_of(pixels, WEIGHTS, BIAS, CARD, normalized=True)
    clear = np.sort(shares, 0)[-1] - np.sort(shares, 0)[-2] > 1e-4
    assert np.array_equal(found[clear], shares.argmax(0)[clear] + 1)
    assert clear.mean() > 0.99
    assert len(np.unique(found)) == 4


@pytest.mark.parametrize("shape", [(1, 3, 64, 64), (4, 3, 64, 64), ("n", 3, "h", "w"), (1, "b", "h", "w")])
def test_a_fixed_batch_or_size_runs_patch_by_patch(tmp_path: Path, shape: tuple[Any, ...]) -> None:
    bundle = bundle_of(tmp_path, shape=shape)
    pixels = RNG.integers(0, 255, (3, 64, 64), np.uint8)
    found = segmenter_of(bundle, blend="hann", margin_px=8).probabilities(pixels[None])[0]
    np.testing.assert_allclose(found, shares_of(pixels, WEIGHTS, BIAS, CARD, True), atol=2e-5)


def one_line(caught: pytest.ExceptionInfo[Exception], path: Path) -> None:
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(path)), "the message is led by the file"


@pytest.mark.parametrize(
    ("network", "changes", "words"),
    [
        ({"shape": (1, 3, 32, 32)}, {}, "takes patches of 32 px only; take --patch-px 32"),
        ({"shape": ("n", 5, "h", "w"), "weights": np.ones((4, 5))}, {}, "names 3 bands, the network has 5"),
        ({"weights": np.ones((3, 3)), "bias": np.ones(3)}, {}, "names 4 classes, the network has 3"),
        ({"last": ("GlobalAveragePool", {})}, {}, "one value per class and pixel"),
        ({"last": ("MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2]})}, {}, "32, 32"),
        ({"last": ("Nonesuch", {})}, {}, "No conversion rule found for operations: Nonesuch"),
        ({"last": ("Nonesuch", {}), "opset": 99}, {}, "Nonesuch"),
    ],
)
def test_an_onnx_file_that_does_not_fit_is_one_line(
    tmp_path: Path, network: dict[str, Any], changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        bundle_of(tmp_path, CARD | changes, **network)
    one_line(caught, tmp_path / ("card.yaml" if words.startswith("names") else "net.onnx"))
    assert not (tmp_path / "bundle").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"net.onnx", "card.yaml"}


@pytest.mark.parametrize("content", [b"", b"hello", pickle.dumps([1, 2]), b"\x08\x07" * 50])
def test_what_is_no_onnx_is_read_by_nothing_else(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "net.onnx").write_bytes(content)
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(CARD))
    with pytest.raises(ModelError) as caught:
        import_model(Foreign.open(tmp_path / "net.onnx"), tmp_path / "bundle", tmp_path / "card.yaml")
    one_line(caught, tmp_path / "net.onnx")


def test_weights_outside_an_onnx_file_are_refused(tmp_path: Path) -> None:
    """No digest would cover them."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(write_onnx(tmp_path / "whole.onnx", WEIGHTS, BIAS))
    onnx.save(
        model, tmp_path / "net.onnx", save_as_external_data=True, location="weights.data", size_threshold=0
    )
    with pytest.raises(ModelError, match="keeps weights in other files") as caught:
        Foreign.open(tmp_path / "net.onnx")
    one_line(caught, tmp_path / "net.onnx")


def test_an_onnx_bundle_does_not_pretend_to_run_in_torch(tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path)
    with pytest.raises(SpecError, match="ONNX network, which torch does not run"):
        RuntimeChoice.decide(bundle.card, "torch")
    with pytest.raises(ModelError, match="ONNX network, which torch does not run"):
        load_network(bundle)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A folder of segmentation-models-pytorch, with all that changes what comes out or how it is built."""
    import segmentation_models_pytorch as smp

    folder = tmp_path_factory.mktemp("smp") / "unet"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = smp.Unet(
            "tu-test_resnet", encoder_weights=None, encoder_depth=4, decoder_channels=(32, 16, 8, 8), in_channels=3,
            classes=4, activation="softmax2d", aux_params={"classes": 2},
        )  # fmt: skip
    network.save_pretrained(folder)
    return folder


def test_a_folder_of_smp_becomes_a_bundle_that_answers_the_same(saved: Path, tmp_path: Path) -> None:
    import segmentation_models_pytorch as smp

    (tmp_path / "card.yaml").write_text(yaml.safe_dump(CARD))
    bundle = import_model(Foreign.open(saved), tmp_path / "bundle", tmp_path / "card.yaml")
    original = smp.from_pretrained(saved).eval()
    pixels = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    mean, std = (
        torch.tensor([b[key] for b in CARD["bands"]])[None, :, None, None] for key in ("mean", "std")
    )
    with torch.inference_mode():
        expected, _labels = original((pixels.float() - mean) / std)
        found = load_network(bundle)(pixels).softmax(1)
    assert torch.equal(found, expected), "weights keep every bit"
    assert bundle.card.options == {"decoder_channels": [32, 16, 8, 8], "encoder_depth": 4}


def test_all_that_a_card_lacks_is_told_at_once(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "card.yaml").write_text(yaml.safe_dump({"name": "mine", "bands": CARD["bands"]}))
    with pytest.raises(SpecError) as caught:
        import_model(Foreign.open(saved), tmp_path / "bundle", tmp_path / "card.yaml")
    told = str(caught.value)
    assert all(f"{key} (" in told for key in ("version", "dtype", "gsd_m", "classes"))
    assert not any(f"{key} (" in told for key in ("name", "bands", "architecture", "encoder"))
    assert "--template" in told and "\n" not in told
    assert not (tmp_path / "bundle").exists()
    assert not list(saved.parent.glob("**/*.yaml")), "a template is written on request only"


@pytest.mark.parametrize("kind", ["smp", "onnx"])
def test_a_template_filled_in_is_a_card(saved: Path, tmp_path: Path, kind: str) -> None:
    source = (
        saved if kind == "smp" else write_onnx(tmp_path / "net.onnx", WEIGHTS, BIAS, shape=(1, 3, 64, 64))
    )
    foreign = Foreign.open(source)
    begun = yaml.safe_load(template(foreign))
    assert (len(begun["bands"]), len(begun["classes"])) == (3, 4), "what the file tells"
    assert begun["patch_px"] == (512 if kind == "smp" else 64)
    (tmp_path / "card.yaml").write_text(template(foreign))
    with pytest.raises(SpecError) as caught:
        import_model(foreign, tmp_path / "bundle", tmp_path / "card.yaml")
    assert all(f"{key} (" in str(caught.value) for key in ("name", "bands", "dtype", "gsd_m", "classes"))
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(begun | CARD))
    if kind == "smp":
        assert not foreign.missing(yaml.safe_load((tmp_path / "card.yaml").read_text()))
        return
    assert import_model(foreign, tmp_path / "bundle", tmp_path / "card.yaml").card.name == "pixelwise"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bands": CARD["bands"][:2]}, "names 2 bands, the network has 3"),
        ({"classes": CARD["classes"][:3]}, "names 3 classes, the network has 4"),
        ({"architecture": "FPN"}, "architecture is 'FPN', but the network's is 'Unet'"),
        ({"dtype": "int3"}, "dtype"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_card_that_contradicts_the_network_is_one_line(
    saved: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(CARD | changes))
    with pytest.raises(ModelError, match=words) as caught:
        import_model(Foreign.open(saved), tmp_path / "bundle", tmp_path / "card.yaml")
    one_line(caught, tmp_path / "card.yaml")


class Trap:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("suffix", PICKLES)
def test_formats_that_can_run_code_are_refused_unread(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"pytorch_model{suffix}"
    path.write_bytes(pickle.dumps(Trap(tmp_path / "executed")))
    (tmp_path / "config.json").write_text('{"_model_class": "Unet"}')
    advice = (
        r"torch\.onnx\.export\(torch\.export\.load" if suffix == ".pt2" else r"safetensors\.torch\.save_file"
    )
    for attempt in (Bundle.open, Foreign.open):
        with pytest.raises(ModelError, match=rf"can run code.*{advice}.*geoseg model import") as caught:
            attempt(path)
        one_line(caught, path)
    with pytest.raises(ModelError, match=rf"can run code.*{advice}"):
        Foreign.open(tmp_path)
    assert not (tmp_path / "executed").exists()


def test_the_way_to_convert_an_exported_program_works(tmp_path: Path) -> None:
    """What is said for .pt2: in a place where it is trusted, it becomes an ONNX file that is taken."""
    network, example = torch.nn.Conv2d(3, 4, 1).eval(), torch.zeros(1, 3, 64, 64)
    torch.export.save(torch.export.export(network, (example,)), tmp_path / "net.pt2")
    loaded = torch.export.load(tmp_path / "net.pt2")
    torch.onnx.export(loaded, (), tmp_path / "model.onnx", dynamo=True, external_data=False)
    assert Foreign.open(tmp_path / "model.onnx").channels == (3, 4)
