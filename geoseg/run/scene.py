"""One scene from blocks to published results: what is there is kept, what is missing is made, in this order."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from geoseg import __version__
from geoseg.errors import BlockError, OutputError, SourceError
from geoseg.grid.lattice import Block
from geoseg.io.blockstore import BlockStore
from geoseg.io.cog import write_cog
from geoseg.io.files import make_folder, remove_folder
from geoseg.io.formats import FORMATS
from geoseg.io.qgis import SIDECARS
from geoseg.io.rasters import small_cache
from geoseg.io.stac import ITEM
from geoseg.legend import NODATA, Legend
from geoseg.model.bundle import Bundle
from geoseg.run.areas import AREAS_FILE, write_areas
from geoseg.run.engines import Engine
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
from geoseg.run.events import Reporter
from geoseg.run.job import Job
from geoseg.run.lease import Lease
from geoseg.run.ledger import Ledger
from geoseg.run.planning import check_room
from geoseg.run.prepare import Prepared, evaluate_options, scores_key
from geoseg.run.results import LAYERS, VECTORS, copies, finish_vectors, write_catalog_entry, write_vectors
from geoseg.run.scene_report import SceneReport as SceneReport  # others look for it here
from geoseg.run.scene_report import take_made
from geoseg.run.work import BlockLoss, SceneWork

LANDCOVER, CONFIDENCE = "landcover.tif", "confidence.tif"
OWNED = {METRICS_FILE, REGIONS_FILE, AREAS_FILE, *ERROR_FILES}
OWNED |= {f"{layer}.{name}" for layer in LAYERS for name in FORMATS}
"""Results that not every run makes."""
SCORING = {PIXELS: "evaluate", OBJECTS: "objects", ERRORS: "errors"}
"""Stages of scoring, by what an evaluation calls them."""


class TimeIsUp(BlockError):
    """The time that a job may take is over; what is mapped is kept."""


@dataclass
class SceneRun:
    """Brings one scene from its ledger's state to published."""

    ready: Prepared
    bundle: Bundle
    ledger: Ledger
    engine: Callable[[], Engine]
    reporter: Reporter
    job: Job
    report: SceneReport
    lease: Lease
    time_is_up: threading.Event

    def go(self) -> None:
        """Do what is missing. Raises GeosegError; what is done by then is kept for the next run."""
        map_key, rest_key = self.ledger.key, scores_key(self.ready, self.ledger.key, self.job)
        map_done = self.ledger.published.get("map") == map_key and self._there(LANDCOVER, CONFIDENCE)
        rest_done = map_done and self.ledger.published.get("rest") == rest_key and self._there(*self._rest())
        self.report.megapixels = round(self.ready.scene.grid.megapixels, 3)
        if rest_done:
            self.report.recall(self.ready.scratch)
            self.report.status = "unchanged"
            return
        remove_folder(self.ready.staging)
        make_folder(self.ready.staging)
        if not map_done:
            self._map(map_key)
        landcover = (self.ready.folder if map_done else self.ready.staging) / LANDCOVER
        with small_cache():
            self._vectors_and_scores(landcover)
        self.lease.check()
        self._publish({"map": map_key, "rest": rest_key})
        self.report.status = "partial" if self.report.lost else "done"

    def _there(self, *names: str) -> bool:
        return all((self.ready.folder / name).is_file() for name in names)

    def _rest(self) -> list[str]:
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

    def _map(self, key: str) -> None:
        engine = self.engine()
        block_px = self.job.block_px or self.ledger.block_px or self.ready.auto_block_px(engine.lanes)
        check_room(self.ready, self.job, self.bundle, engine.lanes, block_px)
        with self.report.timed("start"):
            self._check_proof(engine.proof())
        if block_px != self.ledger.block_px:
            self.ledger.block_px = block_px
            self.ledger.save()
        store = BlockStore(self.ready.scratch / f"blocks-{key[:12]}-{block_px}", key)
        blocks = list(self.ready.blocks(block_px))
        counts = self._segment(engine, store, blocks)
        with self.report.timed("merge"):
            self._merge(engine, store, [b for b in blocks if b.name not in self.report.lost], counts)

    def _check_proof(self, proof: str) -> None:
        if self.ledger.proof not in (None, proof) and any(self.ready.scratch.glob("blocks-*")):
            raise BlockError(
                "was begun on a machine whose network answers one fixed patch otherwise (another CPU or GPU type), so "
                "its blocks cannot be continued here; go on there, or start anew with --overwrite",
                self.ready.scene.path,
            )
        if self.ledger.proof != proof:
            self.ledger.proof = proof
            self.ledger.save()

    def _segment(self, engine: Engine, store: BlockStore, blocks: list[Block]) -> dict[int, int]:
        """Map the blocks that are not there yet. Returns the pixels of each class over all blocks."""
        work = SceneWork(
            self.ready.scene, self.ready.lattice, self.bundle.card.legend, store, self.ledger.proof or ""
        )
        counts: dict[int, int] = {}
        begun = store.folder.is_dir()
        make_folder(store.folder)
        with self.report.timed("map"):
            before = engine.map(store.find, blocks) if begun else ()
            found = {file.name: file for file in before if file is not None}
            todo = [b for b in blocks if b.name not in found]
            areas = {b.name: b.core.area_px / 1e6 for b in blocks}
            self.report.blocks, self.report.blocks_found = len(blocks), len(found)
            self.reporter.stage(
                self.ready.name, "map", sum(areas.values()), sum(areas[name] for name in found)
            )
            for file in found.values():
                _add(counts, file.counts)
            for done, result in enumerate(engine.segment(work, todo), 1):
                self.reporter.advance(areas[result.name])
                if self.time_is_up.is_set() and done < len(todo):
                    raise TimeIsUp(f"{len(found) + done} of {len(blocks)} blocks are mapped", self.ready.name)
                if isinstance(result, BlockLoss):
                    self.report.lost[result.name] = str(result.error)
                else:
                    _add(counts, result.counts)
            self.reporter.end_stage()
        if self.report.lost:
            self._tell_losses(len(blocks))
        if set(counts) <= {NODATA}:
            raise SourceError(
                "holds no pixel to map: all are nodata, masked or outside the area", self.ready.scene.path
            )
        return counts

    def _tell_losses(self, blocks: int) -> None:
        """Raises BlockError, unless a map with holes was asked for."""
        lost = self.report.lost
        first = next(iter(lost.values())).removeprefix(f"{self.ready.scene.path}: ")
        said = f"{len(lost)} of {blocks} blocks could not be mapped ({first})"
        if not self.job.allow_partial or len(lost) == blocks:
            raise BlockError(
                f"{said}; the others are kept for the next run, or publish them with --allow-partial",
                self.ready.scene.path,
            )
        self.reporter.say(
            "warning", f"{self.ready.scene.path}: {said}; there the map is nodata", scene=self.ready.name
        )

    def _merge(self, engine: Engine, store: BlockStore, blocks: list[Block], counts: dict[int, int]) -> None:
        self.reporter.stage(self.ready.name, "merge", self.report.megapixels)
        card = self.bundle.card
        tags = {
            "GEOSEG_VERSION": __version__,
            "GEOSEG_MODEL": f"{card.name} {card.version}",
            "GEOSEG_MODEL_DIGEST": card.digest,
            "GEOSEG_RECIPE": self.ledger.key,
        }
        write = partial(_write_band, self.ready.staging, self.ready.scene.grid, store, blocks, tags)
        # One after the other: each takes all cores, and two at once would take the memory of two.
        (mapped,) = engine.map(write, [(LANDCOVER, 1, card.legend)])
        (_,) = engine.map(write, [(CONFIDENCE, 2, None)])
        outside = self.ready.scene.grid.window.area_px - sum(counts.values())
        if outside:
            _add(counts, {NODATA: outside})
        if mapped != counts:
            raise OutputError(
                "does not hold what its blocks hold; the disk may be failing", self.ready.staging / LANDCOVER
            )
        self._note_shares(counts)
        self.reporter.end_stage()

    def _note_shares(self, counts: dict[int, int]) -> None:
        total = sum(n for value, n in counts.items() if value != NODATA)
        self.report.shares = {
            c.name: round(counts.get(c.id, 0) / total, 6) for c in self.bundle.card.legend.classes if total
        }

    def _vectors_and_scores(self, landcover: Path) -> None:
        engine, staging, ready = self.engine(), self.ready.staging, self.ready
        scores = None
        if ready.entry.labels:
            self.reporter.stage(ready.name, "evaluate", self.report.megapixels)
            scores = score_files(
                str(landcover), ready.entry.labels, ready.regions, engine.map, evaluate_options(self.job),
                lambda stage, seconds: self.report.took(SCORING[stage], seconds), staging,
            )  # fmt: skip
            write_score_files(scores, staging)
            self.report.miou = scores.overall.miou
            self.reporter.end_stage()
            for line in scores.remarks:
                self.reporter.say("note", f"{ready.entry.labels}: {line}", scene=ready.name)
        if ready.regions:
            with self.report.timed("areas"):
                write_areas(str(landcover), ready.regions, staging / AREAS_FILE, engine.map, scores)
        with self.report.timed("vectorize"):
            self.reporter.stage(ready.name, "vectorize", self.report.megapixels)
            confidence = landcover.with_name(CONFIDENCE)
            card = self.bundle.card
            write_vectors(landcover, confidence, card, ready, scores, self.job, staging / VECTORS, engine.map)
            finish_vectors(staging, card.legend, ready, scores, self.job)
            self.reporter.end_stage()

    def _publish(self, keys: dict[str, str]) -> None:
        """Rename every result into place, then say so in the ledger, then drop the scratch.

        Until then the ledger forgets what is about to be replaced: killed in between, the folder holds parts of two
        results, and no job may take it for finished.
        """
        self.ledger.published = {} if (self.ready.staging / LANDCOVER).exists() else {"map": keys["map"]}
        self.ledger.save()
        made = take_made(self.ready.scratch)
        before = made if self.ledger.published else {}
        try:
            make_folder(self.ready.folder)
            for name in OWNED - set(self._rest()):  # of an earlier run that was asked for more
                (self.ready.folder / name).unlink(missing_ok=True)
            for path in sorted(self.ready.staging.iterdir()):
                os.replace(path, self.ready.folder / path.name)
        except OSError as error:
            raise OutputError(f"cannot be written ({error.strerror or error})", self.ready.folder) from error
        write_catalog_entry(self.ready, self.bundle, self.report.started)
        self.report.keep(self.ready.scratch, before)
        remove_folder(self.ready.staging)
        (self.ready.scratch / "error.txt").unlink(missing_ok=True)
        if self.report.lost:  # the next run tries these blocks again, and so needs the others
            return
        self.ledger.published = keys
        self.ledger.save()
        for blocks in self.ready.scratch.glob("blocks-*"):
            shutil.rmtree(blocks, ignore_errors=True)


def _add(counts: dict[int, int], more: dict[int, int]) -> None:
    for value, n in more.items():
        counts[value] = counts.get(value, 0) + n


def _write_band(
    folder: Path, grid: Any, store: BlockStore, blocks: list[Block], tags: dict[str, str],
    band: tuple[str, int, Legend | None],
) -> dict[int, int]:  # fmt: skip
    name, number, legend = band
    return write_cog(folder / name, grid, store, blocks, number, legend, tags)
