"""What a source is: a digest of its bytes, so that a changed scene is mapped again and an untouched one is not."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from geoseg.errors import SourceError
from geoseg.io.places import Place, place_of
from geoseg.io.rasters import open_raster
from geoseg.io.remote import Remote

NOT_PIXELS = (".aux.xml", ".ovr")
"""Sidecars that programs write when they merely look at a raster."""


MD5 = re.compile(r'^"([0-9a-f]{32})"$')
"""The tag of an object that was put in one piece: a digest of its content."""


def source_identity(path: str, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Digest of each file that a raster (or vector) consists of, a VRT's members too.

    known: an identity found earlier; where size and modification time, or the storage's tag, are the same, its digest
    is taken over, as git does. Returns {name: {"size", "mtime_ns" or "tag", "sha256" or "md5"}}; of an object in a
    bucket the tag is the digest where it is one, else the content is read once.
    """
    found: dict[str, Any] = {}
    for member in sorted(_members(path)):
        try:
            place = place_of(member)
            entry = _version(place)
            before = (known or {}).get(member)
            if before and entry.get("tag", "") is not None and {k: before.get(k) for k in entry} == entry:
                found[member] = before
            else:
                found[member] = {**entry, **_digest(place, entry)}
        except OSError as error:
            raise SourceError(f"its part {member} cannot be read ({error.strerror})", path) from error
    return found


def content_of(identity: Mapping[str, Any]) -> dict[str, str]:
    """The part of an identity that decides bytes: a file touched, copied or moved is the same source."""
    return {place_of(name).name: entry.get("sha256") or entry["md5"] for name, entry in identity.items()}


def _version(place: Place) -> dict[str, Any]:
    if isinstance(place, Remote):
        head = place.head()
        return {"size": head.size, "tag": head.tag}
    stat = place.stat()
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def _digest(place: Place, version: Mapping[str, Any]) -> dict[str, str]:
    if not isinstance(place, Remote):
        with place.open("rb") as stream:
            return {"sha256": hashlib.file_digest(stream, "sha256").hexdigest()}
    if found := MD5.match(version["tag"] or ""):
        return {"md5": found[1]}
    digest = hashlib.sha256()
    for chunk in place.chunks():
        digest.update(chunk)
    return {"sha256": digest.hexdigest()}


def _members(path: str) -> set[str]:
    """The file, its sidecars and, through VRTs, all it draws on."""
    found: set[str] = set()
    todo = [path]
    while todo:
        name = str(place_of(todo.pop()))
        if name in found or name.endswith(NOT_PIXELS):
            continue
        found.add(name)
        if name.lower().endswith((".tif", ".tiff", ".vrt")):
            if not place_of(name).exists():
                raise SourceError(f"its part {name} is not there", path)
            with open_raster(name) as dataset:
                todo += [f for f in dataset.files if f != name]
        else:
            todo += [str(p) for p in _shapefile_parts(place_of(name))]
    return found


def _shapefile_parts(path: Place) -> list[Place]:
    if path.suffix.lower() != ".shp":
        return []
    return [
        p for ending in (".dbf", ".shx", ".prj", ".cpg") if (p := path.with_name(path.stem + ending)).exists()
    ]
