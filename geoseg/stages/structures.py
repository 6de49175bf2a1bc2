"""Buildings scored as objects and roads as lines, over a whole raster and per region, window by window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from geoseg.legend import NODATA, Legend
from geoseg.pixels.burn import burn
from geoseg.pixels.confusion import channels
from geoseg.pixels.matching import Ints, PartJoiner, WindowParts, find_parts
from geoseg.pixels.roadmatch import HALO_PX, RoadScore, find_lines
from geoseg.stages.evaluate import WINDOW_PX, Region, Sources, WindowTask, pixel_box, read_map, window_tasks
from geoseg.stages.protocols import Mapper
from geoseg.stages.scores import Scores


@dataclass(frozen=True, eq=False)
class WindowStructures:
    """What comes back from a worker: parts of objects of each building class; lines of each road class, counted
    (2, 4) over the window, which is region -1, and in each region."""

    parts: tuple[WindowParts, ...]
    lines: tuple[tuple[tuple[int, Ints], ...], ...]


def score_structures(
    scores: Scores,
    sources: Sources,
    regions: Sequence[Region],
    mapper: Mapper,
    window_px: int = WINDOW_PX,
) -> Scores:
    """The scores with those of buildings and roads, for the classes that play these roles.

    sources, regions: those that the scores were made from. Raises SourceError where pixels cannot be read.
    """
    legend = scores.legend
    buildings, roads = legend.of_role("building"), legend.of_role("road")
    joiners = [PartJoiner() for _ in buildings]
    lines = np.zeros((len(roads), len(regions) + 1, 2, 4), np.int64)
    count = partial(
        count_structures, sources=sources, legend=legend, tolerance_px=scores.settings.tolerance_px
    )
    for found in mapper(count, window_tasks(sources.landcover.grid, regions, window_px)):
        for joiner, parts in zip(joiners, found.parts, strict=True):
            joiner.add(parts)
        for total, counts in zip(lines, found.lines, strict=True):
            for region, lengths in counts:
                total[region] += lengths  # -1 is the last, the whole raster
    objects = [joiner.result() for joiner in joiners]
    ranked = sources.confidence is not None
    areas = []
    for index, area in [(-1, scores.whole), *enumerate(scores.regions)]:
        where = None if index < 0 else index
        areas.append(
            replace(
                area,
                objects=tuple((c.name, o.score(where, ranked)) for c, o in zip(buildings, objects, strict=True)),
                roads=tuple((c.name, RoadScore.of(total[index])) for c, total in zip(roads, lines, strict=True)),
            )
        )  # fmt: skip
    return replace(scores, whole=areas[0], regions=tuple(areas[1:]))


def count_structures(
    task: WindowTask, sources: Sources, legend: Legend, tolerance_px: int
) -> WindowStructures:
    """The parts and lines of one window."""
    grid, roads = sources.landcover.grid, legend.of_role("road")
    halo = HALO_PX + tolerance_px if roads else 0
    around = task.window.grow(halo).overlap(grid.window)
    core = task.window.within(around)
    truth, mapped = sources.labels.read(around), read_map(sources.landcover, around)
    ignore = () if sources.labels.nodata is None else (sources.labels.nodata,)
    truth, mapped = channels(legend, ignore)[truth], channels(legend)[mapped]
    known = (truth != NODATA) & (mapped != NODATA)
    percent = None if sources.confidence is None else sources.confidence.read(task.window)
    places = []
    for index, region in task.regions:
        part = pixel_box(region, grid).overlap(task.window)
        mask = burn([region.geometry], part, grid)
        if mask.any():
            places.append((index, part.within(task.window), mask))
    parts = tuple(
        find_parts((truth == n)[core], (mapped == n)[core], known[core], percent, task.window, grid.width, places)
        for n in (legend.classes.index(c) for c in legend.of_role("building"))
    )  # fmt: skip
    lines = []
    whole = (-1, np.s_[:, :], np.ones(task.window.shape, np.bool_))
    for c in roads:
        n = legend.classes.index(c)
        sides = [side.crop(core) for side in find_lines(truth == n, mapped == n, tolerance_px)]
        counts = []
        for index, place, mask in (whole, *places):
            scored = known[core][place] & mask
            counts.append((index, np.stack([side.count(place, scored) for side in sides])))
        lines.append(tuple(counts))
    return WindowStructures(parts, tuple(lines))
