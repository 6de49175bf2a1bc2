"""One scene from blocks to published results: what is there is kept, what is missing is made, in this order."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geoseg.errors import BlockError, SourceError
from geoseg.grid.lattice import Block
from geoseg.io.blockstore import BlockStore
from geoseg.io.files import make_folder, remove_folder
from geoseg.io.remote import Remote
from geoseg.legend import NODATA
from geoseg.model.bundle import Bundle
from geoseg.run.engines import Engine
from geoseg.run.events import Reporter
from geoseg.run.finish import LANDCOVER, MAPS, Finish, Mapped, ToBucket
from geoseg.run.job import Job
from geoseg.run.lease import Lease
from geoseg.run.ledger import Ledger
from geoseg.run.planning import check_room
from geoseg.run.prepare import Prepared, scores_key
from geoseg.run.results import write_catalog_entry
from geoseg.run.scene_report import SceneReport, take_made
from geoseg.run.work import BlockLoss, SceneWork


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
        results = Finish(self.ready, self.bundle, self.job, self.report, Path()).results()
        map_done = self.ledger.published.get("map") == map_key and self._there(*MAPS)
        rest_done = map_done and self.ledger.published.get("rest") == rest_key and self._there(*results)
        self.report.megapixels = round(self.ready.scene.grid.megapixels, 3)
        if rest_done:
            self.report.recall(self.ready.scratch)
            self.report.status = "unchanged"
            return
        mapped = None if map_done else self._map(map_key)
        make = self._make_in_bucket if isinstance(self.ready.folder, Remote) else self._make_on_disk
        made_before = make(mapped)
        self.report.keep(self.ready.scratch, made_before if mapped is None else {})
        (self.ready.scratch / "error.txt").unlink(missing_ok=True)
        self.report.status = "partial" if self.report.lost else "done"
        if self.report.lost:  # the next run tries these blocks again, and so needs the others
            return
        self.ledger.published = {"map": map_key, "rest": rest_key}
        self.ledger.save()
        for blocks in self.ready.scratch.glob("blocks-*"):
            remove_folder(blocks)

    def _there(self, *names: str) -> bool:
        return all((self.ready.folder / name).is_file() for name in names)

    def _make_on_disk(self, mapped: Mapped | None) -> dict[str, Any]:
        """The stages spread over the workers, into a folder that all see; then every result renamed into place."""
        engine, folder = self.engine(), Path(str(self.ready.folder))
        staging = Path(str(self.ready.scratch), "staged")
        remove_folder(staging)
        make_folder(staging)
        finish = Finish(self.ready, self.bundle, self.job, self.report, staging)
        if mapped is not None:
            finish.merge(mapped, engine.map, self.reporter)
        landcover = (folder if mapped is None else staging) / LANDCOVER
        finish.vectors_and_scores(landcover, engine.map, self.reporter)
        made_before = self._forget(mapped)
        finish.publish(folder)
        write_catalog_entry(self.ready, self.bundle, self.report.started, folder)
        remove_folder(staging)
        return made_before

    def _make_in_bucket(self, mapped: Mapped | None) -> dict[str, Any]:
        """All stages on one worker, which puts what it made in place."""
        made_before = self._forget(mapped)
        self.reporter.stage(self.ready.name, "finish", self.report.megapixels)
        make = ToBucket(self.ready, self.bundle, self.job, mapped)
        ((made, lines),) = self.engine().map(make, [self.report])
        self.report.seconds, self.report.shares, self.report.miou = made.seconds, made.shares, made.miou
        self.reporter.end_stage()
        for kind, text in lines:
            self.reporter.say(kind, text, scene=self.ready.name)
        self.lease.check()
        return made_before

    def _forget(self, mapped: Mapped | None) -> dict[str, Any]:
        """Before results are replaced, the ledger forgets them; returns what was told of them.

        Killed in between, the folder holds parts of two results, and no job may take it for finished.
        """
        self.lease.check()
        self.ledger.published = {} if mapped is not None else {"map": self.ledger.key}
        self.ledger.save()
        return take_made(self.ready.scratch)

    def _map(self, key: str) -> Mapped:
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
        kept = tuple(block for block in blocks if block.name not in self.report.lost)
        return Mapped(store, kept, counts, self.ledger.key)

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
            self.ready.scene,
            self.ready.lattice,
            self.bundle.card.legend,
            store,
            self.ledger.proof or "",
            self.ready.name,
        )
        counts: dict[int, int] = {}
        begun = store.begin()
        with self.report.timed("map"):
            before = engine.map(store.find, blocks) if begun else ()
            found = {file.name: file for file in before if file is not None}
            todo = [b for b in blocks if b.name not in found]
            areas = {b.name: b.core.area_px / 1e6 for b in blocks}
            self.report.blocks, self.report.blocks_found = len(blocks), len(found)
            self.report.megapixels_mapped = round(sum(areas[b.name] for b in todo), 3)
            self.reporter.stage(
                self.ready.name, "map", sum(areas.values()), sum(areas[name] for name in found)
            )
            for file in found.values():
                _add(counts, file.counts)
            for done, result in enumerate(engine.segment(work, todo), 1):
                self.reporter.advance(areas[result.name], engine.limit)
                if self.time_is_up.is_set() and done < len(todo):
                    raise TimeIsUp(f"{len(found) + done} of {len(blocks)} blocks are mapped", self.ready.name)
                if isinstance(result, BlockLoss):
                    self.report.lost[result.name] = str(result.error)
                    self.reporter.fact("block_lost", block=result.name, error=str(result.error))
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


def _add(counts: dict[int, int], more: dict[int, int]) -> None:
    for value, n in more.items():
        counts[value] = counts.get(value, 0) + n
