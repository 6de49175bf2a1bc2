"""All pages of a run."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from geoseg.errors import SourceError
from geoseg.report.facts import REPORT, scene_folders
from geoseg.report.index import read_run, write_index
from geoseg.report.quicklook import write_quicklook
from geoseg.report.scene import write_scene_report


def write_reports(output: Path, names: Collection[str] | None = None) -> tuple[list[Path], list[SourceError]]:
    """Write report.html and quicklook.png for the scenes of an output folder, and index.html for all.

    names: of the scenes whose results are new; pages of others are left as they are if they are there. None: all.
    Returns what was written, the index first, and why the pages of other scenes could not be made. Raises SourceError
    where there is no run, OutputError where the disk refuses.
    """
    if not output.is_dir():
        raise SourceError("no such folder", output)
    read_run(output)
    written, failed = [], []
    for folder in scene_folders(output):
        if names is not None and folder.name not in names and (folder / REPORT).is_file():
            continue
        try:
            written += [write_scene_report(folder), write_quicklook(folder)]
        except SourceError as error:
            failed.append(error)
    return [write_index(output), *written], failed
