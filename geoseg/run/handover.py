"""A finished run as a folder to hand over, and as a ZIP of it: complete in itself, whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from geoseg.errors import GeosegError, ModelError, OutputError, SourceError, SpecError
from geoseg.io.classmap import ClassMap
from geoseg.io.files import make_folder, publish_bytes, publish_json, read_json, remove_folder, staged
from geoseg.io.formats import export_layers, known_crs
from geoseg.io.places import beside
from geoseg.io.published import Item, shown_layers
from geoseg.io.qgis import write_qgis
from geoseg.io.stac import CATALOG, ITEM, KNOWN, MapFacts, UsedModel, write_catalog, write_item
from geoseg.model.bundle import CARD, INCLUDED, read_card
from geoseg.model.card import ModelCard
from geoseg.report.facts import QUICKLOOK
from geoseg.report.readme import HEADLINE, README, readme
from geoseg.run.finish import CONFIDENCE, LANDCOVER
from geoseg.run.job_files import checked, read_fields
from geoseg.run.ledger import Ledger
from geoseg.run.pipeline import SUMMARY
from geoseg.run.prepare import SCRATCH
from geoseg.run.results import VECTORS

DONE, SOME_LEFT_OUT = 0, 1
NEEDED = (LANDCOVER, CONFIDENCE, VECTORS, ITEM)
OPTIONAL = (*(name for name in KNOWN if name not in NEEDED), QUICKLOOK)
"""Not report.html, which leads to an index of all scenes of the run."""
PACKED = (".tif", ".qgz", ".parquet")
"""Files that are compressed already."""

Say = Callable[[str], None]


class ExportJob(BaseModel):
    """The fields of a job file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    results: str = Field(min_length=1, description="output folder of `geoseg run`")
    output: str = Field(min_length=1, description="folder to make, which can be handed over")
    scenes: tuple[str, ...] = Field((), description="names of scenes; all finished ones if not given")
    name: str | None = Field(
        None, alias="title", min_length=1, description="of the catalog; the output's name if not given"
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

    @property
    def title(self) -> str:
        return self.name or self.folder.name


def read_job(path: Path) -> ExportJob:
    """A job from a YAML file; `results` and `output` start from its own folder. Raises SpecError in one line."""
    values = read_fields(path, "results: out")
    for name in ("results", "output"):
        if isinstance(values.get(name), str) and values[name]:
            values[name] = beside(path.parent, values[name])
    return checked(ExportJob, values, path)


def export(job: ExportJob, say: Say) -> int:
    """Make the folder that a job asks for. Returns the exit code; raises GeosegError where nothing could be made."""
    results = Path(job.results)
    known_crs(job.crs)
    _check_place(job)
    names, left_out = _finished_scenes(results, job.scenes)
    for name, reason in left_out.items():
        say(f"warning: {name} is left out: {reason}")
    if not names:
        raise SourceError("holds no finished scene", results)
    with _folder_in_the_making(job.folder) as folder:
        done = []
        for name in names:
            try:
                done.append(_export_scene(results / name, folder / name, job, say))
            except OutputError:
                raise
            except GeosegError as error:
                remove_folder(folder / name)
                left_out[name] = str(error)
                say(f"warning: {name} is left out: {error}")
        if not done:
            raise SourceError("none of its scenes can be exported", results)
        write_catalog(folder, [folder / facts.name / ITEM for facts, _ in done], job.title)
        place = job.crs or "the CRS of the scene"
        copies: dict[str, str] = {n: "WGS 84" if n == "geojson" else place for n in job.formats}
        publish_bytes(folder / README, readme(job.title, copies, done, sorted(left_out)).encode())
        _publish(folder, job.folder, job.overwrite)
    say(f"{job.folder}: {', '.join(facts.name for facts, _ in done)}")
    if job.zip:
        _pack(job.folder, job.archive)
        say(f"{job.archive}: {job.archive.stat().st_size / 1e6:.1f} MB")
    return SOME_LEFT_OUT if left_out else DONE


def _check_place(job: ExportJob) -> None:
    """Refuse what would be overwritten without being asked for, or is no export of ours."""
    folder, results = job.folder, Path(job.results).resolve()
    if not results.is_dir():
        raise SourceError("no such folder of results", job.results)
    if folder == results or folder in results.parents:
        raise SpecError(f"holds the results in {results}; name another folder as output", folder)
    if os.path.lexists(folder):
        if not job.overwrite:
            raise SpecError("is there already; name another folder, or say 'overwrite: true'", folder)
        if not _is_export(folder):
            raise SpecError(
                f"is no export of this workflow (no such {README} in it) and stays as it is", folder
            )
    if job.zip and os.path.lexists(job.archive) and not job.overwrite:
        raise SpecError("is there already; name another output, or say 'overwrite: true'", job.archive)


def _is_export(folder: Path) -> bool:
    """True for an empty folder and one that was made here."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    try:
        with (folder / README).open(encoding="utf-8") as stream:
            return stream.readline().strip() == HEADLINE
    except (OSError, UnicodeDecodeError):
        return not any(folder.iterdir())


def _finished_scenes(results: Path, wanted: tuple[str, ...]) -> tuple[list[str], dict[str, str]]:
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
    reasons = {name: failed.get(name) or _unfinished(results, name) for name in sorted(set(wanted) or known)}
    left_out = {name: reason for name, reason in reasons.items() if reason is not None}
    return [name for name in reasons if name not in left_out], left_out


def _unfinished(results: Path, name: str) -> str | None:
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
def _folder_in_the_making(target: Path) -> Iterator[Path]:
    """A folder beside the one that is wanted; removed where anything fails."""
    make_folder(target.parent)
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        remove_folder(folder)


def _export_scene(source: Path, target: Path, job: ExportJob, say: Say) -> tuple[MapFacts, ModelCard | None]:
    """Copy one scene's results, and write what belongs to their new place: styles, project, STAC item, copies."""
    item = Item.read(source / ITEM)
    if (source / f"{VECTORS}-wal").exists():
        raise SourceError("is being edited; save and close it in the program that holds it", source / VECTORS)
    make_folder(target)
    for name in (LANDCOVER, CONFIDENCE, VECTORS, *OPTIONAL):
        if name not in OPTIONAL or (source / name).is_file():
            _copy(source / name, target / name)
            if item.differs(target / name):
                say(f"warning: {source / name}: has been changed since geoseg published it; taken as it is")
    landcover = ClassMap.open(str(target / LANDCOVER))
    if landcover.legend is None:
        raise SourceError("has no legend tag: it is not a map that geoseg wrote", source / LANDCOVER)
    export_layers(target / VECTORS, target, job.formats, job.crs)
    write_qgis(target, landcover.legend, landcover.grid, *shown_layers(target / VECTORS), title=source.name)
    told = item.properties
    model = UsedModel(told.model, told.model_version, told.model_digest, f"./{CARD}")
    taken = told.taken if told.taken != told.started else None
    place = (source.name, landcover.grid, landcover.legend)
    facts = MapFacts(*place, model, told.started, told.software, taken, f"../{CATALOG}")
    card, path = copy_card(item, target), write_item(target, facts)
    if card is None:  # a link must not lead nowhere
        written = read_json(path)
        written["links"] = [link for link in written["links"] if link["rel"] != "derived_from"]
        publish_json(path, written)
        say(
            f"warning: {source.name}: the card of model {told.model} was not found; it is named, but not described"
        )
    return facts, card


def _copy(source: Path, target: Path) -> None:
    try:
        shutil.copy2(source, target)
    except OSError as error:
        raise OutputError(f"cannot be copied to {target} ({error.strerror or error})", source) from error


def copy_card(item: Item, target: Path) -> ModelCard | None:
    """Put the card of the scene's model beside its results, from where the item says it is or from geoseg itself."""
    for folder in (*item.bundles(), *sorted(INCLUDED.iterdir())):
        try:
            card = read_card(folder)
        except ModelError:
            continue
        if card.digest == item.properties.model_digest:
            _copy(folder / CARD, target / CARD)
            return card
    return None


def _publish(folder: Path, target: Path, overwrite: bool) -> None:
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


def _pack(folder: Path, archive: Path) -> None:
    """Write a ZIP that unpacks to one folder of the same name."""
    with staged(archive) as temporary, zipfile.ZipFile(temporary, "w") as packed:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            kind = zipfile.ZIP_STORED if path.suffix in PACKED else zipfile.ZIP_DEFLATED
            packed.write(path, Path(folder.name) / path.relative_to(folder), kind)
