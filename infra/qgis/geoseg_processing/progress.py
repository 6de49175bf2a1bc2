"""What `geoseg run --json` tells while it goes, in QGIS's progress bar and log."""

from __future__ import annotations

import json
import time
from typing import Any

from qgis.core import QgsProcessingFeedback

BAR = {"map": (0.0, 85.0), "merge": (85.0, 90.0), "evaluate": (90.0, 93.0), "vectorize": (93.0, 99.0)}
"""From where to where each stage moves the bar, about as long as they take."""
LINE_EVERY_S = 10.0


class RunProgress:
    """A listener for the events of a run with one scene. scene: its name, once the run is done."""

    def __init__(self, feedback: QgsProcessingFeedback) -> None:
        self._feedback = feedback
        self._begin = self._last = self._skipped = 0.0
        self.scene: str | None = None

    def __call__(self, line: str) -> str | None:
        """Returns the text of an error."""
        try:
            event = json.loads(line)
            kind = event["event"]
        except (ValueError, TypeError, KeyError):  # not ours, as lines of Ray's workers
            self._feedback.pushConsoleInfo(line)
            return None
        if kind == "error":
            return str(event["text"])
        if kind in ("stage", "progress", "stage_done"):
            self._stage(kind, event)
        elif kind == "warning":
            self._feedback.pushWarning(event["text"])
        else:
            self._feedback.pushInfo(event["text"])
            if kind == "scene":
                self.scene = event.get("name") or event["scene"]
        return None

    def _stage(self, kind: str, event: dict[str, Any]) -> None:
        name, total, done = event.get("stage"), event.get("total_mpx") or 0.0, event.get("done_mpx", 0.0)
        if name is None:
            return
        now = time.monotonic()
        if kind == "stage":
            self._feedback.setProgressText(f"{event['scene']}: {name}")
            self._begin, self._last, self._skipped = now, now, done
        start, end = BAR.get(name, (99.0, 99.0))
        share = 1.0 if kind == "stage_done" or not total else min(1.0, done / total)
        self._feedback.setProgress(start + (end - start) * share)
        if kind == "progress" and now - self._last >= LINE_EVERY_S:
            self._last = now
            rate = (done - self._skipped) / (now - self._begin)
            left = f", {(total - done) / rate:.0f} s left" if rate > 0 else ""
            self._feedback.pushInfo(f"{name} {100 * share:.0f} %, {rate:.2f} Mpx/s{left}")
