"""Bundles: a folder with a card and weights. Nothing in a bundle is ever executed or unpickled."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from geoseg.errors import ModelError
from geoseg.model.card import IR_BIN, IR_XML, WEIGHTS, ModelCard

CARD = "model.json"
DEFAULT_BUNDLE = Path(__file__).parent / "bundles" / "landcover-rgb"
MAX_CARD_BYTES = 4 << 20


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex; read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@dataclass(frozen=True)
class Bundle:
    """A model folder whose card holds and whose files have the digests that the card names."""

    folder: Path
    card: ModelCard

    @classmethod
    def open(cls, folder: str | Path | None = None) -> Bundle:
        """Read and verify a bundle; the one that comes with geoseg where no folder is given.

        Raises ModelError where the folder, its card or a digest does not hold.
        """
        folder = Path(folder) if folder is not None else DEFAULT_BUNDLE
        card = read_card(folder)
        for name, digest in card.files.items():
            path = folder / name
            if not path.is_file():
                raise ModelError(f"the card names {name}, which is not there", folder)
            if sha256_of(path) != digest:
                raise ModelError(
                    f"does not have the digest that {CARD} states; the bundle is damaged or altered", path
                )
        _check_safetensors(folder / WEIGHTS)
        return cls(folder, card)

    @property
    def weights(self) -> Path:
        return self.folder / WEIGHTS

    @property
    def ir(self) -> tuple[Path, Path] | None:
        """OpenVINO's intermediate representation, where the bundle carries it."""
        if IR_XML not in self.card.files:
            return None
        return self.folder / IR_XML, self.folder / IR_BIN


def _check_safetensors(path: Path) -> None:
    """Raises ModelError for weights in another format, also where OpenVINO's representation would do without them."""
    try:
        with safe_open(path, framework="numpy"):
            pass
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"is not a safetensors file ({error}); weights in other formats are not read", path
        ) from error


def read_card(folder: Path) -> ModelCard:
    """The card of a bundle; ModelError in one line where it is missing or does not hold."""
    path = folder / CARD
    if not folder.is_dir():
        raise ModelError(f"no such bundle; a bundle is a folder with {CARD} and {WEIGHTS}", folder)
    try:
        if path.stat().st_size > MAX_CARD_BYTES:
            raise ModelError("a model card of more than 4 MiB is not read", path)
        return ModelCard.model_validate(json.loads(path.read_bytes()))
    except FileNotFoundError:
        raise ModelError(f"has no {CARD}; a bundle is a folder with {CARD} and {WEIGHTS}", folder) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "card"
        raise ModelError(f"{where}: {first['msg']} ({error.error_count()} in all)", path) from error
    except (ValueError, OSError, RecursionError) as error:
        raise ModelError(f"cannot be read as a model card ({error})", path) from error
