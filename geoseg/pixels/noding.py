"""Rings of polygons with a corner wherever others meet: then each side has at most one twin on the other hand.

Polygons have no vertex on a straight line, so where two of them meet at the straight side of a third (a
T-junction) that one has no corner. All polygons of a raster are looked at together: what lies in memory grows with
the length of all outlines, not with the pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely

from geoseg.pixels.outlines import following, numbered
from geoseg.pixels.polygons import Geometries, Ints, Pieces, spans, starts_of

Corners = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class NodedRings:
    """Rings as sides between corners, ring after ring; two rings share a side whole or not at all.

    start, end: (side, 2) int32, (col, row) of pixel corners, in the direction of the ring.
    ring_starts: (ring + 1,) int64, where each ring starts in the sides, and the end.
    polygon_starts: (polygon + 1,) int64, where each polygon starts in the rings; its exterior comes first.
    """

    start: Corners
    end: Corners
    ring_starts: Ints
    polygon_starts: Ints

    @property
    def ring_of_side(self) -> Ints:
        return np.repeat(np.arange(len(self.ring_starts) - 1), np.diff(self.ring_starts))

    @property
    def polygon_of_ring(self) -> Ints:
        return np.repeat(np.arange(len(self.polygon_starts) - 1), np.diff(self.polygon_starts))

    def twins(self) -> tuple[Ints, Ints]:
        """Pairs of sides that are one place, seen from either hand: positions of both. Borders of nothing have none."""
        low = np.minimum(self.start, self.end).astype(np.int64)
        low -= low.min(axis=0, initial=0)
        upright = self.start[:, 0] == self.end[:, 0]
        key = (low[:, 1] * (low[:, 0].max(initial=0) + 1) + low[:, 0]) * 2 + upright
        order = np.argsort(key, kind="stable")  # the quicker one, since sides come ring by ring
        key = key[order]
        same = np.flatnonzero(key[1:] == key[:-1])
        return order[same], order[same + 1]

    def polygons(self) -> Geometries:
        """The polygons with these corners as shapely geometries, in pixel coordinates: (polygon,)."""
        opens = self.ring_starts
        closing = np.insert(np.arange(len(self.start)), opens[1:], opens[:-1])
        offsets = (opens + np.arange(len(opens)), self.polygon_starts)
        points = self.start[closing].astype(np.float64)
        found: Geometries = shapely.from_ragged_array(shapely.GeometryType.POLYGON, points, offsets)
        return found

    def lengths(self, sides: Ints) -> Ints:
        """Of some sides, in pixel sides."""
        length: Ints = np.abs(self.end[sides] - self.start[sides]).sum(axis=1, dtype=np.int64)
        return length


def noded(pieces: Pieces) -> NodedRings:
    """The rings of polygons that do not overlap, with the corners of all the others that lie on their sides."""
    counts = np.diff(pieces.ring_starts) - 1
    corners = pieces.coords[spans(pieces.ring_starts[:-1], counts)]
    ring_starts = starts_of(counts)
    if not len(corners):
        return NodedRings(corners, corners, ring_starts, pieces.polygon_starts)
    after = following(ring_starts)
    upright = corners[:, 0] == corners[after, 0]
    # Of all corners, numbered along rows and along columns, those between the ends of a side lie on it.
    by_row, along_rows = _numbered(corners)
    by_col, along_cols = _numbered(corners[:, ::-1])
    places = np.concatenate([along_rows, along_cols[:, ::-1]])
    by_col += len(along_rows)
    leaves, arrives = np.where(upright, by_col, by_row), np.where(upright, by_col[after], by_row[after])
    parts = np.abs(arrives - leaves)
    nth = spans(np.zeros_like(parts), parts)
    start = places[np.repeat(leaves, parts) + np.repeat(np.sign(arrives - leaves), parts) * nth]
    ring_starts = starts_of(parts)[ring_starts]
    return NodedRings(start, start[following(ring_starts)], ring_starts, pieces.polygon_starts)


def _numbered(corners: Corners) -> tuple[Ints, Corners]:
    """Rank of each corner among the distinct ones, by its second coordinate, then its first; and these in order."""
    first, second = (corners - corners.min(axis=0)).T.astype(np.int64)
    base = int(first.max()) + 1
    rank = numbered(second * base + first)
    places = np.empty((int(rank.max()) + 1, 2), np.int32)
    places[rank] = corners
    return rank, places
