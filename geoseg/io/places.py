"""Where files lie, on disk or in a bucket, and what they are called: by a person, by GDAL, in a file beside them."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from geoseg.io.remote import URL, Remote

Place = Path | Remote
"""Where files lie: on disk, or in a bucket."""

_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+:/")
_VSI = {"s3": "/vsis3/", "gs": "/vsigs/", "az": "/vsiaz/"}
_CURL = "/vsicurl/"


def place_of(name: str | Place) -> Place:
    """A place by its path or URL; also by what GDAL calls it. Raises ValueError for a URL that names no bucket."""
    if isinstance(name, Path | Remote):
        return name
    if is_remote(name):
        return Remote(name)
    if _SCHEME.match(name):
        raise ValueError(f"{name} is neither a path nor a place such as s3://bucket/folder, gs:// or az://")
    for scheme, prefix in _VSI.items():
        if name.startswith(prefix):
            return Remote(f"{scheme}://{name.removeprefix(prefix)}")
    return Remote(name.removeprefix(_CURL)) if name.startswith(_CURL) else Path(name)


def gdal_name(name: str | Place) -> str:
    """What GDAL calls a file."""
    place = place_of(name)
    if not isinstance(place, Remote):
        return str(place)
    scheme, rest = place.url.split("://", 1)
    return f"{_VSI[scheme]}{rest}" if scheme in _VSI else f"{_CURL}{place.url}"


def is_remote(name: str) -> bool:
    """Whether a name is a URL of an object or of a folder of objects."""
    return URL.match(name) is not None


def is_there(name: str) -> bool:
    """Whether a file is there, as far as can be known."""
    try:
        return place_of(name).is_file()
    except (OSError, ValueError):
        return False


def beside(folder: Place, name: str) -> str:
    """A name as it is meant in a file that lies in this folder: URLs and absolute paths stay what they are."""
    return name if is_remote(name) else str(folder / name)


@contextmanager
def fetched(name: str | Place) -> Iterator[str]:
    """A file as one on disk, for readers that jump about in it; from a bucket it is copied, with what belongs to it.

    Raises OSError where storage refuses.
    """
    place = place_of(name)
    if not isinstance(place, Remote):
        yield str(name)
        return
    with tempfile.TemporaryDirectory(prefix="geoseg-") as folder:
        parts = [place]
        if place.suffix.lower() == ".shp":
            parts = [part for part in place.parent.iterdir() if part.stem == place.stem]
        for part in parts:
            part.download(Path(folder, part.name))
        yield str(Path(folder, place.name))
