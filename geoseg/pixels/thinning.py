"""Simplification of outlines that keeps shared walls shared."""

from __future__ import annotations

import numpy as np

from geoseg.pixels.outlines import Floats, Outlines, Points, junctions
from geoseg.pixels.polygons import Bools, Ints, spans, starts_of


def thin(outlines: Outlines, tolerance_px: float) -> Bools:
    """Which points remain when rings are simplified: (point,) bool.

    Method: Douglas and Peucker (1973) between junctions, so that a shared wall stays shared. A ring that would
    collapse keeps all its points. Ties go to the point with the lower number, whichever way a ring runs.
    """
    kept = junctions(outlines)
    sizes = np.diff(outlines.ring_starts)
    ring = outlines.ring_of_step
    on_ring = np.bincount(ring, kept[outlines.walk], len(sizes))
    start = np.minimum.reduceat(outlines.walk, outlines.ring_starts[:-1])
    first_junction = np.where(kept[outlines.walk], outlines.walk, len(kept))
    start = np.where(on_ring == 0, start, np.minimum.reduceat(first_junction, outlines.ring_starts[:-1]))
    far = _farthest(outlines, start)
    kept[far[on_ring < 2]] = True
    kept[_farthest(outlines, far)[on_ring == 0]] = True

    walk, is_start = _from_a_kept_point(outlines, kept)
    at = np.flatnonzero(kept[walk])
    low, high = at[:-1], at[1:]
    low, high = low[~is_start[high]], high[~is_start[high]]
    while len(low):
        low, high = low[high - low > 1], high[high - low > 1]
        low, middle, high = _split(outlines.points, walk, low, high, tolerance_px)
        kept[walk[middle]] = True
        low, high = np.concatenate([low, middle]), np.concatenate([middle, high])
    collapsed = np.bincount(ring, kept[outlines.walk], len(sizes)) < 3
    kept[outlines.walk[collapsed[ring]]] = True
    return kept


def _farthest(outlines: Outlines, start: Ints) -> Ints:
    """The point of each ring that is farthest from one of its points: (ring,)."""
    apart = outlines.points[outlines.walk] - outlines.points[start][outlines.ring_of_step]
    return _highest((apart**2).sum(axis=1), outlines.walk, outlines.ring_starts[:-1])[1]


def _highest(height: Floats, point: Ints, starts: Ints) -> tuple[Floats, Ints]:
    """The greatest height in each run, and the lowest-numbered point that has it."""
    top = np.maximum.reduceat(height, starts)
    counts = np.diff(starts, append=len(height))
    named = np.where(height == np.repeat(top, counts), point, np.iinfo(np.int64).max)
    return top, np.minimum.reduceat(named, starts)


def _from_a_kept_point(outlines: Outlines, kept: Bools) -> tuple[Ints, Bools]:
    """Closed walks that start and end at a kept point of their ring, and True where each starts."""
    sizes = np.diff(outlines.ring_starts)
    places = np.where(kept[outlines.walk], np.arange(len(outlines.walk)), len(outlines.walk))
    first = np.minimum.reduceat(places, outlines.ring_starts[:-1]) - outlines.ring_starts[:-1]
    turn = spans(first, sizes + 1) % np.repeat(sizes, sizes + 1)
    is_start = np.zeros(len(turn), np.bool_)
    is_start[starts_of(sizes + 1)[:-1]] = True
    return outlines.walk[turn + np.repeat(outlines.ring_starts[:-1], sizes + 1)], is_start


def _split(points: Points, walk: Ints, low: Ints, high: Ints, tolerance: float) -> tuple[Ints, Ints, Ints]:
    """Of the stretches low..high of a walk those that stray from their chord, and where they stray most."""
    if not len(low):
        return low, low, high
    inner = spans(low + 1, high - low - 1)
    counts = high - low - 1
    # From the lower number to the higher, so that the two polygons at a wall round alike.
    a, b = np.minimum(walk[low], walk[high]), np.maximum(walk[low], walk[high])
    chord = np.repeat(points[b] - points[a], counts, axis=0)
    away = points[walk[inner]] - np.repeat(points[a], counts, axis=0)
    square = np.maximum((chord**2).sum(axis=1), np.finfo(np.float64).tiny)
    along = np.clip((away * chord).sum(axis=1) / square, 0, 1)
    height = ((away - along[:, None] * chord) ** 2).sum(axis=1)
    top, point = _highest(height, walk[inner], starts_of(counts)[:-1])
    middle = inner[walk[inner] == np.repeat(point, counts)]
    strays = top > tolerance**2
    return low[strays], middle[strays], high[strays]
