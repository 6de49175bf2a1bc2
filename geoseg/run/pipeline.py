"""`geoseg run`: all scenes of a job; one that fails does not stop the others."""

from __future__ import annotations

import dataclasses
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from geoseg.errors import BlockError, GeosegError, ModelError, OutputError, SourceError, SpecError
from geoseg.io.files import make_folder, publish_bytes, publish_json, remove_folder
from geoseg.io.places import Place, is_remote, place_of
from geoseg.io.rasters import configure_gdal
from geoseg.model.bundle import Bundle
from geoseg.model.runtimes import RuntimeChoice, SegmenterRecipe
from geoseg.run.engines import Engine, engine_name, make_engine, scenes_at_once
from geoseg.run.events import Reporter, Watched
from geoseg.run.job import Job
from geoseg.run.lease import Lease, leased
from geoseg.run.ledger import Ledger
from geoseg.run.prepare import Prepared, map_recipe, prepare
from geoseg.run.results import write_run_catalog
from geoseg.run.scene import SceneRun, TimeIsUp
from geoseg.run.scene_report import SceneReport
from geoseg.run.versions import versions

DONE, SOME_FAILED, NOTHING_STARTED = 0, 1, 2
SUMMARY = "run.json"
LEASE = "lease.json"


@dataclass
class Run:
    """A job under way. needs_crs: whether a scene without one fails, instead of being mapped with a warning."""

    job: Job
    reporter: Reporter
    needs_crs: bool = False
    seconds: float = 0.0
    reports: list[SceneReport] = field(default_factory=list)
    _engine: Engine | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _time_is_up: threading.Event = field(default_factory=threading.Event)

    def go(self) -> int:
        """Run the job and write run.json. Returns the exit code; raises GeosegError where nothing could start."""
        job = self.job
        self.started = datetime.now(UTC).isoformat(timespec="seconds")
        configure_gdal(job.config)
        self.bundle = Bundle.open(job.model)
        self.spec = job.segment_spec(self.bundle.card.patch_px)
        self.choice = RuntimeChoice.decide(self.bundle.card, job.runtime, job.precision)
        ready, refused = prepare(job, self.bundle, self.spec)
        if self.needs_crs:
            refused |= {
                scene.name: SourceError("has no CRS; state it with gdal_edit.py", scene.scene.path)
                for scene in ready
                if scene.scene.grid.crs is None
            }
            ready = [scene for scene in ready if scene.name not in refused]
        for name, error in refused.items():
            self._failed(SceneReport(name), error)
        if not ready:
            return NOTHING_STARTED
        make_folder(self.output)
        self._write_summary(ended=False)
        timer = threading.Timer((job.hours or 0) * 3600, self._time_is_up.set)
        timer.daemon = True
        if job.hours:
            timer.start()
        begin = time.monotonic()
        try:
            started_any = any([*self._all(ready)])
            timer.cancel()
            self.seconds = time.monotonic() - begin
            self._write_summary()
            if job.report:
                self._write_reports()
        except BaseException:
            self._write_summary()
            raise
        finally:
            timer.cancel()
            if self._engine is not None:
                self._engine.close()
        if all(r.error is None and not r.lost for r in self.reports):
            return DONE
        return SOME_FAILED if started_any else NOTHING_STARTED

    @property
    def output(self) -> Place:
        return place_of(self.job.output)

    def engine(self) -> Engine:
        """Started when it is first needed: a rerun with nothing to do starts none."""
        with self._lock:
            if self._engine is None:
                recipe = SegmenterRecipe.of(self.bundle, self.spec, self.choice)
                self._engine = make_engine(self.job, recipe, self.reporter)
            return self._engine

    def _all(self, ready: list[Prepared]) -> Iterator[bool]:
        """Map all scenes, in the order of the job or several side by side; whether each could begin."""
        lanes = min(len(ready), scenes_at_once(self.job))
        if lanes == 1:
            yield from map(self._one, ready)
            return
        pool = ThreadPoolExecutor(lanes, thread_name_prefix="scene")
        try:
            yield from pool.map(self._one, ready)
        except BaseException:  # interrupted: scenes that wait for the engine learn of it when it closes
            if self._engine is not None:
                self._engine.close()
                self._engine = None
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def _one(self, ready: Prepared) -> bool:
        """Map one scene. False where it could not even begin."""
        report = SceneReport(ready.name, started=self.started)
        reporter = self.reporter.for_scene(ready.name)
        if self._time_is_up.is_set():
            self._postponed(report, f"{ready.name}: not begun, the time is up; the next run maps it")
            return True
        for line in ready.scene.warnings:
            reporter.say("warning", f"{ready.scene.path}: {line}", scene=ready.name)

        def waits(holder: str) -> None:
            reporter.say("note", f"{ready.name}: {holder} works on it; waiting", scene=ready.name)

        try:
            with leased(ready.scratch / LEASE, waits) as lease:
                return self._leased(ready, report, Watched(reporter, lease.now), lease)
        except GeosegError as error:
            self._failed(report, error)
            return False

    def _leased(self, ready: Prepared, report: SceneReport, reporter: Reporter, lease: Lease) -> bool:
        with report.timed("open"):
            ledger = self._take_up(ready, reporter)
        try:
            SceneRun(
                ready, self.bundle, ledger, self.engine, reporter, self.job, report, lease, self._time_is_up
            ).go()
        except TimeIsUp as error:
            reporter.end_stage()
            self._postponed(report, f"{error}, the time is up; the next run goes on")
            return True
        except GeosegError as error:
            reporter.end_stage()
            self._failed(report, error)
            return not isinstance(
                error, ModelError | SpecError
            )  # no network, or no room: nothing was computed
        except Exception as error:  # a defect of ours in one scene must not cost the others
            if isinstance(error, OSError) and is_remote(str(error.filename)):  # no defect: storage that fails
                reporter.end_stage()
                self._failed(report, OutputError(str(error.strerror), error.filename))
                return True
            trace = ready.scratch / "error.txt"
            with suppress(OutputError):
                publish_bytes(trace, traceback.format_exc().encode())
            unexpected = BlockError(
                f"unexpected {type(error).__name__}: {error} (details in {trace})", ready.scene.path
            )
            reporter.end_stage()
            self._failed(report, unexpected)
            return True
        self.reports.append(report)
        self._tell(ready, report)
        return True

    def _take_up(self, ready: Prepared, reporter: Reporter) -> Ledger:
        if self.job.overwrite:
            try:
                old = Ledger.open(ready.ledger_path)
            except GeosegError:
                old = None
            recipe, identities = map_recipe(ready, self.bundle, self.choice, old.identities if old else {})
            if old is None or old.recipe != recipe:
                _empty(ready.scratch)
        ledger = Ledger.open(ready.ledger_path)
        recipe, identities = map_recipe(ready, self.bundle, self.choice, ledger.identities)
        news = ledger.begin(recipe, identities, self.job.overwrite)
        if news and news.startswith("has"):
            reporter.say(
                "note", f"{ready.scene.path} {news} since its last run; it is mapped again", scene=ready.name
            )
        return ledger

    def _failed(self, report: SceneReport, error: GeosegError) -> None:
        report.error = str(error)
        self.reports.append(report)
        self.reporter.say("error", str(error), scene=report.name)

    def _postponed(self, report: SceneReport, text: str) -> None:
        report.status = "postponed"
        self.reports.append(report)
        self.reporter.say("note", text, scene=report.name)

    def _tell(self, ready: Prepared, report: SceneReport) -> None:
        if report.status == "unchanged":
            self.reporter.say(
                "scene", f"{ready.name}: unchanged, nothing to do ({ready.folder})", scene=ready.name
            )
            return
        mapping = report.seconds.get("map", 0.0)
        speed = (
            f", {report.megapixels_mapped / mapping:.1f} Mpx/s"
            if mapping and report.megapixels_mapped
            else ""
        )
        shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in report.shares.items())
        score = "" if report.miou is None else f"; mIoU {report.miou:.3f}"
        took = sum(report.seconds.values())
        self.reporter.say(
            "scene",
            f"{ready.name}: {report.megapixels:.1f} Mpx in {took:.1f} s{speed}; "
            f"{shares or 'scored again'}{score} -> {ready.folder}",
            scene=ready.name,
            **dataclasses.asdict(report),
        )

    def _write_reports(self) -> None:
        """Pages to look at, made of the results alone; a run is no less done without them."""
        from geoseg.report.everything import write_reports

        done = {report.name for report in self.reports if report.status in ("done", "partial")}
        try:
            _, failures = write_reports(self.output, done, self._engine.map if self._engine else map)
        except (OutputError, SourceError) as error:
            self.reporter.say("warning", f"no report: {error}")
            return
        for failure in failures:
            self.reporter.say("warning", f"no report: {failure}")

    def _write_summary(self, ended: bool = True) -> None:
        """At the start, too, with all scenes, so that others can see what is to come."""
        told = {report.name: report for report in self.reports}
        waiting = [SceneReport(entry.name, status="waiting") for entry in self.job.scenes]
        reports = [told.get(report.name, report) for report in waiting]
        summary: dict[str, Any] = {
            "format": 1,
            "run": self.reporter.run,
            "started": self.started,
            "ended": datetime.now(UTC).isoformat(timespec="seconds") if ended else None,
            "versions": versions(),
            "model": {
                "name": self.bundle.card.name,
                "version": self.bundle.card.version,
                "digest": self.bundle.card.digest,
            },
            "engine": engine_name(self.job),
            **self.choice.to_dict(),
            "job": self.job.model_dump(mode="json", by_alias=True),
            "scenes": [dataclasses.asdict(report) for report in reports],
            "failed": {report.name: report.error for report in self.reports if report.error},
            "partial": {report.name: report.lost for report in self.reports if report.status == "partial"},
        }
        try:
            publish_json(self.output / SUMMARY, summary)
            if ended:
                write_run_catalog(self.output)
        except (OutputError, SourceError) as error:  # a full disk must not hide what became of the scenes
            if ended:
                self._failed(SceneReport(SUMMARY), error)


def _empty(folder: Place) -> None:
    """Remove what an earlier map left, but the lease, which is this run's."""
    for path in folder.glob("*"):
        if path.name == LEASE:
            continue
        if path.is_dir():
            remove_folder(path)
        else:
            path.unlink(missing_ok=True)
