"""Which polygons of a raster share walls, and which may lie near others: in whole pixels, exactly."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import shapely

from geoseg.pixels.outlines import joined
from geoseg.pixels.polygons import Bools, Geometries, Ints, spans


class Sides(NamedTuple):
    """Straight sides of polygons, which run along rows or columns of pixels.

    low, high: (side, 2) int64, (col, row) of its ends. owner: (side,) the polygon's position.
    """

    low: Ints
    high: Ints
    owner: Ints


class Cells(NamedTuple):
    """Squares of a lattice that outlines run through: a number for each, which may occur twice, and the polygon."""

    number: Ints
    owner: Ints


def sides_of(polygons: Geometries) -> Sides:
    """The sides of all rings. polygons: in pixels, traced along pixel sides."""
    _, xy, (ring_starts, polygon_starts) = shapely.to_ragged_array(polygons)
    corners = np.rint(xy).astype(np.int64)
    opens = np.ones(len(corners), np.bool_)
    opens[ring_starts[1:] - 1] = False
    at = np.flatnonzero(opens)
    start, end = corners[at], corners[at + 1]
    vertices = np.diff(ring_starts[polygon_starts])
    owner = np.repeat(np.arange(len(polygons)), vertices)[at]
    return Sides(np.minimum(start, end), np.maximum(start, end), owner)


def wall_groups(sides: Sides, count: int) -> Ints:
    """Which of `count` polygons share a pixel side, directly or through others: (polygon,) numbers from 0 up."""
    length = (sides.high - sides.low).sum(axis=1)
    upright = sides.low[:, 0] == sides.high[:, 0]
    col, row = np.repeat(sides.low, length, axis=0).T
    step = spans(np.zeros_like(length), length)
    upright, owner = np.repeat(upright, length), np.repeat(sides.owner, length)
    place = ((row + step * upright << 31) + col + step * ~upright) * 2 + upright
    order = np.argsort(place, kind="stable")
    same = np.flatnonzero(place[order[1:]] == place[order[:-1]])
    return joined(count, owner[order[same]], owner[order[same + 1]])


def cells_of(sides: Sides, cell_px: int) -> Cells:
    """The cells of a lattice of squares that outlines run through."""
    first, last = sides.low // cell_px, sides.high // cell_px
    count = (last - first).sum(axis=1) + 1
    upright = np.repeat(sides.low[:, 0] == sides.high[:, 0], count)
    col, row = np.repeat(first, count, axis=0).T
    step = spans(np.zeros_like(count), count)
    number = (row + step * upright << 32) + col + step * ~upright
    owner = np.repeat(sides.owner, count)
    new = np.ones(len(number), np.bool_)
    new[1:] = (number[1:] != number[:-1]) | (owner[1:] != owner[:-1])
    return Cells(number[new], owner[new])


def beside(cells: Cells, marked: Bools) -> Bools:
    """Which owners have an outline in or next to a cell of a marked one: (owner,), the marked ones too.

    Whatever lies within a cell's side of a marked one is found, and some that lie farther off.
    """
    found = marked.copy()
    own = np.unique(cells.number[marked[cells.owner]])
    steps = np.array([(row << 32) + col for row in (-1, 0, 1) for col in (-1, 0, 1)], np.int64)
    around = np.unique(own[:, None] + steps)
    found[cells.owner[np.isin(cells.number, around)]] = True
    return found
