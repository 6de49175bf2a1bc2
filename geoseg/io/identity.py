"""What a source is: a digest of its bytes, so that a changed scene is mapped again and an untouched one is not."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geoseg.errors import SourceError
from geoseg.io.rasters import open_raster

NOT_PIXELS = (".aux.xml", ".ovr")
"""Sidecars that programs write when they merely look at a raster."""


def source_identity(path: str, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Digest of each file that a raster (or vector) consists of, a VRT's members too.

    known: an identity found earlier; where size and modification time are the same, its digest is taken over, as git
    does. Returns {file name: {"size", "mtime_ns", "sha256"}}.
    """
    found: dict[str, Any] = {}
    for member in sorted(_members(path)):
        try:
            stat = os.stat(member)
            entry = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
            before = (known or {}).get(member)
            if before and {k: before.get(k) for k in entry} == entry:
                found[member] = before
                continue
            with Path(member).open("rb") as stream:
                found[member] = {**entry, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}
        except OSError as error:
            raise SourceError(f"its part {member} cannot be read ({error.strerror})", path) from error
    return found


def content_of(identity: Mapping[str, Any]) -> dict[str, str]:
    """The part of an identity that decides bytes: a file touched, copied or moved is the same source."""
    return {Path(name).name: entry["sha256"] for name, entry in identity.items()}


def _members(path: str) -> set[str]:
    """The file, its sidecars and, through VRTs, all it draws on."""
    found: set[str] = set()
    todo = [path]
    while todo:
        name = todo.pop()
        if name in found or name.endswith(NOT_PIXELS):
            continue
        found.add(name)
        if name.lower().endswith((".tif", ".tiff", ".vrt")):
            if not Path(name).exists():
                raise SourceError(f"its part {name} is not there", path)
            with open_raster(name) as dataset:
                todo += [f for f in dataset.files if f != name]
        else:
            todo += [str(p) for p in _shapefile_parts(Path(name))]
    return found


def _shapefile_parts(path: Path) -> list[Path]:
    if path.suffix.lower() != ".shp":
        return []
    return [p for ending in (".dbf", ".shx", ".prj", ".cpg") if (p := path.with_suffix(ending)).exists()]
