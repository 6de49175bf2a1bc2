"""From the road polygons of a raster to its road network, with what is known of each line and node.

The network is made of all road polygons at once, since a line may run through the whole scene: memory grows with their
vertices. That is why it is only made on request.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from pyproj import CRS, Geod, Transformer
from pyproj.exceptions import ProjError

from geoseg.grid.geogrid import GeoGrid
from geoseg.grid.window import Window
from geoseg.legend import NODATA
from geoseg.pixels.footprints import Floats
from geoseg.pixels.polygons import Geometries, Ints, apply
from geoseg.pixels.roadnet import road_network
from geoseg.stages.protocols import ClassSource

LINES_LAYER, NODES_LAYER = "road_centerlines", "road_nodes"
BRIDGE_M = 15.0
"""Gaps of at most so many metres are bridged, where two dead ends face each other."""
SAMPLE_PX = 1024
"""Side of the windows in which confidence is read along lines."""
EXACT_DECIMALS = 6
"""Of pixel coordinates: what the way to map coordinates and back has added beyond is rounding."""

Columns = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True, eq=False)
class RoadLayers:
    """The two layers of a network: geometries in map coordinates, and a column per field."""

    lines: Geometries
    line_columns: Columns
    nodes: Geometries
    node_columns: Columns


def trace_roads(
    polygons: Geometries,
    source: ClassSource,
    confidence: ClassSource | None,
    class_ids: Sequence[int],
    facts: Sequence[tuple[str, str | None]] = (),
) -> RoadLayers:
    """The network of the road polygons of a class raster.

    polygons: valid, in the raster's map coordinates, whole (see vectorize). class_ids: those of roads. facts: a field
    each, the same for all.
    Lines: id, from_node, to_node, length_m (geodesic), width_mean_m, width_min_m, confidence_mean (percent, over the
    road pixels that the line runs through; NaN if unknown), bridge_m (how much of it crosses gaps). Nodes: node,
    degree. Metres are NaN without a CRS; gaps are then bridged up to BRIDGE_M pixels.
    Widths and gaps are measured with the pixel size in the raster's middle.
    """
    grid = source.grid
    across, down = ground_sides_m(grid) or (1.0, 1.0)
    metres = np.array([across, -down])
    to_pixels = ~grid.transform
    local = shapely.transform(polygons, lambda xy: np.round(apply(to_pixels, xy), EXACT_DECIMALS) * metres)
    net = road_network(local, max(across, down), BRIDGE_M)
    in_pixels = shapely.transform(net.lines, lambda xy: xy / metres)
    lines = shapely.transform(in_pixels, lambda xy: apply(grid.transform, xy))
    nodes = shapely.points(apply(grid.transform, net.nodes / metres))
    known = np.where(grid.gsd_m is None, np.nan, 1.0)
    shared = dict(facts)
    line_columns: Columns = {
        "id": np.array([hashlib.sha256(wkb).hexdigest()[:16] for wkb in shapely.to_wkb(lines)], dtype=object),
        "from_node": net.from_node + 1,
        "to_node": net.to_node + 1,
        "length_m": geodesic_lengths_m(lines, grid.crs),
        "width_mean_m": net.mean_width_m * known,
        "width_min_m": net.min_width_m * known,
        "confidence_mean": _confidence_along(in_pixels, source, confidence, class_ids),
        "bridge_m": net.bridge_m * known,
    }
    node_columns: Columns = {"node": np.arange(1, len(nodes) + 1), "degree": net.degree}
    for columns, count in ((line_columns, len(lines)), (node_columns, len(nodes))):
        columns.update({name: np.full(count, value, dtype=object) for name, value in shared.items()})
    return RoadLayers(lines, line_columns, nodes, node_columns)


def ground_sides_m(grid: GeoGrid) -> tuple[float, float] | None:
    """How long the sides of the central pixel are on the ground, along a row and along a column; None without a CRS
    that tells."""
    if grid.gsd_m is None:
        return None
    col, row = grid.width / 2, grid.height / 2
    along = [[(col, row), (col + 1, row)], [(col, row), (col, row + 1)]]
    sides = shapely.linestrings([[grid.transform @ corner for corner in side] for side in along])
    across, down = geodesic_lengths_m(sides, grid.crs).tolist()
    return across, down


def geodesic_lengths_m(lines: Geometries, crs: str | None) -> Floats:
    """Length of each line on the WGS 84 ellipsoid, in metres: (line,). NaN where the CRS does not tell.

    lines: in the map coordinates of `crs` (WKT), with vertices near enough to each other for straight to mean straight.
    Method: geodesics between vertices (Karney 2013).
    """
    unknown = np.full(len(lines), np.nan)
    if crs is None or not len(lines):
        return unknown
    points, owner = shapely.get_coordinates(lines, return_index=True)
    try:
        known = CRS.from_wkt(crs)
        if not (known.is_projected or known.is_geographic):
            return unknown
        lon, lat = Transformer.from_crs(known, 4326, always_xy=True).transform(*points.T)
    except ProjError:
        return unknown
    steps = np.flatnonzero(owner[1:] == owner[:-1])
    _, _, length = Geod(ellps="WGS84").inv(lon[steps], lat[steps], lon[steps + 1], lat[steps + 1])
    lengths = np.bincount(owner[steps], length, len(lines)).astype(np.float64)
    return np.where(np.isfinite(lengths), lengths, np.nan)


def _confidence_along(
    in_pixels: Geometries, source: ClassSource, confidence: ClassSource | None, class_ids: Sequence[int]
) -> Floats:
    """Mean percent of the road pixels at every pixel's length of each line: (line,)."""
    if confidence is None or not len(in_pixels):
        return np.full(len(in_pixels), np.nan)
    steps = np.maximum(1, np.ceil(shapely.length(in_pixels))).astype(np.int64)
    owner = np.repeat(np.arange(len(in_pixels)), steps)
    nth = np.arange(len(owner)) - np.repeat(np.cumsum(steps) - steps, steps)
    at = shapely.line_interpolate_point(in_pixels[owner], (nth + 0.5) / steps[owner], normalized=True)
    scene = source.grid.window
    col, row = np.floor(shapely.get_coordinates(at)).astype(np.int64).T
    col, row = np.clip(col, 0, scene.width - 1), np.clip(row, 0, scene.height - 1)
    total, count = np.zeros(len(in_pixels), np.int64), np.zeros(len(in_pixels), np.int64)
    for window, here in _tiles(row, col, scene):
        place = row[here] - window.row, col[here] - window.col
        percent = confidence.read(window)[place]
        road = np.isin(source.read(window)[place], list(class_ids)) & (percent != NODATA)
        np.add.at(total, owner[here][road], percent[road])
        np.add.at(count, owner[here][road], 1)
    mean: Floats = np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
    return mean


def _tiles(row: Ints, col: Ints, scene: Window) -> list[tuple[Window, Ints]]:
    """The windows that hold some pixels, each with the positions of its own."""
    order = np.lexsort((col // SAMPLE_PX, row // SAMPLE_PX))
    tiles = np.stack([row[order] // SAMPLE_PX, col[order] // SAMPLE_PX])
    starts = np.flatnonzero(np.diff(tiles, prepend=-1).any(axis=0))
    return [
        (
            Window(
                int(tiles[0, begin]) * SAMPLE_PX, int(tiles[1, begin]) * SAMPLE_PX, SAMPLE_PX, SAMPLE_PX
            ).overlap(scene),
            here,
        )
        for begin, here in zip(starts, np.split(order, starts[1:]), strict=True)
    ]
