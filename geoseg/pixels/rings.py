"""Uniting connected pieces of polygons by linking their sides to rings anew.

No overlay of geometries is needed, and nothing is rounded: coordinates are whole pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from geoseg.pixels.noding import noded
from geoseg.pixels.polygons import Bools, Ints, Pieces, spans, starts_of


def unite(pieces: Pieces, group: Ints, cut_cols: Ints, cut_rows: Ints) -> Pieces:
    """One polygon per group of connected pieces.

    group: (piece,) int64, any numbers. cut_cols, cut_rows: the lines across which the pieces were cut.
    Holes of pieces never touch a cut (there they would be open), so they are holes of the whole as they are.
    """
    if not len(pieces):
        return pieces
    group = np.unique(group, return_inverse=True)[1]
    is_hole = _holes(pieces)
    ring_group = np.repeat(group, np.diff(pieces.polygon_starts))

    sense = _sense(pieces)
    edges = exterior_edges(pieces, group, cut_cols, cut_rows)
    kept = np.ones(len(edges.owner), np.bool_)
    kept[np.concatenate(twins(edges, edges.owner))] = False
    coords, counts, new_group = _link(edges.start[kept], edges.end[kept], edges.owner[kept], sense)
    new_is_hole = np.sign(double_areas(coords, counts)) != sense
    old_coords, old_counts = _rings(pieces, is_hole)

    coords = np.concatenate([coords, old_coords])
    counts = np.concatenate([counts, old_counts])
    ring_group = np.concatenate([new_group, ring_group[is_hole]])
    is_hole = np.concatenate([new_is_hole, np.ones(len(old_counts), np.bool_)])
    return _of_rings(pieces, group, coords, counts, ring_group, is_hole)


def dissolve(pieces: Pieces, group: Ints) -> Pieces:
    """One polygon per group of whole polygons, in rising order of group; its class is that of its first polygon.

    group: (polygon,) int64, any numbers. The polygons of a group are connected by pixel sides that they share. Unlike
    in `unite`, these may lie anywhere, and holes close where all that lay in them is of the group.
    """
    _, group, sizes = np.unique(group, return_inverse=True, return_counts=True)
    alone = sizes[group] == 1
    if alone.all():
        return pieces.take(np.argsort(group))
    parts, owner = pieces.take(~alone), np.unique(group[~alone], return_inverse=True)[1]
    rings = noded(parts)
    owner_of_side = owner[rings.polygon_of_ring[rings.ring_of_side]]
    sides = np.stack(rings.twins())
    kept = np.ones(len(owner_of_side), np.bool_)
    kept[sides[:, owner_of_side[sides[0]] == owner_of_side[sides[1]]]] = False
    sense = _sense(parts)
    coords, counts, ring_group = _link(rings.start[kept], rings.end[kept], owner_of_side[kept], sense)
    is_hole = np.sign(double_areas(coords, counts)) != sense
    united = _of_rings(parts, owner, coords, counts, ring_group, is_hole)
    place = np.concatenate([group[alone], np.flatnonzero(sizes > 1)])
    return Pieces.concat([pieces.take(alone), united]).take(np.argsort(place))


def _of_rings(
    pieces: Pieces, group: Ints, coords: npt.NDArray[np.int32], counts: Ints, ring_group: Ints, is_hole: Bools
) -> Pieces:
    """The polygons of groups, of which some rings are known, with all that their pieces tell.

    group: (piece,) from 0 up. coords, counts: the rings, one after the other. ring_group, is_hole: (ring,).
    """
    _, first = np.unique(group, return_index=True)
    order = np.lexsort((is_hole, ring_group))
    coords = coords[spans(starts_of(counts)[:-1][order], counts[order])]
    return Pieces.of_counts(
        pieces.class_ids[first],
        coords,
        counts[order],
        np.bincount(ring_group, minlength=len(first)),
        pieces.percents.regroup(group),
        np.bincount(group, pieces.at_edge, minlength=len(first)) > 0,
    )


def _sense(pieces: Pieces) -> int:
    """The sign of the area of exteriors."""
    exterior = pieces.coords[: pieces.ring_starts[1]]
    return int(np.sign(double_areas(exterior, pieces.ring_starts[1:2])[0]))


class Edges(NamedTuple):
    """Sides of exteriors, ring after ring, in the direction of the ring.

    start, end: (edge, 2) int32, (col, row). owner: (edge,) int64, what the side belongs to.
    is_cut: (edge,), True for sides on a cut; these are one pixel long.
    """

    start: npt.NDArray[np.int32]
    end: npt.NDArray[np.int32]
    owner: Ints
    is_cut: Bools


def exterior_edges(
    pieces: Pieces, owner: Ints, cut_cols: Ints, cut_rows: Ints, only_cut: bool = False
) -> Edges:
    """The sides of all exteriors, or only those on cuts. owner: (piece,)."""
    coords, counts = _rings(pieces, ~_holes(pieces))
    is_start = np.ones(len(coords), np.bool_)
    is_start[np.cumsum(counts) - 1] = False
    is_start = is_start[:-1]
    start, end = coords[:-1][is_start], coords[1:][is_start]
    owner = np.repeat(owner, counts - 1)

    is_cut = np.zeros(len(start), np.bool_)
    for axis, cuts in enumerate((cut_cols, cut_rows)):
        if len(cuts):
            is_cut |= (start[:, axis] == end[:, axis]) & np.isin(start[:, axis], cuts)
    if only_cut:
        start, end, owner, is_cut = start[is_cut], end[is_cut], owner[is_cut], is_cut[is_cut]
    side = end - start
    parts = np.where(is_cut, np.abs(side).sum(axis=1, dtype=np.int64), 1)
    owner, is_cut = np.repeat(owner, parts), np.repeat(is_cut, parts)
    step = np.repeat(side, parts, axis=0)
    step[is_cut] = np.sign(step[is_cut])
    step_number = spans(np.zeros_like(parts), parts).astype(np.int32)[:, None]
    start = np.repeat(start, parts, axis=0)
    start += step * step_number
    return Edges(start, start + step, owner, is_cut)


def _holes(pieces: Pieces) -> Bools:
    """True for each ring that is a hole."""
    is_hole = np.ones(len(pieces.ring_starts) - 1, np.bool_)
    is_hole[pieces.polygon_starts[:-1]] = False
    return is_hole


def _rings(pieces: Pieces, which: Bools) -> tuple[npt.NDArray[np.int32], Ints]:
    """Coordinates of some rings, one after the other, and the vertices in each."""
    counts = np.diff(pieces.ring_starts)[which]
    return pieces.coords[spans(pieces.ring_starts[:-1][which], counts)], counts


def double_areas(coords: npt.NDArray[np.integer], counts: Ints) -> Ints:
    """Twice the signed area of each ring, in square pixels: (ring,). counts: (ring,), the vertices in each."""
    col, row = coords.T.astype(np.int64)
    terms = np.zeros(len(coords), np.int64)
    terms[:-1] = col[:-1] * row[1:] - col[1:] * row[:-1]
    terms[np.cumsum(counts) - 1] = 0
    return np.add.reduceat(terms, starts_of(counts)[:-1])


def twins(edges: Edges, kind: npt.NDArray[np.integer]) -> tuple[Ints, Ints]:
    """Pairs of edges on a cut that are two sides of one place and of one kind: indices of either."""
    at = np.flatnonzero(edges.is_cut)
    low = np.minimum(edges.start[at], edges.end[at])
    upright = edges.start[at, 0] == edges.end[at, 0]
    order = np.lexsort((kind[at], upright, low[:, 0], low[:, 1]))
    table = np.column_stack([kind[at], upright, low])[order]
    equal = np.flatnonzero((table[1:] == table[:-1]).all(axis=1))
    return at[order[equal]], at[order[equal + 1]]


def _link(
    start: npt.NDArray[np.int32], end: npt.NDArray[np.int32], group: Ints, sense: int
) -> tuple[npt.NDArray[np.int32], Ints, Ints]:
    """Rings from directed edges: coordinates, vertices in each ring, and each ring's group.

    start, end: (edge, 2). group: (edge,). Where two parts of a polygon meet at a corner, the ring goes around a
    pixel that is not in the polygon: so no ring touches itself.
    sense: the sign of an exterior's area.
    """
    heading = np.sign(end - start)

    leaving = np.lexsort((start[:, 0], start[:, 1], group))
    arriving = np.lexsort((end[:, 0], end[:, 1], group))
    place = np.column_stack([group, start])[leaving]
    first = np.flatnonzero((place[1:] == place[:-1]).all(axis=1))
    came, went = heading[arriving[first]], heading[leaving[first]]
    wrong = first[(came[:, 0] * went[:, 1] - came[:, 1] * went[:, 0]) * sense > 0]
    leaving[wrong], leaving[wrong + 1] = leaving[wrong + 1], leaving[wrong]
    after = np.empty_like(leaving)
    after[arriving] = leaving

    before = np.empty_like(after)
    before[after] = np.arange(len(after))
    edge, counts = _walk(after, before)
    is_corner = (heading[edge] != heading[before[edge]]).any(axis=1)
    ring_starts = starts_of(counts)[:-1]
    ring_group = group[edge[ring_starts]]
    counts = np.add.reduceat(is_corner.astype(np.int64), ring_starts)
    corners = start[edge[is_corner]]
    opens = starts_of(counts)
    closing = np.insert(np.arange(len(corners)), opens[1:], opens[:-1])
    return corners[closing], counts + 1, ring_group


def _walk(after: Ints, before: Ints) -> tuple[Ints, Ints]:
    """The cycles of a permutation, one after the other, and their lengths.

    Edges that follow each other in memory are walked as one run: the loop is over runs, which are few.
    """
    runs = np.flatnonzero(before != np.arange(-1, len(before) - 1))
    lengths = np.diff(runs, append=len(after))
    run_of = np.repeat(np.arange(len(runs)), lengths)
    next_run = run_of[after[runs + lengths - 1]].tolist()
    seen = bytearray(len(runs))
    order: list[int] = []
    cycle_starts: list[int] = []
    for run in range(len(runs)):
        if not seen[run]:
            cycle_starts.append(len(order))
        while not seen[run]:
            seen[run] = 1
            order.append(run)
            run = next_run[run]
    walked = np.array(order, np.int64)
    counts = np.add.reduceat(lengths[walked], cycle_starts)
    return spans(runs[walked], lengths[walked]), counts
