"""What a run tells while it goes: a bar on a terminal, plain lines in a log, JSON lines for programs."""

from __future__ import annotations

import json
import sys
import time
from typing import Any, Protocol

LINE_EVERY_S = 10.0


class Reporter(Protocol):
    """Takes events. Progress is counted in megapixels."""

    def stage(self, scene: str, stage: str, total_mpx: float, done_mpx: float = 0.0) -> None: ...

    def advance(self, mpx: float) -> None: ...

    def end_stage(self) -> None: ...

    def say(self, kind: str, text: str, **facts: Any) -> None: ...

    def for_scene(self) -> Reporter:
        """Another one that writes to the same place, for a scene that runs beside others."""


class LineReporter:
    """Plain lines, at most one every ten seconds for progress."""

    def __init__(self) -> None:
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

    def advance(self, mpx: float) -> None:
        self._done += mpx
        now = time.monotonic()
        if now - self._last >= LINE_EVERY_S:
            self._last = now
            self._line(now)

    def _line(self, now: float) -> None:
        rate = (self._done - self._skipped) / max(now - self._begin, 1e-9)
        left = (self._total - self._done) / rate if rate > 0 else 0.0
        share = 100 * self._done / self._total if self._total else 100.0
        print(f"{self._what} {share:.0f} %, {rate:.2f} Mpx/s, {left:.0f} s left", file=sys.stderr, flush=True)

    def end_stage(self) -> None:
        """Progress ends without a line of its own."""

    def say(self, kind: str, text: str, **facts: Any) -> None:
        print(f"{kind}: {text}" if kind in ("warning", "error") else text, file=sys.stderr, flush=True)

    def for_scene(self) -> Reporter:
        return type(self)()


class BarReporter(LineReporter):
    """A progress bar with megapixels per second and time left."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: Any = None

    def stage(self, scene: str, stage: str, total_mpx: float, done_mpx: float = 0.0) -> None:
        from tqdm import tqdm

        self.end_stage()
        form = "{l_bar}{bar}| {n:.1f}/{total:.1f} Mpx [{elapsed}<{remaining}, {rate_fmt}]"
        self._bar = tqdm(
            total=round(total_mpx, 1), initial=round(done_mpx, 1), desc=f"{scene}: {stage}", unit="Mpx",
            bar_format=form, leave=False, dynamic_ncols=True, file=sys.stderr,
        )  # fmt: skip

    def advance(self, mpx: float) -> None:
        self._bar.update(mpx)

    def end_stage(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def say(self, kind: str, text: str, **facts: Any) -> None:
        self.end_stage()
        super().say(kind, text, **facts)


class JsonReporter:
    """One JSON object a line on standard output."""

    def __init__(self) -> None:
        self._now: dict[str, Any] = {}
        self._last = 0.0

    def stage(self, scene: str, stage: str, total_mpx: float, done_mpx: float = 0.0) -> None:
        self._now = {"scene": scene, "stage": stage, "total_mpx": total_mpx, "done_mpx": done_mpx}
        self._emit({"event": "stage", **self._now})

    def advance(self, mpx: float) -> None:
        self._now["done_mpx"] += mpx
        if time.monotonic() - self._last >= 1.0:
            self._last = time.monotonic()
            self._emit({"event": "progress", **self._now})

    def end_stage(self) -> None:
        self._emit({"event": "stage_done", **self._now})

    def say(self, kind: str, text: str, **facts: Any) -> None:
        self._emit({"event": kind, "text": text, **facts})

    def for_scene(self) -> Reporter:
        return JsonReporter()

    def _emit(self, event: dict[str, Any]) -> None:
        print(json.dumps({"time": time.time(), **event}, ensure_ascii=False), flush=True)


class Watched:
    """A reporter for one scene that also keeps, in `now`, where the scene is: for those who watch from elsewhere."""

    def __init__(self, inner: Reporter, now: dict[str, Any]) -> None:
        self._inner, self._now = inner, now

    def stage(self, scene: str, stage: str, total_mpx: float, done_mpx: float = 0.0) -> None:
        self._now.update(stage=stage, total_mpx=round(total_mpx, 3), done_mpx=round(done_mpx, 3))
        self._inner.stage(scene, stage, total_mpx, done_mpx)

    def advance(self, mpx: float) -> None:
        self._now["done_mpx"] = round(self._now["done_mpx"] + mpx, 3)
        self._inner.advance(mpx)

    def end_stage(self) -> None:
        self._inner.end_stage()

    def say(self, kind: str, text: str, **facts: Any) -> None:
        self._inner.say(kind, text, **facts)

    def for_scene(self) -> Reporter:
        return self._inner.for_scene()


def make_reporter(json_events: bool) -> Reporter:
    """The reporter that fits where the output goes."""
    if json_events:
        return JsonReporter()
    return BarReporter() if sys.stderr.isatty() else LineReporter()
