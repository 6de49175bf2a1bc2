"""Walls of thinned outlines, and the dominant directions that they follow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geoseg.pixels.outlines import Floats, Outlines, Points, following, sides_of
from geoseg.pixels.polygons import Bools, Ints

FREE, ALONG, ACROSS = 0, 1, 2
"""What a wall follows: neither direction (it keeps its own), the dominant one, its normal."""

BIN_DEGREES = 3
PEAK_DEGREES = 7.5
SURE_DEGREES = 12
"""A wall this near to a direction follows it, however long it is."""
LIKELY_DEGREES = 30
TURN_PX = 1.5
"""A wall up to LIKELY_DEGREES off follows as well if its ends move by at most this."""
SMALL_PX2 = 6.0
"""Rings with less area have no direction; they keep their points."""


@dataclass(frozen=True, eq=False)
class Walls:
    """Walls of thinned outlines, each once, in frames that are turned to their groups' dominant directions.

    outlines: thinned. side: (step,) the wall that each step walks along. ends: (wall, 2) points.
    frame: (point, 2), pixels along the dominant direction and across it. turn: (point, 2), its cosine and sine.
    follows: (wall,) FREE, ALONG or ACROSS.
    weight, total: (wall, 2), the length of the traced pixel sides that a wall stands for as the axes see it
    (first as a wall ACROSS, then as one ALONG), and that times their offset.
    shared: (wall,), True where two polygons share a wall.
    fixed: (wall,), True for walls that never vanish: shared ones, and those of very small rings.
    """

    outlines: Outlines
    side: Ints
    ends: Ints
    frame: Points
    turn: Points
    follows: Ints
    weight: Floats
    total: Floats
    shared: Bools
    fixed: Bools


def walls_of(traced: Outlines, thinned: Outlines) -> Walls:
    """The walls of thinned outlines. traced: the outlines along pixel sides, which say where a wall lies."""
    ends, side = sides_of(thinned)
    chain = side[_stands_for(traced, thinned)]
    group_of_side = np.zeros(len(ends), np.int64)
    group_of_side[side] = thinned.group[thinned.polygon_of_step]
    run = thinned.points[ends[:, 1]] - thinned.points[ends[:, 0]]
    direction = _dominant(_angles(traced, thinned, chain, ends), np.hypot(*run.T), group_of_side)
    turn = np.column_stack([np.cos(direction), np.sin(direction)])[group_of_point(traced)]
    frame = _turned(traced.points, turn)

    start, end = frame[traced.walk], frame[traced.ends]
    seen = np.abs(end - start)[:, ::-1]
    offset = seen * (start + end) / 2
    weight, total = (
        np.column_stack([np.bincount(chain, column, len(ends)).astype(np.float64) for column in table.T])
        for table in (seen, offset)
    )
    small = np.zeros(len(ends), np.bool_)
    small[side[(_areas(traced) < SMALL_PX2)[thinned.ring_of_step]]] = True
    follows = np.where(small, FREE, _follows(frame[ends[:, 1]] - frame[ends[:, 0]]))
    follows[_hairpins(thinned, side, frame, follows)] = FREE
    shared = np.bincount(side) > 1
    return Walls(thinned, side, ends, frame, turn, follows, weight, total, shared, small | shared)


def group_of_point(outlines: Outlines) -> Ints:
    """The group that walks over each point: (point,), 0 where none does."""
    group = np.zeros(len(outlines.points), np.int64)
    group[outlines.walk] = outlines.group[outlines.polygon_of_step]
    return group


def _turned(points: Points, turn: Points) -> Points:
    """Points in frames turned by an angle each, given by cosine and sine."""
    (x, y), (cos, sin) = points.T, turn.T
    return np.column_stack([x * cos + y * sin, y * cos - x * sin])


def _areas(outlines: Outlines) -> Floats:
    """Area of each ring, in square pixels."""
    (x0, y0), (x1, y1) = outlines.points[outlines.walk].T, outlines.points[outlines.ends].T
    areas: Floats = np.abs(np.add.reduceat(x0 * y1 - x1 * y0, outlines.ring_starts[:-1])) / 2
    return areas


def _stands_for(traced: Outlines, thinned: Outlines) -> Ints:
    """The thinned step that stands for each traced one: (traced step,)."""
    kept = np.zeros(len(traced.points), np.bool_)
    kept[thinned.walk] = True
    nearest = np.cumsum(kept[traced.walk]) - 1
    ring = traced.ring_of_step
    # What comes before a ring's first kept step belongs to its last.
    return np.where(nearest < thinned.ring_starts[ring], thinned.ring_starts[ring + 1] - 1, nearest)


def _angles(traced: Outlines, thinned: Outlines, chain: Ints, ends: Ints) -> Floats:
    """Direction of each wall in radians: the principal axis of the pixel sides it stands for."""
    anchor = thinned.points[ends[:, 0]][chain]
    start, end = traced.points[traced.walk] - anchor, traced.points[traced.ends] - anchor
    run, middle = end - start, (start + end) / 2
    length = np.hypot(*run.T)

    def summed(values: Floats) -> Floats:
        return np.bincount(chain, length * values, len(ends)).astype(np.float64)

    (x, y), (dx, dy) = middle.T, run.T
    weight = summed(np.ones_like(x))
    xx = summed(x * x + dx * dx / 12) - summed(x) ** 2 / weight
    yy = summed(y * y + dy * dy / 12) - summed(y) ** 2 / weight
    xy = summed(x * y + dx * dy / 12) - summed(x) * summed(y) / weight
    return np.arctan2(2 * xy, xx - yy) / 2


def _dominant(angles: Floats, lengths: Floats, group: Ints) -> Floats:
    """Direction of each group in radians, modulo 90 degrees: (group,).

    The fullest bin of a histogram weighted by length, smoothed over its neighbors; then the mean of the walls near
    it, the longer ones weighing more by the third power, as the variance of a fitted line's direction falls.
    """
    groups, bins = int(group.max()) + 1, 90 // BIN_DEGREES
    degrees = np.degrees(angles) % 90
    bin_of = (degrees / BIN_DEGREES).astype(np.int64) % bins
    histogram = np.bincount(group * bins + bin_of, lengths, groups * bins).reshape(groups, bins)
    smooth = 2 * histogram + np.roll(histogram, 1, axis=1) + np.roll(histogram, -1, axis=1)
    peak = (np.argmax(smooth, axis=1) + 0.5) * BIN_DEGREES
    near = np.abs((degrees - peak[group] + 45) % 90 - 45) <= PEAK_DEGREES
    pull = np.where(near, lengths**3, 0)
    cos = np.bincount(group, pull * np.cos(4 * angles), groups)
    sin = np.bincount(group, pull * np.sin(4 * angles), groups)
    return np.arctan2(sin, cos) / 4


def _follows(run: Points) -> Ints:
    """What walls follow, from where they run in their frames: (wall,) FREE, ALONG or ACROSS."""
    along, across = np.abs(run).T
    off = np.degrees(np.arctan2(np.minimum(along, across), np.maximum(along, across)))
    moves = np.minimum(along, across) / 2
    follows = (off <= SURE_DEGREES) | (off <= LIKELY_DEGREES) & (moves <= TURN_PX)
    return np.where(follows, np.where(along >= across, ALONG, ACROSS), FREE)


def _hairpins(thinned: Outlines, side: Ints, frame: Points, follows: Ints) -> Ints:
    """Walls that go back where a neighbor came from, following one direction: of each two the shorter."""
    after = following(thinned.ring_starts)
    run = frame[thinned.ends] - frame[thinned.walk]
    back = (
        (follows[side] == follows[side[after]])
        & (follows[side] != FREE)
        & ((run * run[after]).sum(axis=1) < 0)
    )
    length = np.hypot(*run.T)
    shorter: Ints = np.where(length <= length[after], np.arange(len(after)), after)[back]
    return side[shorter]
