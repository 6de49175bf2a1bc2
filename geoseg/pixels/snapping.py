"""Walls moved to the lines that they follow, joined over short jogs, and met in corners."""

from __future__ import annotations

import numpy as np

from geoseg.pixels.outlines import Outlines, Points, following, joined, junctions, snapped
from geoseg.pixels.polygons import Bools, starts_of
from geoseg.pixels.walls import ACROSS, ALONG, FREE, Walls, group_of_point, walls_of

JOG_PX = 2.0
"""Shorter sides are no walls: the walls on either hand join, or meet in a corner."""
CHAMFER_PX = 2.5
"""A corner that was cut off becomes one again if it lies up to this far from the cut."""
LEAST_SHARED = 0.2
"""Where a side of a shared wall would be left with less of its length than this, a group is not squared."""
MOST_MOVED_PX = 8.0
"""Where a point would move farther, a group is not squared: so what lies farther off need not be looked at."""
MAX_ROUNDS = 50


def squared(traced: Outlines, thinned: Outlines) -> tuple[Bools, Points]:
    """Thinned outlines squared: which of their steps remain, and the new places of all points.

    traced: the outlines along pixel sides, which say where a wall lies. thinned: some of their steps.
    Returns (step,), and (point, 2) float64, at most MOST_MOVED_PX from the old ones. Rings may be invalid: one that
    collapsed has all its steps, on a line.
    """
    walls = walls_of(traced, thinned)
    gone = np.zeros(len(walls.ends), np.bool_)
    places = _places(walls, gone)
    for _ in range(MAX_ROUNDS):
        vanishing = _vanishing(walls, gone, places)
        if not vanishing.any():
            break
        gone |= vanishing
        places = _places(walls, gone)
    steps, spikes = _corners(walls, gone, places)
    lost = np.add.reduceat(steps.astype(np.int64), thinned.ring_starts[:-1]) < 3
    steps |= lost[thinned.ring_of_step]
    torn = _torn_groups(walls, places)
    torn[thinned.group[thinned.polygon_of_step[spikes]]] = True
    steps |= torn[thinned.group][thinned.polygon_of_step]
    places = np.where(torn[group_of_point(thinned)][:, None], walls.frame, places)
    (u, v), (cos, sin) = places.T, walls.turn.T
    back = snapped(np.column_stack([u * cos - v * sin, u * sin + v * cos]))
    return steps, back


def _torn_groups(walls: Walls, places: Points) -> Bools:
    """Groups in which a shared wall lost its length, so that neighbors would part or overlap, or a point went far."""
    start, end = walls.ends[walls.shared].T
    was, now = walls.frame[end] - walls.frame[start], places[end] - places[start]
    lost = (was * now).sum(axis=1) < LEAST_SHARED * (was * was).sum(axis=1)
    torn = np.zeros(int(walls.outlines.group.max()) + 1, np.bool_)
    group = group_of_point(walls.outlines)
    torn[group[start[lost]]] = True
    torn[group[np.hypot(*(places - walls.frame).T) > MOST_MOVED_PX]] = True
    return torn


def _places(walls: Walls, gone: Bools) -> Points:
    """Where the points come to lie, in their frames: (point, 2).

    Points along a wall that follows a direction share their offset from it, the mean of the traced sides; the ends
    of a wall that is gone are one point.
    """
    places = walls.frame.copy()
    count = len(places)
    for axis, direction in enumerate((ACROSS, ALONG)):
        follows = (walls.follows == direction) & ~gone
        tied = follows | gone
        line = joined(count, *walls.ends[tied].T)
        at = line[walls.ends[follows, 0]]
        weight = np.bincount(at, walls.weight[follows, axis], count)
        total = np.bincount(at, walls.total[follows, axis], count)
        members = np.bincount(line, minlength=count)
        mean = np.bincount(line, places[:, axis], count) / np.maximum(members, 1)
        offset = np.divide(total, weight, out=mean, where=weight > 0)
        places[:, axis] = offset[line]
    return places


def _vanishing(walls: Walls, gone: Bools, places: Points) -> Bools:
    """Walls to drop next: short jogs, cut corners, and those that now run backwards: (wall,).

    Never the end of a wing (its neighbors run opposite ways), nor in a ring of four. Of neighbors the shorter one
    goes first, and of a small ring only the shortest, since the others may be longer then.
    """
    steps = np.flatnonzero(~gone[walls.side])
    wall, ring = walls.side[steps], walls.outlines.ring_of_step[steps]
    sizes = np.bincount(ring, minlength=len(walls.outlines.ring_starts) - 1)
    after = following(starts_of(sizes))
    before = np.empty_like(after)
    before[after] = np.arange(len(after))
    start, end = walls.outlines.walk[steps], walls.outlines.ends[steps]
    run = places[end] - places[start]
    length = np.hypot(*run.T)
    heading = run / np.maximum(length, 1e-12)[:, None]
    ahead, behind = (heading * heading[after]).sum(axis=1), (heading * heading[before]).sum(axis=1)

    backwards = (run * (walls.frame[end] - walls.frame[start])).sum(axis=1) < 0
    follows = walls.follows[wall]
    between = (follows[before] != FREE) & (follows[after] != FREE) & (follows[before] != follows[after])
    chamfer = (
        (follows == FREE)
        & between
        & (ahead > -0.5)
        & (behind > -0.5)
        & (np.abs(run.prod(axis=1)) < CHAMFER_PX * length)
    )
    wing_end = (heading[before] * heading[after]).sum(axis=1) < -0.5
    drop = backwards | ((length < JOG_PX) | chamfer) & ~wing_end
    drop &= ~walls.fixed[wall] & (sizes[ring] > 4)

    rank = np.where(drop, np.where(backwards, 0, length), np.inf)
    order = np.lexsort((wall, rank, ring))
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    shortest = place == starts_of(sizes)[ring]
    shorter = (place < place[before]) & (place < place[after])
    drop &= np.where(sizes[ring] > 8, shorter, shortest)
    kept = np.zeros(len(gone), np.bool_)
    kept[wall[~drop]] = True
    vanishing: Bools = ~kept & ~gone
    return vanishing


def _corners(walls: Walls, gone: Bools, places: Points) -> tuple[Bools, Bools]:
    """Steps that leave a corner or a junction, and steps that go back on the line that led there: (step,)."""
    merged = joined(len(places), *walls.ends[gone].T)
    is_junction = np.zeros(len(places), np.bool_)
    is_junction[merged[junctions(walls.outlines)]] = True
    steps = np.flatnonzero(~gone[walls.side])
    sizes = np.bincount(walls.outlines.ring_of_step[steps], minlength=len(walls.outlines.ring_starts) - 1)
    after = following(starts_of(sizes))
    start = walls.outlines.walk[steps]
    run = places[walls.outlines.ends[steps]] - places[start]
    came = np.empty_like(run)
    came[after] = run
    cross, ahead = np.abs(came[:, 0] * run[:, 1] - came[:, 1] * run[:, 0]), (came * run).sum(axis=1)
    on_line = cross <= 1e-9 * np.hypot(*run.T) * np.hypot(*came.T)
    corners, spikes = np.zeros((2, len(walls.side)), np.bool_)
    corners[steps[~(on_line & (ahead > 0)) | is_junction[merged[start]]]] = True
    spikes[steps[on_line & (ahead < 0)]] = True
    return corners, spikes
