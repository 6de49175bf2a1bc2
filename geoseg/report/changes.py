"""`changes.png`: an earlier map, a later one, and what changed between them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from geoseg.grid.window import Window
from geoseg.io.classmap import AnyClassRaster, ClassMap
from geoseg.io.glimpse import read_reduced, reduced_shape
from geoseg.legend import NODATA, Legend
from geoseg.report.facts import LANDCOVER
from geoseg.report.outlines import short
from geoseg.report.sheets import WIDTH, class_panel, sheet
from geoseg.report.views import view_of
from geoseg.stages.compare import UNCHANGED, Pair, Part

SIDE_PX = WIDTH // 2


def change_picture(pair: Pair, change: Path, legend: Legend) -> bytes:
    """The picture as PNG, at most 1600 x 1200 px; the same input, the same bytes.

    change: the raster of changes, in the colors of `legend`. Classes of one name have one color, that of the later map.
    Raises SourceError where a raster cannot be read.
    """
    now = {c.name: c.color for c in pair.new.classes}
    old = Legend(tuple(replace(c, color=now.get(c.name, c.color)) for c in pair.old.classes))
    panels, keys = [], {UNCHANGED.name: UNCHANGED.color}
    for part, named in ((pair.before, old), (pair.after, pair.new)):
        view = _view(part)
        there = set(np.unique(view).tolist())
        keys |= {short(c.name): c.color for c in named.classes if c.id in there}
        panels.append(class_panel(view, named))
    panels.append(class_panel(view_of(ClassMap.open(str(change)), SIDE_PX), legend))
    before, after = map(short, names_of(pair.before.path, pair.after.path))
    told = f"{before}, then {after}, then what changed, in the color of what it is now"
    return sheet("Changes", told, (pair.grid.height, pair.grid.width), panels, list(keys.items()))


def names_of(before: str, after: str) -> tuple[str, str]:
    """What to call two maps: their files, or scenes where the file is landcover.tif; with folders until they differ."""
    places = [Path(path) for path in (before, after)]
    old, new = (place.parent.parts if place.name == LANDCOVER else place.parts for place in places)
    most = max(len(old), len(new))
    shown = next((n for n in range(1, most + 1) if old[-n:] != new[-n:]), 1)
    return "/".join(old[-shown:]) or LANDCOVER, "/".join(new[-shown:]) or LANDCOVER


def _view(part: Part) -> np.ndarray:
    """Classes of a part, reduced: (row, col) uint8, 255 where it has none."""
    source, grid = part.source, part.grid
    window = Window(part.row, part.col, grid.height, grid.width)
    band = source.band if isinstance(source, AnyClassRaster) else 1
    shape = reduced_shape(grid.height, grid.width, SIDE_PX)
    values, valid = read_reduced(part.path, window, shape, (band,))
    known = valid & (values[0] >= 0) & (values[0] < NODATA)
    view: np.ndarray = np.where(known, np.nan_to_num(values[0]), NODATA).astype(np.uint8)
    return view
