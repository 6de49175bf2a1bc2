"""Road networks: center lines of road polygons that meet in nodes.

Every step looks at whole polygons or at whole lines, in an order that their coordinates decide: the network
is the same however the raster was cut, and in whatever order the polygons come.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from scipy.ndimage import gaussian_filter1d
from scipy.spatial import cKDTree

from geoseg.errors import SpecError
from geoseg.pixels.centerlines import (
    NO_AXIS,
    Floats,
    MedialAxis,
    edges_of,
    ends_of,
    medial_axis,
    prune,
    trace,
)
from geoseg.pixels.crossings import BACK_PX, Graph, heading_of, join_crossings
from geoseg.pixels.polygons import Geometries, Ints, starts_of

HOLE_PX2 = 9.0
"""Holes of less than this many square pixels, or a single pixel wide, are taken for noise and filled."""

FACING = np.cos(np.radians(30))
"""Two ends face each other where neither points further away from the other than by this angle."""

SIGMA_PX, LEEWAY_PX = 2.0, 0.25
"""Lines are smoothed by a Gaussian of this standard deviation, then simplified with this tolerance."""


@dataclass(frozen=True, eq=False)
class RoadNetwork:
    """Lines between nodes.

    lines: (line,) shapely LineStrings, metres; each begins at `from_node` and ends at `to_node`, exactly, and
    from_node <= to_node. Ordered by nodes, then by their second vertex.
    mean_width_m, min_width_m: (line,), along the line, without its ends inside of crossings and bridges.
    bridge_m: (line,), how much of the line crosses gaps between polygons.
    nodes: (node, 2), from top to bottom, then from left to right, y pointing up. degree: (node,) int64, ends
    of lines at the node: 1 for a dead end, 2 only for the node of a ring that no other line meets.
    """

    lines: Geometries
    from_node: Ints
    to_node: Ints
    mean_width_m: Floats
    min_width_m: Floats
    bridge_m: Floats
    nodes: Floats
    degree: Ints

    def __len__(self) -> int:
        return len(self.lines)


def road_network(polygons: Geometries, pixel_m: float, bridge_m: float = 15.0) -> RoadNetwork:
    """The network of some road polygons.

    polygons: (polygon,) valid shapely Polygons in metres, traced along the sides of pixels. pixel_m: side of
    a pixel, in metres. bridge_m: widest gap between dead ends that face each other that is bridged.
    Lines lie within half a pixel of the polygons (one pixel where the boundary is nothing but noise), but for
    bridges and for holes that are filled: of less than 9 pixels, or one pixel wide.
    Spurs shorter than the road is wide at their root are left out, crossings that lie closer together than
    the road is wide are one, dead ends reach the end of the polygon. A patch that is hardly longer than wide,
    or shorter than two pixels, has no line.
    Raises SpecError for a pixel that has no size, or a gap below zero.
    """
    if not (pixel_m > 0 and bridge_m >= 0):
        raise SpecError(f"pixel must be above 0 m and gap at least 0 m, got {pixel_m} and {bridge_m}")
    whole = _in_order(polygons, pixel_m)
    axis, owner = _axes(whole, pixel_m)
    paths = prune(axis, pixel_m)
    graph, paths = join_crossings(Graph(axis.points, axis.radius_m, owner, owner >= 0), paths, pixel_m)
    graph, paths, tips, heading = _extend(graph, paths, whole, pixel_m)
    bridges = _bridges(graph.points, paths, tips, heading, pixel_m, bridge_m)
    paths = trace(np.concatenate([edges_of(paths), bridges]), len(graph.points))
    return _network(graph, paths, bridges, pixel_m)


def _in_order(polygons: Geometries, pixel_m: float) -> Geometries:
    """The polygons without small and thin holes, in an order that does not depend on theirs."""
    rings, owner = shapely.get_rings(shapely.normalize(np.asarray(polygons, dtype=object)), return_index=True)
    is_outer = np.diff(owner, prepend=-1) > 0
    least = np.maximum(HOLE_PX2 * pixel_m**2, 0.5 * pixel_m * shapely.length(rings))
    kept = is_outer | (shapely.area(shapely.polygons(rings)) >= least)
    filled = [
        shapely.polygons(part[0], part[1:])
        for part in np.split(rings[kept], np.flatnonzero(is_outer[kept])[1:])
        if len(part)
    ]
    whole = np.array(sorted(filled, key=shapely.to_wkb), dtype=object)
    shapely.prepare(whole)
    return whole


def _axes(polygons: Geometries, pixel_m: float) -> tuple[MedialAxis, Ints]:
    """The medial axes of all polygons in one graph, and the polygon that each vertex lies in."""
    axes = [NO_AXIS, *(medial_axis(polygon, pixel_m) for polygon in polygons)]
    counts = [len(axis.points) for axis in axes]
    points = np.concatenate([axis.points for axis in axes])
    radius = np.concatenate([axis.radius_m for axis in axes])
    edges = np.concatenate([axis.edges + n for axis, n in zip(axes, starts_of(counts)[:-1], strict=True)])
    return MedialAxis(points, radius, edges), np.repeat(np.arange(-1, len(polygons)), counts)


def _extend(
    graph: Graph, paths: list[Ints], polygons: Geometries, pixel_m: float
) -> tuple[Graph, list[Ints], Ints, Floats]:
    """Continue dead ends straight to the end of the polygon, which the medial axis does not reach.

    Returns the new vertices of the dead ends, and their directions (end, 2), too.
    """
    if not paths:
        return graph, paths, np.zeros(0, np.int64), np.zeros((0, 2))
    _, _, degree = ends_of(paths, len(graph.points))
    dead = [(n, side) for n, path in enumerate(paths) for side in (0, -1) if degree[path[side]] == 1]
    old = np.array([paths[n][side] for n, side in dead], np.int64)
    heading = np.zeros((len(dead), 2))
    for k, (n, side) in enumerate(dead):
        way = paths[n] if side == 0 else paths[n][::-1]
        heading[k] = -heading_of(graph.points[way], max(2 * graph.radius[old[k]], BACK_PX * pixel_m))[1]
    reach = (1.5 * graph.radius[old] + 2 * pixel_m)[:, None] * np.linspace(0, 1, 33)
    x, y = (graph.points[old, axis, None] + reach * heading[:, axis, None] for axis in (0, 1))
    within = shapely.contains_xy(polygons[graph.owner[old]][:, None], x, y)
    steps = np.where(within.all(axis=1), 33, within.argmin(axis=1)) - 1
    reached = np.maximum(1, steps)[:, None]
    tips = len(graph.points) + np.arange(len(dead))
    ends = [np.take_along_axis(side, reached, axis=1)[:, 0] for side in (x, y)]
    longer = list(paths)
    for (n, side), tip in zip(dead, tips, strict=True):
        longer[n] = np.append(longer[n], tip) if side else np.insert(longer[n], 0, tip)
    return graph.add(np.column_stack(ends), graph.radius[old], graph.owner[old]), longer, tips, heading


def _bridges(
    points: Floats, paths: list[Ints], tips: Ints, heading: Floats, pixel_m: float, bridge_m: float
) -> Ints:
    """Pairs of dead ends that face each other over a gap, the narrowest first: (bridge, 2).

    tips: vertices of the dead ends; heading: (end, 2), their directions. A bridge meets no line and no other
    bridge. Directions are compared from one width of a pixel inside, since a gap may be next to nothing.
    """
    if len(tips) < 2:
        return NO_AXIS.edges
    at = points[tips]
    i, j = cKDTree(at).query_pairs(bridge_m, output_type="ndarray").astype(np.int64).T
    back = at - 2 * pixel_m * heading
    toward = back[j] - back[i]
    needed = FACING * np.hypot(*toward.T)
    facing = ((heading[i] * toward).sum(axis=1) >= needed) & ((-heading[j] * toward).sum(axis=1) >= needed)
    i, j = i[facing], j[facing]
    gap = np.hypot(*(at[i] - at[j]).T)
    order = np.lexsort((j, i, gap))
    i, j = i[order], j[order]

    middle = at[i, None] + (at[j] - at[i])[:, None] * np.array([0.02, 0.98])[:, None]
    planks = shapely.linestrings(middle)
    lines = shapely.STRtree([shapely.LineString(points[path]) for path in paths])
    blocked = np.isin(np.arange(len(i)), lines.query(planks, predicate="intersects")[0])
    taken: set[int] = set()
    built: list[int] = []
    for n in np.flatnonzero(~blocked).tolist():
        if not {int(i[n]), int(j[n])} & taken and not shapely.intersects(planks[built], planks[n]).any():
            taken |= {int(i[n]), int(j[n])}
            built.append(n)
    return np.column_stack([tips[i[built]], tips[j[built]]])


def _network(graph: Graph, paths: list[Ints], bridges: Ints, pixel_m: float) -> RoadNetwork:
    """Smooth the lines, and number nodes and lines in their stated orders."""
    first, last, degree = ends_of(paths, len(graph.points))
    at = graph.points.copy()
    over = np.full(len(at), -1, np.int64)
    over[bridges[:, 0]], over[bridges[:, 1]] = bridges[:, 1], bridges[:, 0]
    lines, widths, bridged = [], np.zeros((len(paths), 2)), np.zeros(len(paths))
    for n, path in enumerate(paths):
        is_ring = bool(first[n] == last[n] and degree[first[n]] == 2)
        xy, width = _smooth(graph, path, is_ring, pixel_m)
        if is_ring:
            at[first[n]] = xy[0]
        lines.append(xy)
        widths[n] = width.mean(), width.min()
        bridged[n] = np.hypot(*np.diff(graph.points[path], axis=0)[over[path[:-1]] == path[1:]].T).sum()

    vertices = np.flatnonzero(degree)
    vertices = vertices[np.lexsort((at[vertices, 0], -at[vertices, 1]))]
    place = np.full(len(at), -1, np.int64)
    place[vertices] = np.arange(len(vertices))
    from_node, to_node = place[first], place[last]
    for n, xy in enumerate(lines):
        if (from_node[n], -xy[1, 1], xy[1, 0]) > (to_node[n], -xy[-2, 1], xy[-2, 0]):
            lines[n], from_node[n], to_node[n] = xy[::-1], to_node[n], from_node[n]
    second = np.array([xy[1] for xy in lines]).reshape(-1, 2)
    order = np.lexsort((second[:, 0], -second[:, 1], to_node, from_node))
    drawn = np.empty(len(lines), dtype=object)
    drawn[:] = [shapely.LineString(lines[n]) for n in order]
    mean, least = widths[order].T
    return RoadNetwork(
        drawn, from_node[order], to_node[order], mean, least, bridged[order], at[vertices], degree[vertices]
    )


def _smooth(graph: Graph, path: Ints, is_ring: bool, pixel_m: float) -> tuple[Floats, Floats]:
    """A line without steps, (vertex, 2), and its width about once a pixel, in metres.

    Both ends stay in place; a ring is turned to begin at its first vertex in scan order. No point moves more
    than half of the way to the boundary.
    """
    if is_ring:
        turn = np.lexsort((graph.points[path[:-1], 0], -graph.points[path[:-1], 1]))[0]
        path = np.append(np.roll(path[:-1], -turn), path[turn])
    along = np.concatenate([np.zeros(1), np.cumsum(np.hypot(*np.diff(graph.points[path], axis=0).T))])
    evenly = np.linspace(0, along[-1], max(2, int(np.ceil(along[-1] / pixel_m)) + 1))
    dense = np.column_stack([np.interp(evenly, along, graph.points[path, axis]) for axis in (0, 1)])
    known = graph.measured[path] if graph.measured[path].any() else np.ones(len(path), np.bool_)
    radius = np.interp(evenly, along[known], graph.radius[path[known]])

    pad = int(np.ceil(4 * SIGMA_PX))
    if is_ring:
        padded = np.pad(dense[:-1], ((pad, pad + 1), (0, 0)), mode="wrap")
    else:
        padded = np.pad(dense, ((pad, pad), (0, 0)), mode="reflect", reflect_type="odd")
    shift = gaussian_filter1d(padded, SIGMA_PX, axis=0, truncate=4)[pad : pad + len(dense)] - dense
    if not is_ring:
        shift[[0, -1]] = 0
    shift *= np.minimum(1, 0.5 * radius / np.maximum(np.hypot(*shift.T), 1e-9))[:, None]
    dense += shift
    dense[-1] = dense[0] if is_ring else dense[-1]
    line: Floats = shapely.get_coordinates(shapely.simplify(shapely.LineString(dense), LEEWAY_PX * pixel_m))
    # A ring smaller than the tolerance would shrink to a point.
    return (line if len(line) > 2 or (line[0] != line[-1]).any() else dense), 2 * radius
