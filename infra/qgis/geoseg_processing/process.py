"""Starts geoseg as a process of its own, and tells QGIS what it says."""

from __future__ import annotations

import os
import queue
import re
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Optional

from processing.core.ProcessingConfig import ProcessingConfig
from qgis.core import QgsProcessingException, QgsProcessingFeedback

SETTING = "GEOSEG_EXECUTABLE"
VARIABLE = "GEOSEG"
ADVICE = (
    "name the program geoseg under Settings > Options > Processing > Providers > geoseg, "
    f"or in the environment variable {VARIABLE}, or put it on the PATH"
)

POLL_S = 0.1
PATIENCE_S = (20.0, 5.0)
"""After a cancel geoseg may finish the patch that it is at; then it is terminated, then killed."""
LAST_WORDS_S = 2.0
"""How long output is waited for when geoseg has ended, since its children may hold the pipe open."""

OF_QGIS = (
    "PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "GDAL_DATA", "GDAL_DRIVER_PATH", "PROJ_LIB", "PROJ_DATA",
)  # fmt: skip
"""What QGIS sets for its own Python, GDAL and PROJ; geoseg brings others, which it would break."""

PERCENT = re.compile(r": \w+ (\d+) %, ")
"""A line that tells how far geoseg is, where it was not asked for JSON."""

Listener = Callable[[str], Optional[str]]  # 3.9 knows no | here
"""Takes a line; returns the error that it tells of, if it does."""


def find_geoseg() -> str:
    """The program: from the provider's setting, else the environment variable, else the PATH."""
    for place, told in (
        (f"setting {SETTING}", ProcessingConfig.getSetting(SETTING)),
        (f"environment variable {VARIABLE}", os.environ.get(VARIABLE)),
    ):
        if told:
            found = shutil.which(str(Path(told).expanduser()))
            if found is None:
                raise QgsProcessingException(f"{told}: no such program ({place}); {ADVICE}")
            return found
    found = shutil.which("geoseg")
    if found is None:
        raise QgsProcessingException(f"geoseg was not found; install it, then {ADVICE}")
    return found


def run_geoseg(arguments: list[str], feedback: QgsProcessingFeedback, listener: Listener) -> bool:
    """Run geoseg to its end. listener: for standard output. False where the user has canceled it.

    Raises QgsProcessingException, with geoseg's own error lines, where it fails.
    """
    command = [find_geoseg(), *arguments]
    feedback.pushCommandInfo(shlex.join(command))
    said = StandardError(feedback)
    process = _started(command)
    try:
        errors, canceled = _listen(process, feedback, {"out": listener, "err": said})
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if canceled:
        return False
    if process.returncode:
        raise QgsProcessingException("\n".join(errors) or said.last_words(process.returncode))
    return True


def _started(command: list[str]) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name not in OF_QGIS}
    environment.update(PYTHONUTF8="1", PYTHONUNBUFFERED="1")
    try:
        return subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    except OSError as error:
        reason = error.strerror or error
        raise QgsProcessingException(f"{command[0]}: cannot be started ({reason}); {ADVICE}") from error


def _listen(
    process: subprocess.Popen[str], feedback: QgsProcessingFeedback, ears: dict[str, Listener]
) -> tuple[list[str], bool]:
    """Pass on lines until the process has ended. Returns the errors that it told of, and whether it was canceled.

    Only the algorithm's own thread may speak to QGIS, so that readers hand their lines over.
    """
    lines: queue.Queue[tuple[str, str | None]] = queue.Queue()
    for name, stream in (("out", process.stdout), ("err", process.stderr)):
        threading.Thread(target=_read, args=(stream, name, lines), daemon=True).start()
    stop, errors, speaking, ended = _Stop(process), [], len(ears), None
    while ended is None or (speaking and time.monotonic() - ended < LAST_WORDS_S):
        if ended is None and process.poll() is not None:
            ended = time.monotonic()
        if ended is None and feedback.isCanceled():
            stop.insist(feedback)
        try:
            name, line = lines.get(timeout=POLL_S)
        except queue.Empty:
            continue
        if line is None:
            speaking -= 1
        elif error := ears[name](line):
            errors.append(error)
    return errors, stop.begun


def _read(stream: IO[str], name: str, lines: queue.Queue[tuple[str, str | None]]) -> None:
    with stream:
        for line in stream:
            lines.put((name, line.rstrip()))
    lines.put((name, None))


class _Stop:
    """Asks a process to stop: as Ctrl+C does, then harder."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._steps = [process.terminate, process.kill]
        self._next = 0.0
        self.begun = False

    def insist(self, feedback: QgsProcessingFeedback) -> None:
        now = time.monotonic()
        if not self.begun:
            self.begun = True
            feedback.pushInfo("Stopping geoseg...")
            if os.name == "posix":
                self._process.send_signal(signal.SIGINT)
                self._next = now + PATIENCE_S[0]
        if self._steps and now >= self._next:
            self._steps.pop(0)()
            self._next = now + PATIENCE_S[1]


class StandardError:
    """A listener: warnings and the rest are shown at once, errors are returned."""

    def __init__(self, feedback: QgsProcessingFeedback) -> None:
        self._feedback = feedback
        self._last = ""

    def __call__(self, line: str) -> str | None:
        kind, colon, text = line.partition(": ")
        if colon and kind.lower() == "error":
            return text
        if percent := PERCENT.search(line):
            self._feedback.setProgress(float(percent.group(1)))
        if colon and kind == "warning":
            self._feedback.pushWarning(text)
        elif line:
            self._last = line
            self._feedback.pushConsoleInfo(line)
        return None

    def last_words(self, code: int) -> str:
        """Why geoseg failed where it told of no error."""
        how = f"ended with exit code {code}" if code > 0 else f"was ended by signal {-code}"
        return f"geoseg {how}" + (f": {self._last}" if self._last else "")
