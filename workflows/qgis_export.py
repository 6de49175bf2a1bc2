"""Hand a finished run over: a folder, and if wanted a ZIP, that opens in QGIS wherever it is put.

python workflows/qgis_export.py workflows/qgis_export.yaml
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
import textwrap
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlparse
from urllib.request import url2pathname

import click
import pyogrio
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pyproj import CRS

from geoseg.errors import GeosegError, ModelError, OutputError, SourceError, SpecError
from geoseg.grid.geogrid import GeoGrid
from geoseg.io.classmap import ClassMap
from geoseg.io.files import make_folder, publish_bytes, publish_json, read_json, remove_folder, staged
from geoseg.io.formats import export_layers, known_crs
from geoseg.io.qgis import PROJECT, VECTOR_LAYERS, write_qgis
from geoseg.io.rasters import configure_gdal
from geoseg.io.stac import CATALOG, ITEM, KNOWN, MapFacts, UsedModel, write_catalog, write_item
from geoseg.legend import Legend
from geoseg.model.bundle import CARD, DEFAULT_BUNDLE, read_card
from geoseg.model.card import ModelCard
from geoseg.report.facts import QUICKLOOK
from geoseg.run.finish import CONFIDENCE, LANDCOVER
from geoseg.run.job_files import beside, checked, read_fields
from geoseg.run.ledger import Ledger
from geoseg.run.pipeline import SUMMARY
from geoseg.run.prepare import SCRATCH
from geoseg.run.results import VECTORS

DONE, SOME_LEFT_OUT, NOTHING_DONE, INTERRUPTED = 0, 1, 2, 130
README = "README.txt"
HEADLINE = "Land-cover maps made with geoseg"
NEEDED = (LANDCOVER, CONFIDENCE, VECTORS, ITEM)
OPTIONAL = (*(name for name in KNOWN if name not in NEEDED), QUICKLOOK)
"""Not report.html, which leads to an index of all scenes of the run."""
PACKED = (".tif", ".qgz", ".parquet")
"""Files that are compressed already."""

TEXT = f"""\
{HEADLINE}
{"=" * len(HEADLINE)}

{{title}}

Open a scene's {PROJECT} in QGIS (3.22 or later): its layers have their names and colors. All paths are relative, so
this folder may be moved and renamed. Other programs open the same files; each scene's folder holds

  {LANDCOVER:<20}the class of each pixel by its number, 255 where there is no answer (Cloud Optimized GeoTIFF)
  {CONFIDENCE:<20}how sure that is, in percent
  {VECTORS:<20}layers of buildings and roads, and of what else was made, as regions with scores; styles inside
{{copies}}\
  {"*.qml, *.aux.xml":<20}names and colors, for QGIS and for all that use GDAL
  {"metrics.json, *.csv":<20}scores and areas, in all and per region, where there were labels or regions
  {QUICKLOOK:<20}the picture beside its land cover, where it was made
  {ITEM:<20}STAC item: place, files with checksums, software; {CATALOG} lists the scenes
  {CARD:<20}the card of the model, where it was found

Buildings and roads say their class_name; area_m2 and perimeter_m on the ellipsoid; confidence_mean and confidence_p10
in percent; touches_edge where they may go on beyond the map; scene, model, date.
"""

Say = Callable[[str], None]


class ExportJob(BaseModel):
    """The fields of a job file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    results: str = Field(min_length=1, description="output folder of `geoseg run`")
    output: str = Field(min_length=1, description="folder to make, which can be handed over")
    scenes: tuple[str, ...] = Field((), description="names of scenes; all finished ones if not given")
    title: str | None = Field(
        None, min_length=1, description="of the catalog; the output's name if not given"
    )
    formats: tuple[Literal["gpkg", "parquet", "fgb", "geojson"], ...] = Field(
        (), alias="format", description="copies of each vector layer, a file each, beside vectors.gpkg"
    )
    crs: str | None = Field(None, description="CRS of these copies; that of the scene if not given")
    zip: bool = Field(False, description="pack the folder into OUTPUT.zip, too")
    overwrite: bool = Field(False, description="replace an earlier export of that name")

    @model_validator(mode="after")
    def _crs_of_copies(self) -> ExportJob:
        if self.crs is not None and not self.formats:
            raise ValueError("crs: is that of the copies that 'format' asks for; name a format, too")
        return self

    @property
    def folder(self) -> Path:
        return Path(self.output).resolve()

    @property
    def archive(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.zip")


class _Properties(BaseModel):
    """What is taken over from a scene's STAC item."""

    taken: str = Field(alias="datetime")
    started: str = Field(alias="processing:datetime")
    software: dict[str, str] = Field(alias="processing:software")
    model: str = Field(alias="geoseg:model")
    model_version: str = Field(alias="geoseg:model_version")
    model_digest: str = Field(alias="geoseg:model_digest")


class _Item(BaseModel):
    properties: _Properties
    links: list[dict[str, Any]]
    assets: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Exported:
    """A scene in the new folder, for README.txt. card: None where the model's description could not be found."""

    name: str
    grid: GeoGrid
    legend: Legend
    facts: _Properties
    card: ModelCard | None


def read_job(path: Path) -> ExportJob:
    """A job from a YAML file; `results` and `output` start from its own folder. Raises SpecError in one line."""
    values = read_fields(path, "results: out")
    for name in ("results", "output"):
        if isinstance(values.get(name), str) and values[name]:
            values[name] = beside(path, values[name])
    return checked(ExportJob, values, path)


def export(job: ExportJob, say: Say) -> int:
    """Make the folder that a job asks for. Returns the exit code; raises GeosegError where nothing could be made."""
    results = Path(job.results)
    known_crs(job.crs)
    check_place(job)
    names, left_out = finished_scenes(results, job.scenes)
    for name, reason in left_out.items():
        say(f"warning: {name} is left out: {reason}")
    if not names:
        raise SourceError("holds no finished scene", results)
    with folder_in_the_making(job.folder) as folder:
        done = []
        for name in names:
            try:
                done.append(export_scene(results / name, folder / name, job, say))
            except OutputError:
                raise
            except GeosegError as error:
                remove_folder(folder / name)
                left_out[name] = str(error)
                say(f"warning: {name} is left out: {error}")
        if not done:
            raise SourceError("none of its scenes can be exported", results)
        write_catalog(folder, [folder / scene.name / ITEM for scene in done], job.title or job.folder.name)
        publish_bytes(folder / README, readme(job, done, sorted(left_out)).encode())
        publish(folder, job.folder, job.overwrite)
    say(f"{job.folder}: {', '.join(scene.name for scene in done)}")
    if job.zip:
        pack(job.folder, job.archive)
        say(f"{job.archive}: {job.archive.stat().st_size / 1e6:.1f} MB")
    return SOME_LEFT_OUT if left_out else DONE


def check_place(job: ExportJob) -> None:
    """Refuse what would be overwritten without being asked for, or is no export of ours."""
    folder, results = job.folder, Path(job.results).resolve()
    if not results.is_dir():
        raise SourceError("no such folder of results", job.results)
    if folder == results or folder in results.parents:
        raise SpecError(f"holds the results in {results}; name another folder as output", folder)
    if os.path.lexists(folder):
        if not job.overwrite:
            raise SpecError("is there already; name another folder, or say 'overwrite: true'", folder)
        if not is_export(folder):
            raise SpecError(
                f"is no export of this workflow (no such {README} in it) and stays as it is", folder
            )
    if job.zip and os.path.lexists(job.archive) and not job.overwrite:
        raise SpecError("is there already; name another output, or say 'overwrite: true'", job.archive)


def is_export(folder: Path) -> bool:
    """True for an empty folder and one that this workflow made."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    try:
        with (folder / README).open(encoding="utf-8") as stream:
            return stream.readline().strip() == HEADLINE
    except (OSError, UnicodeDecodeError):
        return not any(folder.iterdir())


def finished_scenes(results: Path, wanted: tuple[str, ...]) -> tuple[list[str], dict[str, str]]:
    """Names of the finished scenes, sorted, and why others are none.

    A scene is finished where its ledger says that all is published, the last run did not fail on it, and the files
    are there. Raises SourceError for a folder that no run wrote, SpecError for a wanted name that is none.
    """
    summary = read_json(results / SUMMARY)
    failed = summary.get("failed") if isinstance(summary, dict) else {}
    failed = {str(k): str(v) for k, v in failed.items() if k != SUMMARY} if isinstance(failed, dict) else {}
    known = {path.parent.name for path in results.glob(f"{SCRATCH}/*/ledger.json")} | set(failed)
    if not known:
        raise SourceError(f"is no output folder of geoseg run (no {SUMMARY}, no {SCRATCH})", results)
    if unknown := sorted(set(wanted) - known):
        raise SpecError(
            f"scenes: there is no {', '.join(unknown)}; there are {', '.join(sorted(known))}", results
        )
    names, left_out = [], {}
    for name in sorted(set(wanted) or known):
        reason = failed.get(name) or unfinished(results, name)
        if reason is None:
            names.append(name)
        else:
            left_out[name] = reason
    return names, left_out


def unfinished(results: Path, name: str) -> str | None:
    """What is missing of a scene; None where nothing is."""
    try:
        ledger = Ledger.open(results / SCRATCH / name / "ledger.json")
    except GeosegError as error:
        return str(error)
    if ledger.published.get("map") != ledger.key or "rest" not in ledger.published:
        return "is not finished; the same geoseg run goes on with it"
    missing = [file for file in NEEDED if not (results / name / file).is_file()]
    return f"{', '.join(missing)} is not there; geoseg run makes it anew" if missing else None


@contextmanager
def folder_in_the_making(target: Path) -> Iterator[Path]:
    """A folder beside the one that is wanted; removed where anything fails."""
    make_folder(target.parent)
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        remove_folder(folder)


def export_scene(source: Path, target: Path, job: ExportJob, say: Say) -> Exported:
    """Copy one scene's results, and write what belongs to their new place: styles, project, STAC item, copies."""
    item = _item(source / ITEM)
    if (source / f"{VECTORS}-wal").exists():
        raise SourceError("is being edited; save and close it in the program that holds it", source / VECTORS)
    make_folder(target)
    for name in (LANDCOVER, CONFIDENCE, VECTORS, *OPTIONAL):
        if name not in OPTIONAL or (source / name).is_file():
            copy(source / name, target / name)
            if changed(target / name, item):
                say(f"warning: {source / name}: has been changed since geoseg published it; taken as it is")
    landcover = ClassMap.open(str(target / LANDCOVER))
    if landcover.legend is None:
        raise SourceError("has no legend tag: it is not a map that geoseg wrote", source / LANDCOVER)
    export_layers(target / VECTORS, target, job.formats, job.crs)
    layers, columns = vector_layers(target / VECTORS)
    write_qgis(target, landcover.legend, landcover.grid, layers, columns, title=source.name)
    facts = item.properties
    card = copy_card(item, target)
    model = UsedModel(facts.model, facts.model_version, facts.model_digest, f"./{CARD}")
    place = (source.name, landcover.grid, landcover.legend)
    described = MapFacts(*place, model, facts.started, facts.software, facts.taken, f"../{CATALOG}")
    path = write_item(target, described)
    if card is None:  # a link must not lead nowhere
        written = read_json(path)
        written["links"] = [link for link in written["links"] if link["rel"] != "derived_from"]
        publish_json(path, written)
        say(
            f"warning: {source.name}: the card of model {facts.model} was not found; it is named, but not described"
        )
    return Exported(*place, facts, card)


def _item(path: Path) -> _Item:
    try:
        return _Item.model_validate(read_json(path))
    except ValidationError as error:
        raise SourceError("is not the STAC item that geoseg run writes; run it again", path) from error


def copy(source: Path, target: Path) -> None:
    """Copy a file. Raises OutputError with its name."""
    try:
        shutil.copy2(source, target)
    except OSError as error:
        raise OutputError(f"cannot be copied to {target} ({error.strerror or error})", source) from error


def changed(path: Path, item: _Item) -> bool:
    """True where the item states another checksum for a result."""
    stated = [a.get("file:checksum") for a in item.assets.values() if a.get("href") == f"./{path.name}"]
    with path.open("rb") as stream:
        return bool(stated) and stated != [f"1220{hashlib.file_digest(stream, 'sha256').hexdigest()}"]


def vector_layers(gpkg: Path) -> tuple[list[str], list[str]]:
    """The layers that a project can show, and the fields of the regions among them."""
    try:
        names = [str(name) for name, kind in pyogrio.list_layers(gpkg) if kind is not None]
        layers = [name for name in VECTOR_LAYERS if name in names]
        fields = pyogrio.read_info(gpkg, layer="regions")["fields"] if "regions" in layers else ()
    except (RuntimeError, ValueError) as error:
        raise SourceError(f"cannot be read as a GeoPackage ({error})", gpkg) from error
    return layers, [str(name) for name in fields]


def copy_card(item: _Item, target: Path) -> ModelCard | None:
    """Put the card of the scene's model beside its results, from where the item says it is or from geoseg itself."""
    hrefs = [str(link.get("href")) for link in item.links if link.get("rel") == "derived_from"]
    folders = [Path(url2pathname(urlparse(h).path)).parent for h in hrefs if urlparse(h).scheme == "file"]
    for folder in (*folders, DEFAULT_BUNDLE):
        try:
            card = read_card(folder)
        except ModelError:
            continue
        if card.digest == item.properties.model_digest:
            copy(folder / CARD, target / CARD)
            return card
    return None


def publish(folder: Path, target: Path, overwrite: bool) -> None:
    """Rename the finished folder to its place; an earlier export steps aside, and back where that fails."""
    aside = folder.with_suffix(".old")
    try:
        if overwrite and target.exists():
            os.replace(target, aside)
        try:
            folder.rename(target)
        except OSError:
            if aside.exists():
                os.replace(aside, target)
            raise
    except OSError as error:
        raise OutputError(f"cannot be written ({error.strerror or error})", target) from error
    remove_folder(aside)


def pack(folder: Path, archive: Path) -> None:
    """Write a ZIP that unpacks to one folder of the same name."""
    with staged(archive) as temporary, zipfile.ZipFile(temporary, "w") as packed:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            kind = zipfile.ZIP_STORED if path.suffix in PACKED else zipfile.ZIP_DEFLATED
            packed.write(path, Path(folder.name) / path.relative_to(folder), kind)


def readme(job: ExportJob, scenes: list[Exported], left_out: list[str]) -> str:
    """README.txt: what all of it is."""
    copies = [
        f"  {f'LAYER.{name}':<20}a copy of each layer, in "
        f"{'WGS 84' if name == 'geojson' else job.crs or 'the CRS of the scene'}\n"
        for name in job.formats
    ]
    parts = [TEXT.format(title=job.title or job.folder.name, copies="".join(copies))]
    parts += [about(scene) for scene in scenes]
    if left_out:
        parts.append(f"Left out, since they are not finished: {', '.join(left_out)}\n")
    return "\n".join(parts)


def about(scene: Exported) -> str:
    """What README.txt says of a scene."""
    facts, card, grid = scene.facts, scene.card, scene.grid
    size = f"{grid.width} x {grid.height} px" + (f" of {grid.gsd_m:.3g} m" if grid.gsd_m else "")
    made = {
        "size": [size],
        "CRS": [describe_crs(grid.crs)],
        "picture taken": [facts.taken[:10] if facts.taken != facts.started else "date unknown"],
        "mapped": [f"{facts.started[:10]} with geoseg {facts.software.get('geoseg', '')}".rstrip()],
        "model": [f"{facts.model} {facts.model_version}", *([card.description] if card else [])],
        "model's licence": [(card.license if card else "") or "not stated"],
        "trained on": card.training_data if card else [],
        "classes": [f"{c.id:>3}  #{bytes(c.color).hex()}  {c.name}" for c in scene.legend.classes],
    }
    lines = [scene.name, "-" * len(scene.name)]
    for key, given in made.items():
        rows = [part for row in given for part in textwrap.wrap(row, 98)]
        lines += [f"  {key if i == 0 else '':<17} {row}" for i, row in enumerate(rows)]
    return "\n".join(lines) + "\n"


def describe_crs(wkt: str | None) -> str:
    """The code, where it has one, and the name of a CRS."""
    if wkt is None:
        return "none: the picture did not say where it lies"
    crs = CRS.from_wkt(wkt)
    code = crs.to_authority(min_confidence=100)
    return f"{':'.join(code)}, {crs.name}" if code else str(crs.name)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("job", metavar="JOB.yaml", type=click.Path())
def main(job: str) -> None:
    """Make a folder that can be handed over from the results of `geoseg run`.

    It holds, for each finished scene, the rasters with styles, vectors.gpkg, a QGIS project with relative paths,
    copies of the layers in other formats, a STAC item and, over all, a catalog and a README.txt that says what it
    is. A scene that failed or is not finished is named and left out. JOB.yaml:

    \b
      results: out               # output folder of geoseg run
      output: for_the_town       # folder to make
      scenes: [north, south]     # all finished ones if not given
      title: Land cover 2026     # of the catalog
      format: [parquet, geojson] # copies of each layer: gpkg, parquet, fgb, geojson
      crs: EPSG:4326             # of these copies; that of the scene if not given
      zip: true                  # for_the_town.zip, too
      overwrite: true            # replace an earlier export

    Only `results` and `output` must be there; both start from the job file's folder. The folder appears whole or not
    at all.

    Exit codes: 0 all done; 1 some scenes were left out, the others are done; 2 nothing was made.
    """
    configure_gdal()
    try:
        sys.exit(export(read_job(Path(job)), lambda line: click.echo(line, err=True)))
    except GeosegError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(NOTHING_DONE)
    except KeyboardInterrupt:
        click.echo("\nstopped", err=True)
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
