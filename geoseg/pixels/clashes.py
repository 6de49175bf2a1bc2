"""Which groups of footprints would overlap if they changed, and who steps back.

Traced polygons do not overlap, and a changed one covers some of its traced one. So where a changed one overlaps another
traced one, a side of that runs through it: the other polygon is looked at only there, however large it is.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import shapely

from geoseg.pixels.ladder import OVERLAP_PX2, Rung
from geoseg.pixels.polygons import Geometries, Ints, spans

CROSSING_PX = 1e-7
"""A side that runs inside another polygon for less than this does not count: it is rounding."""
STRETCH = 32
"""Sides in one piece of an outline."""


class Clashes(NamedTuple):
    """Pairs of groups that would overlap, each on some rung; the rung behind the last is as traced.

    groups, rungs: (clash, 2).
    """

    groups: Ints
    rungs: Ints


class _Moved(NamedTuple):
    """Polygons that change, on rungs that fit: (mover,) each."""

    shapes: Geometries
    polygon: Ints
    rung: Ints


def clashes_of(raw: Geometries, group: Ints, rungs: tuple[Rung, ...], pixel: float = 1.0) -> Clashes:
    """All clashes of groups on rungs that fit them.

    raw, group: (polygon,). pixel: the longer side of a pixel in the unit of the coordinates.
    """
    table = np.stack([rung.changed & rung.fits for rung in rungs])
    rung, polygon = np.nonzero(table)
    moved = _Moved(np.stack([rung.polygons for rung in rungs])[rung, polygon], polygon, rung)
    mover, other = _crossed(moved, raw, group, CROSSING_PX * pixel)
    found = []
    for number in range(len(rungs) + 1):
        still = np.ones_like(table[0]) if number == len(rungs) else rungs[number].fits & ~table[number]
        at, there = mover[still[other]], other[still[other]]
        found.append(np.column_stack([polygon[at], rung[at], there, np.full_like(at, number)]))
    first, second = shapely.STRtree(moved.shapes).query(moved.shapes)
    once = (first < second) & (group[polygon[first]] != group[polygon[second]])
    first, second = first[once], second[once]
    both = shapely.area(shapely.intersection(moved.shapes[first], moved.shapes[second]))
    first, second = (side[both > OVERLAP_PX2 * pixel**2] for side in (first, second))
    found.append(np.column_stack([polygon[first], rung[first], polygon[second], rung[second]]))
    clashes = np.concatenate(found)
    return Clashes(group[clashes[:, [0, 2]]], clashes[:, [1, 3]])


def resolve(group: Ints, rungs: tuple[Rung, ...], clashes: Clashes) -> Ints:
    """The rung of each group, len(rungs) for as traced: (group,).

    Each starts on its first that fits; of two that clash both step down, until none do.
    """
    fits = np.ones((len(rungs) + 1, int(group.max()) + 1), np.bool_)
    for number, rung in enumerate(rungs):
        fits[number, group] = rung.fits
    chosen: Ints = np.argmax(fits, axis=0)
    while True:
        met = (chosen[clashes.groups] == clashes.rungs).all(axis=1)
        steps = np.zeros(len(chosen), np.bool_)
        steps[clashes.groups[met]] = True
        steps &= chosen < len(rungs)
        if not steps.any():
            return chosen
        below = np.arange(len(fits))[:, None] > chosen
        chosen[steps] = np.argmax(fits & below, axis=0)[steps]


def _crossed(moved: _Moved, raw: Geometries, group: Ints, least: float) -> tuple[Ints, Ints]:
    """Pairs of a mover and a polygon of another group, as traced, of which a side runs inside the mover."""
    pieces, owner = _stretches(raw)
    mover, piece = shapely.STRtree(pieces).query(moved.shapes)
    other = group[owner[piece]] != group[moved.polygon[mover]]
    mover, piece = mover[other], piece[other]
    inside = shapely.length(shapely.intersection(pieces[piece], moved.shapes[mover])) > least
    pairs = np.unique(np.column_stack([mover[inside], owner[piece[inside]]]), axis=0)
    return pairs[:, 0], pairs[:, 1]


def _stretches(polygons: Geometries) -> tuple[Geometries, Ints]:
    """Outlines in pieces of at most STRETCH sides, and the polygon that each belongs to."""
    _, xy, (ring_starts, polygon_starts) = shapely.to_ragged_array(polygons)
    sides = np.diff(ring_starts) - 1
    pieces = -(-sides // STRETCH)
    nth = spans(np.zeros_like(pieces), pieces)
    ring = np.repeat(np.arange(len(sides)), pieces)
    start = ring_starts[ring] + nth * STRETCH
    count = np.minimum(STRETCH, sides[ring] - nth * STRETCH) + 1
    lines = shapely.linestrings(xy[spans(start, count)], indices=np.repeat(np.arange(len(count)), count))
    polygon_of_ring = np.repeat(np.arange(len(polygons)), np.diff(polygon_starts))
    return np.asarray(lines, dtype=object), polygon_of_ring[ring]
