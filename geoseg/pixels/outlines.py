"""Rings of polygons as walks over points that neighbors share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import shapely
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from geoseg.pixels.polygons import Bools, Geometries, Ints, starts_of

Points = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float64]

STEPS_PER_PX = 2**20
"""Coordinates are rounded to this part of a pixel: so pixel corners are whole numbers wherever they lie."""
TOUCH_PX = 1e-3
"""Points that lie nearer than this are one."""


@dataclass(frozen=True, eq=False)
class Outlines:
    """Rings as walks over points; those of polygons that share a wall walk over the same points. All in pixel sides.

    points: (point, 2) float64, from the polygon's origin.
    walk: (step,) the point that each step of a ring leaves, ring after ring; rings are open.
    ring_starts: (ring + 1,), where each ring starts in `walk`, and the end.
    polygon_starts: (polygon + 1,), where each polygon starts in the rings; its exterior comes first.
    group: (polygon,) from 0 up, the same for polygons that share walls, directly or through others.
    origin: (polygon, 2), the same within a group.
    """

    points: Points
    walk: Ints
    ring_starts: Ints
    polygon_starts: Ints
    group: Ints
    origin: Points

    @property
    def ring_of_step(self) -> Ints:
        return np.repeat(np.arange(len(self.ring_starts) - 1), np.diff(self.ring_starts))

    @property
    def polygon_of_step(self) -> Ints:
        polygon_of_ring = np.repeat(np.arange(len(self.group)), np.diff(self.polygon_starts))
        return np.repeat(polygon_of_ring, np.diff(self.ring_starts))

    @property
    def ends(self) -> Ints:
        """The point that each step arrives at: (step,)."""
        return self.walk[following(self.ring_starts)]

    def keep(self, steps: Bools) -> Outlines:
        """The outlines of some steps only, with all points."""
        counts = np.add.reduceat(steps.astype(np.int64), self.ring_starts[:-1])
        return replace(self, walk=self.walk[steps], ring_starts=starts_of(counts))

    def polygons(self, places: Points) -> Geometries:
        """The polygons with their points moved to `places` (point, 2); rings have three points or more."""
        xy = places[self.walk] + self.origin[self.polygon_of_step]
        opens = self.ring_starts
        closing = np.insert(np.arange(len(xy)), opens[1:], opens[:-1])
        offsets = (opens + np.arange(len(opens)), self.polygon_starts)
        polygons: Geometries = shapely.from_ragged_array(shapely.GeometryType.POLYGON, xy[closing], offsets)
        return polygons


def following(ring_starts: Ints) -> Ints:
    """The position after each one in its ring, around: (step,)."""
    after = np.arange(1, ring_starts[-1] + 1)
    after[ring_starts[1:] - 1] = ring_starts[:-1]
    return after


def joined(count: int, first: Ints, second: Ints) -> Ints:
    """Which of `count` things are joined by pairs, directly or through others: (thing,) numbers from 0 up."""
    graph = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(count, count))
    labels: Ints = connected_components(graph, directed=False)[1].astype(np.int64)
    return labels


def numbered(*keys: npt.NDArray[np.generic]) -> Ints:
    """Rank of each row among the distinct rows of some columns, the first column weighing most: (row,)."""
    order = np.lexsort(keys[::-1])
    new = np.zeros(len(order), np.bool_)
    for key in keys:
        new[1:] |= key[order[1:]] != key[order[:-1]]
    rank = np.empty(len(order), np.int64)
    rank[order] = np.cumsum(new)
    return rank


def snapped(points: Points) -> Points:
    """Points rounded to a small part of a pixel."""
    return np.round(points * STEPS_PER_PX) / STEPS_PER_PX


def trace(polygons: Geometries, cluster: Ints | None = None) -> Outlines:
    """Outlines of one or more polygons, with points where a neighbor's corner lies on a wall.

    polygons: valid, in pixel sides; they may touch but not overlap. cluster: (polygon,), the same for polygons that
    share walls, where that is known. What is found of a group does not depend on other polygons.
    """
    if cluster is None:
        first, second = shapely.STRtree(polygons).query(polygons, predicate="dwithin", distance=TOUCH_PX)
        cluster = joined(len(polygons), first, second)
    touching = (np.bincount(cluster) > 1)[cluster]
    _, xy, (ring_starts, polygon_starts) = shapely.to_ragged_array(polygons)
    closing = np.zeros(len(xy), np.bool_)
    closing[ring_starts[1:] - 1] = True
    rings = Outlines(
        points=xy[~closing],
        walk=np.arange(len(xy) - len(ring_starts) + 1),
        ring_starts=ring_starts - np.arange(len(ring_starts)),
        polygon_starts=np.asarray(polygon_starts, np.int64),
        group=cluster,
        origin=_origins(polygons, cluster),
    )
    rings = _with_touching_corners(rings, touching, TOUCH_PX)

    local = rings.points[rings.walk] - rings.origin[rings.polygon_of_step]
    rings = _renumbered(rings, cluster, snapped(local))
    rings = rings.keep(rings.walk != rings.ends)
    group = _wall_groups(rings)
    origin = _origins(polygons, group)
    local = rings.points[rings.walk] - snapped(origin - rings.origin)[rings.polygon_of_step]
    return replace(_renumbered(rings, group, local), group=group, origin=origin)


def _renumbered(rings: Outlines, together: Ints, xy: Points) -> Outlines:
    """Rings whose steps share a point where they leave one place, within polygons that go together.

    together: (polygon,). xy: (step, 2), the place that each step leaves. Points are numbered by x, then y.
    """
    walk = numbered(together[rings.polygon_of_step], *xy.T)
    points = np.empty((walk.max() + 1, 2))
    points[walk] = xy
    return replace(rings, points=points, walk=walk)


def _origins(polygons: Geometries, cluster: Ints) -> Points:
    """The least x and y of each polygon's cluster: (polygon, 2)."""
    corner = np.full((cluster.max() + 1, 2), np.inf)
    np.minimum.at(corner, cluster, shapely.bounds(polygons)[:, :2])
    return corner[cluster]


def _with_touching_corners(rings: Outlines, touching: Bools, reach: float) -> Outlines:
    """Rings with a point wherever the corner of a touching polygon lies on one of their sides."""
    steps = np.flatnonzero(touching[rings.polygon_of_step])
    if not len(steps):
        return rings
    start, end = rings.points[rings.walk[steps]], rings.points[rings.ends[steps]]
    tree = shapely.STRtree(shapely.linestrings(np.stack([start, end], axis=1)))
    corner, side = tree.query(shapely.points(start), predicate="dwithin", distance=reach)
    from_start = np.hypot(*(start[corner] - start[side]).T)
    from_end = np.hypot(*(start[corner] - end[side]).T)
    inside = (from_start > reach) & (from_end > reach)
    corner, side, from_start = corner[inside], side[inside], from_start[inside]
    order = np.lexsort((from_start, side))
    after = steps[side[order]] + 1
    added = np.zeros(len(rings.ring_starts), np.int64)
    np.add.at(added, np.searchsorted(rings.ring_starts, after - 1, side="right"), 1)
    return replace(
        rings,
        walk=np.insert(rings.walk, after, rings.walk[steps[corner[order]]]),
        ring_starts=rings.ring_starts + np.cumsum(added),
    )


def _wall_groups(rings: Outlines) -> Ints:
    """Which polygons are joined by steps between the same two points, seen from either hand: (polygon,)."""
    wall, of_polygon = sides_of(rings).of_step, rings.polygon_of_step
    order = np.lexsort((of_polygon, wall))
    same = np.flatnonzero(wall[order[1:]] == wall[order[:-1]])
    return joined(len(rings.group), of_polygon[order[same]], of_polygon[order[same + 1]])


class Sides(NamedTuple):
    """Straight sides between two points, each once, whether one ring walks along it or two.

    ends: (side, 2) points, the lower number first. of_step: (step,) the side that each step walks along.
    """

    ends: Ints
    of_step: Ints


def sides_of(outlines: Outlines) -> Sides:
    """The sides that the rings of some outlines walk along."""
    low, high = np.sort(np.stack([outlines.walk, outlines.ends]), axis=0)
    of_step = numbered(low, high)
    ends = np.empty((of_step.max() + 1, 2), np.int64)
    ends[of_step] = np.column_stack([low, high])
    return Sides(ends, of_step)


def junctions(outlines: Outlines) -> Bools:
    """Points where other than two sides meet: the ends of shared walls, and corners of holes at a wall: (point,)."""
    ends = sides_of(outlines).ends
    degree: Bools = np.bincount(ends.ravel(), minlength=len(outlines.points)) > 2
    return degree
