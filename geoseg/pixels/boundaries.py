"""How well outlines are placed: the boundary F1 of each class.

Method: Csurka, Larlus and Perronnin (2013), "What is a good evaluation measure for semantic segmentation?":
precision is the share of boundary pixels of the map that lie within a tolerance of the labels' boundary of the
same class, recall the share of the labels' that lie within it of the map's.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

import numpy as np
import numpy.typing as npt

from geoseg.legend import NODATA

Channels = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

HALO_PX = 1
"""A boundary pixel is known by its neighbors: what is read beyond a window is the tolerance and this."""


@dataclass(frozen=True)
class BoundaryCounts:
    """Boundary pixels of each class, in legend order: of the map and of the labels, and how many of them match."""

    mapped: tuple[int, ...]
    mapped_matched: tuple[int, ...]
    truth: tuple[int, ...]
    truth_matched: tuple[int, ...]

    @classmethod
    def of(cls, counts: Ints) -> BoundaryCounts:
        """counts: (4, class), in the order of the fields."""
        return cls(*(tuple(row) for row in counts.tolist()))

    @property
    def precision(self) -> tuple[float | None, ...]:
        """None where the map has no boundary of the class."""
        return _shares(self.mapped_matched, self.mapped)

    @property
    def recall(self) -> tuple[float | None, ...]:
        """None where the labels have no boundary of the class."""
        return _shares(self.truth_matched, self.truth)

    @property
    def f1(self) -> tuple[float | None, ...]:
        """Harmonic mean of both; 0 where none matches. None where neither side has a boundary, or where that of one
        side is matched only by what lies beyond the pixels that count."""
        return tuple(_f1(p, r) for p, r in zip(self.precision, self.recall, strict=True))

    @property
    def mean_f1(self) -> float | None:
        """Mean over the classes that have an `f1`."""
        known = [value for value in self.f1 if value is not None]
        return sum(known) / len(known) if known else None


@dataclass(frozen=True, eq=False)
class Boundaries:
    """Boundary pixels of a window: (row, col) uint16 each, twice the position of the class in the legend, and one
    more where the pixel is matched; 2 * classes where there is no boundary."""

    classes: int
    truth: npt.NDArray[np.uint16]
    mapped: npt.NDArray[np.uint16]

    def count(self, inside: Bools | None = None) -> Ints:
        """(4, class): see BoundaryCounts. inside: (row, col), the pixels that count."""
        counts = []
        for codes in (self.mapped, self.truth):
            on_edge = codes < 2 * self.classes
            if inside is not None:
                on_edge &= inside
            found = np.bincount(codes[on_edge], minlength=2 * self.classes).reshape(-1, 2)
            counts += [found.sum(axis=1), found[:, 1]]
        return np.array(counts, np.int64)

    def crop(self, part: tuple[slice, slice]) -> Boundaries:
        """A part of the window."""
        return Boundaries(self.classes, self.truth[part], self.mapped[part])


def find_boundaries(truth: Channels, mapped: Channels, classes: int, tolerance_px: int) -> Boundaries:
    """The boundary pixels of labels and map, and which of them have one of the same class within reach.

    truth, mapped: (row, col) uint8, positions in the legend, 255 where there is none. Only pixels that have a
    class on both sides are looked at: a boundary pixel is one of them of which one of the four neighbors is
    one, too, and has another class. tolerance_px: from center to center, Euclidean. What lies within
    tolerance_px + HALO_PX of the array's sides is right only where these are the raster's.
    """
    scored = (truth != NODATA) & (mapped != NODATA)
    t, m = (np.where(_on_edge(side, scored), side, np.uint8(NODATA)) for side in (truth, mapped))
    return Boundaries(classes, _codes(t, m, classes, tolerance_px), _codes(m, t, classes, tolerance_px))


def _codes(own: Channels, other: Channels, classes: int, tolerance_px: int) -> npt.NDArray[np.uint16]:
    table = np.arange(0, 512, 2, dtype=np.uint16)
    table[NODATA] = 2 * classes
    return table[own] + _matched(own, other, classes, tolerance_px)


def _on_edge(channel: Channels, scored: Bools) -> Bools:
    found = np.zeros(channel.shape, np.bool_)
    for a, b in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        differs = (channel[a] != channel[b]) & scored[a] & scored[b]
        found[a] |= differs
        found[b] |= differs
    return found


def _matched(own: Channels, other: Channels, classes: int, tolerance_px: int) -> Bools:
    """Which pixels of `own` have one of the same class in `other` within reach. Eight classes at a time, as bits."""
    found = np.zeros(own.shape, np.bool_)
    for first in range(0, classes, 8):
        bit = np.zeros(256, np.uint8)
        group = np.arange(first, min(first + 8, classes))
        bit[group] = 1 << (group - first)
        found |= (spread(bit[other], tolerance_px) & bit[own]) != 0
    return found


def spread(bits: npt.NDArray[np.uint8], radius_px: int) -> npt.NDArray[np.uint8]:
    """Each pixel's bits or-ed over a disk: (row, col) uint8; centers at most radius_px apart, Euclidean."""
    near = np.zeros_like(bits)
    runs, half = bits.copy(), 0
    for down in range(radius_px, -1, -1):
        reach = isqrt(radius_px**2 - down**2)
        for step in range(half + 1, min(reach, bits.shape[1] - 1) + 1):
            runs[:, step:] |= bits[:, :-step]
            runs[:, :-step] |= bits[:, step:]
        half = max(half, reach)
        if down == 0:
            near |= runs
        elif down < len(bits):
            near[down:] |= runs[:-down]
            near[:-down] |= runs[down:]
    return near


def _shares(parts: tuple[int, ...], wholes: tuple[int, ...]) -> tuple[float | None, ...]:
    return tuple(part / whole if whole else None for part, whole in zip(parts, wholes, strict=True))


def _f1(precision: float | None, recall: float | None) -> float | None:
    if precision is None or recall is None:
        return 0.0 if 0 in (precision, recall) else None
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
