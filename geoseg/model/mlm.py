"""A model card as a STAC item with the Machine Learning Model extension (MLM 1.5), and such an item as a card.

What MLM has no words for is in one property, `geoseg:card`; an item of others needs there only what it lacks.
"""

from __future__ import annotations

import colorsys
import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from geoseg.errors import ModelError
from geoseg.model.card import FILES, IR_BIN, IR_XML, ONNX, WEIGHTS, ModelCard
from geoseg.model.unsafe import refuse_pickle

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
_BY_SUFFIX = {Path(name).suffix: name for name in FILES}


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
    hyper = {"encoder": card.encoder, "options": dict(card.options), "temperature": card.temperature}
    properties: dict[str, Any] = {
        "datetime": None,
        "start_datetime": "1900-01-01T00:00:00Z",
        "end_datetime": "9999-12-31T23:59:59Z",
        "description": card.description,
        "license": card.license,
        "bands": _band_names(card),
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


def _input(card: ModelCard) -> dict[str, Any]:
    scaling = [{"type": "z-score", "mean": band.mean, "stddev": band.std} for band in card.bands]
    return {
        "name": "pixels",
        "bands": [band.name for band in card.bands],
        "input": {
            "shape": [-1, len(card.bands), card.patch_px, card.patch_px],
            "dim_order": DIMS,
            "data_type": card.dtype,
        },
        "value_scaling": scaling,
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
            "shape": [-1, len(classes), card.patch_px, card.patch_px],
            "dim_order": ["batch", "class", "height", "width"],
            "data_type": "float32",
        },
        "classification:classes": classes,
    }


def _band_names(card: ModelCard) -> list[dict[str, str]]:
    return [{"name": band.name} for band in card.bands]


def _asset(name: str, digest: str, card: ModelCard, size: int) -> dict[str, Any]:
    """The network's own asset repeats the bands: STAC 1.1 allows them for an item only where an asset has them."""
    title, media, roles, artifact = _ASSETS[name]
    return {
        "href": f"./{quote(name)}",
        "title": title,
        "type": media,
        "roles": roles,
        **({"mlm:artifact_type": artifact} if artifact else {}),
        **({"bands": _band_names(card)} if name in (WEIGHTS, ONNX) else {}),
        "file:size": size,
        "file:checksum": SHA256 + digest,
    }


def item_fields(item: Any, path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The fields of a card as an MLM item tells them, not yet checked, and where its files lie in the item's folder.

    Raises ModelError for what is no such item, or asks for what geoseg does not do.
    """
    try:
        properties = item["properties"]
        if item["type"] != "Feature" or "mlm:input" not in properties:
            raise KeyError("mlm:input")
        (entry,), (answer,) = properties["mlm:input"], properties["mlm:output"]
        hyper, own = properties.get("mlm:hyperparameters") or {}, properties.get(OWN) or {}
        fields: dict[str, Any] = {
            "name": re.sub(r"[^A-Za-z0-9._-]+", "-", properties["mlm:name"]),
            "version": "1",
            "description": properties.get("description") or "",
            "license": properties.get("license") or "",
            "architecture": properties["mlm:architecture"],
            **{key: hyper[key] for key in ("encoder", "options", "temperature") if key in hyper},
            **_bands(entry, path),
            "classes": _classes(answer["classification:classes"]),
        }
        if "gsd" in properties:
            fields["gsd_m"] = {"min": properties["gsd"], "max": properties["gsd"]}
        files, hrefs = _files(item["assets"], path)
        if ONNX in files:
            fields["onnx"] = {"input": "normalized" if entry.get("value_scaling") else "raw"}
        return {**fields, "files": files, **own}, hrefs
    except ModelError:
        raise
    except KeyError as error:
        raise ModelError(f"is no STAC item with the MLM extension: no {error}", path) from error
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        raise ModelError(
            f"is no STAC item of one network that maps pixels to classes ({error})", path
        ) from error


def _bands(entry: dict[str, Any], path: Path) -> dict[str, Any]:
    names = [band if isinstance(band, str) else band["name"] for band in entry["bands"]]
    shape, order = entry["input"]["shape"], entry["input"]["dim_order"]
    if [d.replace("channel", "bands") for d in order] != DIMS or shape[2] != shape[3]:
        raise ModelError(
            f"the network takes {order} of {shape}; only square patches as {DIMS} can be given", path
        )
    scaling = entry.get("value_scaling") or [{"type": "z-score", "mean": 0, "stddev": 1}]
    if len(scaling) == 1:
        scaling = scaling * len(names)
    bands = []
    for name, scale in zip(names, scaling, strict=True):
        if scale["type"] == "z-score":
            mean, std = scale["mean"], scale["stddev"]
        elif scale["type"] == "min-max":
            mean, std = scale["minimum"], scale["maximum"] - scale["minimum"]
        else:
            raise ModelError(
                f"values are scaled by {scale['type']!r}; only z-score and min-max are known", path
            )
        bands.append({"name": name, "mean": mean, "std": std})
    patch = {"patch_px": shape[2]} if shape[2] > 0 else {}
    return {"bands": bands, "dtype": entry["input"]["data_type"], **patch}


def _classes(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A class without a color gets one: hues a golden section apart are far apart for neighbors."""
    found = []
    for index, entry in enumerate(entries):
        hue = (index * 0.618034) % 1
        color = [round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.6, 0.85)]
        if "color_hint" in entry:
            color = list(bytes.fromhex(entry["color_hint"]))
        name = entry.get("name") or entry["description"]
        found.append({"id": entry["value"], "name": name, "color": color, "role": entry.get("geoseg:role")})
    return found


def _files(assets: dict[str, Any], path: Path) -> tuple[dict[str, str], dict[str, str]]:
    files: dict[str, str] = {}
    hrefs: dict[str, str] = {}
    for key, asset in assets.items():
        if not {"mlm:model", "mlm:weights"} & set(asset.get("roles") or ()):
            continue
        href = unquote(asset["href"]).removeprefix("./")
        if Path(href).name != IR_BIN:
            refuse_pickle(Path(href))
        name = IR_BIN if Path(href).name == IR_BIN else _BY_SUFFIX.get(Path(href).suffix)
        if name is None:
            raise ModelError(
                f"asset {key!r} ({href}) is neither safetensors, ONNX nor OpenVINO's files", path
            )
        if name in files:
            raise ModelError(f"assets {hrefs[name]} and {href} are both a {Path(name).suffix} file", path)
        _refuse_outside(href, path)
        checksum = str(asset.get("file:checksum", ""))
        if not checksum.startswith(SHA256):
            raise ModelError(
                f"asset {key!r} has no SHA-256 in file:checksum ({SHA256} and 64 hex digits)", path
            )
        files[name], hrefs[name] = checksum.removeprefix(SHA256).lower(), href
    return files, hrefs


def _refuse_outside(href: str, path: Path) -> None:
    """Raises ModelError for a file that does not lie in the item's folder, links followed."""
    folder = path.parent.resolve()
    if "://" in href or Path(href).is_absolute() or not (folder / href).resolve().is_relative_to(folder):
        raise ModelError(f"asset {href} lies outside the item's folder, so it is not read", path)
