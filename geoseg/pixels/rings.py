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
    counts = np.diff(pieces.ring_starts)
    is_hole = np.ones(len(counts), np.bool_)
    is_hole[pieces.polygon_starts[:-1]] = False
    hole_group = np.repeat(group, np.diff(pieces.polygon_starts) - 1)

    cut = sides_on_cuts(pieces, cut_cols, cut_rows)
    open_side = np.ones(len(cut.piece), np.bool_)
    open_side[np.concatenate(twins(cut, group[cut.piece]))] = False
    whole_side = np.repeat(~is_hole, counts)
    whole_side[pieces.ring_starts[1:] - 1] = False
    whole_side[cut.at] = False
    at = np.flatnonzero(whole_side)
    owner = np.repeat(group, np.diff(pieces.ring_starts[pieces.polygon_starts]))

    sense = _sense(pieces)
    coords, new_counts, new_group = _link(
        np.concatenate([pieces.coords[at], cut.start[open_side]]),
        np.concatenate([pieces.coords[at + 1], cut.end[open_side]]),
        np.concatenate([owner[at], group[cut.piece[open_side]]]),
        sense,
    )
    new_is_hole = np.sign(double_areas(coords, new_counts)) != sense
    coords = np.concatenate([coords, pieces.coords[np.repeat(is_hole, counts)]])
    new_counts = np.concatenate([new_counts, counts[is_hole]])
    ring_group = np.concatenate([new_group, hole_group])
    new_is_hole = np.concatenate([new_is_hole, np.ones(len(hole_group), np.bool_)])
    return _of_rings(pieces, group, coords, new_counts, ring_group, new_is_hole)


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


class CutSides(NamedTuple):
    """Pixel sides of pieces on cuts, in the direction of their rings; these are exteriors.

    start, end: (side, 2) int32, (col, row). piece: (side,), which it belongs to. at: where in the pieces' coordinates
    the sides begin that these are parts of.
    """

    start: npt.NDArray[np.int32]
    end: npt.NDArray[np.int32]
    piece: Ints
    at: Ints


def sides_on_cuts(pieces: Pieces, cut_cols: Ints, cut_rows: Ints) -> CutSides:
    """The pixel sides of pieces on some columns and rows where they were cut."""
    on_cut = np.zeros(len(pieces.coords), np.bool_)
    for along, cuts in zip(pieces.coords.T, (cut_cols, cut_rows), strict=True):
        if len(cuts):
            on_cut[:-1] |= (along[1:] == along[:-1]) & np.isin(along[:-1], cuts)
    on_cut[pieces.ring_starts[1:] - 1] = False
    at = np.flatnonzero(on_cut)
    piece = np.searchsorted(pieces.ring_starts[pieces.polygon_starts], at, side="right") - 1
    side = pieces.coords[at + 1] - pieces.coords[at]
    lengths = np.abs(side).sum(axis=1, dtype=np.int64)
    step = np.repeat(np.sign(side), lengths, axis=0)
    nth = spans(np.zeros_like(lengths), lengths).astype(np.int32)
    start = np.repeat(pieces.coords[at], lengths, axis=0)
    start += step * nth[:, None]
    return CutSides(start, start + step, np.repeat(piece, lengths), at)


def double_areas(coords: npt.NDArray[np.integer], counts: Ints) -> Ints:
    """Twice the signed area of each ring, in square pixels: (ring,). counts: (ring,), the vertices in each."""
    col, row = coords.T.astype(np.int64)
    terms = np.zeros(len(coords), np.int64)
    terms[:-1] = col[:-1] * row[1:] - col[1:] * row[:-1]
    terms[np.cumsum(counts) - 1] = 0
    return np.add.reduceat(terms, starts_of(counts)[:-1])


def twins(sides: CutSides, kind: npt.NDArray[np.integer]) -> tuple[Ints, Ints]:
    """Pairs of sides that are one place, seen from either hand, and of one kind: positions of both. kind: (side,)."""
    low = np.minimum(sides.start, sides.end)
    upright = sides.start[:, 0] == sides.end[:, 0]
    order = np.lexsort((kind, upright, low[:, 0], low[:, 1]))
    table = np.column_stack([kind, upright, low])[order]
    equal = np.flatnonzero((table[1:] == table[:-1]).all(axis=1))
    return order[equal], order[equal + 1]


def _link(
    start: npt.NDArray[np.int32], end: npt.NDArray[np.int32], group: Ints, sense: int
) -> tuple[npt.NDArray[np.int32], Ints, Ints]:
    """Rings from directed edges: coordinates, vertices in each ring, and each ring's group.

    start, end: (edge, 2). group: (edge,) from 0 up. Where two parts of a polygon meet at a corner, the ring goes
    around a pixel that is not in the polygon: so no ring touches itself.
    sense: the sign of an exterior's area.
    """
    # One number per group and place; these stay apart as long as they are fewer than 2**64.
    low, high = start.min(axis=0).astype(np.int64), start.max(axis=0).astype(np.int64)
    width, height = high - low + 1
    leaves, arrives = (
        (group * height + row - low[1]) * width + col - low[0] for col, row in (start.T, end.T)
    )
    heading = _quarter(end - start)

    leaving, arriving = np.argsort(leaves), np.argsort(arrives)
    place = leaves[leaving]
    first = np.flatnonzero(place[1:] == place[:-1])
    turn = (heading[leaving[first]] - heading[arriving[first]]) % 4
    wrong = first[turn == sense % 4]
    leaving[wrong], leaving[wrong + 1] = leaving[wrong + 1], leaving[wrong]
    after = np.empty_like(leaving)
    after[arriving] = leaving

    before = np.empty_like(after)
    before[after] = np.arange(len(after))
    edge, counts = _walk(after, before)
    is_corner = heading[edge] != heading[before[edge]]
    ring_starts = starts_of(counts)[:-1]
    ring_group = group[edge[ring_starts]]
    counts = np.add.reduceat(is_corner.astype(np.int64), ring_starts)
    corners = start[edge[is_corner]]
    opens = starts_of(counts)
    closing = np.insert(np.arange(len(corners)), opens[1:], opens[:-1])
    return corners[closing], counts + 1, ring_group


def _quarter(step: npt.NDArray[np.int32]) -> npt.NDArray[np.int8]:
    """Headings along rows and columns, in quarter turns: (edge,)."""
    col, row = np.sign(step).astype(np.int8).T
    turns: npt.NDArray[np.int8] = np.where(col, 1 - col, 2 - row)
    return turns


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
