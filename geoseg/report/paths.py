"""Files as pages name them: pages are handed on, and no folder of the machine that made them is any reader's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geoseg.io.places import Place
from geoseg.report.facts import dig, items, text

FILES_OF_SCENE = ("path", "labels", "regions", "mask")
FILES_OF_JOB = ("model", "aoi")


def file_name(value: Any) -> str:
    """The name of a file without its folders; empty for None."""
    return Path(text(value)).name


def named_only(message: str, run: Mapping[str, Any], output: Place) -> str:
    """A message with the job's files by name, and those in the run's folder as seen from there."""
    job = dig(run, "job") or {}
    told = [text(entry.get(key)) for entry in items(dig(job, "scenes")) for key in FILES_OF_SCENE]
    told += [text(dig(job, key)) for key in FILES_OF_JOB]
    for path in sorted({path for path in told if "/" in path}, key=len, reverse=True):
        message = message.replace(path, file_name(path))
    folders = {text(dig(job, "output")), str(output), str(output.resolve())} - {"", "."}
    for folder in sorted(folders, key=len, reverse=True):
        message = message.replace(f"{folder}/", "")
    return message
