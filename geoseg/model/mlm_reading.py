"""A STAC item with the Machine Learning Model extension (MLM 1.5) as a model card.

An item of others needs in its property `geoseg:card` only what MLM has no words for.
"""

from __future__ import annotations

import colorsys
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from geoseg.errors import ModelError
from geoseg.model.card import FILES, IR_BIN, ONNX
from geoseg.model.mlm import DIMS, OWN, SHA256
from geoseg.model.unsafe import refuse_pickle

NEAR = 0.1
"""How far, as a share, pixels may be from the one size that an item names: a scene's are seldom round numbers."""
SMP = "segmentation_models_pytorch."
"""Items made from such a network name its class in full."""
_BY_SUFFIX = {Path(name).suffix: name for name in FILES}


def item_fields(item: Any, path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The fields of a card as an MLM item tells them, not yet checked, and where its files lie in the item's folder.

    What an item of others lacks may stand in its `geoseg:card`, as fields of a card. Raises ModelError for what is no
    such item, or asks for what geoseg does not do.
    """
    try:
        properties = item["properties"]
        if item["type"] != "Feature" or "mlm:input" not in properties:
            raise KeyError("mlm:input")
        (entry,), (answer,) = properties["mlm:input"], properties["mlm:output"]
        hyper, own = properties.get("mlm:hyperparameters") or {}, properties.get(OWN) or {}
        _refuse_code(entry, answer, path)
        fields: dict[str, Any] = {
            "name": re.sub(r"[^A-Za-z0-9._-]+", "-", properties["mlm:name"]),
            "version": "1",
            "description": properties.get("description") or "",
            "license": properties.get("license") or "",
            "architecture": _architecture(properties["mlm:architecture"]),
            **{key: hyper[key] for key in ("encoder", "options", "temperature") if key in hyper},
            **_bands(entry, path),
            "dtype": _stored_type(item, entry, path),
            "classes": _classes(answer["classification:classes"]),
        }
        if "gsd" in properties:
            gsd = properties["gsd"]
            fields["gsd_m"] = {"min": round(gsd * (1 - NEAR), 9), "max": round(gsd * (1 + NEAR), 9)}
        elif "gsd_m" not in own:
            raise ModelError(
                'does not tell for which pixel sizes the network is: give its properties "gsd" (metres), or '
                f'"{OWN}": {{"gsd_m": {{"min": ..., "max": ...}}}}',
                path,
            )
        files, hrefs = _files(item["assets"], path)
        if ONNX in files:
            fields["onnx"] = {"input": "normalized" if entry.get("value_scaling") else "raw"}
        return {**fields, "files": files, **own}, hrefs
    except ModelError:
        raise
    except KeyError as error:
        raise ModelError(
            f"is no STAC item with the MLM extension that maps pixels: no {error}", path
        ) from error
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        raise ModelError(
            f"is no STAC item of one network that maps pixels to classes ({error})", path
        ) from error


def _refuse_code(entry: dict[str, Any], answer: dict[str, Any], path: Path) -> None:
    """Raises ModelError where pixels or answers go through functions of others: without them the map would be wrong."""
    computed = [band for band in entry["bands"] if isinstance(band, dict) and band.get("expression")]
    if computed:
        name = computed[0]["name"]
        raise ModelError(f"band {name!r} is computed by an expression, which is not done", path)
    for part, key in ((entry, "pre_processing_function"), (answer, "post_processing_function")):
        if part.get(key):
            raise ModelError(
                f"names a {key}, which is code of others and not run; set it to null if the map is right without",
                path,
            )


def _architecture(name: str) -> str:
    return name.rpartition(".")[2] if name.startswith(SMP) else name


def _names(entry: dict[str, Any]) -> list[str]:
    return [band if isinstance(band, str) else band["name"] for band in entry["bands"]]


def _stored_type(item: dict[str, Any], entry: dict[str, Any], path: Path) -> str:
    """Of a scene's values, where the item's or an asset's bands tell it; else that of the network's input."""
    listed = [item["properties"], *item["assets"].values()]
    bands = [band for part in listed for key in ("bands", "raster:bands") for band in part.get(key) or ()]
    told = {band["name"]: band["data_type"] for band in bands if {"name", "data_type"} <= set(band)}
    types = {told.get(name) for name in _names(entry)} - {None}
    if len(types) > 1:
        raise ModelError(f"its bands are of different types ({', '.join(sorted(map(str, types)))})", path)
    return str(types.pop() if types else entry["input"]["data_type"])


def _bands(entry: dict[str, Any], path: Path) -> dict[str, Any]:
    names = _names(entry)
    if not names:
        raise ModelError("names no bands in mlm:input, so that nobody knows what the network takes", path)
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
        elif scale["type"] == "scale":
            mean, std = 0, scale["value"]
        elif scale["type"] == "offset":
            mean, std = scale["value"], 1
        elif scale["type"] is None:
            mean, std = 0, 1
        else:
            raise ModelError(
                f"values are scaled by {scale['type']!r}; z-score, min-max, scale and offset are known", path
            )
        bands.append({"name": name, "mean": mean, "std": std})
    patch = {"patch_px": shape[2]} if shape[2] > 0 else {}
    return {"bands": bands, **patch}


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
