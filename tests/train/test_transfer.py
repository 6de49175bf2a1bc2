"""Weights to begin with: what fits is kept, by name, and the rest keeps its random values."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from safetensors.torch import save_file

from geoseg.errors import ModelError, SpecError
from geoseg.model.architectures import build_body
from geoseg.model.bundle import Bundle
from geoseg.model.export import write_bundle
from geoseg.model.network import load_network
from geoseg.train.config import TrainConfig
from geoseg.train.loop import SegmentationTask, moving_average
from geoseg.train.reading import load_config
from geoseg.train.trainer import learn
from geoseg.train.transfer import Names, band_axes, class_axes, start_body, take_over
from tests.train.scenes import write_run

SMALL = {"architecture": "DeepLabV3Plus", "encoder": "tu-lcnet_035", "options": {"decoder_channels": 16}}
NAMES = st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=6, unique=True)


def config_of(classes=("building", "road", "land"), bands=("red", "green", "blue"), **changes) -> TrainConfig:
    """A training file with these classes and bands; nothing is opened."""
    entries = [{"id": i, "name": name, "color": [i, 0, 0]} for i, name in enumerate(classes, 1)]
    plain = {"name": "a", "version": "1", "gsd_m": {"min": 0.5, "max": 1}, "steps": 1}
    plain["datasets"] = [{"scene": "s.tif", "labels": "l.tif"}]
    return TrainConfig(**plain | SMALL | {"classes": entries, "bands": bands} | changes)


def body_of(config: TrainConfig) -> torch.nn.Module:
    options = dict(config.options)
    return build_body(config.architecture, config.encoder, len(config.bands), len(config.classes), options)


def card_of(config: TrainConfig) -> dict:
    """A model card for a bundle of this network."""
    card = config.model_dump(
        mode="json",
        include={"name", "version", "gsd_m", "dtype", "classes", "architecture", "encoder", "options"},
    )
    return card | {"bands": [{"name": b, "mean": 100, "std": 50} for b in config.bands], "patch_px": 64}


def write(config: TrainConfig, folder: Path) -> torch.nn.Module:
    """A bundle with random weights; the network as the bundle holds it."""
    torch.manual_seed(7)
    return load_network(write_bundle(body_of(config), card_of(config), folder, with_ir=False)).body


@examples(max_examples=60, deadline=None)
@given(NAMES, NAMES, NAMES, NAMES)
def test_each_slice_comes_from_the_same_name_or_is_as_before(classes, bands, our_classes, our_bands) -> None:
    """Oracle: one slice after the other, looked up by its name."""

    def network(kinds, colors, start):
        first, head = torch.nn.Conv2d(len(colors), 4, 3), torch.nn.Conv2d(4, len(kinds), 1)
        for place, p in enumerate([*first.parameters(), *head.parameters()]):
            p.data = torch.arange(p.numel(), dtype=torch.float32).reshape(p.shape) + start + 1000 * place
        return torch.nn.ModuleDict({"first": first, "head": head})

    theirs, ours = network(classes, bands, 1), network(our_classes, our_bands, 100_000)
    before = {k: v.clone() for k, v in ours.state_dict().items()}
    state = theirs.state_dict()
    heads, columns = {"head.weight": 0, "head.bias": 0}, {"first.weight": 1}
    kept = take_over(
        ours,
        state,
        Names(tuple(classes), tuple(bands)),
        Names(tuple(our_classes), tuple(our_bands)),
        heads,
        columns,
    )
    after = ours.state_dict()
    assert torch.equal(after["first.bias"], state["first.bias"])
    for place, name in enumerate(our_classes):
        for key in heads:
            source = state[key][classes.index(name)] if name in classes else before[key][place]
            assert torch.equal(after[key][place], source)
    for place, name in enumerate(our_bands):
        column = (
            state["first.weight"][:, bands.index(name)] if name in bands else before["first.weight"][:, place]
        )
        assert torch.equal(after["first.weight"][:, place], column)
    changed = sum(int((after[k] != before[k]).sum()) for k in after)
    assert kept.share == pytest.approx(changed / sum(v.numel() for v in after.values()))
    assert ("head.weight" in kept.whole) == (set(our_classes) <= set(classes))


def test_the_same_network_is_kept_whole(tmp_path):
    config = config_of()
    theirs = write(config, tmp_path / "bundle")
    torch.manual_seed(0)
    body, told = start_body(started(config, tmp_path))
    assert all(torch.equal(v, theirs.state_dict()[k]) for k, v in body.state_dict().items())
    assert "(100.0 % of all values)" in told[0] and "random" not in told[0]


def started(config: TrainConfig, folder: Path, **changes) -> TrainConfig:
    """The same training, from the bundle in a folder."""
    start = config.start.model_copy(update={"bundle": folder / "bundle", **changes})
    return config.model_copy(update={"start": start})


def test_other_classes_and_bands_keep_what_has_the_same_name(tmp_path):
    theirs = write(config_of(), tmp_path / "bundle").state_dict()
    config = started(
        config_of(("water", "road", "building", "forest"), ("nir", "blue", "red", "green")), tmp_path
    )
    torch.manual_seed(0)
    fresh = body_of(config).state_dict()
    torch.manual_seed(0)
    body, told = start_body(config)
    ours = body.state_dict()
    head, first = "segmentation_head.0.weight", "encoder.model.conv_stem.weight"
    assert torch.equal(ours[head][1], theirs[head][1]) and torch.equal(ours[head][2], theirs[head][0])
    assert torch.equal(ours[head][0], fresh[head][0]) and torch.equal(ours[head][3], fresh[head][3])
    assert torch.equal(ours[first][:, 1], theirs[first][:, 2]) and torch.equal(
        ours[first][:, 2], theirs[first][:, 0]
    )
    assert torch.equal(ours[first][:, 0], fresh[first][:, 0])
    assert "new classes: water, forest; new bands: nir" in told[0]


def test_another_decoder_keeps_the_encoder(tmp_path):
    theirs = write(config_of(), tmp_path / "bundle").state_dict()
    config = started(config_of(architecture="Unet", options={"decoder_channels": [16, 8, 8, 8, 8]}), tmp_path)
    body, told = start_body(config)
    encoder = {k: v for k, v in body.state_dict().items() if k.startswith("encoder.")}
    assert encoder and all(torch.equal(v, theirs[k]) for k, v in encoder.items())
    assert "random" in told[0] and "decoder" in told[0]


@pytest.mark.parametrize(
    ("architecture", "encoder"),
    [("FCN", "resnet18"), ("Unet", "mobilenet_v2"), ("Segformer", "tu-lcnet_035")],
)
def test_head_and_first_convolution_are_found_in_any_architecture(architecture, encoder):
    config = config_of(architecture=architecture, encoder=encoder, options={})
    shapes = {k: v.shape for k, v in body_of(config).state_dict().items()}
    heads, columns = class_axes(config), band_axes(config)
    assert {shapes[k][axis] for k, axis in heads.items()} == {3} and any(k.endswith("bias") for k in heads)
    assert [shapes[k][axis] for k, axis in columns.items()] == [3] and all("encoder" in k for k in columns)


def save_encoder(config: TrainConfig, path: Path) -> dict:
    torch.manual_seed(3)
    state = {k: v.contiguous() for k, v in body_of(config).get_submodule("encoder").state_dict().items()}
    save_file(state, path)
    return state


def test_an_encoder_alone_is_kept_whole(tmp_path):
    config = config_of()
    state = save_encoder(config, tmp_path / "e.safetensors")
    body, told = start_body(started(config, tmp_path, bundle=None, encoder=tmp_path / "e.safetensors"))
    assert all(torch.equal(v, state[k]) for k, v in body.get_submodule("encoder").state_dict().items())
    assert "(100.0 % of all values)" in told[0]


def test_an_encoder_of_three_bands_is_of_red_green_and_blue(tmp_path):
    state = save_encoder(config_of(), tmp_path / "e.safetensors")
    config = config_of(bands=("nir", "green", "blue", "red"))
    body, _ = start_body(started(config, tmp_path, bundle=None, encoder=tmp_path / "e.safetensors"))
    first = body.state_dict()["encoder.model.conv_stem.weight"]
    for place, column in ((3, 0), (1, 1), (2, 2)):
        assert torch.equal(first[:, place], state["model.conv_stem.weight"][:, column])


@pytest.mark.parametrize("name", ["weights.pth", "weights.ckpt", "weights.bin"])
@pytest.mark.parametrize("key", ["bundle", "encoder"])
def test_formats_that_run_code_are_refused_with_the_way_to_convert(tmp_path, key, name):
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(ModelError, match=r"can run code .* convert it: safetensors\.torch\.save_file"):
        start_body(started(config_of(), tmp_path, **{"bundle": None, key: tmp_path / name}))


@pytest.mark.parametrize("content", ["other", "damaged", "missing"])
def test_weights_that_do_not_fit_are_one_line(tmp_path, content):
    path = tmp_path / "e.safetensors"
    if content == "other":
        save_file({"conv1.weight": torch.zeros(3)}, path)
    elif content == "damaged":
        path.write_bytes(b"\x00" * 40)
    with pytest.raises(
        ModelError, match=r"e.safetensors: (holds no tensor that fits|is not a safetensors file|no such file)"
    ) as told:
        start_body(started(config_of(), tmp_path, bundle=None, encoder=path))
    assert "\n" not in str(told.value)


def test_options_that_the_architecture_does_not_have_are_refused():
    with pytest.raises(ModelError, match="no option depth"):
        start_body(config_of(options={"depth": 3}))


def test_bundle_and_encoder_together_are_refused(tmp_path):
    path = write_run(tmp_path, start={"bundle": "b", "encoder": "e.safetensors"})
    with pytest.raises(SpecError, match="start: give bundle or encoder, not both"):
        load_config(path, {})


def test_paths_start_at_the_training_file(tmp_path):
    config = load_config(write_run(tmp_path, start={"encoder": "e.safetensors", "encoder_rate": 0.3}), {})
    assert config.start.encoder == tmp_path / "e.safetensors"


@pytest.mark.parametrize("rate", [0, 0.25])
def test_the_encoder_learns_at_its_own_rate(rate):
    config = config_of(learning_rate=0.01, start={"encoder_rate": rate, "encoder": "e.safetensors"})
    body = body_of(config)
    task = SegmentationTask(torch.nn.ModuleDict({"body": body}), torch.nn.Identity(), config, {})
    groups = task.configure_optimizers()["optimizer"].param_groups
    rates = {id(p): group["initial_lr"] for group in groups for p in group["params"]}
    inside = {id(p) for p in body.get_submodule("encoder").parameters()}
    assert {rates.get(i, 0.0) for i in inside} == {0.01 * rate}
    assert {rates[id(p)] for p in body.parameters() if id(p) not in inside} == {0.01}


def test_a_frozen_encoder_stays_as_it_is_with_its_statistics(tmp_path):
    config = config_of()
    state = save_encoder(config, tmp_path / "e.safetensors")
    few = {"steps": 3, "validate_every": 2, "crop_px": 32, "patch_px": 64, "threads": 1}
    start = {"encoder": "e.safetensors", "encoder_rate": 0}
    learned = learn(
        load_config(write_run(tmp_path, **SMALL, **few, start=start), {}), tmp_path / "work", False
    )
    trained = learned.network.body.get_submodule("encoder").state_dict()
    assert all(torch.equal(v, state[k]) for k, v in trained.items())
    assert learned.begun


@given(st.floats(-1e6, 1e6, width=32), st.integers(0, 10**6), st.floats(0, 0.9999))
def test_the_average_of_what_stays_is_exactly_that(value, updates, decay):
    same = torch.tensor([value])
    assert torch.equal(moving_average(decay)(same, same.clone(), updates), same)


def test_the_card_says_what_was_kept(tmp_path):
    from geoseg.train.trainer import train

    write(config_of(("building", "tree")), tmp_path / "bundle")
    few = {"steps": 1, "validate_every": 1, "crop_px": 32, "patch_px": 64, "threads": 1, "notes": ["Mine."]}
    path = write_run(tmp_path, **SMALL, **few, start={"bundle": "bundle"})
    card = Bundle.open(train(path, tmp_path / "new", progress_bar=False)).card
    assert card.notes[0] == "Mine." and card.notes[1].startswith("Started from bundle a 1 (")
    assert "new classes: road, land, vegetation, water" in card.notes[1]
    assert card.options == {"decoder_channels": 16}
