"""A model card as a STAC item with the Machine Learning Model extension (MLM 1.5).

What MLM has no words for is in one property, `geoseg:card`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any
from urllib.parse import quote

from geoseg.model.card import IR_BIN, IR_XML, ONNX, WEIGHTS, ModelCard

ITEM = "item.json"
EXTENSIONS = [
    "https://stac-extensions.github.io/mlm/v1.5.2/schema.json",
    "https://stac-extensions.github.io/classification/v1.1.0/schema.json",
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
]
OWN = "geoseg:card"
SHA256 = "1220"
"""Multihash prefix of a SHA-256: what it is, and its 32 bytes."""
DIMS = ["batch", "bands", "height", "width"]
NAME = re.compile(r"^[a-zA-Z][a-zA-Z0-9_.\-\s]+[a-zA-Z0-9]$")
"""What MLM takes for a name."""
IN_OWN = (
    "version",
    "gsd_m",
    "equal_labels",
    "largest_difference",
    "scores",
    "training_data",
    "notes",
    "onnx",
    "positive_class",
)
"""Fields of the card that MLM has no words for."""

_ASSETS = {
    WEIGHTS: (
        "Weights",
        "application/octet-stream",
        ["mlm:model", "mlm:weights"],
        "safetensors.torch.save_file",
    ),
    ONNX: ("Network", "application/octet-stream", ["mlm:model", "mlm:weights"], "onnx"),
    IR_XML: ("Network for OpenVINO", "text/xml", ["mlm:model"], "openvino.save_model"),
    IR_BIN: ("Weights for OpenVINO", "application/octet-stream", ["mlm:weights"], None),
}


def item_of(card: ModelCard, sizes: Mapping[str, int]) -> dict[str, Any]:
    """The card as an item beside the files that it names. sizes: of these files, in bytes.

    A model belongs to no place, so geometry is null; nor to a time, so it holds for all, as MLM advises.
    """
    own = {
        key: value for key, value in card.to_dict().items() if key in IN_OWN and (value or key == "version")
    }
    known_name = NAME.match(card.name) is not None
    if not known_name:
        own["name"] = card.name
    if _takes_raw(card):  # without scaling there is no other place for means and deviations
        own["bands"] = [band.model_dump() for band in card.bands]
    hyper = {"encoder": card.encoder, "options": dict(card.options), "temperature": card.temperature}
    properties: dict[str, Any] = {
        "datetime": None,
        "start_datetime": "1900-01-01T00:00:00Z",
        "end_datetime": "9999-12-31T23:59:59Z",
        "description": card.description,
        "license": card.license,
        "bands": _bands_of(card),
        "mlm:name": card.name if known_name else "model",
        "mlm:architecture": card.architecture,
        "mlm:framework": "ONNX" if card.is_onnx else "PyTorch",
        "mlm:tasks": ["semantic-segmentation"],
        "mlm:input": [_input(card)],
        "mlm:output": [_output(card)],
        "mlm:hyperparameters": {key: value for key, value in hyper.items() if value},
        OWN: own,
    }
    if not card.is_onnx:
        properties["mlm:framework_version"] = version("torch").split("+")[0]
    filled = {k: v for k, v in properties.items() if v or k not in ("description", "license", OWN)}
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": EXTENSIONS,
        "id": card.name,
        "geometry": None,
        "properties": filled,
        "links": [],
        "assets": {name: _asset(name, digest, card, sizes[name]) for name, digest in card.files.items()},
    }


def _takes_raw(card: ModelCard) -> bool:
    return card.onnx is not None and card.onnx.input == "raw"


def _input(card: ModelCard) -> dict[str, Any]:
    """MLM's data_type is that of what the network is given, after scaling; that of a scene is told by its bands."""
    scaling = [{"type": "z-score", "mean": band.mean, "stddev": band.std} for band in card.bands]
    return {
        "name": "pixels",
        "bands": [band.name for band in card.bands],
        "input": {
            "shape": [-1, len(card.bands), card.patch_px, card.patch_px],
            "dim_order": DIMS,
            "data_type": "float32",
        },
        "value_scaling": None if _takes_raw(card) else scaling,
    }


def _output(card: ModelCard) -> dict[str, Any]:
    classes = [
        {
            "value": c.id,
            "name": c.name,
            "description": c.name,
            "color_hint": "{:02X}{:02X}{:02X}".format(*c.color),
            **({"geoseg:role": c.role} if c.role else {}),
        }
        for c in card.classes
    ]
    return {
        "name": "classes",
        "tasks": ["semantic-segmentation"],
        "result": {
            "shape": [-1, card.outputs, card.patch_px, card.patch_px],
            "dim_order": ["batch", "class", "height", "width"],
            "data_type": "float32",
        },
        "classification:classes": classes,
    }


def _bands_of(card: ModelCard) -> list[dict[str, str]]:
    return [{"name": band.name, "data_type": card.dtype} for band in card.bands]


def _asset(name: str, digest: str, card: ModelCard, size: int) -> dict[str, Any]:
    """The network's own asset repeats the bands: STAC 1.1 allows them for an item only where an asset has them."""
    title, media, roles, artifact = _ASSETS[name]
    return {
        "href": f"./{quote(name)}",
        "title": title,
        "type": media,
        "roles": roles,
        **({"mlm:artifact_type": artifact} if artifact else {}),
        **({"bands": _bands_of(card)} if name in (WEIGHTS, ONNX) else {}),
        "file:size": size,
        "file:checksum": SHA256 + digest,
    }
