"""Squaring the footprints of a whole raster in scan order, with only some of them in memory.

Polygons come in the order of their first pixels. A group of polygons that share walls is complete once the sweep has
passed its lowest row. Groups that would clash, directly or through others, are decided together, once all of them and
all that lies near them is complete. What becomes of them follows from the raw polygons alone, whatever the batches are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import ceil, inf
from typing import NamedTuple

import numpy as np
import shapely

from geoseg.pixels.clashes import Clashes, clashes_of, resolve
from geoseg.pixels.frames import MOST_OBLONG, Frame, Frames
from geoseg.pixels.ladder import REACH_PX, RUNGS, Rung, ladder_of
from geoseg.pixels.neighbors import beside, cells_of, sides_of, wall_groups
from geoseg.pixels.outlines import joined
from geoseg.pixels.polygons import Bools, Geometries, Ints, apply
from geoseg.pixels.squaring import taken

MOST_VERTICES = 50_000
"""A group with more vertices stays as it is, and so do groups that clash in a chain of more: it is noise.

The largest group found in a dense old town, with ragged outlines at 0.15 m, has 35,000. A mesh of walls of 45,000 with
a house in each of its yards takes 1.7 s, one of 180,000 with its houses eight: time grows with the square.
"""
NEAR_PX = ceil(2 * REACH_PX * MOST_OBLONG)
"""Groups that lie farther apart, along rows or along columns, cannot overlap however both are squared."""
STEP_VERTICES = 100_000
STEP_SHARE = 1.0
"""So many vertices, and this share of those that wait, come before the sweep goes on: work grows with the polygons.

In noise a share of 0.5 took 1.2 times as long as 1.0, and one of 2.0 held 1.4 times the memory to save a twentieth of
the time. Of 10,000 houses in rows of 100, steps of 100,000 hold 180 MB; of 30,000, 95 MB for 1.15 times the time.
"""


class Arrived(NamedTuple):
    """Polygons of a raster, each with the place of its first pixel, (row << 32) + col, in rising order.

    polygons: in pixels. fixed: those that must stay as they are, and with them their groups.
    """

    places: Ints
    polygons: Geometries
    fixed: Bools


class Redrawn(NamedTuple):
    """Polygons that have changed, by place, in no particular order: in map coordinates, normalized."""

    places: Ints
    polygons: Geometries


@dataclass(frozen=True, eq=False)
class _Held:
    """Polygons that wait, and those that stay as they are beside them.

    fixed: they stay as they are. doomed: so will they, and whatever they would clash with.
    """

    places: Ints
    polygons: Geometries
    fixed: Bools
    doomed: Bools

    @classmethod
    def concat(cls, parts: list[_Held]) -> _Held:
        columns = ("places", "polygons", "fixed", "doomed")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in columns))

    @classmethod
    def of(cls, batch: Arrived) -> _Held:
        return cls(*batch, np.zeros(len(batch.places), np.bool_))

    def take(self, which: Bools) -> _Held:
        return _Held(self.places[which], self.polygons[which], self.fixed[which], self.doomed[which])

    @property
    def vertices(self) -> int:
        return int(shapely.get_num_coordinates(self.polygons).sum())


def sweep(batches: Iterable[Arrived], frames: Frames) -> Iterator[Redrawn]:
    """The polygons of a raster that squaring changes.

    batches: all polygons, in scan order; however they are cut, the same comes out. Memory follows the groups that cross
    a row of the raster, and what lies near them.
    """
    held: list[_Held] = []
    waiting = arrived = 0
    for batch in batches:
        if not len(batch.places):
            continue
        held.append(_Held.of(batch))
        arrived += held[-1].vertices
        if arrived >= max(STEP_VERTICES, STEP_SHARE * waiting):
            left, redrawn = _settle(_Held.concat(held), int(batch.places[-1] >> 32), frames)
            held, waiting, arrived = [left], left.vertices, 0
            yield redrawn
    if held:
        yield _settle(_Held.concat(held), inf, frames)[1]


def _settle(held: _Held, row: float, frames: Frames) -> tuple[_Held, Redrawn]:
    """Decide what can be decided if no later polygon begins above `row`; returns what else is needed, too."""
    count = len(held.places)
    if not count:
        return held, Redrawn(held.places, held.polygons)
    sides = sides_of(held.polygons)
    group = wall_groups(sides, count)
    size = np.bincount(group, shapely.get_num_coordinates(held.polygons))
    fixed = ((size > MOST_VERTICES) | _any(held.fixed, group))[group]
    # Polygons that stay as they are need not be kept together.
    group = np.unique(np.where(fixed, count + np.arange(count), group), return_inverse=True)[1]
    size = np.bincount(group, shapely.get_num_coordinates(held.polygons))
    bottom = np.zeros(len(size))
    np.maximum.at(bottom, group, shapely.bounds(held.polygons)[:, 3])
    stays, doomed = _any(fixed, group), _any(held.doomed, group)

    cells = cells_of(sides._replace(owner=group[sides.owner]), NEAR_PX)
    growing = ~stays & (bottom >= row)
    late = bottom + NEAR_PX >= row
    settled = ~stays & ~late & ~beside(cells, growing)
    rungs = _rungs(held.polygons, group, ~(stays | growing)[group], frames)
    clashes = clashes_of(held.polygons, group, rungs)
    chain = _chains(clashes, stays | growing)
    doomed = ((np.bincount(chain, size) > MOST_VERTICES) | _any(doomed, chain))[chain]
    ready = ~_any(~settled, chain)[chain] & ~doomed
    redrawn = _redrawn(held, group, rungs, clashes, ready, frames)

    pending = ~stays & ~ready & ~(doomed & settled)
    needed = pending | stays & (late | beside(cells, pending))
    left = _Held(held.places, held.polygons, fixed, doomed[group])
    return left.take(needed[group]), redrawn


def _any(flags: Bools, group: Ints) -> Bools:
    """Whether a flag is set in a group: (group,)."""
    found: Bools = np.bincount(group, flags) > 0
    return found


def _chains(clashes: Clashes, apart: Bools) -> Ints:
    """Which groups would clash, directly or through others but those `apart`: (group,)."""
    links = clashes.groups[~apart[clashes.groups].any(axis=1)]
    return joined(len(apart), *links.T)


def _rungs(raw: Geometries, group: Ints, asked: Bools, frames: Frames) -> tuple[Rung, ...]:
    """What polygons in pixels may become; those that are not asked for, and those without a frame, stay."""
    bounds, count = shapely.bounds(raw), int(group.max()) + 1
    low, high = (np.full((count, 2), start) for start in (inf, -inf))
    np.minimum.at(low, group, bounds[:, :2])
    np.maximum.at(high, group, bounds[:, 2:])
    numbers = frames.at((low + high) / 2)[group]
    asked = asked & np.isfinite(numbers[:, 0])
    rungs = tuple(Rung.raw(raw) for _ in range(RUNGS))
    for frame in np.unique(numbers[asked], axis=0):
        at = np.flatnonzero(asked & (numbers == frame).all(axis=1))
        ladder = ladder_of(raw[at], Frame(*frame.tolist()), cluster=group[at])
        for mine, its in zip(rungs, ladder.rungs, strict=True):
            for column, found in zip(mine, its, strict=True):
                column[at] = found
    return rungs


def _redrawn(
    held: _Held, group: Ints, rungs: tuple[Rung, ...], clashes: Clashes, ready: Bools, frames: Frames
) -> Redrawn:
    """What becomes of the groups that are ready, as far as they change."""
    polygons, changed = taken(held.polygons, group, rungs, resolve(group, rungs, clashes))
    at = np.flatnonzero(changed & ready[group])
    there = shapely.normalize(shapely.transform(polygons[at], lambda xy: apply(frames.transform, xy)))
    # Map coordinates are rounded: a group that does not bear it stays as it is.
    broken = np.zeros(len(ready), np.bool_)
    broken[group[at[~shapely.is_valid(there)]]] = True
    whole = ~broken[group[at]]
    return Redrawn(held.places[at[whole]], there[whole])
