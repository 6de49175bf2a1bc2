"""STAC 1.1: an Item for a scene's results, and a Catalog of a run's items. The same input gives the same bytes.

Written as plain JSON: pystac knows neither version 2 of the raster extension nor the processing extension. It is the
referee in the tests.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pyproj import CRS

from geoseg.errors import SourceError, SpecError
from geoseg.grid.geogrid import GeoGrid
from geoseg.io.files import publish_json, read_json
from geoseg.io.footprint import footprint
from geoseg.io.places import Place
from geoseg.legend import NODATA, Legend
from geoseg.stages.mistakes import mistake_legend

ITEM, CATALOG = "item.json", "catalog.json"
VERSION = "1.1.0"

EXTENSIONS = [
    f"https://stac-extensions.github.io/{name}/schema.json"
    for name in (
        "classification/v1.1.0",
        "file/v2.1.0",
        "processing/v1.2.0",
        "projection/v2.0.0",
        "raster/v2.0.0",
    )
]

MEDIA_TYPES = {
    ".tif": "image/tiff; application=geotiff; profile=cloud-optimized",
    ".gpkg": "application/geopackage+sqlite3",
    ".parquet": "application/vnd.apache.parquet",
    ".fgb": "application/vnd.flatgeobuf",
    ".geojson": "application/geo+json",
    ".json": "application/json",
    ".csv": "text/csv",
}

KNOWN = {
    "landcover.tif": ("Land cover", ["data"]),
    "confidence.tif": ("Confidence of the land cover", ["data", "confidence"]),
    "errors.tif": ("Where the land cover differs from labels, by true class", ["data"]),
    "vectors.gpkg": ("Buildings, roads and regions", ["data"]),
    "metrics.json": ("Scores against labels", ["metadata"]),
    "regions.csv": ("Scores per region", ["metadata"]),
    "areas.csv": ("Areas per region", ["metadata"]),
}
"""Results that are described where they are there; their asset's key is their name without its ending."""
EXPORTS = (".parquet", ".fgb", ".geojson", ".gpkg")
"""Copies of vector layers; the key of their asset is the whole file name."""


@dataclass(frozen=True)
class UsedModel:
    """The network behind a map. href: its description (STAC item or model card), relative to the item or absolute."""

    name: str
    version: str
    digest: str
    href: str


@dataclass(frozen=True)
class MapFacts:
    """What an item says beyond its files.

    name: the item's id. acquired: when the scene was taken, ISO 8601, None where that is unknown: then started, the
    start of the run, stands in for it. Times without a zone are UTC. versions: of the software.
    catalog: the catalog that will link the item, relative to the item's folder.
    """

    name: str
    grid: GeoGrid
    legend: Legend
    model: UsedModel
    started: str
    versions: Mapping[str, str]
    acquired: str | None = None
    catalog: str | None = None


def write_item(folder: Path, facts: MapFacts) -> Path:
    """Write `folder/item.json` for the results in `folder`; they must be finished, since their digests are in it.

    geometry and bbox are the outline in WGS 84 (see `footprint`); without CRS, geometry is null and bbox absent.
    Raises SpecError for a time that is none, SourceError where a result cannot be read, OutputError where the disk
    refuses.
    """
    shape = footprint(facts.grid)
    place: dict[str, Any] = {"geometry": None} if shape is None else {"geometry": shape[0], "bbox": shape[1]}
    item = {
        "type": "Feature",
        "stac_version": VERSION,
        "stac_extensions": EXTENSIONS,
        "id": facts.name,
        **place,
        "properties": _properties(facts),
        "links": _links(facts),
        "assets": _assets(folder, facts),
    }
    path = folder / ITEM
    publish_json(path, item)
    return path


def write_catalog(folder: Place, items: Sequence[Place], title: str) -> Place:
    """Write `folder/catalog.json`, which links items by paths relative to it, in the order given.

    Raises SourceError where an item cannot be read, SpecError where two have one id, OutputError where the disk
    refuses.
    """
    links: list[dict[str, Any]] = [{"rel": "root", "href": f"./{CATALOG}", "type": MEDIA_TYPES[".json"]}]
    names: set[str] = set()
    for path in items:
        item = read_json(path)
        if not isinstance(item, dict) or item.get("type") != "Feature":
            raise SourceError("is no STAC item", path)
        if item["id"] in names:
            raise SpecError(f"two items have the id {item['id']!r}", path)
        names.add(item["id"])
        href = _href(os.path.relpath(str(path), str(folder)))
        links.append({"rel": "item", "href": href, "type": MEDIA_TYPES[".geojson"], "title": item["id"]})
    catalog = {
        "type": "Catalog",
        "stac_version": VERSION,
        "id": _slug(title) or "catalog",
        "title": title,
        "description": f"Land-cover maps that geoseg made: {len(items)} scene{'s' * (len(items) != 1)}.",
        "links": links,
    }
    publish_json(folder / CATALOG, catalog)
    return folder / CATALOG


def _properties(facts: MapFacts) -> dict[str, Any]:
    grid, t = facts.grid, facts.grid.transform
    corners = [
        t @ corner for corner in ((0, 0), (grid.width, 0), (0, grid.height), (grid.width, grid.height))
    ]
    xs, ys = zip(*corners, strict=True)
    gsd = {} if grid.gsd_m is None else {"gsd": round(grid.gsd_m, 6)}
    return {
        "title": f"Land cover of {facts.name}",
        "datetime": utc(facts.acquired or facts.started),
        **gsd,
        **_projection(grid.crs),
        "proj:shape": [grid.height, grid.width],
        "proj:transform": [t.a, t.b, t.c, t.d, t.e, t.f],
        "proj:bbox": [min(xs), min(ys), max(xs), max(ys)],
        "processing:datetime": utc(facts.started),
        "processing:level": "L4",
        "processing:software": {k: v for k, v in sorted(facts.versions.items()) if v != "not installed"},
        "geoseg:model": facts.model.name,
        "geoseg:model_version": facts.model.version,
        "geoseg:model_digest": facts.model.digest,
    }


def _projection(wkt: str | None) -> dict[str, Any]:
    """The code where an authority has one for exactly this CRS, else its definition."""
    if wkt is None:
        return {"proj:code": None}
    crs = CRS.from_wkt(wkt)
    authority = crs.to_authority(min_confidence=100)
    if authority is not None:
        return {"proj:code": ":".join(authority)}
    return {"proj:code": None, "proj:wkt2": crs.to_wkt(), "proj:projjson": crs.to_json_dict()}


def _links(facts: MapFacts) -> list[dict[str, Any]]:
    model = facts.model
    # The relation that the MLM extension asks of what a model made.
    links = [
        {
            "rel": "derived_from",
            "href": model.href,
            "type": MEDIA_TYPES[".json"],
            "title": f"{model.name} {model.version}",
            "mlm:name": model.name,
        }
    ]
    if facts.catalog is not None:
        links += [
            {"rel": rel, "href": facts.catalog, "type": MEDIA_TYPES[".json"]} for rel in ("root", "parent")
        ]
    return links


def _assets(folder: Path, facts: MapFacts) -> dict[str, Any]:
    raster = {"data_type": "uint8", "nodata": NODATA, "raster:sampling": "area", "raster:bits_per_sample": 8}
    if facts.grid.gsd_m is not None:
        raster["raster:spatial_resolution"] = round(facts.grid.gsd_m, 6)
    more: dict[str, dict[str, Any]] = {
        "landcover.tif": {**raster, "classification:classes": _classes(facts.legend)},
        "confidence.tif": {**raster, "unit": "%"},
    }
    if (folder / "errors.tif").is_file():
        more["errors.tif"] = {**raster, "classification:classes": _classes(mistake_legend(facts.legend))}
    try:
        there = {path.name: path for path in sorted(folder.iterdir()) if path.is_file()}
    except OSError as error:
        raise SourceError(f"cannot be read ({error.strerror})", folder) from error
    assets = {}
    for name, (title, roles) in KNOWN.items():
        if name in there:
            entry = {"title": title, "roles": roles, **more.get(name, {}), **_file(there[name])}
            assets[Path(name).stem] = entry
    for name, path in there.items():
        if name not in KNOWN and path.suffix in EXPORTS and not name.startswith("."):
            assets[name] = {"title": f"{path.stem}, {path.suffix[1:]}", "roles": ["data"], **_file(path)}
    return assets


def _file(path: Path) -> dict[str, Any]:
    """Address, type, size and checksum: a multihash, where 12 20 says that 32 bytes of SHA-256 follow."""
    try:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            size = stream.tell()
    except OSError as error:
        raise SourceError(f"cannot be read ({error.strerror})", path) from error
    kind = MEDIA_TYPES[path.suffix]
    return {"href": _href(path.name), "type": kind, "file:size": size, "file:checksum": f"1220{digest}"}


def _classes(legend: Legend) -> list[dict[str, Any]]:
    """Names hold what version 2 of the extension allows, too: letters, digits, - and _."""
    slugs = [_slug(c.name) for c in legend.classes]
    names = [
        s if s and slugs.count(s) == 1 else f"class_{c.id}"
        for s, c in zip(slugs, legend.classes, strict=True)
    ]
    return [
        {
            "value": c.id,
            "name": name,
            "description": c.name,
            "color_hint": "{:02X}{:02X}{:02X}".format(*c.color),
        }
        for name, c in zip(names, legend.classes, strict=True)
    ]


def _slug(text: str) -> str:
    return re.sub(r"[^0-9A-Za-z_-]+", "_", text).strip("_")


def _href(relative: str) -> str:
    """A relative path as STAC writes it; unescaped, as pystac does: programs open it as a path."""
    href = Path(relative).as_posix()
    return href if href.startswith("../") else f"./{href}"


def utc(text: str) -> str:
    """An ISO 8601 date or time as RFC 3339 in UTC, as STAC wants it; without a zone it is UTC already."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise SpecError(f"{text!r} is no date or time in ISO 8601") from error
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment.isoformat().replace("+00:00", "Z")
