"""Joining polygons that block seams have cut.

A pixel side on a seam is a side of at most two pieces, one on either hand. Where both have the same class,
they are parts of one polygon.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from geoseg.grid.window import Window
from geoseg.pixels.polygons import Ints, Pieces
from geoseg.pixels.rings import sides_on_cuts, twins, unite


def join_blocks(blocks: Sequence[Pieces], cut_cols: Sequence[int]) -> Pieces:
    """The polygons of a strip, from the pieces of its blocks.

    cut_cols: the columns where the strip was cut.
    """
    pieces = Pieces.concat(blocks)
    cuts = np.asarray(cut_cols, np.int64)
    sides = sides_on_cuts(pieces, cuts, cuts[:0])
    same_side = twins(sides, pieces.class_ids[sides.piece])
    groups = Groups()
    for a, b in _distinct_pairs(sides.piece[same_side[0]], sides.piece[same_side[1]]):
        groups.connect(a, b)
    if not groups.members:
        return pieces
    joined = np.array(groups.members, np.int64)
    group = np.array([groups.find(m) for m in groups.members], np.int64)
    apart = np.ones(len(pieces), np.bool_)
    apart[joined] = False
    return Pieces.concat([pieces.take(apart), unite(pieces.take(joined), group, cuts, cuts[:0])])


class StripJoiner:
    """Joins strips (full-width rows of blocks) from top to bottom, and gives out polygons as they close.

    Holds the pieces of only those polygons that reach the lower side of the last strip. A polygon is united
    once, when it closes, so that one as large as the scene costs no more than its outline.
    """

    def __init__(self, scene: Window) -> None:
        self._scene = scene
        self._groups = Groups()
        self._parts: dict[int, list[Pieces]] = {}
        self._group_at = np.full(scene.width, -1, np.int64)
        self._class_at = np.zeros(scene.width, np.uint8)
        self._cut_rows: list[int] = []
        self._used = 0

    @property
    def open_polygons(self) -> int:
        return len(self._parts)

    def add(self, strip: Pieces, window: Window) -> Pieces:
        """The polygons that no later strip can reach, in no particular order.

        strip: joined pieces of the strip (see join_blocks). window: its place; the last ends with the scene.
        """
        number = self._used + np.arange(len(strip))
        self._used += len(strip)
        upper, above = self._sides(strip, window.row)
        lower, below = self._sides(strip, window.row_end)
        same = (self._group_at[upper] >= 0) & (self._class_at[upper] == strip.class_ids[above])
        for a, b in _distinct_pairs(self._group_at[upper[same]], number[above[same]]):
            self._groups.connect(a, b)
        on_seam = np.zeros(len(strip), np.bool_)
        on_seam[above[same]] = True
        on_seam[below] = True
        self._keep(strip.take(on_seam), number[on_seam])

        self._group_at[:] = -1
        if window.row_end < self._scene.row_end:
            self._cut_rows.append(window.row_end)
            reaching, which = np.unique(below, return_inverse=True)
            self._group_at[lower] = np.array(
                [self._groups.find(n) for n in number[reaching].tolist()], np.int64
            )[which]
            self._class_at[lower] = strip.class_ids[below]
        return Pieces.concat([strip.take(~on_seam), self._close()])

    def _sides(self, strip: Pieces, row: int) -> tuple[Ints, Ints]:
        """The pixel sides of pieces on a horizontal line: offset from the scene's first column, and piece."""
        rows = np.array([row], np.int64)
        sides = sides_on_cuts(strip, rows[:0], rows)
        return np.minimum(sides.start[:, 0], sides.end[:, 0]) - np.int64(self._scene.col), sides.piece

    def _keep(self, pieces: Pieces, number: Ints) -> None:
        """File pieces under the group that each belongs to, and merge groups that the strip has connected."""
        for old in [g for g in self._parts if self._groups.find(g) != g]:
            self._parts.setdefault(self._groups.find(old), []).extend(self._parts.pop(old))
        roots = np.array([self._groups.find(n) for n in number.tolist()], np.int64)
        order = np.argsort(roots, kind="stable")
        for members in np.split(order, np.flatnonzero(np.diff(roots[order])) + 1):
            if len(members):
                self._parts.setdefault(int(roots[members[0]]), []).append(pieces.take(members))

    def _close(self) -> Pieces:
        still_open = set(np.unique(self._group_at).tolist())
        closed = [g for g in self._parts if g not in still_open]
        parts = [Pieces.concat(self._parts.pop(g)) for g in closed]
        self._groups.forget_all_but(self._parts)
        group = np.repeat(np.arange(len(parts)), [len(p) for p in parts])
        cuts = np.array(self._cut_rows, np.int64)
        return unite(Pieces.concat(parts), group, cuts[:0], cuts)


class Groups:
    """Which of some numbered things are connected (union-find); a group goes by its smallest number."""

    def __init__(self) -> None:
        self._parent: dict[int, int] = {}

    @property
    def members(self) -> list[int]:
        """All that were ever connected to another."""
        return list(self._parent)

    def find(self, thing: int) -> int:
        root = thing
        while (parent := self._parent.get(root, root)) != root:
            root = parent
        while thing != root:
            self._parent[thing], thing = root, self._parent[thing]
        return root

    def connect(self, a: int, b: int) -> None:
        for thing in (a, b):
            self._parent.setdefault(thing, thing)
        a, b = self.find(a), self.find(b)
        self._parent[max(a, b)] = min(a, b)

    def forget_all_but(self, roots: dict[int, list[Pieces]]) -> None:
        self._parent = {root: root for root in roots}


def _distinct_pairs(a: Ints, b: Ints) -> list[tuple[int, int]]:
    return [(int(x), int(y)) for x, y in np.unique(np.column_stack([a, b]), axis=0)]
