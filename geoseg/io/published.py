"""The results of a scene, read back: what their STAC item says, whether they are still those, and their layers."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

import pyogrio
from pydantic import BaseModel, Field, ValidationError

from geoseg.errors import SourceError
from geoseg.io.files import read_json
from geoseg.io.qgis import VECTOR_LAYERS
from geoseg.io.vectors import REGIONS_LAYER


class Properties(BaseModel):
    """Of a scene's STAC item. taken: when the picture was; the same as started where that is unknown."""

    taken: str = Field(alias="datetime")
    started: str = Field(alias="processing:datetime")
    software: dict[str, str] = Field(alias="processing:software")
    model: str = Field(alias="geoseg:model")
    model_version: str = Field(alias="geoseg:model_version")
    model_digest: str = Field(alias="geoseg:model_digest")


class Item(BaseModel):
    """A scene's STAC item, as far as it is read again."""

    properties: Properties
    links: list[dict[str, Any]]
    assets: dict[str, dict[str, Any]]

    @classmethod
    def read(cls, path: Path) -> Item:
        """Raises SourceError where the file is no item of geoseg."""
        try:
            return cls.model_validate(read_json(path))
        except ValidationError as error:
            raise SourceError("is not the STAC item that geoseg run writes; run it again", path) from error

    def bundles(self) -> list[Path]:
        """Folders on this machine in which the model is said to be described."""
        hrefs = (urlparse(str(link.get("href"))) for link in self.links if link.get("rel") == "derived_from")
        return [Path(url2pathname(href.path)).parent for href in hrefs if href.scheme == "file"]

    def differs(self, path: Path) -> bool:
        """Whether the item states another checksum for a result."""
        stated = [a.get("file:checksum") for a in self.assets.values() if a.get("href") == f"./{path.name}"]
        with path.open("rb") as stream:
            return bool(stated) and stated != [f"1220{hashlib.file_digest(stream, 'sha256').hexdigest()}"]


def shown_layers(gpkg: Path) -> tuple[list[str], list[str]]:
    """The layers that a project can show, and the fields of the regions among them. Raises SourceError."""
    try:
        names = {str(name) for name, kind in pyogrio.list_layers(gpkg) if kind is not None}
        layers = [name for name in VECTOR_LAYERS if name in names]
        fields = pyogrio.read_info(gpkg, layer=REGIONS_LAYER)["fields"] if REGIONS_LAYER in layers else ()
    except (RuntimeError, ValueError) as error:
        raise SourceError(f"cannot be read as a GeoPackage ({error})", gpkg) from error
    return layers, [str(name) for name in fields]
