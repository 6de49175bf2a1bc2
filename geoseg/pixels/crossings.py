"""Crossings of center lines: those that are one on the ground become one node, which lines reach straight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from geoseg.pixels.centerlines import Floats, ends_of, lengths
from geoseg.pixels.polygons import Bools, Ints

BACK_PX = 4.0
"""The direction of a line at its end is taken over this length, or over its width if that is more."""


@dataclass(frozen=True, eq=False)
class Graph:
    """Vertices of lines. owner: the polygon of each, or -1. measured: False where the radius is no road's."""

    points: Floats
    radius: Floats
    owner: Ints
    measured: Bools

    def add(self, points: Floats, radius: Floats, owner: Ints) -> Graph:
        return Graph(
            np.concatenate([self.points, points]),
            np.concatenate([self.radius, radius]),
            np.concatenate([self.owner, owner]),
            np.concatenate([self.measured, np.zeros(len(points), np.bool_)]),
        )


class Crossings(NamedTuple):
    """Where more than two lines meet.

    number: (vertex,), the crossing that each vertex belongs to, or -1. center: (crossing, 2).
    clear, widest: (crossing,), radius of a circle around the center, and of one nearby, inside the polygon.
    """

    number: Ints
    center: Floats
    clear: Floats
    widest: Floats


def join_crossings(graph: Graph, paths: list[Ints], pixel_m: float) -> tuple[Graph, list[Ints]]:
    """Merge crossings that lie closer together than the road is wide, and run lines straight into them.

    Around a crossing the medial axis bends towards the mouths of the side roads. So the part of each line in
    a circle around the crossing is replaced by a straight one, to the place where the lines outside would meet.
    """
    if not paths:
        return graph, paths
    crossings, paths = _crossings(graph, paths)
    number, base = crossings.number, len(graph.points)
    cuts = [_cuts(graph.points, path, crossings) for path in paths]
    ways, places = [], []
    joined = []
    for path, (begin, end) in zip(paths, cuts, strict=True):
        inner = path[begin:end]
        if begin + len(path) - end > 2:
            ways += [way for way, n in ((inner, number[path[0]]), (inner[::-1], number[path[-1]])) if n >= 0]
            places += [n for n in (number[path[0]], number[path[-1]]) if n >= 0]
        head, tail = ([number[v] + base] if number[v] >= 0 else [] for v in (path[0], path[-1]))
        whole = np.concatenate([head, inner, tail]).astype(np.int64)
        if len(whole) > 2 or whole[0] != whole[-1]:
            joined.append(whole)
    points = _meeting_points(graph.points, ways, np.array(places, np.int64), crossings, pixel_m)
    return graph.add(points, crossings.widest, np.full(len(points), -1)), joined


def _crossings(graph: Graph, paths: list[Ints]) -> tuple[Crossings, list[Ints]]:
    """The crossings, and the paths that do not lie inside of one.

    Crossings are merged along the shortest path first, as long as all of them see the middle. Those around a
    hole, such as a roundabout, stay: their middle is not on the road.
    """
    first, last, degree = ends_of(paths, len(graph.points))
    length = lengths(graph.points, paths)
    inside = (degree[first] > 2) & (degree[last] > 2) & (length < graph.radius[first] + graph.radius[last])
    links = np.flatnonzero(inside)
    links = links[~_around_holes(first[links], last[links])]
    circles = {v: _circle(graph, [v], np.array([v])) for v in np.flatnonzero(degree > 2).tolist()}
    inside[:] = False
    for n in links[np.argsort(length[links], kind="stable")].tolist():
        a, b = circles[int(first[n])], circles[int(last[n])]
        # Between two crossings the road may be wider than at either.
        merged = _circle(graph, a.members + b.members, np.concatenate([a.inner, b.inner, paths[n]]))
        away = np.hypot(*(graph.points[merged.members] - merged.center).T)
        if merged.clear > 0 and (away <= graph.radius[merged.members] + merged.clear).all():
            circles.update(dict.fromkeys(merged.members, merged))
            inside[n] = True

    number = np.full(len(degree), -1, np.int64)
    distinct = list({min(circle.members): circle for circle in circles.values()}.values())
    for n, circle in enumerate(distinct):
        number[circle.members] = n
    center = np.array([circle.center for circle in distinct]).reshape(-1, 2)
    clear = np.array([circle.clear for circle in distinct], np.float64)
    widest = np.array([graph.radius[circle.inner].max() for circle in distinct], np.float64)
    return Crossings(number, center, clear, widest), [paths[n] for n in np.flatnonzero(~inside)]


class _Circle(NamedTuple):
    """One crossing. members: the crossings of the axis that it unites; inner: all vertices in it."""

    members: list[int]
    inner: Ints
    center: Floats
    clear: float


def _circle(graph: Graph, members: list[int], inner: Ints) -> _Circle:
    """A circle around the middle of some crossings that lies in the circles around its inner vertices."""
    center: Floats = graph.points[members].mean(axis=0)
    clear = graph.radius[inner] - np.hypot(*(graph.points[inner] - center).T)
    return _Circle(members, inner, center, float(clear.max()))


def _around_holes(first: Ints, last: Ints) -> Bools:
    """Whether each link belongs to a connected set of links that has a loop: (link,)."""
    _, ends = np.unique(np.concatenate([first, last]), return_inverse=True)
    count = int(ends.max(initial=-1)) + 1
    pairs = ends[: len(first)], ends[len(first) :]
    _, group = connected_components(
        coo_array((np.ones(len(first)), pairs), shape=(count, count)), directed=False
    )
    has_loop = np.bincount(group[pairs[0]], minlength=count) >= np.bincount(group, minlength=count)
    looped: Bools = has_loop[group[pairs[0]]]
    return looped


def _cuts(points: Floats, path: Ints, crossings: Crossings) -> tuple[int, int]:
    """Which part of a path lies outside the circles of the crossings at its ends."""
    counts = [0, 0]
    for side, way in enumerate((path, path[::-1])):
        place = crossings.number[way[0]]
        if place >= 0:
            away = np.hypot(*(points[way] - crossings.center[place]).T)
            outside = away >= 0.9 * crossings.clear[place]
            counts[side] = max(1, int(outside.argmax())) if outside.any() else len(path)
    if sum(counts) >= len(path):
        counts = [int(crossings.number[vertex] >= 0) for vertex in (path[0], path[-1])]
    return counts[0], len(path) - counts[1]


def _meeting_points(
    points: Floats, ways: list[Ints], places: Ints, crossings: Crossings, pixel_m: float
) -> Floats:
    """The point nearest to the straight continuations of all lines into a crossing: (crossing, 2).

    ways: paths that lead away from crossings; places: the crossing of each. Least squares, held inside of
    the circle, and weakly to its center for the sake of lines that are parallel.
    """
    begin, ahead = np.zeros((len(ways), 2)), np.zeros((len(ways), 2))
    for n, (way, place) in enumerate(zip(ways, places, strict=True)):
        # The bend goes on outside of the circle for a while.
        clear = crossings.clear[place]
        straight = _beyond(points[way], 0.5 * clear)
        begin[n], ahead[n] = heading_of(straight, max(1.5 * clear, BACK_PX * pixel_m))
    across = np.eye(2) - ahead[:, :, None] * ahead[:, None, :]
    matrix = np.tile(0.1 * np.eye(2), (len(crossings.center), 1, 1))
    moment = 0.1 * crossings.center
    np.add.at(matrix, places, across)
    np.add.at(moment, places, (across @ begin[:, :, None])[:, :, 0])
    shift = np.linalg.solve(matrix, moment[:, :, None])[:, :, 0] - crossings.center
    most = 0.75 * crossings.clear / np.maximum(np.hypot(*shift.T), 1e-9)
    moved: Floats = crossings.center + shift * np.minimum(1, most)[:, None]
    return moved


def _beyond(xy: Floats, start: float) -> Floats:
    """A line without its first part, `start` long; all of it if hardly anything remains."""
    far = int((np.hypot(*(xy - xy[0]).T) >= start).argmax())
    return xy[far:] if len(xy) - far > 2 else xy


def heading_of(xy: Floats, over: float) -> tuple[Floats, Floats]:
    """Where a line begins, and the direction of its first part, `over` long: both (2,)."""
    away = np.hypot(*(xy - xy[0]).T)
    far = int((away >= over).argmax()) if (away >= over).any() else int(away.argmax())
    return xy[0], (xy[far] - xy[0]) / max(away[far], 1e-9)
