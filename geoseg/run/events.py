"""What a run tells while it goes: a bar on a terminal, plain lines in a log, JSON lines for programs."""

from __future__ import annotations

import json
import sys
import time
import uuid
from typing import Any, Protocol, TextIO

from geoseg.run.pace import limit_text

LINE_EVERY_S = 10.0
PREFIXES = {"warning": "warning: ", "error": "error: ", "retry": "warning: "}
"""Before the lines of events that ask for attention."""


class Reporter(Protocol):
    """Takes events. Progress is counted in megapixels. run: a random id, the same for all events of a run."""

    run: str

    def stage(self, scene: str, stage: str, total_mpx: float, done_mpx: float = 0.0) -> None: ...

    def advance(self, mpx: float, limit: str = "") -> None:
        """limit: what holds the work up now; see geoseg/run/pace.py."""

    def end_stage(self) -> None: ...

    def say(self, kind: str, text: str, **facts: Any) -> None:
        """For people and programs. Any thread may say."""

    def fact(self, kind: str, **facts: Any) -> None:
        """For programs only."""

    def for_scene(self, scene: str = "") -> Reporter:
        """Another one that writes to the same place, for a scene that runs beside others."""


class Quiet:
    """Says nothing; the base of those that say something."""

    def __init__(self, run: str = "") -> None:
        self.run = run or uuid.uuid4().hex

    def stage(self, scene: str, stage: str, total_mpx: float, done_mpx: float = 0.0) -> None: ...

    def advance(self, mpx: float, limit: str = "") -> None: ...

    def end_stage(self) -> None: ...

    def say(self, kind: str, text: str, **facts: Any) -> None: ...

    def fact(self, kind: str, **facts: Any) -> None: ...

    def for_scene(self, scene: str = "") -> Reporter:
        return type(self)(self.run)


class LineReporter(Quiet):
    """Plain lines, at most one every ten seconds for progress."""

    def __init__(self, run: str = "") -> None:
        super().__init__(run)
        self._what, self._total, self._done, self._begin, self._skipped = "", 0.0, 0.0, 0.0, 0.0
        self._last = 0.0

    def stage(self, scene: str, stage: str, total_mpx: float, done_mpx: float = 0.0) -> None:
        self._what, self._total, self._done, self._skipped = (
            f"{scene}: {stage}",
            total_mpx,
            done_mpx,
            done_mpx,
        )
        self._begin = self._last = time.monotonic()

    def advance(self, mpx: float, limit: str = "") -> None:
        self._done += mpx
        now = time.monotonic()
        if now - self._last >= LINE_EVERY_S:
            self._last = now
            self._line(now, limit)

    def _line(self, now: float, limit: str) -> None:
        rate = (self._done - self._skipped) / max(now - self._begin, 1e-9)
        left = (self._total - self._done) / rate if rate > 0 else 0.0
        share = 100 * self._done / self._total if self._total else 100.0
        why = f", {limit_text(limit)}" if limit else ""
        text = f"{self._what} {share:.0f} %, {rate:.2f} Mpx/s, {left:.0f} s left{why}"
        print(text, file=sys.stderr, flush=True)

    def say(self, kind: str, text: str, **facts: Any) -> None:
        print(f"{PREFIXES.get(kind, '')}{text}", file=sys.stderr, flush=True)


class BarReporter(LineReporter):
    """A progress bar with megapixels per second, time left and the bottleneck."""

    def __init__(self, run: str = "") -> None:
        super().__init__(run)
        self._bar: Any = None

    def stage(self, scene: str, stage: str, total_mpx: float, done_mpx: float = 0.0) -> None:
        from tqdm import tqdm

        self.end_stage()
        form = "{l_bar}{bar}| {n:.1f}/{total:.1f} Mpx [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
        self._bar = tqdm(
            total=round(total_mpx, 1), initial=round(done_mpx, 1), desc=f"{scene}: {stage}", unit="Mpx",
            bar_format=form, leave=False, dynamic_ncols=True, file=sys.stderr,
        )  # fmt: skip

    def advance(self, mpx: float, limit: str = "") -> None:
        if limit:
            self._bar.set_postfix_str(limit_text(limit), refresh=False)
        self._bar.update(mpx)

    def end_stage(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def say(self, kind: str, text: str, **facts: Any) -> None:
        from tqdm import tqdm

        with tqdm.external_write_mode(file=sys.stderr):  # bars make room for the line, and go on
            super().say(kind, text, **facts)


class JsonReporter(Quiet):
    """One JSON object a line, each with its run and, if it is about one, its scene; on what standard output is at its
    birth."""

    def __init__(self, run: str = "", scene: str = "", out: TextIO | None = None) -> None:
        super().__init__(run)
        self._scene = scene
        self._out = out or sys.stdout
        self._now: dict[str, Any] = {}
        self._last = 0.0

    def stage(self, scene: str, stage: str, total_mpx: float, done_mpx: float = 0.0) -> None:
        self._now = {"scene": scene, "stage": stage, "total_mpx": total_mpx, "done_mpx": done_mpx}
        self.fact("stage", **self._now)

    def advance(self, mpx: float, limit: str = "") -> None:
        self._now["done_mpx"] += mpx
        if limit:
            self._now["bottleneck"] = limit
        if time.monotonic() - self._last >= 1.0:
            self._last = time.monotonic()
            self.fact("progress", **self._now)

    def end_stage(self) -> None:
        self.fact("stage_done", **self._now)

    def say(self, kind: str, text: str, **facts: Any) -> None:
        self.fact(kind, text=text, **facts)

    def fact(self, kind: str, **facts: Any) -> None:
        scene = {"scene": self._scene} if self._scene else {}
        event = {"time": time.time(), "run": self.run, "event": kind, **scene, **facts}
        # One write, so that lines of several threads do not mix.
        self._out.write(json.dumps(event, ensure_ascii=False) + "\n")
        self._out.flush()

    def for_scene(self, scene: str = "") -> Reporter:
        return JsonReporter(self.run, scene, self._out)


class Watched:
    """A reporter for one scene that also keeps, in `now`, where the scene is: for those who watch from elsewhere."""

    def __init__(self, inner: Reporter, now: dict[str, Any]) -> None:
        self._inner, self._now, self.run = inner, now, inner.run

    def stage(self, scene: str, stage: str, total_mpx: float, done_mpx: float = 0.0) -> None:
        self._now.pop("bottleneck", None)
        self._now.update(stage=stage, total_mpx=round(total_mpx, 3), done_mpx=round(done_mpx, 3))
        self._inner.stage(scene, stage, total_mpx, done_mpx)

    def advance(self, mpx: float, limit: str = "") -> None:
        self._now["done_mpx"] = round(self._now["done_mpx"] + mpx, 3)
        if limit:
            self._now["bottleneck"] = limit
        self._inner.advance(mpx, limit)

    def end_stage(self) -> None:
        self._inner.end_stage()

    def say(self, kind: str, text: str, **facts: Any) -> None:
        self._inner.say(kind, text, **facts)

    def fact(self, kind: str, **facts: Any) -> None:
        self._inner.fact(kind, **facts)

    def for_scene(self, scene: str = "") -> Reporter:
        return self._inner.for_scene(scene)


def make_reporter(json_events: bool) -> Reporter:
    """The reporter that fits where the output goes."""
    if json_events:
        return JsonReporter()
    return BarReporter() if sys.stderr.isatty() else LineReporter()
