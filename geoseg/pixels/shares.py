"""How much of each pixel lies in a polygon: one answer for a pixel, whatever the window that asks."""

from __future__ import annotations

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from geoseg.grid.geogrid import GeoGrid
from geoseg.grid.window import Window
from geoseg.pixels.burn import apply

STEPS = 1 << 20
"""Vertices are moved to the nearest of so many places along a pixel's side."""
SHARE_BITS = 28
"""Shares are whole multiples of 2**-28, so that float64 adds those of 2**25 pixels without rounding."""
FULL = 1 << SHARE_BITS

_FINER_BITS = 2 * (STEPS.bit_length() - 1) + 1 - SHARE_BITS
"""Until they are rounded, shares are counted in squares of half a step by a step: 2**41 of them in a pixel."""


def pixel_shares(geometry: BaseGeometry, window: Window, grid: GeoGrid) -> np.ndarray:
    """The share of each pixel of a window that lies in a polygon: (row, col) int64 in 0..FULL, which is all of it.

    geometry: a polygon or multipolygon in the raster's CRS, or empty; valid, but for spikes, which have no area. Edges
    are straight in that CRS.
    Green's theorem, pixel by pixel: an edge gives each pixel of its row the area between itself and the pixel's
    right side, with a sign (the signed-area scan conversion of font renderers; area coverage: Catmull, SIGGRAPH
    1978). Everything is counted in whole numbers from the raster's first pixel, so that the sums are exact: windows
    do not matter, and polygons that share an edge fill the pixels on it.
    """
    sums = np.zeros((window.height, window.width + 1), np.int64)
    x1, y1, x2, y2, sign = _edges(geometry, grid)
    edge, row = _spread(_floor(y1), _ceil(y2), window.row, window.row_end)
    x1, y1, x2, y2, sign = x1[edge], y1[edge], x2[edge], y2[edge], sign[edge]
    top, bottom = np.maximum(y1, row * STEPS), np.minimum(y2, (row + 1) * STEPS)
    starts, ends = _along(top, y1, x1, y2, x2), _along(bottom, y1, x1, y2, x2)
    _add(sums, window, row, sign, starts, top, ends, bottom)
    shares = sums[:, :-1]
    np.cumsum(shares, axis=1, out=shares)
    shares += 1 << (_FINER_BITS - 1)
    shares >>= _FINER_BITS
    return np.clip(shares, 0, FULL, out=shares)


def _edges(geometry: BaseGeometry, grid: GeoGrid) -> tuple[np.ndarray, ...]:
    """Edges that are not level: x1, y1, x2, y2 with y1 < y2, in steps; and 1, or -1 where the inside ends there.

    One edge has one direction and so one rounding, whichever of two polygons it belongs to. What is inside follows
    from the signs of the rings' areas after rounding: where it makes an edge meet another, as in a spike, they cancel.
    """
    rings, part = shapely.get_rings(shapely.get_parts(geometry), return_index=True)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    x, y = np.rint(apply(~grid.transform, points) * STEPS).T
    same = ring[1:] == ring[:-1]
    ring, edges = ring[1:][same], np.stack([x[:-1], y[:-1], x[1:], y[1:]])[:, same]
    shell = np.diff(part, prepend=-1) > 0
    inside_right = (_signed_areas(edges, ring, len(rings)) > 0) == shell
    ring, edges = ring[edges[1] != edges[3]], edges[:, edges[1] != edges[3]]
    down = edges[1] < edges[3]
    x1, y1, x2, y2 = np.where(down, edges, edges[[2, 3, 0, 1]])
    return x1, y1, x2, y2, np.where(down == inside_right[ring], -1, 1)


def _signed_areas(edges: np.ndarray, ring: np.ndarray, rings: int) -> np.ndarray:
    """Twice the area of each ring, above 0 where it runs clockwise as seen with rows downwards."""
    first = np.searchsorted(
        ring, np.arange(rings)
    )  # coordinates from a ring's own first vertex lose no digits
    x1, y1, x2, y2 = edges - np.tile(edges[:2, first], (2, 1))[:, ring]
    areas: np.ndarray = np.bincount(ring, x1 * y2 - x2 * y1, rings)
    return areas


def _add(
    sums: np.ndarray, window: Window, row: np.ndarray, sign: np.ndarray,
    xa: np.ndarray, ya: np.ndarray, xb: np.ndarray, yb: np.ndarray,
) -> None:  # fmt: skip
    """Add edges, each within one row of pixels, to sums whose running total along a row is the share."""
    turned = xa > xb
    xa, xb = np.where(turned, xb, xa), np.where(turned, xa, xb)
    ya, yb = np.where(turned, yb, ya), np.where(turned, ya, yb)
    border = window.col * STEPS
    before = np.where(xb <= border, yb, _along(np.clip(border, xa, xb), xa, ya, xb, yb))
    at = row - window.row
    height = np.abs(before - ya).astype(np.int64)  # of the part left of the window
    np.add.at(sums[:, 0], at, sign * height * (2 * STEPS))

    last = np.where(xb <= border, window.col, np.maximum(_ceil(xb), _floor(xa) + 1))
    piece, col = _spread(_floor(xa), last, window.col, window.col_end)
    xa, ya, xb, yb, sign, at = xa[piece], ya[piece], xb[piece], yb[piece], sign[piece], at[piece]
    begin, end = np.maximum(xa, col * STEPS), np.minimum(xb, (col + 1) * STEPS)
    stop = np.where(end >= xb, yb, _along(end, xa, ya, xb, yb))
    height = np.abs(stop - _along(begin, xa, ya, xb, yb)).astype(np.int64)
    inside = height * (2 * (col + 1) * STEPS - begin - end).astype(np.int64)
    np.add.at(sums, (at, col - window.col), sign * inside)
    np.add.at(sums, (at, col - window.col + 1), sign * (height * (2 * STEPS) - inside))


def _along(u: np.ndarray, u1: np.ndarray, v1: np.ndarray, u2: np.ndarray, v2: np.ndarray) -> np.ndarray:
    """v at u on the line from (u1, v1) to (u2, v2), rounded to whole steps; v1 where u1 = u2."""
    line: np.ndarray = v1 + np.rint((u - u1) * (v2 - v1) / np.where(u2 > u1, u2 - u1, 1))
    return line


def _spread(first: np.ndarray, last: np.ndarray, begin: int, end: int) -> tuple[np.ndarray, np.ndarray]:
    """Every whole number in first..last that lies in begin..end too, item by item: which item, and the number."""
    first = np.clip(first, begin, end)
    count = np.maximum(np.clip(last, begin, end) - first, 0)
    item = np.repeat(np.arange(count.size), count)
    return item, first[item] + np.arange(item.size) - (np.cumsum(count) - count)[item]


def _floor(steps: np.ndarray) -> np.ndarray:
    whole: np.ndarray = np.floor(steps / STEPS).astype(np.int64)
    return whole


def _ceil(steps: np.ndarray) -> np.ndarray:
    whole: np.ndarray = np.ceil(steps / STEPS).astype(np.int64)
    return whole
