"""What each group of footprints that share walls may become: squared, only thinned, or as traced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import shapely

from geoseg.pixels.frames import Frame
from geoseg.pixels.outlines import Outlines, Points, trace
from geoseg.pixels.overlaps import shared_area
from geoseg.pixels.polygons import Bools, Geometries, Ints
from geoseg.pixels.snapping import MOST_MOVED_PX, squared
from geoseg.pixels.thinning import thin

GUARD_IOU = 0.85
TOLERANCE_PX = 1.25
"""A traced straight wall strays from its line by up to a pixel; more than that is shape."""
REACH_PX = TOLERANCE_PX + MOST_MOVED_PX
"""No part of a squared outline lies farther from the traced one: thinning and snapping move each point by no more."""
RUNGS = 2
OVERLAP_PX2 = 1e-7


class Rung(NamedTuple):
    """What polygons become if they go one way.

    polygons: (polygon,), the traced one where it does not change. changed: (polygon,).
    fits: (polygon,), the same in a group: whether all are valid and near the traced ones, and do not overlap.
    """

    polygons: Geometries
    changed: Bools
    fits: Bools

    @classmethod
    def raw(cls, polygons: Geometries) -> Rung:
        """The polygons stay as they are."""
        no = np.zeros(len(polygons), np.bool_)
        return cls(polygons.copy(), no, ~no)

    def take(self, index: Ints) -> Rung:
        """Some polygons, in another order."""
        return Rung(self.polygons[index], self.changed[index], self.fits[index])


@dataclass(frozen=True, eq=False)
class Ladder:
    """What groups of polygons may become, the most wanted first. The last resort, as traced, is not among them.

    group: (polygon,) from 0 up, the same for polygons that share walls. rungs: RUNGS of them.
    """

    group: Ints
    rungs: tuple[Rung, ...]


def ladder_of(
    raw: Geometries, frame: Frame, guard_iou: float = GUARD_IOU, cluster: Ints | None = None
) -> Ladder:
    """The ladder of one or more polygons. That of a group does not depend on the other polygons.

    raw: valid, traced along pixel sides; they may touch, not overlap. frame: from their coordinates to one in which
    angles are right and a pixel's longer side is 1. guard_iou: the least IoU of a changed polygon with its raw one.
    cluster: (polygon,), the same for polygons that share walls, where that is known.
    """
    order = _scan_order(raw)
    raw = raw[order]
    outlines = trace(shapely.transform(raw, frame.of_pixels), None if cluster is None else cluster[order])
    kept = thin(outlines, TOLERANCE_PX)[outlines.walk]
    thinned = outlines.keep(kept)
    remaining, places = squared(outlines, thinned)
    corners = np.zeros_like(kept)
    corners[np.flatnonzero(kept)[remaining]] = True
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    rungs = (
        _rung(raw, outlines, steps, points, frame, guard_iou)
        for steps, points in ((corners, places), (kept, outlines.points))
    )
    return Ladder(outlines.group[back], tuple(rung.take(back) for rung in rungs))


def _scan_order(polygons: Geometries) -> Ints:
    """From left to right by the leftmost, lowest corner, which no two polygons share, so that sums round alike."""
    x, y = shapely.get_coordinates(
        shapely.get_point(shapely.get_exterior_ring(shapely.normalize(polygons)), 0)
    ).T
    return np.lexsort((y, x))


def _rung(
    raw: Geometries, outlines: Outlines, steps: Bools, places: Points, frame: Frame, guard_iou: float
) -> Rung:
    """What polygons become if some steps of their outlines remain, and all points go to their places."""
    group, unit = outlines.group, frame.col_x * frame.row_y
    changed = _changed(outlines, steps, places)
    polygons = raw.copy()
    moved = outlines.keep(steps).polygons(places)[changed]
    polygons[changed] = shapely.transform(moved, frame.to_pixels)
    fits: Bools = shapely.is_valid(polygons)
    at = np.flatnonzero(changed & fits)
    both = shared_area(raw[at], polygons[at])
    either = shapely.area(raw[at]) + shapely.area(polygons[at]) - both
    fits[at] = (both > 0) & (both >= guard_iou * either)
    fits = _all_of_group(fits, group)
    fits[_overlapping(polygons, group, fits, OVERLAP_PX2 / unit)] = False
    return Rung(polygons, changed, _all_of_group(fits, group))


def _changed(outlines: Outlines, steps: Bools, places: Points) -> Bools:
    """Which polygons lose a corner or have one moved: (polygon,)."""
    moved = (places != outlines.points).any(axis=1)[outlines.walk]
    found: Bools = np.bincount(outlines.polygon_of_step, moved | ~steps, len(outlines.group)) > 0
    return found


def _all_of_group(flags: Bools, group: Ints) -> Bools:
    """True for the polygons of groups in which it is true for all."""
    whole: Bools = np.bincount(group, ~flags) == 0
    return whole[group]


def _overlapping(polygons: Geometries, group: Ints, asked: Bools, least: float) -> Ints:
    """Positions of polygons that overlap another one of their group."""
    at = np.flatnonzero(asked & (np.bincount(group) > 1)[group])
    first, second = at[shapely.STRtree(polygons[at]).query(polygons[at], predicate="intersects")]
    once = (first < second) & (group[first] == group[second])
    first, second = first[once], second[once]
    deep = shapely.area(shapely.intersection(polygons[first], polygons[second])) > least
    return np.concatenate([first[deep], second[deep]])
