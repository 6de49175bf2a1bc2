"""The medial axis of a polygon as a graph, the paths of a graph, and which of them are roads.

The medial axis is the Voronoi diagram of points along the boundary, less the edges that exist only because
the boundary is rough. It depends on the polygon alone, so it is the same however a raster was cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import shapely
from scipy.spatial import Delaunay

from geoseg.pixels.polygons import Ints, spans, starts_of

Floats = npt.NDArray[np.float64]

NOISE_PX = 0.5
"""An axis edge is noise where the boundary between its two sites is hardly longer than their distance."""

LENGTH_PX, ELONGATION = 2.0, 1.5
"""A road that meets no other must be this long, and this many times as long as wide, to have a line."""

SMOOTHINGS = 2
"""How often each site is replaced by the weighted mean (1, 2, 1) of itself and its neighbors."""


@dataclass(frozen=True, eq=False)
class MedialAxis:
    """A graph of points that have at least two nearest places on the boundary.

    points: (vertex, 2) float64, metres. radius_m: (vertex,), the distance to the boundary.
    edges: (edge, 2) int64, positions of vertices.
    """

    points: Floats
    radius_m: Floats
    edges: Ints


NO_AXIS = MedialAxis(np.zeros((0, 2)), np.zeros(0), np.zeros((0, 2), np.int64))


class Sites(NamedTuple):
    """Points along a smoothed boundary, ring after ring, about one pixel apart.

    points: (site, 2), pixels. ring: (site,), number of the ring. along: (site,), position along the ring,
    in pixels. ring_length: (ring,), pixels.
    """

    points: Floats
    ring: Ints
    along: Floats
    ring_length: Floats


def medial_axis(polygon: shapely.Polygon, pixel_m: float) -> MedialAxis:
    """The medial axis of a polygon traced along pixel sides, without the branches to its steps.

    polygon: valid, in metres. pixel_m: side of a pixel, in metres. Empty for a polygon of a single pixel.
    Distances are those to the smoothed boundary, which passes through the middle of a staircase.
    Method: Voronoi skeleton (Brandt and Algazi 1992) by way of the Delaunay triangulation; edges are judged
    by the chord residual (Ogniewicz and Kuebler 1995), which never takes a connected axis apart.
    """
    origin = np.array(polygon.bounds[:2])
    sites = _sites(polygon, origin, pixel_m)
    if len(sites.points) < 6:
        return NO_AXIS
    triangles = Delaunay(sites.points)
    corners = triangles.simplices.astype(np.int64)
    centers, radius = _circumcircles(sites.points[corners])

    edges, pairs = _voronoi_edges(corners, triangles.neighbors.astype(np.int64))
    edges = edges[_residual(sites, pairs) > NOISE_PX]
    used = np.unique(edges)
    used = used[np.isfinite(radius[used])]
    points = origin + pixel_m * centers[used]
    shapely.prepare(polygon)
    within = shapely.contains_xy(polygon, points[:, 0], points[:, 1])
    used, points = used[within], points[within]
    number = np.full(len(centers), -1, np.int64)
    number[used] = np.arange(len(used))
    edges = number[edges]
    return MedialAxis(points, pixel_m * radius[used], edges[(edges >= 0).all(axis=1)])


def _sites(polygon: shapely.Polygon, origin: Floats, pixel_m: float) -> Sites:
    """Midpoints of all pixel sides, smoothed: a diagonal staircase becomes a straight line."""
    _, coords, offsets = shapely.to_ragged_array(np.array([polygon], dtype=object))
    coords, ring_starts = (coords - origin) / pixel_m, offsets[0].astype(np.int64)
    ring = np.repeat(np.arange(len(ring_starts) - 1), np.diff(ring_starts))
    is_side = ring[1:] == ring[:-1]
    start, ring = coords[:-1][is_side], ring[:-1][is_side]
    side = coords[1:][is_side] - start
    parts = np.maximum(1, np.ceil(np.hypot(*side.T) - 1e-6)).astype(np.int64)
    middle = (spans(np.zeros_like(parts), parts) + 0.5)[:, None]
    points = np.repeat(start, parts, axis=0) + np.repeat(side / parts[:, None], parts, axis=0) * middle
    ring = np.repeat(ring, parts)

    starts = starts_of(np.bincount(ring))
    after, before = np.arange(1, len(points) + 1), np.arange(-1, len(points) - 1)
    after[starts[1:] - 1], before[starts[:-1]] = starts[:-1], starts[1:] - 1
    for _ in range(SMOOTHINGS):
        points = (points[before] + 2 * points + points[after]) / 4
    step = np.hypot(*(points[after] - points).T)
    along = np.concatenate([np.zeros(1), np.cumsum(step)[:-1]])
    return Sites(points, ring, along - along[starts[:-1]][ring], np.add.reduceat(step, starts[:-1]))


def _circumcircles(triangles: Floats) -> tuple[Floats, Floats]:
    """Centers and radii of the circles through three points each; not finite where they are collinear."""
    a = triangles[:, 0]
    b, c = triangles[:, 1] - a, triangles[:, 2] - a
    with np.errstate(divide="ignore", invalid="ignore"):
        twice = 2 * (b[:, 0] * c[:, 1] - b[:, 1] * c[:, 0])
        bb, cc = (b**2).sum(axis=1), (c**2).sum(axis=1)
        x = (c[:, 1] * bb - b[:, 1] * cc) / twice
        y = (b[:, 0] * cc - c[:, 0] * bb) / twice
        return a + np.column_stack([x, y]), np.hypot(x, y)


def _voronoi_edges(corners: Ints, neighbors: Ints) -> tuple[Ints, Ints]:
    """Pairs of triangles that share a side, and the two sites on that side: both (edge, 2)."""
    triangle, opposite = np.nonzero(neighbors > np.arange(len(neighbors))[:, None])
    edges = np.column_stack([triangle, neighbors[triangle, opposite]])
    pairs = [corners[triangle, (opposite + turn) % 3] for turn in (1, 2)]
    return edges, np.column_stack(pairs)


def _residual(sites: Sites, pairs: Ints) -> Floats:
    """How much longer the boundary between two sites is than their distance; infinite between two rings."""
    i, j = pairs.T
    ahead = np.abs(sites.along[i] - sites.along[j])
    ring = sites.ring[i]
    arc = np.minimum(ahead, sites.ring_length[ring] - ahead)
    chord = np.hypot(*(sites.points[i] - sites.points[j]).T)
    residual: Floats = np.where(ring == sites.ring[j], arc - chord, np.inf)
    return residual


def trace(edges: Ints, count: int) -> list[Ints]:
    """The paths of a graph: each runs between two vertices of degree other than 2, or is closed.

    edges: (edge, 2), positions of vertices, of which there are `count`; two vertices may have several edges.
    Returns the vertices of each path in their order. A path that meets no such vertex begins and ends at the
    same one.
    """
    total = len(edges)
    ends = np.concatenate([edges[:, 0], edges[:, 1]])
    # Each edge is walked as one of two half-edges, h and h + total, that leave from either end.
    leaving = np.argsort(ends, kind="stable")
    starts = starts_of(np.bincount(ends, minlength=count))
    degree = np.diff(starts)
    opposite = np.concatenate([np.arange(total, 2 * total), np.arange(total)])
    at = ends[opposite]
    passes = degree[at] == 2
    follows = np.full(2 * total, -1, np.int64)
    first = starts[at[passes]]
    follows[passes] = leaving[first] + leaving[first + 1] - opposite[passes]

    done = np.zeros(total, np.bool_)
    paths: list[Ints] = []
    _walk(leaving[degree[ends[leaving]] != 2], follows.tolist(), ends, done, paths)
    _walk(np.flatnonzero(~done), follows.tolist(), ends, done, paths)
    return paths


def _walk(
    begins: Ints, follows: list[int], ends: Ints, done: npt.NDArray[np.bool_], paths: list[Ints]
) -> None:
    """Append the path that begins with each half-edge, unless its edge was walked before."""
    total = len(done)
    seen = bytearray(done.tobytes())
    for half in begins.tolist():
        walked = []
        while half >= 0 and not seen[half % total]:
            seen[half % total] = 1
            walked.append(half)
            half = follows[half]
        if walked:
            index = np.array(walked, np.int64)
            paths.append(np.append(ends[index], ends[(index[-1] + total) % (2 * total)]))
    done[:] = np.frombuffer(seen, np.bool_)


def prune(axis: MedialAxis, pixel_m: float) -> list[Ints]:
    """The paths of an axis without spurs, and without polygons that have no main direction.

    A spur is shorter, from its root to where it ends in the polygon, than the polygon is wide at the root.
    Spurs go in rounds, all at once, so that the two branches to the corners of a road's end go together.
    """
    radius, count = axis.radius_m, len(axis.points)
    paths = trace(axis.edges, count)
    while paths:
        first, last, degree = ends_of(paths, count)
        length = lengths(axis.points, paths)
        tip = np.where(degree[first] == 1, first, last)
        root = np.where(degree[first] == 1, last, first)
        reach = length + radius[tip]
        is_spur = (degree[tip] == 1) & (degree[root] > 2) & (reach < 2 * radius[root])
        # Where nothing but spurs meet, the two longest are the road itself.
        all_spurs = np.bincount(root[is_spur], minlength=count) == degree
        star = np.flatnonzero(is_spur & all_spurs[root])
        star = star[np.lexsort((-reach[star], root[star]))]
        is_spur[star[_rank(root[star]) < 2]] = False
        if not is_spur.any():
            break
        kept = [path for path, spur in zip(paths, is_spur, strict=True) if not spur]
        paths = trace(edges_of(kept), count)
    if not paths:
        return paths
    widest = np.array([2 * radius[path].max() for path in paths])
    alone = (degree[first] == 1) & (degree[last] == 1)
    reach = length + radius[first] + radius[last]
    is_patch = alone & (reach < np.maximum(LENGTH_PX * pixel_m, ELONGATION * widest))
    kept = []
    for path, begin, end in zip(paths, degree[first] == 1, degree[last] == 1, strict=True):
        path = _trim(axis, path) if begin else path
        kept.append(_trim(axis, path[::-1])[::-1] if end else path)
    return [path for path, patch in zip(kept, is_patch, strict=True) if not patch]


def _trim(axis: MedialAxis, path: Ints) -> Ints:
    """A path without what remains of a branch to a corner at its beginning: all that is narrower than the road.

    The road is as wide as it is one width further on. A road that tapers slowly is not cut.
    """
    along = np.concatenate([np.zeros(1), np.cumsum(np.hypot(*np.diff(axis.points[path], axis=0).T))])
    radius = axis.radius_m[path]
    inside = np.flatnonzero(along >= 2 * radius)
    if not len(inside):
        return path
    return path[min(int((radius >= 0.9 * radius[inside[0]]).argmax()), len(path) - 2) :]


def _rank(groups: Ints) -> Ints:
    """0, 1, 2 ... within each run of equal numbers."""
    opens = np.flatnonzero(np.diff(groups, prepend=-1))
    return np.arange(len(groups)) - np.repeat(opens, np.diff(opens, append=len(groups)))


def ends_of(paths: Sequence[Ints], count: int) -> tuple[Ints, Ints, Ints]:
    """First and last vertex of each path, (path,), and how many paths end at each of `count` vertices."""
    first = np.array([path[0] for path in paths], np.int64)
    last = np.array([path[-1] for path in paths], np.int64)
    return first, last, np.bincount(np.concatenate([first, last]), minlength=count)


def lengths(points: Floats, paths: Sequence[Ints]) -> Floats:
    """Length of each path: (path,)."""
    return np.array([np.hypot(*np.diff(points[path], axis=0).T).sum() for path in paths], np.float64)


def edges_of(paths: Sequence[Ints]) -> Ints:
    """The edges of all paths: (edge, 2)."""
    return np.concatenate([NO_AXIS.edges, *(np.column_stack([path[:-1], path[1:]]) for path in paths)])
