"""All pages of a run."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from geoseg.errors import SourceError
from geoseg.io.files import publish_bytes
from geoseg.report.facts import QUICKLOOK, REPORT, SceneFacts, scene_folders
from geoseg.report.index import read_run, write_index
from geoseg.report.layers import SceneViews
from geoseg.report.quicklook import quicklook
from geoseg.report.scene import scene_page


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
            written += _write_scene(folder)
        except SourceError as error:
            failed.append(error)
    return [write_index(output), *written], failed


def _write_scene(folder: Path) -> list[Path]:
    """Both pages of a scene, from files that are read once."""
    facts = SceneFacts.read(folder)
    views = SceneViews.read(facts)
    pages = {REPORT: scene_page(facts, views), QUICKLOOK: quicklook(facts, views)}
    for name, content in pages.items():
        publish_bytes(folder / name, content)
    return [folder / name for name in pages]
