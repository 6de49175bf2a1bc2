"""A bundle as bytes, for workers that do not see the folder it lies in."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from geoseg.errors import ModelError
from geoseg.model.bundle import CARD, Bundle
from geoseg.model.runtimes import SegmenterRecipe


def pack(bundle: Bundle) -> dict[str, bytes]:
    """The card and the files that it names, by name."""
    try:
        files: dict[str, bytes] = {name: bundle.path_of(name).read_bytes() for name in bundle.card.files}
        return {CARD: bundle.card.to_json().encode(), **files}
    except OSError as error:
        raise ModelError(f"cannot be read ({error.strerror or error})", bundle.folder) from error


@contextmanager
def unpacked(recipe: SegmenterRecipe, files: Mapping[str, bytes]) -> Iterator[SegmenterRecipe]:
    """The recipe over a folder of this machine, which lasts as long as the context; building checks the digests."""
    with tempfile.TemporaryDirectory(prefix="geoseg-model-") as name:
        for file, content in files.items():
            Path(name, Path(file).name).write_bytes(content)
        yield dataclasses.replace(recipe, bundle=Path(name))
