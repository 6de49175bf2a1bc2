"""The area that two polygons share, where one of them runs along rows and columns: many pairs at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import shapely

from geoseg.pixels.polygons import Geometries, Ints, spans

Floats = npt.NDArray[np.float64]

MOST_PAIRS = 20_000
"""Of sides of one polygon and the other; beyond, an overlay is faster."""
BATCH_PAIRS = 2_000_000
"""Pairs held in memory at once."""


def shared_area(upright: Geometries, others: Geometries) -> Floats:
    """Area of the intersection of each polygon with its other one: (polygon,).

    upright, others: valid. The result for a pair does not depend on other pairs. If all sides of the first polygon are
    parallel to an axis, it is a sum and difference of half strips, one left of each upright side; and what the other
    polygon has of a half strip is a sum over its sides. Otherwise, and for many sides, an overlay is made.
    """
    found = np.zeros(len(upright))
    if not len(upright):
        return found
    walls, owner = _sides(upright)
    run = walls[:, 1] - walls[:, 0]
    skew = np.bincount(owner, (run != 0).all(axis=1), len(upright)) > 0
    standing = run[:, 0] == 0
    walls, owner = walls[standing], owner[standing]
    sides, side_owner = _sides(others)
    counts, side_counts = (np.bincount(o, minlength=len(upright)) for o in (owner, side_owner))
    pairs = counts * side_counts
    overlaid = skew | (pairs > MOST_PAIRS)
    found[overlaid] = shapely.area(shapely.intersection(upright[overlaid], others[overlaid]))
    pairs[overlaid] = 0
    wall_starts, side_starts = (np.cumsum(c) - c for c in (counts, side_counts))
    batch = np.cumsum(pairs) // BATCH_PAIRS
    for number in np.unique(batch[pairs > 0]):
        at = np.flatnonzero((batch == number) & (pairs > 0))
        wall = spans(wall_starts[at], counts[at])
        repeats = np.repeat(side_counts[at], counts[at])
        side = spans(np.repeat(side_starts[at], counts[at]), repeats)
        wall = np.repeat(wall, repeats)
        found += np.bincount(owner[wall], _left_of(walls[wall], sides[side]), len(upright))
    return found


def _sides(polygons: Geometries) -> tuple[Floats, Ints]:
    """Start and end of all sides, with the interior on their left, (side, 2, 2), and the polygon of each."""
    _, xy, (ring_starts, polygon_starts) = shapely.to_ragged_array(shapely.orient_polygons(polygons))
    opens = np.ones(len(xy), np.bool_)
    opens[ring_starts[1:] - 1] = False
    at = np.flatnonzero(opens)
    owner = np.repeat(np.arange(len(polygons)), np.diff(ring_starts[polygon_starts]))[at]
    return np.stack([xy[at], xy[at + 1]], axis=1), owner


def _left_of(wall: Floats, side: Floats) -> Floats:
    """What a side adds to the area of its polygon left of an upright wall, within the wall's height: (pair,).

    Above zero where the wall bounds its own polygon on the right.
    """
    (x, _), (low, high) = wall[:, :, 0].T, wall[:, :, 1].T
    sign, low, high = np.sign(high - low), np.minimum(low, high), np.maximum(low, high)
    (x0, x1), (y0, y1) = side[:, :, 0].T, side[:, :, 1].T
    start, end = np.clip(y0, low, high), np.clip(y1, low, high)
    rise = y1 - y0
    slope = np.divide(x1 - x0, rise, out=np.zeros_like(rise), where=rise != 0)
    # How far left of the wall the side is, where it enters and leaves the wall's height.
    one, two = x - (x0 + slope * (start - y0)), x - (x0 + slope * (end - y0))
    near, far = np.minimum(one, two), np.maximum(one, two)
    apart = np.where(far > near, far - near, 1)
    mean = np.where(near >= 0, (one + two) / 2, np.where(far > 0, far**2 / (2 * apart), 0))
    area: Floats = sign * (start - end) * mean
    return area
