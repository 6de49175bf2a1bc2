"""Which pixels lie in polygons, exactly: one answer for a pixel, whatever the window that asks."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import shapely
from affine import Affine
from shapely.geometry.base import BaseGeometry

from geoseg.grid.geogrid import GeoGrid
from geoseg.grid.window import Window


def burn(polygons: Iterable[BaseGeometry], window: Window, grid: GeoGrid) -> np.ndarray:
    """Which pixels of a window have their center in any polygon (in the raster's CRS): (row, col) bool.

    Even-odd scan conversion (Foley et al., Computer Graphics, 1990) in coordinates of the whole raster, so
    that a pixel gets one answer whatever the window. (GDAL's rasterizer counts from the window's corner: its
    rounding can move a pixel whose center lies on an edge.) Such a pixel belongs to the polygon on its left
    or, on a level edge, to the one in the rows below: polygons that share an edge share no pixel and leave
    none out.
    """
    inside = np.zeros(window.shape, bool)
    for geometry in _near(polygons, window, grid):
        row, col = _crossings(edges_of(geometry, ~grid.transform), window)
        if row.size:
            rows = slice(int(row.min()), int(row.max()) + 1)
            flips = np.zeros((rows.stop - rows.start, window.width + 1), np.uint8)
            np.bitwise_xor.at(flips, (row - rows.start, col), 1)
            inside[rows] |= np.bitwise_xor.accumulate(flips[:, :-1], axis=1).astype(bool)
    return inside


def _near(polygons: Iterable[BaseGeometry], window: Window, grid: GeoGrid) -> np.ndarray:
    """The geometries whose bounding box comes within a pixel of the window's."""
    wide = window.grow(1)
    corners = [
        (wide.col, wide.row),
        (wide.col_end, wide.row),
        (wide.col, wide.row_end),
        (wide.col_end, wide.row_end),
    ]
    box = shapely.MultiPoint([grid.transform @ corner for corner in corners]).envelope
    found = np.array(list(polygons), dtype=object)
    near: np.ndarray = found[shapely.intersects(shapely.envelope(found), box)]
    return near


def edges_of(geometry: BaseGeometry, to_pixels: Affine) -> np.ndarray:
    """The edges of all rings in pixel coordinates: (4, edge) float64, x1 y1 x2 y2 with y1 <= y2."""
    rings = shapely.get_rings(shapely.get_parts(geometry))
    points, ring = shapely.get_coordinates(rings, return_index=True)
    x, y = apply(to_pixels, points).T
    edges = np.stack([x[:-1], y[:-1], x[1:], y[1:]])[:, ring[1:] == ring[:-1]]
    return np.where(edges[1] <= edges[3], edges, edges[[2, 3, 0, 1]])  # one direction, one rounding


def apply(transform: Affine, points: np.ndarray) -> np.ndarray:
    """points: (point, 2) x and y."""
    x, y = points[:, 0], points[:, 1]
    a, b, c, d, e, f = transform[:6]
    return np.column_stack([a * x + b * y + c, d * x + e * y + f])


def _crossings(edges: np.ndarray, window: Window) -> tuple[np.ndarray, np.ndarray]:
    """Where edges cross the center lines of a window's rows: row, and first column whose center lies beyond.

    Both count from the window's corner; columns are cut to 0..width.
    """
    x1, y1, x2, y2 = edges
    first = np.clip(np.ceil(y1 - 0.5), window.row, window.row_end).astype(np.int64)
    count = np.clip(np.ceil(y2 - 0.5), window.row, window.row_end).astype(np.int64) - first
    edge = np.repeat(np.arange(count.size), count)
    row = first[edge] + np.arange(edge.size) - (np.cumsum(count) - count)[edge]
    x = x1[edge] + (row + 0.5 - y1[edge]) * (x2 - x1)[edge] / (y2 - y1)[edge]
    col = np.clip(np.floor(x + 0.5), window.col, window.col_end).astype(np.int64)
    return row - window.row, col - window.col
