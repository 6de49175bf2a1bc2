"""Roads as lines: completeness, correctness and quality of their center lines.

Method: Heipke et al. (1997), Wiedemann et al. (1998), with skeletons for lines. Every step looks a fixed number
of pixels far, so that the answer for a pixel does not depend on the window it was read in.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from geoseg.pixels.boundaries import spread

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

ROUNDS = 32
"""Each takes a layer of pixels off both sides: surfaces wider than twice this are no lines."""
SPUR_PX = 8
"""Branches of at most this length are taken for noise of the outline, and lines of at most twice this, too."""
HALO_PX = 2 * ROUNDS + 2 * SPUR_PX + 8
"""How far a line pixel depends on what is around it."""

NEIGHBORS = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))
"""Clockwise from the north, as bits from the lowest."""


def center_lines(mask: Bools) -> Bools:
    """The center lines of a mask, one pixel wide and 8-connected: (row, col) bool.

    Right wherever HALO_PX of what surrounds a pixel in the raster is in the array. What is wider than
    2 * ROUNDS pixels has no line.
    """
    thinned = _thin(mask)
    wide = _codes(thinned) == 255
    wide &= thinned
    thinned &= ~_dilate(_dilate(wide))
    return _prune(thinned)


@dataclass(frozen=True, eq=False)
class Lines:
    """The lines of one side in a window: links of each of their pixels to neighbors that share a side and to
    diagonal ones, 0 elsewhere, (row, col) uint8; and which pixels lie near the other side's lines."""

    straight: npt.NDArray[np.uint8]
    diagonal: npt.NDArray[np.uint8]
    near: Bools

    def count(self, part: tuple[slice, slice], inside: Bools) -> Ints:
        """(4,): straight and diagonal links, then the same of pixels that are near; from both ends of each link.

        inside: the pixels that count, of a part of the window.
        """
        links = [np.where(inside, kind[part], np.uint8(0)) for kind in (self.straight, self.diagonal)]
        matched = [np.where(self.near[part], kind, np.uint8(0)) for kind in links]
        return np.array([kind.sum(dtype=np.int64) for kind in (*links, *matched)], np.int64)

    def crop(self, part: tuple[slice, slice]) -> Lines:
        """A part of the window."""
        return Lines(self.straight[part], self.diagonal[part], self.near[part])


def find_lines(truth: Bools, mapped: Bools, tolerance_px: int) -> tuple[Lines, Lines]:
    """The lines of two masks (row, col): right where HALO_PX + tolerance_px of what surrounds a pixel is there."""
    own, other = center_lines(truth), center_lines(mapped)
    return _lines(own, other, tolerance_px), _lines(other, own, tolerance_px)


def _lines(own: Bools, other: Bools, tolerance_px: int) -> Lines:
    codes = _codes(own)
    straight, diagonal = (np.where(own, table[codes], np.uint8(0)) for table in _links())
    return Lines(straight, diagonal, spread(other.view(np.uint8), tolerance_px) != 0)


@dataclass(frozen=True)
class RoadScore:
    """Lengths of lines in pixels: of the labels, of the map, and what of each lies near the other."""

    truth: float
    truth_matched: float
    mapped: float
    mapped_matched: float

    @classmethod
    def of(cls, counts: Ints) -> RoadScore:
        """counts: (2, 4), see `Lines.count`, of the labels and of the map."""
        lengths = [(s / 2 + d / 2 * sqrt(2), ms / 2 + md / 2 * sqrt(2)) for s, d, ms, md in counts.tolist()]
        return cls(*lengths[0], *lengths[1])

    def to_dict(self) -> dict[str, Any]:
        """Plain values; quality is matched length of the map over all of it and what is missing."""
        whole = self.mapped + self.truth - self.truth_matched
        return {
            "truth_px": self.truth,
            "mapped_px": self.mapped,
            "completeness": self.truth_matched / self.truth if self.truth else None,
            "correctness": self.mapped_matched / self.mapped if self.mapped else None,
            "quality": self.mapped_matched / whole if whole else None,
        }


def _thin(mask: Bools) -> Bools:
    """Guo and Hall (1989), parallel thinning with two subiterations, ROUNDS times."""
    padded = np.pad(mask, 1)
    flat = padded.ravel()
    steps = _steps(padded.shape[1])
    at = np.flatnonzero(flat)
    for _ in range(ROUNDS):
        before = len(at)
        for table in _deletable():
            gone = table[_codes_at(flat, at, steps)]
            flat[at[gone]] = False
            at = at[~gone]
        if len(at) == before:
            break
    return padded[1:-1, 1:-1].copy()


def _steps(width: int) -> Ints:
    """From a pixel to its neighbors, in an array of some width as one line."""
    return np.array([row * width + col for row, col in NEIGHBORS])


def _codes_at(flat: Bools, at: Ints, steps: Ints) -> npt.NDArray[np.uint8]:
    """Which neighbors of some pixels are set, as bits: (pixel,). flat: a padded array as one line."""
    codes = np.zeros(len(at), np.uint8)
    for bit, step in enumerate(steps.tolist()):
        codes |= flat[at + step].view(np.uint8) << np.uint8(bit)
    return codes


@lru_cache(maxsize=1)
def _deletable() -> tuple[Bools, Bools]:
    """For each neighborhood, whether its center goes, in either subiteration: (256,)."""
    n, ne, e, se, s, sw, w, nw = ((np.arange(256) >> bit & 1).astype(np.bool_) for bit in range(8))
    crossings = (
        (~n & (ne | e)).astype(int) + (~e & (se | s)).astype(int) + (~s & (sw | w)).astype(int)
        + (~w & (nw | n)).astype(int)
    )  # fmt: skip
    one = sum((a | b).astype(int) for a, b in ((nw, n), (ne, e), (se, s), (sw, w)))
    two = sum((a | b).astype(int) for a, b in ((n, ne), (e, se), (s, sw), (w, nw)))
    least = np.minimum(one, two)
    simple = (crossings == 1) & (least >= 2) & (least <= 3)
    return simple & ~((s | sw | ~nw) & w), simple & ~((n | ne | ~se) & e)


def _prune(lines: Bools) -> Bools:
    """Lines without short branches: ends are taken off SPUR_PX times, and what is left grows back to its ends."""
    padded = np.pad(lines, 1)
    whole, steps = padded.ravel(), _steps(padded.shape[1])
    cut, at = whole.copy(), np.flatnonzero(whole)
    is_end = np.bitwise_count(np.arange(256, dtype=np.uint8)) <= 1
    for _ in range(SPUR_PX):
        ends = is_end[_codes_at(cut, at, steps)]
        cut[at[ends]] = False
        at = at[~ends]
    tips = at[is_end[_codes_at(cut, at, steps)]]
    grown = np.zeros_like(cut)
    for _ in range(SPUR_PX):
        grown[tips] = True
        near = (tips[:, None] + steps).ravel()
        tips = np.unique(near[whole[near] & ~grown[near]])
    grown[tips] = True
    return (cut | grown).reshape(padded.shape)[1:-1, 1:-1]


def _dilate(mask: Bools) -> Bools:
    found: Bools = (_codes(mask) != 0) | mask
    return found


def _codes(mask: Bools) -> npt.NDArray[np.uint8]:
    """Which of a pixel's neighbors are set, as bits: (row, col)."""
    padded = np.pad(mask, 1).view(np.uint8)
    height, width = mask.shape
    codes = np.zeros(mask.shape, np.uint8)
    for bit, (row, col) in enumerate(NEIGHBORS):
        codes |= padded[1 + row : 1 + row + height, 1 + col : 1 + col + width] << np.uint8(bit)
    return codes


@lru_cache(maxsize=1)
def _links() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Links of each neighborhood: to those that share a side, and to corners that no shared neighbor leads to."""
    bits = [(np.arange(256) >> bit & 1).astype(np.bool_) for bit in range(8)]
    straight = [bits[k] for k in (0, 2, 4, 6)]
    diagonal = [bits[k] & ~bits[k - 1] & ~bits[(k + 1) % 8] for k in (1, 3, 5, 7)]
    return np.sum(straight, axis=0, dtype=np.uint8), np.sum(diagonal, axis=0, dtype=np.uint8)
