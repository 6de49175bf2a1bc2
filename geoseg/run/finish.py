"""From blocks to published results: merge, score, vectorize, describe, publish.

On disk these stages are spread over the workers, which all see the folder. Results that go to a bucket are made by one
worker in its own temporary folder, and put in place from there: their pixels pass through no other machine.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from geoseg import __version__
from geoseg.errors import OutputError
from geoseg.grid.lattice import Block
from geoseg.io.blockstore import BlockStore
from geoseg.io.cog import write_cog
from geoseg.io.files import cannot_write, make_folder, move
from geoseg.io.formats import FORMATS
from geoseg.io.places import Place
from geoseg.io.qgis import SIDECARS
from geoseg.io.rasters import small_cache
from geoseg.io.remote import Remote
from geoseg.io.stac import ITEM
from geoseg.legend import NODATA, Legend
from geoseg.model.bundle import Bundle
from geoseg.parallel import threaded_map
from geoseg.run.areas import AREAS_FILE, write_areas
from geoseg.run.errormap import ERROR_FILES
from geoseg.run.evaluating import (
    ERRORS,
    METRICS_FILE,
    OBJECTS,
    PIXELS,
    REGIONS_FILE,
    score_files,
    write_score_files,
)
from geoseg.run.events import Quiet, Reporter
from geoseg.run.job import Job
from geoseg.run.prepare import Prepared, evaluate_options
from geoseg.run.results import LAYERS, VECTORS, copies, finish_vectors, write_catalog_entry, write_vectors
from geoseg.run.scene_report import SceneReport
from geoseg.stages.protocols import Mapper

LANDCOVER, CONFIDENCE = "landcover.tif", "confidence.tif"
MAPS = (LANDCOVER, CONFIDENCE)
OWNED = {METRICS_FILE, REGIONS_FILE, AREAS_FILE, *ERROR_FILES}
OWNED |= {f"{layer}.{name}" for layer in LAYERS for name in FORMATS}
"""Results that not every run makes."""
SCORING = {PIXELS: "evaluate", OBJECTS: "objects", ERRORS: "errors"}
"""Stages of scoring, by what an evaluation calls them."""


@dataclass(frozen=True)
class Mapped:
    """A scene whose blocks are there. counts: pixels of each class over all of them. recipe: digest of the map's."""

    store: BlockStore
    blocks: tuple[Block, ...]
    counts: dict[int, int]
    recipe: str


@dataclass
class Finish:
    """What is made of a scene, into a folder on this machine's disk. Pickles, but for the reporter."""

    ready: Prepared
    bundle: Bundle
    job: Job
    report: SceneReport
    staging: Path

    def results(self) -> list[str]:
        """All that the job asks for beside the map itself."""
        names = [VECTORS, *SIDECARS, ITEM, *copies(self.ready, self.job)]
        if self.ready.entry.labels:
            names.append(METRICS_FILE)
            if self.ready.entry.regions:
                names.append(REGIONS_FILE)
            if self.job.errors:
                names += ERROR_FILES
        if self.ready.entry.regions:
            names.append(AREAS_FILE)
        return names

    def merge(self, mapped: Mapped, mapper: Mapper, reporter: Reporter) -> None:
        """Write both rasters of a map, and check that they hold what its blocks hold."""
        reporter.stage(self.ready.name, "merge", self.report.megapixels)
        with self.report.timed("merge"):
            card, grid = self.bundle.card, self.ready.scene.grid
            tags = {
                "GEOSEG_VERSION": __version__,
                "GEOSEG_MODEL": f"{card.name} {card.version}",
                "GEOSEG_MODEL_DIGEST": card.digest,
                "GEOSEG_RECIPE": mapped.recipe,
            }
            write = partial(_write_band, self.staging, grid, mapped.store, mapped.blocks, tags)
            # One after the other: each takes all cores, and two at once would take the memory of two.
            (written,) = mapper(write, [(LANDCOVER, 1, card.legend)])
            (_,) = mapper(write, [(CONFIDENCE, 2, None)])
            counts = dict(mapped.counts)
            if outside := grid.window.area_px - sum(counts.values()):
                counts[NODATA] = counts.get(NODATA, 0) + outside
            if written != counts:
                raise OutputError(
                    "does not hold what its blocks hold; the disk may be failing", self.staging / LANDCOVER
                )
            total = sum(n for value, n in counts.items() if value != NODATA)
            self.report.shares = {
                c.name: round(counts.get(c.id, 0) / total, 6) for c in card.legend.classes if total
            }
        reporter.end_stage()

    def vectors_and_scores(self, landcover: Path, mapper: Mapper, reporter: Reporter) -> None:
        """All else, made of the map."""
        with small_cache():
            self._vectors_and_scores(landcover, mapper, reporter)

    def _vectors_and_scores(self, landcover: Path, mapper: Mapper, reporter: Reporter) -> None:
        ready, staging, scores = self.ready, self.staging, None
        if ready.entry.labels:
            reporter.stage(ready.name, "evaluate", self.report.megapixels)
            scores = score_files(
                str(landcover), ready.entry.labels, ready.regions, mapper, evaluate_options(self.job),
                lambda stage, seconds: self.report.took(SCORING[stage], seconds), staging,
            )  # fmt: skip
            write_score_files(scores, staging)
            self.report.miou = scores.overall.miou
            reporter.end_stage()
            for line in scores.remarks:
                reporter.say("note", f"{ready.entry.labels}: {line}", scene=ready.name)
        if ready.regions:
            with self.report.timed("areas"):
                write_areas(str(landcover), ready.regions, staging / AREAS_FILE, mapper, scores)
        with self.report.timed("vectorize"):
            reporter.stage(ready.name, "vectorize", self.report.megapixels)
            card = self.bundle.card
            confidence = landcover.with_name(CONFIDENCE)
            write_vectors(landcover, confidence, card, ready, scores, self.job, staging / VECTORS, mapper)
            finish_vectors(staging, card.legend, ready, scores, self.job)
            reporter.end_stage()

    def publish(self, folder: Place, last: Sequence[str] = ()) -> None:
        """Put every result in its place, these last; what an earlier run made and this one did not goes first.

        Each file appears whole. Raises OutputError.
        """
        try:
            make_folder(folder)
            for name in OWNED - set(self.results()):  # of an earlier run that was asked for more
                (folder / name).unlink(missing_ok=True)
            for path in sorted(self.staging.iterdir(), key=lambda path: (path.name in last, path.name)):
                move(path, folder / path.name)
        except OSError as error:
            raise cannot_write(folder, error) from error


def _write_band(
    folder: Path, grid: Any, store: BlockStore, blocks: Sequence[Block], tags: dict[str, str],
    band: tuple[str, int, Legend | None],
) -> dict[int, int]:  # fmt: skip
    name, number, legend = band
    return write_cog(folder / name, grid, store, blocks, number, legend, tags)


@dataclass(frozen=True)
class ToBucket:
    """All stages of a scene whose results go to a bucket, as one call. mapped: None where the map is there already."""

    ready: Prepared
    bundle: Bundle
    job: Job
    mapped: Mapped | None

    def __call__(self, report: SceneReport) -> tuple[SceneReport, list[tuple[str, str]]]:
        """Returns the report with what these stages add, and what there is to say. Raises GeosegError."""
        heard = Heard()
        with tempfile.TemporaryDirectory(prefix="geoseg-") as scratch:
            staging, blocks = Path(scratch, "results"), Path(scratch, "blocks")
            staging.mkdir()
            blocks.mkdir()
            finish = Finish(self.ready, self.bundle, self.job, report, staging)
            if self.mapped is not None:
                with report.timed("fetch"):
                    store = self.mapped.store.fetched(self.mapped.blocks, blocks)
                here = Mapped(store, self.mapped.blocks, self.mapped.counts, self.mapped.recipe)
                finish.merge(here, threaded_map, heard)
            else:
                with report.timed("fetch"):
                    self._fetch_maps(staging)
            finish.vectors_and_scores(staging / LANDCOVER, threaded_map, heard)
            write_catalog_entry(self.ready, self.bundle, report.started, staging)
            if self.mapped is None:
                for name in MAPS:
                    (staging / name).unlink()
            with report.timed("upload"):
                finish.publish(self.ready.folder, last=(ITEM,))
        return report, heard.lines

    def _fetch_maps(self, staging: Path) -> None:
        for name in MAPS:
            place = self.ready.folder / name
            try:
                if isinstance(place, Remote):
                    place.download(staging / name)
            except OSError as error:
                raise OutputError(f"cannot be fetched ({error.strerror or error})", place) from error


class Heard(Quiet):
    """A reporter on a worker: keeps what is said, for the driver to say; progress is not told."""

    def __init__(self, run: str = "") -> None:
        super().__init__(run)
        self.lines: list[tuple[str, str]] = []

    def say(self, kind: str, text: str, **facts: Any) -> None:
        self.lines.append((kind, text))
