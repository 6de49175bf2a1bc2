"""Bundles described by a STAC item with the Machine Learning Model extension."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pystac
import pystac.validation
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from referencing import Registry, Resource

from geoseg.errors import ModelError
from geoseg.model.bundle import CARD, Bundle, checked_card, sha256_of
from geoseg.model.card import IR_BIN, IR_XML, ONNX, WEIGHTS, ModelCard
from geoseg.model.export import export_bundle
from geoseg.model.mlm import EXTENSIONS, ITEM, item_of
from geoseg.model.mlm_reading import item_fields
from geoseg.run.events import make_reporter
from geoseg.run.job import make_job
from geoseg.run.pipeline import Run
from tests.data import DATA
from tests.model.networks import card_of, write_onnx
from tests.train.scenes import write

SCHEMAS = DATA.parent / "tools" / "schemas"
REAL = st.floats(-1e6, 1e6, allow_nan=False)
POSITIVE = st.floats(1e-3, 1e3, allow_nan=False)
SHARES = st.dictionaries(st.sampled_from(["openvino-float32", "torch-bfloat16"]), st.floats(0, 1))
TEXT = st.text(max_size=12)
LEAVES = st.one_of(st.booleans(), st.integers(-9, 9), TEXT)


@st.composite
def cards(draw: st.DrawFn) -> ModelCard:
    bands = draw(st.integers(1, 5))
    names = draw(st.lists(st.text(min_size=1).filter(str.strip), min_size=2, max_size=4, unique=True))
    onnx = draw(st.booleans())
    files = {ONNX if onnx else WEIGHTS} | ({IR_XML, IR_BIN} if draw(st.booleans()) else set())
    smallest = draw(POSITIVE)
    fields = {
        "name": draw(st.from_regex(r"[A-Za-z0-9._-]{1,12}", fullmatch=True)),
        "version": draw(TEXT),
        "description": draw(TEXT),
        "license": draw(TEXT),
        "architecture": draw(TEXT),
        "encoder": draw(TEXT),
        "options": draw(st.dictionaries(TEXT, st.one_of(LEAVES, st.lists(LEAVES, max_size=3)), max_size=2)),
        "bands": [{"name": draw(TEXT), "mean": draw(REAL), "std": draw(POSITIVE)} for _ in range(bands)],
        "dtype": "float32",
        "gsd_m": {"min": smallest, "max": smallest + draw(POSITIVE)},
        "classes": [
            {
                "id": 7 * i,
                "name": name,
                "color": draw(st.tuples(*[st.integers(0, 255)] * 3)),
                "role": draw(st.sampled_from([None, "building", "road"])),
            }
            for i, name in enumerate(names)
        ],
        "positive_class": draw(st.sampled_from([None, *names])) if len(names) == 2 else None,
        "patch_px": 32 * draw(st.integers(1, 64)),
        "temperature": draw(POSITIVE),
        "files": {name: draw(st.from_regex(r"[0-9a-f]{64}", fullmatch=True)) for name in sorted(files)},
        "onnx": {"input": draw(st.sampled_from(["raw", "normalized"])), "output": "probabilities"} if onnx else None,
        "equal_labels": draw(SHARES),
        "largest_difference": draw(SHARES),
        "training_data": draw(st.lists(TEXT, max_size=2)),
        "scores": draw(SHARES),
        "notes": draw(st.lists(TEXT, max_size=2)),
    }  # fmt: skip
    return ModelCard.model_validate(fields)


@settings(max_examples=60)
@given(cards())
def test_a_card_is_read_back_from_its_item(tmp_path_factory: Any, card: ModelCard) -> None:
    here = tmp_path_factory.getbasetemp() / ITEM
    item = json.loads(json.dumps(item_of(card, dict.fromkeys(card.files, 9)), allow_nan=False))
    fields, hrefs = item_fields(item, here)
    assert checked_card(fields, here) == card
    assert checked_card(fields, here).digest == card.digest
    assert hrefs == {name: name for name in card.files}


@pytest.fixture(scope="module")
def described(tiny_bundle: Path, tmp_path_factory: Any) -> Path:
    """A bundle that has an item and no card."""
    return export_bundle(Bundle.open(tiny_bundle), tmp_path_factory.mktemp("mlm") / "tiny", "mlm").folder


def test_pystac_reads_what_we_write(described: Path) -> None:
    item = pystac.Item.from_file(str(described / ITEM))
    assert item.assets[WEIGHTS].roles == ["mlm:model", "mlm:weights"]
    assert Path(item.assets[WEIGHTS].get_absolute_href() or "").is_file()
    core = {**item.to_dict(include_self_link=False), "stac_extensions": []}
    pystac.validation.validate_dict(core)


@pytest.mark.skipif(not SCHEMAS.is_dir(), reason=f"no schemas in {SCHEMAS}")
@pytest.mark.parametrize("kind", ["safetensors", "onnx"])
def test_the_schemas_of_the_extensions_agree(described: Path, kind: str) -> None:
    item = json.loads((described / ITEM).read_text())
    if kind == "onnx":
        card = card_of((1.0,), (1.0,), 2, architecture="ONNX", onnx={}, files={ONNX: "0" * 64})
        item = item_of(ModelCard.model_validate(card), {ONNX: 9})

    def retrieve(uri: str) -> Any:
        return Resource.from_contents(
            json.loads((SCHEMAS / uri.removeprefix("https://").rstrip("#")).read_text())
        )

    registry: Any = Registry(retrieve=retrieve)
    for url in EXTENSIONS:
        jsonschema.Draft7Validator(retrieve(url).contents, registry=registry).validate(item)
    broken = json.loads(json.dumps(item))
    del broken["properties"]["mlm:output"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft7Validator(retrieve(EXTENSIONS[0]).contents, registry=registry).validate(broken)


def mapped(folder: Path, scene: Path, model: Path) -> np.ndarray:
    job = make_job(
        {
            "scenes": (str(scene),), "output": str(folder), "model": str(model), "report": False, "engine": "local",
            "workers": 1, "precision": "float32",
        },
        None,
    )  # fmt: skip
    assert Run(job, make_reporter(False)).go() == 0
    with rasterio.open(folder / scene.stem / "landcover.tif") as dataset:
        return dataset.read()


def test_a_run_with_an_item_maps_as_with_the_card(described: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    """The item goes by any name, its files lie in a folder within."""
    other = tmp_path / "elsewhere"
    shutil.copytree(described, other / "files")
    item = json.loads((other / "files" / ITEM).read_text())
    (other / "files" / ITEM).unlink()
    for name, asset in item["assets"].items():
        asset["href"] = f"./files/{name}"
    (other / "my%20network.json").write_text(json.dumps(item))
    rng = np.random.default_rng(1)
    write(tmp_path / "scene.tif", rng.integers(1, 255, (3, 12, 20), np.uint8).repeat(16, 1).repeat(16, 2))
    by_item = mapped(tmp_path / "by_item", tmp_path / "scene.tif", other / "my%20network.json")
    by_card = mapped(tmp_path / "by_card", tmp_path / "scene.tif", tiny_bundle)
    assert np.array_equal(by_item, by_card)
    assert len(np.unique(by_card)) > 1


def foreign_item(folder: Path) -> dict[str, Any]:
    """As others write it: nothing of ours in it but what MLM and STAC have words for."""
    write_onnx(folder / "net.onnx", np.eye(2), np.zeros(2))
    checksum = "1220" + sha256_of(folder / "net.onnx").upper()
    return {
        "type": "Feature", "stac_version": "1.1.0", "id": "x", "geometry": None, "links": [], "stac_extensions": [],
        "properties": {
            "datetime": "2024-01-01T00:00:00Z", "gsd": 10, "mlm:name": "Two Classes", "mlm:architecture": "own",
            "mlm:tasks": ["semantic-segmentation"],
            "mlm:input": [{
                "name": "x", "bands": ["B04", {"name": "B08"}],
                "input": {"shape": [-1, 2, 64, 64], "dim_order": ["batch", "channel", "height", "width"],
                          "data_type": "uint16"},
                "value_scaling": [{"type": "min-max", "minimum": 0, "maximum": 10000}],
            }],
            "mlm:output": [{
                "name": "y", "tasks": [], "result": {},
                "classification:classes": [{"value": 0, "description": "bare"}, {"value": 1, "description": "green"}],
            }],
        },
        "assets": {
            "thumbnail": {"href": "https://example.org/picture.png", "roles": ["thumbnail"]},
            "model": {"href": "net.onnx", "roles": ["mlm:model"], "file:checksum": checksum},
        },
    }  # fmt: skip


def opened(folder: Path, item: dict[str, Any]) -> Bundle:
    (folder / "model_item.json").write_text(json.dumps(item))
    return Bundle.open(folder / "model_item.json")


def test_an_item_of_others_is_a_bundle(tmp_path: Path) -> None:
    card = opened(tmp_path, foreign_item(tmp_path)).card
    assert [(b.name, b.mean, b.std) for b in card.bands] == [("B04", 0, 10000), ("B08", 0, 10000)]
    assert (card.name, card.dtype, card.patch_px) == ("Two-Classes", "uint16", 64)
    assert card.gsd_m.min == 9 and card.gsd_m.max == 11, "a tenth around the one that is told"
    assert card.legend.names == ("bare", "green")
    assert len({c.color for c in card.classes}) == 2
    assert card.onnx is not None and card.onnx.input == "normalized"


def put(*keys: Any) -> Any:
    """A change of one place in an item: the keys to it, then the value."""

    def change(item: dict[str, Any]) -> None:
        *way, last, value = keys
        for key in way:
            item = item[key]
        item[last] = value

    return change


INPUT, OUTPUT = ("properties", "mlm:input", 0), ("properties", "mlm:output", 0)


@pytest.mark.parametrize(
    ("scaling", "scaled"),
    [
        ({"type": "min-max", "minimum": 3, "maximum": 7}, lambda x: (x - 3) / 4),
        ({"type": "z-score", "mean": 5, "stddev": 2}, lambda x: (x - 5) / 2),
        ({"type": "scale", "value": 10000}, lambda x: x / 10000),
        ({"type": "offset", "value": 7}, lambda x: x - 7),
        ({"type": None}, lambda x: x),
    ],
)
def test_every_linear_scaling_is_that_of_the_extension(tmp_path: Path, scaling: Any, scaled: Any) -> None:
    """The formulas are those of the table "Value Scaling Object" of MLM; one entry holds for all bands."""
    item = foreign_item(tmp_path)
    put(*INPUT, "value_scaling", [scaling])(item)
    values = np.array([-2.0, 0.0, 3.5, 12000.0])
    for band in opened(tmp_path, item).card.bands:
        assert np.allclose((values - band.mean) / band.std, scaled(values), rtol=1e-12)


@pytest.mark.parametrize("where", ["properties", "bands", "raster:bands"])
def test_a_scene_has_the_type_of_the_bands_and_not_of_the_networks_input(tmp_path: Path, where: str) -> None:
    item = foreign_item(tmp_path)
    put(*INPUT, "input", "data_type", "float32")(item)
    assert opened(tmp_path, item).card.dtype == "float32", "nothing else is told"
    bands = [{"name": "B04", "data_type": "uint16"}, {"name": "B08", "data_type": "uint16"}]
    other = {"name": "of no use here", "data_type": "uint8"}
    if where == "properties":
        item["properties"]["bands"] = [*bands, other]
    else:
        item["assets"]["model"][where] = [other, *bands]
    assert opened(tmp_path, item).card.dtype == "uint16"


def test_the_item_gives_other_programs_the_networks_own_input(described: Path) -> None:
    """MLM: data_type is that of the processed input, not of the source bands; nothing is scaled twice."""
    properties = json.loads((described / ITEM).read_text())["properties"]
    assert properties["mlm:input"][0]["input"]["data_type"] == "float32"
    assert {band["data_type"] for band in properties["bands"]} == {"uint8"}
    for kind, scaled in (("raw", False), ("normalized", True)):
        card = card_of((3.0,), (2.0,), 2, architecture="ONNX", onnx={"input": kind}, files={ONNX: "0" * 64})
        told = item_of(ModelCard.model_validate(card), {ONNX: 9})["properties"]["mlm:input"][0]
        assert (told["value_scaling"] is not None) == scaled, kind


def test_the_class_that_smp_names_in_full_is_the_architecture(tmp_path: Path) -> None:
    item = foreign_item(tmp_path)
    item["properties"]["mlm:architecture"] = "segmentation_models_pytorch.decoders.unet.model.Unet"
    assert opened(tmp_path, item).card.architecture == "Unet"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put("assets", "model", "href", "../net.onnx"), "lies outside the item's folder"),
        (put("assets", "model", "href", "/etc/passwd.onnx"), "lies outside the item's folder"),
        (put("assets", "model", "href", "%2E%2E/net.onnx"), "lies outside the item's folder"),
        (put("assets", "model", "href", "link/net.onnx"), "lies outside the item's folder"),
        (put("assets", "model", "href", "https://example.org/net.onnx"), "lies outside the item's folder"),
        (put("assets", "model", "href", "net.pt"), "can run code"),
        (put("assets", "model", "href", "weights.bin"), "can run code"),
        (put("assets", "model", "href", "net.h5"), "neither safetensors, ONNX nor OpenVINO"),
        (put("assets", "model", "href", "gone.onnx"), "gone.onnx, which is not there"),
        (put("assets", "model", "file:checksum", "1220" + "0" * 64), "does not have the digest"),
        (put("assets", "model", "file:checksum", "d50110" + "0" * 32), "no SHA-256"),
        (lambda item: item["assets"]["model"].pop("file:checksum"), "no SHA-256"),
        (lambda item: item["assets"].pop("model"), "files names no model.safetensors"),
        (lambda item: item["properties"].pop("gsd"), "pixel sizes.*geoseg:card"),
        (lambda item: item["properties"].pop("mlm:input"), "no STAC item with the MLM extension"),
        (lambda item: item["properties"]["mlm:input"].append({}), "no STAC item of one network"),
        (lambda item: item.pop("properties"), "no STAC item with the MLM extension"),
        (put(*INPUT, "value_scaling", [{"type": "clip"}]), "scaled by 'clip'"),
        (put(*INPUT, "input", "dim_order", ["batch", "height", "width", "bands"]), "only square patches"),
        (put(*INPUT, "input", "shape", [-1, 2, 64, 32]), "only square patches"),
        (
            put(*INPUT, "pre_processing_function", {"format": "python", "expression": "a:b"}),
            "pre_processing_function",
        ),
        (
            put(*OUTPUT, "post_processing_function", {"format": "python", "expression": "a:b"}),
            "post_processing",
        ),
        (
            put(*INPUT, "bands", [{"name": "n", "format": "numpy", "expression": "B08 - B04"}]),
            "'n' is computed",
        ),
        (put(*INPUT, "bands", []), "names no bands"),
        (
            put(
                "properties",
                "bands",
                [{"name": "B04", "data_type": "uint8"}, {"name": "B08", "data_type": "int16"}],
            ),
            "different types .int16, uint8.",
        ),
        (
            lambda item: item["properties"]["mlm:output"][0].pop("classification:classes"),
            "no 'classification:classes'",
        ),
        (put("properties", "geoseg:card", {"surprise": 1}), "surprise"),
    ],
)
def test_an_item_that_does_not_hold_is_one_line(tmp_path: Path, change: Any, words: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    item = foreign_item(folder)
    shutil.copy(folder / "net.onnx", tmp_path)
    os.symlink(tmp_path, folder / "link")
    change(item)
    with pytest.raises(ModelError, match=words) as caught:
        opened(folder, item)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"3", b'{"type": "Feature", "properties": 4}', b"\xff"]
)
def test_what_is_no_item_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(ModelError) as caught:
        Bundle.open(tmp_path / "x.json")
    assert str(caught.value).startswith(str(tmp_path / "x.json")) and "\n" not in str(caught.value)


def test_a_card_goes_before_an_item_in_one_folder(tiny_bundle: Path, described: Path, tmp_path: Path) -> None:
    both = shutil.copytree(tiny_bundle, tmp_path / "both")
    shutil.copy(described / ITEM, both)
    assert Bundle.open(both).described_by == both / CARD
    assert Bundle.open(both / CARD).folder == both
    assert Bundle.open(both / ITEM).described_by == both / ITEM
    assert Bundle.open(both / ITEM).card.digest == Bundle.open(both).card.digest
