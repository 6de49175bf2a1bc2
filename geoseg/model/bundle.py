"""Bundles: a folder with a card and a network. Nothing in a bundle is ever executed or unpickled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from geoseg.errors import ModelError
from geoseg.model.card import IR_BIN, IR_XML, ONNX, WEIGHTS, ModelCard
from geoseg.model.mlm import ITEM
from geoseg.model.mlm_reading import item_fields
from geoseg.model.unsafe import refuse_outside_weights, refuse_pickle

CARD = "model.json"
SMP_CONFIG = "config.json"
"""Beside the weights in a folder that segmentation-models-pytorch has saved."""
INCLUDED = Path(__file__).parent / "bundles"
DEFAULT_BUNDLE = INCLUDED / "landcover-rgb"
MAX_CARD_BYTES = 4 << 20
MAX_TOLD = 3
"""Faults of a card that are told at once."""
NUMBERS = {"BOOL", "U8", "I8", "I16", "U16", "I32", "U32", "I64", "U64", "BF16", "F16", "F32", "F64"}
"""Types of numbers in a safetensors file that torch computes with."""


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex; read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def bundle_at(name: str | Path, folder: Path = Path()) -> Path:
    """What a user's words for a bundle mean: a path from a folder, or else the name of one that comes with geoseg."""
    path = folder / name
    included = INCLUDED / name
    return included if not path.exists() and included.parent == INCLUDED and included.is_dir() else path


@dataclass(frozen=True)
class Bundle:
    """A model folder whose card holds and whose files have the digests that the card names.

    hrefs: where a file of the card lies in the folder, if not under its own name. item: the STAC item that stands in
    for the card, if one does.
    """

    folder: Path
    card: ModelCard
    hrefs: Mapping[str, str] = field(default_factory=dict)
    item: Path | None = None

    @classmethod
    def open(cls, source: str | Path | None = None) -> Bundle:
        """Read and verify a bundle; the one that comes with geoseg where none is given.

        source: a folder with model.json, or else with item.json, or one of these files; or a STAC item with the MLM
        extension by any name; or the name of a bundle that comes with geoseg.
        Raises ModelError where the bundle, its card or a digest does not hold, before anything is loaded.
        """
        path = bundle_at(source) if source is not None else DEFAULT_BUNDLE
        refuse_pickle(path)
        bundle = cls.described(path)
        for name, digest in bundle.card.files.items():
            held = bundle.path_of(name)
            if not held.is_file():
                raise ModelError(f"the card names {held.name}, which is not there", bundle.folder)
            if sha256_of(held) != digest:
                raise ModelError(
                    f"does not have the digest that {bundle.described_by.name} states; "
                    "the bundle is damaged or altered",
                    held,
                )
        if bundle.card.is_onnx:
            refuse_outside_weights(bundle.weights)
        else:
            check_safetensors(bundle.weights)
        return bundle

    @classmethod
    def described(cls, path: Path) -> Bundle:
        """A bundle as its card tells it; no other file is looked at. Raises ModelError as `open` does."""
        _refuse_bare_network(path)
        if path.is_file() and path.name == CARD:
            path = path.parent
        if path.is_file() and path.suffix == ".json":
            return cls._from_item(path)
        if (path / ITEM).is_file() and not (path / CARD).exists():
            return cls._from_item(path / ITEM)
        return cls(path, read_card(path))

    @classmethod
    def _from_item(cls, path: Path) -> Bundle:
        fields, hrefs = item_fields(_read_json(path, "a STAC item"), path)
        return cls(path.parent, checked_card(fields, path), hrefs, path)

    @property
    def described_by(self) -> Path:
        """The card, or the STAC item in its place."""
        return self.item or self.folder / CARD

    @property
    def source(self) -> Path:
        """What `open` takes to open this bundle again, as an absolute path."""
        return (self.item or self.folder).absolute()

    def path_of(self, name: str) -> Path:
        """Where a file lies that the card names."""
        return self.folder / self.hrefs.get(name, name)

    @property
    def weights(self) -> Path:
        """The file that holds the network's weights."""
        return self.path_of(ONNX if self.card.is_onnx else WEIGHTS)

    @property
    def ir(self) -> tuple[Path, Path] | None:
        """OpenVINO's intermediate representation, where the bundle carries it."""
        if IR_XML not in self.card.files:
            return None
        return self.path_of(IR_XML), self.path_of(IR_BIN)


def _refuse_bare_network(path: Path) -> None:
    """Raises ModelError for a network of others that no card describes yet."""
    saved = (path / SMP_CONFIG).is_file() and not any((path / name).exists() for name in (CARD, ITEM))
    if saved or (path.is_file() and path.suffix.lower() in (".onnx", ".safetensors")):
        raise ModelError(
            f"is a network without a card; make a bundle of it: geoseg model import {path} --template card.yaml",
            path,
        )


def check_safetensors(path: Path) -> None:
    """Raises ModelError for weights that are cut short, in another format, or of numbers that are not computed with.

    To be called before weights are read, also where OpenVINO's representation would do without them.
    """
    try:
        with safe_open(path, framework="numpy") as opened:
            kinds = {opened.get_slice(name).get_dtype() for name in opened.keys()}  # noqa: SIM118  it is no mapping
    except FileNotFoundError:
        raise ModelError("no such file", path) from None
    except (SafetensorError, OSError) as error:
        reason = str(error).removeprefix("Error while deserializing header: ")[:120]
        raise ModelError(
            f"is not a safetensors file ({reason}): it is damaged or cut short, or weights in another format, which "
            "are not read",
            path,
        ) from error
    if kinds - NUMBERS:
        raise ModelError(
            f"holds numbers of type {min(kinds - NUMBERS)}, which are not read; F32 and F16 are", path
        )


def read_card(folder: Path) -> ModelCard:
    """The card of a bundle; ModelError in one line where it is missing or does not hold."""
    if not folder.is_dir():
        names = ", ".join(sorted(path.name for path in INCLUDED.iterdir()))
        raise ModelError(
            f"no such bundle; a bundle is a folder with {CARD} and {WEIGHTS}, or one that comes with geoseg: {names}",
            folder,
        )
    try:
        return checked_card(_read_json(folder / CARD, "a model card"), folder / CARD)
    except FileNotFoundError:
        raise ModelError(f"has no {CARD}; a bundle is a folder with {CARD} and {WEIGHTS}", folder) from None


def checked_card(fields: Any, path: Path) -> ModelCard:
    """These values as a card; ModelError in one line, led by the file that told them, where they do not hold."""
    try:
        return ModelCard.model_validate(fields)
    except ValidationError as error:
        told = [
            f"{'.'.join(map(str, e['loc'])) or 'card'}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors()[:MAX_TOLD]
        ]
        more = error.error_count() - len(told)
        raise ModelError("; ".join(told) + (f"; and {more} more" if more else ""), path) from error


def _read_json(path: Path, what: str) -> Any:
    """Raises FileNotFoundError, and ModelError for a file that is no JSON or too long."""
    try:
        if path.stat().st_size > MAX_CARD_BYTES:
            raise ModelError(f"{what} of more than 4 MiB is not read", path)
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise
    except (ValueError, OSError, RecursionError) as error:
        raise ModelError(f"cannot be read as {what} ({error})", path) from error
