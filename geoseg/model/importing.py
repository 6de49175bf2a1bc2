"""Networks of others as bundles: folders of segmentation-models-pytorch, ONNX files, safetensors files."""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from geoseg.errors import ModelError, SpecError
from geoseg.model.bundle import CARD, MAX_CARD_BYTES, SMP_CONFIG, Bundle, check_safetensors, checked_card
from geoseg.model.card import ONNX, WEIGHTS
from geoseg.model.export import staged_bundle, write_bundle, write_card
from geoseg.model.unsafe import PICKLES, conversion, refuse_outside_weights, refuse_pickle

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
POSITIVE = "positive_class"
POSITIVE_MEANS = "the name of the class that the network's one output stands for; the other class is all else"
EXCLUSIVE = (None, "identity", "softmax", "softmax2d", "logsoftmax")
"""Activations of segmentation-models-pytorch after which the logits are those of classes that exclude each other."""


@dataclass(frozen=True)
class Foreign:
    """A network of others. known: the fields of a card that it tells itself. channels: of its input and output.

    patch_px: the only patch that it takes, where there is but one.
    """

    path: Path
    weights: Path
    known: dict[str, Any]
    channels: tuple[int | None, int | None] = (None, None)
    patch_px: int | None = None

    @classmethod
    def open(cls, path: Path) -> Foreign:
        """Read what a folder or a file tells; raises ModelError for what is none of the kinds that are taken."""
        refuse_pickle(path)
        if path.suffix == ".json" or (path / CARD).is_file():
            raise ModelError("is not imported: a bundle, or a STAC item, runs as it is, with --model", path)
        if path.is_dir():
            return cls._from_smp(path)
        if not path.is_file():
            raise ModelError("is not there", path)
        if path.suffix == ".onnx":
            refuse_outside_weights(path)
            from geoseg.model.openvino_network import onnx_shape

            shape = onnx_shape(path)
            known: dict[str, Any] = {"architecture": "ONNX", "encoder": "", "onnx": {}}
            return cls(path, path, known, (shape.bands, shape.outputs), shape.patch_px)
        if path.suffix == ".safetensors":
            check_safetensors(path)
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
                f"{pickles[0].suffix} files can run code when they are read; {conversion(pickles[0])}",
                pickles[0],
            )
        config = _mapping(folder / SMP_CONFIG, "a configuration of segmentation-models-pytorch")
        if not weights.is_file() or "_model_class" not in config:
            what = f"no {SMP_WEIGHTS}" if "_model_class" in config else f"no _model_class in {SMP_CONFIG}"
            raise ModelError(f"is no folder that segmentation-models-pytorch has saved: {what}", folder)
        check_safetensors(weights)
        name = str(config["_model_class"])
        encoder = config.get("encoder_name") or _default(name, "encoder_name")
        known = {"architecture": name, "encoder": encoder}
        options = _options(name, config)
        if options:
            known["options"] = options
        channels = tuple(config.get(key, _default(name, key)) for key in ("in_channels", "classes"))
        _refuse_activation(config.get("activation"), channels[1], folder / SMP_CONFIG)
        return cls(folder, weights, known, (channels[0], channels[1]))

    @property
    def needed(self) -> dict[str, str]:
        """Fields that a card of it must have, and what goes in."""
        return NEEDED | ({POSITIVE: POSITIVE_MEANS} if self.channels[1] == 1 else {})

    def missing(self, card: dict[str, Any]) -> list[str]:
        """Fields that neither the network nor these values tell."""
        return [key for key in self.needed if _is_open(card.get(key, self.known.get(key)))]


def _refuse_activation(name: Any, classes: int, config: Path) -> None:
    """Raises ModelError for what softmax, or the sigmoid of one output, does not stand in for."""
    if name in EXCLUSIVE and not (classes == 1 and name not in EXCLUSIVE[:2]):
        return
    if name != "sigmoid":
        raise ModelError(f"activation {name!r} of {classes} classes makes no probabilities of a map", config)
    if classes > 1:
        raise ModelError(
            f"activation 'sigmoid' answers for each of {classes} classes by itself, so that a pixel may be of several; "
            "a map needs classes that exclude each other",
            config,
        )


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


def import_model(
    foreign: Foreign, output: Path, card_file: Path | None, tell: Callable[[str], None] = lambda line: None
) -> Bundle:
    """Write a network of others as a bundle; weights keep their precision.

    card_file: YAML or JSON with the fields that the network does not tell. tell: takes lines on what is done. Raises
    SpecError that lists all that are still missing, ModelError where card and network do not fit each other, or the
    network's answers are not what the card calls them.
    """
    given = _mapping(card_file, "a model card") if card_file is not None else {}
    card = {key: value for key, value in given.items() if key not in ("format", "files")}
    _agree(foreign, card, card_file)
    lacking = foreign.missing(card)
    if lacking:
        listed = "; ".join(f"{key} ({foreign.needed[key]})" for key in lacking)
        raise SpecError(
            f"the card lacks {listed}. Give them with --card FILE; --template FILE begins one", foreign.path
        )
    card = {**foreign.known, **card}
    weights = ONNX if "onnx" in foreign.known else WEIGHTS
    checked = checked_card({**card, "files": {weights: "0" * 64}}, card_file or foreign.path)
    if weights == ONNX:
        assert checked.onnx is not None
        tell(f"checking that the network answers {checked.onnx.output}, as the card says")
        return _import_onnx(foreign.path, card, output)
    tell(
        f"reading weights of {checked.architecture} with {checked.encoder}, and converting them for OpenVINO"
    )
    return _import_weights(foreign, card, output)


def _agree(foreign: Foreign, card: dict[str, Any], card_file: Path | None) -> None:
    """Raises ModelError where the card contradicts what the network tells."""
    for key in ("architecture", "encoder", "options"):
        told = foreign.known.get(key)
        if "onnx" not in foreign.known and told and card.get(key) not in (None, told):
            raise ModelError(f"{key} is {card[key]!r}, but the network's is {told!r}", card_file)
    bands, outputs = foreign.channels
    if outputs is not None and outputs > 1 and card.get(POSITIVE) is not None:
        raise ModelError(f"{POSITIVE} is for a network with one output, this one has {outputs}", card_file)
    for key, count in (("bands", bands), ("classes", 2 if outputs == 1 else outputs)):
        entries = card.get(key)
        if count is not None and isinstance(entries, list) and len(entries) != count:
            what = f"the network has {count}"
            if outputs == 1 and key == "classes":
                what = f"the network's one output tells 2 apart: name both, and in {POSITIVE} the one it stands for"
            raise ModelError(f"names {len(entries)} {key}, {what}", card_file)


def _import_weights(foreign: Foreign, card: dict[str, Any], output: Path) -> Bundle:
    from geoseg.model.network import build_body, load_state

    outputs = 1 if card.get(POSITIVE) is not None else len(card["classes"])
    body = build_body(card["architecture"], card["encoder"], len(card["bands"]), outputs, card.get("options"))
    what = f"{card['architecture']} with {card['encoder']}"
    load_state(body, foreign.weights, what, leave_out=("classification_head.",))
    return write_bundle(body, card, output, half=False)


def _import_onnx(path: Path, card: dict[str, Any], output: Path) -> Bundle:
    from geoseg.model.answers import check_answers

    with staged_bundle(output) as staged:
        shutil.copyfile(path, staged / ONNX)
        bundle = write_card(staged, card)
        try:
            check_answers(bundle)
        except ModelError as error:  # named as the user knows it
            raise ModelError(str(error.args[0]), path) from error
    return Bundle.open(output)


def template(foreign: Foreign) -> str:
    """A card as YAML: what the network tells, and what is still to be filled in, empty."""
    bands, classes = foreign.channels[0] or 1, max(foreign.channels[1] or 1, 2)
    fields: dict[str, Any] = {
        "name": None,
        "version": "1",
        **{key: foreign.known.get(key) for key in ("architecture", "encoder")},
        **{key: foreign.known[key] for key in ("options",) if key in foreign.known},
        "bands": [{"name": None, "mean": None, "std": None} for _ in range(bands)],
        "dtype": None,
        "gsd_m": {"min": None, "max": None},
        "classes": [{"id": i + 1, "name": None, "color": None, "role": None} for i in range(classes)],
        **({POSITIVE: None} if foreign.channels[1] == 1 else {}),
        "patch_px": foreign.patch_px or 512,
    }
    if "onnx" in foreign.known:
        fields["onnx"] = {"input": "normalized", "output": "logits"}
    open_fields = foreign.missing(fields)
    notes = "".join(f"# {key}: {what}\n" for key, what in foreign.needed.items() if key in open_fields)
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
