"""Every architecture: learns for two steps, becomes a bundle, and maps a scene through the pipeline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

from geoseg.errors import ModelError
from geoseg.model.architectures import ARCHITECTURES, build_body, encoder_names
from geoseg.model.export import write_bundle
from geoseg.model.network import load_network
from geoseg.model.openvino_network import core, read_network
from geoseg.run.events import make_reporter
from geoseg.run.job import make_job
from geoseg.run.pipeline import Run
from geoseg.train.reading import load_config
from geoseg.train.trainer import Material, fit, gather, new_network
from tests.train.scenes import settings, write, write_run

BANDS = ("red", "green", "blue", "infrared")
TINY = {"Segformer": "mit_b0", "DPT": "tu-test_vit", "HRNet": "hrnet_w18_small", "PAN": "mobilenet_v2"}
SIDE = {"PAN": 128}
"""Its pyramid pools a sixteenth of a patch three times."""
SMALL = {"DPT": {"decoder_intermediate_channels": [16, 16, 16, 16], "decoder_fusion_channels": 32}}
NAMES = [a.name for a in ARCHITECTURES.values()]


def tiny(name: str) -> tuple[str, int, dict]:
    return TINY.get(name, "tu-test_resnet"), SIDE.get(name, 64), SMALL.get(name, {})


@pytest.fixture(scope="module")
def ground(tmp_path_factory) -> tuple[Path, Path, Material]:
    """A training file, a scene of four bands to map, and what is learned from."""
    folder = tmp_path_factory.mktemp("ground")
    town = {"scene": "town.tif", "labels": "town_labels.tif", "ignore": [0]}
    path = write_run(folder, bands=list(BANDS), datasets=[town], patch_px=64, crop_px=64)
    with rasterio.open(folder / "town.tif") as dataset:
        colors = dataset.read()
    four = np.concatenate([colors, 255 - colors[:1]])
    write(folder / "town.tif", four)
    write(folder / "small.tif", four[:, :140, :150])
    return path, folder / "small.tif", gather(load_config(path, {}), folder / "work")


@pytest.mark.parametrize("name", NAMES)
def test_an_architecture_learns_and_maps(
    ground: tuple[Path, Path, Material], tmp_path: Path, name: str
) -> None:
    path, scene, material = ground
    encoder, side, options = tiny(name)
    changes = {"architecture": name, "encoder": encoder, "crop_px": side, "patch_px": side}
    config = load_config(path, {}).model_copy(update=changes)
    network = new_network(config, material)
    if options:
        network.body = build_body(name, encoder, len(BANDS), 5, options)
    before = [p.detach().clone() for p in network.parameters()]
    fit(network, config, material, tmp_path / "work", progress_bar=False)
    moved = [not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True)]
    assert sum(moved) > 0.9 * len(moved), "gradients reach nearly every layer"

    card = config.model_dump(include={"name", "version", "dtype", "gsd_m", "classes", "patch_px"})
    bands = [
        {"name": b, "mean": m, "std": 50.0} for b, m in zip(BANDS, material.statistics.mean, strict=True)
    ]
    card |= {"architecture": name, "encoder": encoder, "options": options, "bands": bands}
    bundle = write_bundle(network.body, card, tmp_path / "bundle", with_ir=False)
    job = make_job(
        {
            "scenes": (str(scene),), "output": str(tmp_path / "out"), "model": str(bundle.folder), "runtime": "torch",
            "margin_px": 8, "engine": "local", "workers": 1, "report": False,
        },
        None,
    )  # fmt: skip
    assert Run(job, make_reporter(False)).go() == 0
    with rasterio.open(tmp_path / "out" / "small" / "landcover.tif") as mapped:
        found = mapped.read(1)
    assert found.shape == (140, 150)
    assert set(np.unique(found)) <= {1, 2, 3, 4, 5}


@pytest.mark.parametrize("name", ["DPT", "FCN"])
def test_openvino_answers_as_torch_at_any_patch_size(tmp_path: Path, monkeypatch, name: str) -> None:
    """Our own networks, and one whose positions must be resampled by torch. Each size against torch at that size."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    encoder, side, options = tiny(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        body = build_body(name, encoder, 2, 3, options)
    if name == "DPT":
        body.encoder.model.pos_embed.data *= 50  # as large as training makes them, so that they matter
    card = {
        **{key: settings()[key] for key in ("name", "version", "gsd_m")},
        "architecture": name, "encoder": encoder, "options": options, "dtype": "float32", "patch_px": side,
        "bands": [{"name": "a", "mean": 0.5, "std": 2.0}, {"name": "b", "mean": -3.0, "std": 0.5}],
        "classes": settings()["classes"][:3],
    }  # fmt: skip
    bundle = write_bundle(body, card, tmp_path / "bundle", half=False)
    network = load_network(bundle)
    for px in (side, 96):
        pixels = np.random.default_rng(px).normal(0, 2, (1, 2, px, px)).astype(np.float32)
        compiled = core().compile_model(read_network(bundle, px), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        expected = network(torch.from_numpy(pixels)).numpy()
        difference = np.abs(compiled(pixels)[0] - expected).max()
        assert difference < 0.01 * expected.std(), px  # openvino.bin holds weights in half precision


@pytest.mark.parametrize(
    ("name", "encoder", "options", "words"),
    [
        ("Nonesuch", "resnet18", {}, "no such architecture; geoseg models lists"),
        ("DeepLab", "resnet18", {}, "did you mean DeepLabV3 or DeepLabV3Plus"),
        ("Unet", "mobilenetv2", {}, "did you mean mobilenet_v2 or"),
        ("Unet", "lcnet_035", {}, "did you mean tu-lcnet_035 or"),
        ("Unet", "zzz", {}, "no such encoder; geoseg models --encoders lists"),
        ("HRNet", "hrnet_w19", {}, "did you mean tu-hrnet_w18"),
        ("Unet", "hf-hub:someone/anything", {}, "geoseg models --encoders lists"),
        ("Unet", "tu-local-dir:/etc", {}, "geoseg models --encoders lists"),
        ("Unet", "tu-test_resnet", {"checkpoint_path": "/tmp/evil.pth"}, "no option checkpoint_path"),
        ("Unet", "tu-test_resnet", {"encoder_weights": "imagenet"}, "no option encoder_weights"),
        ("Unet", "tu-test_resnet", {"decoder_channels": 3}, "Unet"),
        ("HRNet", "resnet18", {}, "hrnet_"),
        ("DPT", "resnet18", {}, "must start with 'tu-'"),
    ],
)
def test_names_that_do_not_go_together_are_one_line(name, encoder, options, words) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        build_body(name, encoder, 3, 5, options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "encoder"),
    [("HRNet", "hrnet_w18_small"), ("HRNet", "tu-hrnet_w18_small"), ("unet", "tu-resnet18.a1_in1k")],
)
def test_an_encoder_goes_by_all_its_names(name: str, encoder: str) -> None:
    with torch.device("meta"):
        assert build_body(name, encoder, 3, 5) is not None


def test_encoders_are_found_by_any_part_of_their_name() -> None:
    assert "resnet18" in encoder_names("NET1") and "tu-resnet18" in encoder_names("net1")
    assert encoder_names("hrnet_w18_small_v2") == ["tu-hrnet_w18_small_v2"]
    assert len(encoder_names()) > 1000
