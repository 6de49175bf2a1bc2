"""Jobs that come back every night: which scenes there are, what became of them, and what is no longer needed."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator

from geoseg.errors import SourceError
from geoseg.io.classmap import AnyClassRaster
from geoseg.io.files import publish_json, read_json, remove_folder
from geoseg.io.legends import find_classes
from geoseg.io.places import Place, beside, is_remote, place_of
from geoseg.io.remote import Remote
from geoseg.parallel import threaded_map
from geoseg.run.events import Reporter
from geoseg.run.finish import LANDCOVER
from geoseg.run.job import SceneEntry, make_job
from geoseg.run.job_files import bundle_beside, checked, read_fields
from geoseg.run.pipeline import DONE, NOTHING_STARTED, SOME_FAILED, Run
from geoseg.run.prepare import SCRATCH
from geoseg.stages.areas import measure_areas

NIGHTS = "nights.json"
ENTRY_FIELDS = ("path", "labels", "regions", "mask")
MOST_NIGHTS = 1000
RASTERS = (".tif", ".tiff", ".vrt")
"""What is taken for a scene below a prefix."""

Entry = dict[str, str | None]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Strict):
    """Where scenes come from: one of these. asset, mask_asset: keys of the assets of STAC items."""

    glob: str | None = None
    prefix: str | None = None
    csv: str | None = None
    stac: str | None = None
    asset: str = "image"
    mask_asset: str | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Source:
        if sum(kind is not None for kind in (self.glob, self.prefix, self.csv, self.stac)) != 1:
            raise ValueError("a source is one of glob, prefix, csv and stac")
        if self.prefix is not None and not is_remote(self.prefix):
            raise ValueError(
                f"prefix {self.prefix!r} is no place in a bucket such as s3://bucket/scenes; take a glob"
            )
        return self


class NightJob(_Strict):
    """The job file of a night. job: fields of `geoseg run`, but the scenes. mask: name of a scene's mask beside it,
    with {stem} for the scene's own. keep_nights: results of a scene that is listed no more stay for so many nights.
    """

    sources: tuple[Source, ...] = Field(min_length=1)
    job: dict[str, Any]
    mask: str | None = None
    keep_nights: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _scenes_come_from_sources(self) -> NightJob:
        if "scenes" in self.job:
            raise ValueError("job.scenes: the scenes of a night come from its sources")
        if not isinstance(self.job.get("output"), str):
            raise ValueError("job.output: name a folder for the results")
        return self


@dataclass
class Night:
    """What became of the scenes of one night, by name; areas in hectares by class, over all scenes that are kept."""

    number: int
    started: str
    ended: str
    exit_code: int
    done: list[str]
    unchanged: list[str]
    postponed: list[str]
    failed: dict[str, str]
    removed: list[str]
    megapixels: float
    seconds: float
    hectares: dict[str, float]


@dataclass
class Listing:
    """Scenes by name, and why others cannot be taken."""

    scenes: dict[str, dict[str, str]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def add(self, entry: Mapping[str, str | None]) -> None:
        given = {name: value for name, value in entry.items() if name in ENTRY_FIELDS and value}
        name = SceneEntry.model_validate({"path": given.get("path", "")}).name
        taken = self.scenes.get(name)
        if taken is None:
            self.scenes[name] = given
        elif taken["path"] != given["path"]:
            text = f"would write to the same folder as {taken['path']}; rename one"
            self.refused[given["path"]] = f"{given['path']}: {text}"


def read_night_job(path: str) -> tuple[NightJob, Path]:
    """The job file of a night, and the folder from which its paths start. Raises SpecError in one line."""
    values = read_fields(Path(path), "sources: [{glob: '*.tif'}]")
    return checked(NightJob, values, path), Path(path).parent


def list_scenes(night: NightJob, base: Path) -> Listing:
    """All scenes that the sources name, in their order. Raises SourceError for a source that cannot be read."""
    listing = Listing()
    for source in night.sources:
        for entry in _entries(source, base):
            if isinstance(entry, SourceError):
                listing.refused[str(entry.path)] = str(entry)
                continue
            scene = place_of(entry["path"] or "")
            mask = night.mask and scene.with_name(night.mask.format(stem=scene.stem))
            if mask and not entry.get("mask"):
                entry["mask"] = str(mask) if mask.is_file() else None
            listing.add(entry)
    return listing


def run_night(night: NightJob, base: Path, reporter: Reporter) -> Night:
    """Map what is new or changed, forget what is long gone, and add the night to OUT/nights.json.

    A scene without CRS fails here: its areas would mean nothing. Raises GeosegError where the sources or the output
    cannot be used.
    """
    started = _now()
    listing = list_scenes(night, base)
    output = output_of(night, base)
    history = read_history(output)
    for reason in listing.refused.values():
        reporter.say("error", reason)
    removed, missing = _forget(night, output, listing, history.get("missing", {}))
    code, reports, seconds = NOTHING_STARTED if listing.refused else DONE, [], 0.0
    if listing.scenes:
        values = {**night.job, "output": str(output), "scenes": list(listing.scenes.values())}
        run = Run(make_job(_beside(values, base)), reporter, needs_crs=True)
        code = run.go()
        reports = run.reports
        seconds = run.seconds
    by_status: dict[str, list[str]] = {}
    for report in reports:
        by_status.setdefault(report.status, []).append(report.name)
    failed = {report.name: report.error for report in reports if report.error}
    failed |= {r.name: f"{len(r.lost)} blocks could not be mapped" for r in reports if r.status == "partial"}
    hectares = dict(history.get("hectares", {}))
    for name in by_status.get("done", []):
        hectares[name] = hectares_of(output / name / LANDCOVER)
    hectares = {name: areas for name, areas in hectares.items() if name not in removed}
    if (failed or listing.refused) and code == DONE:
        code = SOME_FAILED
    record = Night(
        1 + (history["nights"][-1]["number"] if history["nights"] else 0), started, _now(), code,
        by_status.get("done", []), by_status.get("unchanged", []), by_status.get("postponed", []),
        {**failed, **listing.refused}, removed,
        round(sum(r.megapixels for r in reports if r.status == "done"), 3), round(seconds, 1), _total(hectares),
    )  # fmt: skip
    history |= {
        "hectares": hectares,
        "missing": missing,
        "nights": [*history["nights"], record.__dict__][-MOST_NIGHTS:],
    }
    publish_json(output / NIGHTS, history)
    return record


def output_of(night: NightJob, base: Path) -> Place:
    """Where the results of a night go."""
    return place_of(beside(base, night.job["output"]))


def read_history(output: Place) -> dict[str, Any]:
    """The content of nights.json: nights, the newest last; hectares by scene and class; nights that scenes are missing.

    Empty where there is none yet. Raises SourceError for another file of that name.
    """
    history = read_json(output / NIGHTS)
    if history is None:
        return {"format": 1, "nights": [], "hectares": {}, "missing": {}}
    if not isinstance(history, dict) or not isinstance(history.get("nights"), list):
        raise SourceError("is not a history of nights; move it away", output / NIGHTS)
    return history


def hectares_of(landcover: Place) -> dict[str, float]:
    """Area of each class of a map by name, nodata left out; empty where its pixels have no known size."""
    source = AnyClassRaster.open(str(landcover))
    measured = measure_areas(source, find_classes(source).possible, (), threaded_map)
    if measured.whole.hectares is None:
        return {}
    pairs = zip(measured.legend.classes, measured.whole.hectares, strict=True)
    return {entry.name: round(area, 4) for entry, area in pairs if area}


def _forget(
    night: NightJob, output: Place, listing: Listing, before: Mapping[str, int]
) -> tuple[list[str], dict[str, int]]:
    """Count the nights that results have been without a scene, and remove those that waited long enough."""
    there = {path.name for path in (output / SCRATCH).glob("*") if path.is_dir()}
    missing = {name: before.get(name, 0) + 1 for name in sorted(there - listing.scenes.keys())}
    gone = [name for name, nights in missing.items() if night.keep_nights and nights >= night.keep_nights]
    for name in gone:
        remove_folder(output / name)
        remove_folder(output / SCRATCH / name)
    return gone, {name: nights for name, nights in missing.items() if name not in gone}


def _now() -> str:
    """For the record only; nothing is decided by it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _total(hectares: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for areas in hectares.values():
        for name, area in areas.items():
            total[name] = round(total.get(name, 0.0) + area, 4)
    return dict(sorted(total.items()))


def _entries(source: Source, base: Path) -> Iterator[Entry | SourceError]:
    if source.csv is not None:
        yield from _from_csv(place_of(beside(base, source.csv)))
    elif source.stac is not None:
        yield from _from_stac(place_of(beside(base, source.stac)), source)
    else:
        for name in sorted(map(str, _listed(source, base))):
            yield {"path": name}


def _listed(source: Source, base: Path) -> Iterable[Place]:
    """The files that a pattern matches, or the rasters below a prefix. Raises SourceError."""
    try:
        if source.prefix is not None:
            return [f for f in Remote(source.prefix).walk_files() if f.suffix.lower() in RASTERS]
        pattern = source.glob or ""
        if is_remote(pattern):
            wanted = Remote(pattern)
            return list(Remote(wanted.root).glob(wanted.key))
        return _absolute(pattern) if Path(pattern).is_absolute() else base.glob(pattern)
    except OSError as error:
        raise SourceError(
            f"cannot be listed ({error.strerror or error})", source.prefix or source.glob
        ) from error


def _absolute(pattern: str) -> Iterable[Path]:
    root = Path(pattern).anchor
    return Path(root).glob(pattern[len(root) :])


def _from_csv(path: Place) -> Iterator[Entry]:
    try:
        table = csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""))
        if "path" not in (table.fieldnames or ()):
            raise SourceError("has no column 'path'; labels, regions and mask may stand beside it", path)
        for row in table:
            yield {k: beside(path.parent, v) for k, v in row.items() if k in ENTRY_FIELDS and v}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"cannot be read as a table ({error})", path) from error


def _from_stac(
    path: Place, source: Source, seen: frozenset[Place] = frozenset()
) -> Iterator[Entry | SourceError]:
    """The items of a static catalog; links in a circle, and those to pages that are no files, are refused."""
    path = path.resolve()
    if path in seen:
        raise SourceError("a catalog links to itself", path)
    content = read_json(path)
    if not isinstance(content, dict):
        raise SourceError("no such catalog" if content is None else "is not a STAC catalog or item", path)
    if content.get("type") == "Feature":
        assets = content.get("assets", {})
        if source.asset not in assets:
            names = ", ".join(assets) or "none"
            yield SourceError(f"has no asset {source.asset!r}; there are {names}", path)
            return
        entry: Entry = {"path": str(_linked(path, assets[source.asset]["href"]))}
        if source.mask_asset in assets:
            entry["mask"] = str(_linked(path, assets[source.mask_asset]["href"]))
        yield entry
        return
    for link in content.get("links", ()):
        if link.get("rel") in ("item", "child"):
            yield from _from_stac(_linked(path, link["href"]), source, seen | {path})


def _linked(path: Place, href: str) -> Place:
    """What a catalog's link leads to: files beside a catalog on disk, objects for one in a bucket."""
    parts = urlsplit(href)
    try:
        if parts.scheme in ("s3", "gs", "az"):
            return Remote(href)
        if isinstance(path, Path) and parts.scheme in ("", "file"):
            return path.parent / unquote(parts.path)
        if isinstance(path, Remote) and not parts.scheme:
            return path.linked(unquote(parts.path))
    except ValueError as error:
        raise SourceError(f"links to {href}, which leads nowhere ({error})", path) from error
    raise SourceError(f"links to {href}; only files and objects in buckets are read", path)


def _beside(values: dict[str, Any], base: Path) -> dict[str, Any]:
    for name, there in {"model": bundle_beside, "aoi": beside}.items():
        if isinstance(values.get(name), str):
            values[name] = there(base, values[name])
    return values
