"""All pages of a run."""

from __future__ import annotations

from collections.abc import Collection

from geoseg.errors import SourceError
from geoseg.io.files import publish_bytes
from geoseg.io.places import Place
from geoseg.report.facts import QUICKLOOK, REPORT, SceneFacts, scene_folders
from geoseg.report.index import read_run, write_index
from geoseg.report.layers import SceneViews
from geoseg.report.quicklook import quicklook
from geoseg.report.scene import scene_page
from geoseg.stages.protocols import Mapper


def write_reports(
    output: Place, names: Collection[str] | None = None, mapper: Mapper = map
) -> tuple[list[Place], list[SourceError]]:
    """Write report.html and quicklook.png for the scenes of an output folder, and index.html for all.

    names: of the scenes whose results are new; pages of others are left as they are if they are there. None: all.
    mapper: spreads the scenes over workers.
    Returns what was written, the index first, and why the pages of other scenes could not be made. Raises SourceError
    where there is no run, OutputError where the disk refuses.
    """
    if not output.is_dir():
        raise SourceError("no such folder", output)
    read_run(output)
    folders = [
        folder
        for folder in scene_folders(output)
        if names is None or folder.name in names or not (folder / REPORT).is_file()
    ]
    written, failed = [], []
    for result in mapper(_write_scene, folders):
        if isinstance(result, SourceError):
            failed.append(result)
        else:
            written += result
    return [write_index(output), *written], failed


def _write_scene(folder: Place) -> list[Place] | SourceError:
    """Both pages of a scene, from files that are read once; or why they cannot be made."""
    try:
        facts = SceneFacts.read(folder)
        views = SceneViews.read(facts)
        pages = {REPORT: scene_page(facts, views), QUICKLOOK: quicklook(facts, views)}
    except SourceError as error:
        return error
    for name, content in pages.items():
        publish_bytes(folder / name, content)
    return [folder / name for name in pages]
