"""Networks of others as bundles: folders of segmentation-models-pytorch, ONNX files, safetensors files."""

from __future__ import annotations

import inspect
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from geoseg.errors import ModelError, SpecError
from geoseg.model.bundle import MAX_CARD_BYTES, Bundle, checked_card
from geoseg.model.card import ONNX, WEIGHTS
from geoseg.model.export import staged_bundle, write_bundle, write_card
from geoseg.model.unsafe import CONVERT, PICKLES, refuse_outside_weights, refuse_pickle

SMP_CONFIG = "config.json"
SMP_WEIGHTS = "model.safetensors"
NEEDED = {
    "name": "letters, digits, . _ -",
    "version": "any text",
    "architecture": "geoseg models lists those there are",
    "encoder": "geoseg models --encoders lists those there are",
    "bands": "for each, in order: name, and mean and std of its raw values",
    "dtype": "uint8, uint16, int16 or float32",
    "gsd_m": "min and max, metres",
    "classes": "for each, in order: id, name, color [red, green, blue], and role (building, road) where it has one",
}
"""Fields that a card must have, and what goes in."""


@dataclass(frozen=True)
class Foreign:
    """A network of others. known: the fields of a card that it tells itself. channels: of its input and output."""

    path: Path
    weights: Path
    known: dict[str, Any]
    channels: tuple[int | None, int | None] = (None, None)

    @classmethod
    def open(cls, path: Path) -> Foreign:
        """Read what a folder or a file tells; raises ModelError for what is none of the kinds that are taken."""
        refuse_pickle(path)
        if path.is_dir():
            return cls._from_smp(path)
        if not path.is_file():
            raise ModelError("is not there", path)
        if path.suffix == ".onnx":
            refuse_outside_weights(path)
            return cls(path, path, {"architecture": "ONNX", "encoder": "", "onnx": {}})
        if path.suffix == ".safetensors":
            return cls(path, path, {})
        raise ModelError(
            f"is neither a .onnx nor a .safetensors file, nor a folder with {SMP_CONFIG} and {SMP_WEIGHTS}",
            path,
        )

    @classmethod
    def _from_smp(cls, folder: Path) -> Foreign:
        """A folder as `save_pretrained` of segmentation-models-pytorch writes it."""
        weights = folder / SMP_WEIGHTS
        pickles = [path for path in sorted(folder.iterdir()) if path.suffix in PICKLES]
        if not weights.is_file() and pickles:
            raise ModelError(
                f"{pickles[0].suffix} files can run code when they are read; {CONVERT}", pickles[0]
            )
        config = _mapping(folder / SMP_CONFIG, "a configuration of segmentation-models-pytorch")
        if not weights.is_file() or "_model_class" not in config:
            what = f"no {SMP_WEIGHTS}" if "_model_class" in config else f"no _model_class in {SMP_CONFIG}"
            raise ModelError(f"is no folder that segmentation-models-pytorch has saved: {what}", folder)
        name = str(config["_model_class"])
        encoder = config.get("encoder_name") or _default(name, "encoder_name")
        known = {"architecture": name, "encoder": encoder}
        options = _options(name, config)
        if options:
            known["options"] = options
        channels = tuple(config.get(key, _default(name, key)) for key in ("in_channels", "classes"))
        return cls(folder, weights, known, (channels[0], channels[1]))

    def missing(self, card: dict[str, Any]) -> list[str]:
        """Fields that neither the network nor these values tell."""
        return [key for key in NEEDED if _is_open(card.get(key, self.known.get(key)))]


def _is_open(value: Any) -> bool:
    """Nothing, or something with a gap in it; only a class may go without a role."""
    if isinstance(value, dict):
        return any(_is_open(item) for key, item in value.items() if key != "role")
    return value is None or (isinstance(value, list) and any(map(_is_open, value)))


def _architecture(name: str) -> Any:
    from geoseg.model.architectures import ARCHITECTURES

    found = ARCHITECTURES.get(name.lower())
    if found is None:
        raise ModelError(f"no architecture {name!r}; geoseg models lists those there are")
    return found


def _default(name: str, argument: str) -> Any:
    return inspect.signature(_architecture(name).build).parameters[argument].default


def _options(name: str, config: dict[str, Any]) -> dict[str, Any]:
    """Arguments in the configuration that differ from the defaults and that a card may set."""
    from geoseg.model.architectures import allowed_options

    architecture = _architecture(name)
    defaults = {k: p.default for k, p in inspect.signature(architecture.build).parameters.items()}
    plain = json.loads(json.dumps(defaults, default=str))  # tuples as lists, as in the file
    return {
        k: config[k] for k in sorted(allowed_options(architecture) & set(config)) if config[k] != plain.get(k)
    }


def import_model(foreign: Foreign, output: Path, card_file: Path | None) -> Bundle:
    """Write a network of others as a bundle; weights keep their precision.

    card_file: YAML or JSON with the fields that the network does not tell. Raises SpecError that lists all that are
    still missing, ModelError where card and network do not fit each other.
    """
    given = _mapping(card_file, "a model card") if card_file is not None else {}
    card = {key: value for key, value in given.items() if key not in ("format", "files")}
    _agree(foreign, card, card_file)
    lacking = foreign.missing(card)
    if lacking:
        listed = "; ".join(f"{key} ({NEEDED[key]})" for key in lacking)
        raise SpecError(
            f"the card lacks {listed}. Give them with --card FILE; --template FILE begins one", foreign.path
        )
    card = {**foreign.known, **card}
    weights = ONNX if "onnx" in foreign.known else WEIGHTS
    checked_card({**card, "files": {weights: "0" * 64}}, card_file or foreign.path)
    if weights == ONNX:
        return _import_onnx(foreign.path, card, output)
    return _import_weights(foreign, card, output)


def _agree(foreign: Foreign, card: dict[str, Any], card_file: Path | None) -> None:
    """Raises ModelError where the card contradicts what the network tells."""
    for key in ("architecture", "encoder", "options"):
        told = foreign.known.get(key)
        if "onnx" not in foreign.known and told and card.get(key) not in (None, told):
            raise ModelError(f"{key} is {card[key]!r}, but the network's is {told!r}", card_file)
    for key, count in zip(("bands", "classes"), foreign.channels, strict=True):
        entries = card.get(key)
        if count is not None and isinstance(entries, list) and len(entries) != count:
            raise ModelError(f"names {len(entries)} {key}, the network has {count}", card_file)


def _import_weights(foreign: Foreign, card: dict[str, Any], output: Path) -> Bundle:
    from geoseg.model.network import build_body, load_state

    body = build_body(
        card["architecture"], card["encoder"], len(card["bands"]), len(card["classes"]), card.get("options")
    )
    what = f"{card['architecture']} with {card['encoder']}"
    load_state(body, foreign.weights, what, leave_out=("classification_head.",))
    return write_bundle(body, card, output, half=False)


def _import_onnx(path: Path, card: dict[str, Any], output: Path) -> Bundle:
    from geoseg.model.openvino_network import read_network

    with staged_bundle(output) as staged:
        shutil.copyfile(path, staged / ONNX)
        bundle = write_card(staged, card)
        try:
            read_network(bundle, bundle.card.patch_px)
        except ModelError as error:  # named as the user knows it
            raise ModelError(str(error.args[0]), path) from error
    return Bundle.open(output)


def template(foreign: Foreign) -> str:
    """A card as YAML: what the network tells, and what is still to be filled in, empty."""
    bands, classes = (count or 1 for count in foreign.channels)
    fields: dict[str, Any] = {
        "name": None,
        "version": "1",
        **{key: foreign.known.get(key) for key in ("architecture", "encoder")},
        **{key: foreign.known[key] for key in ("options",) if key in foreign.known},
        "bands": [{"name": None, "mean": None, "std": None} for _ in range(bands)],
        "dtype": None,
        "gsd_m": {"min": None, "max": None},
        "classes": [{"id": i + 1, "name": None, "color": None, "role": None} for i in range(classes)],
        "patch_px": 512,
    }
    if "onnx" in foreign.known:
        fields["onnx"] = {"input": "normalized", "output": "logits"}
    notes = "".join(f"# {key}: {what}\n" for key, what in NEEDED.items() if key not in foreign.known)
    if "onnx" in foreign.known:
        notes += (
            "# onnx: input is normalized ((value - mean) / std) or raw; output is logits or probabilities\n"
        )
    text: str = yaml.safe_dump(fields, sort_keys=False, default_flow_style=None, allow_unicode=True)
    return notes + text


def _mapping(path: Path, what: str) -> dict[str, Any]:
    """Keys and values of a YAML or JSON file; ModelError in one line for anything else."""
    try:
        if path.stat().st_size > MAX_CARD_BYTES:
            raise ModelError(f"{what} of more than 4 MiB is not read", path)
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ModelError(f"cannot be read as {what} ({reason})", path) from error
    if not isinstance(values, dict):
        raise ModelError(f"is not {what}: it holds no keys and values", path)
    return values
