"""Objects of two class rasters, and how they match: pixels of one class that share sides.

An object may lie in many windows. Each window tells of its parts, in numbers; parts that meet at the sides of
windows are joined, and what is counted of parts adds up to what is counted of whole objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from geoseg.grid.window import Window
from geoseg.legend import NODATA
from geoseg.pixels.seams import Groups

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Side = tuple[str, int, int]

RECALLS = np.linspace(0, 1, 101)
NO_INTS = np.zeros(0, np.int64)


@dataclass(frozen=True, eq=False)
class Parts:
    """The parts of objects in one window; numbers start at 1, 0 is none.

    first: (part,), row * width + column of the first pixel, in the raster. counts: (4, part): pixels, those that
    are labelled and mapped, those with a confidence, and the sum of these confidences in percent. sides: numbers
    along the upper, lower, left and right side of the window. regions: (3, entry), region, part, pixels inside.
    """

    first: Ints
    counts: Ints
    sides: tuple[Ints, Ints, Ints, Ints]
    regions: Ints


@dataclass(frozen=True, eq=False)
class WindowParts:
    """The parts of labelled and of mapped objects in a window, and (3, entry): pairs of them, pixels in both."""

    window: Window
    truth: Parts
    mapped: Parts
    pairs: Ints


def find_parts(
    truth: Bools, mapped: Bools, scored: Bools, percent: npt.NDArray[np.uint8] | None, window: Window, width: int,
    regions: Sequence[tuple[int, tuple[slice, slice], Bools]],
) -> WindowParts:  # fmt: skip
    """The parts of objects of a class in a window, all arrays (row, col).

    scored: labelled and mapped. percent: 255 where unknown. width: of the raster. regions: number of each, the
    part of the window that it may lie in, and its pixels there.
    """
    numbers = [ndimage.label(side)[0] for side in (truth, mapped)]
    both = truth & mapped
    size = int(numbers[1].max(initial=0)) + 1
    key, count = np.unique(numbers[0][both].astype(np.int64) * size + numbers[1][both], return_counts=True)
    t, m = (_parts(number, scored, percent, window, width, regions) for number in numbers)
    return WindowParts(window, t, m, np.stack([key // size, key % size, count]).astype(np.int64))


def _parts(
    number: npt.NDArray[np.int32], scored: Bools, percent: npt.NDArray[np.uint8] | None, window: Window, width: int,
    regions: Sequence[tuple[int, tuple[slice, slice], Bools]],
) -> Parts:  # fmt: skip
    size = int(number.max(initial=0)) + 1
    at = np.flatnonzero(number)
    owner = number.ravel()[at]
    first = np.zeros(size, np.int64)
    first[owner[::-1]] = at[::-1]  # of several, the last that is assigned stays
    row, col = np.divmod(first[1:], window.width)
    inside = []
    for index, part, mask in regions:
        pixels = np.bincount(number[part][mask & (number[part] > 0)], minlength=size)
        occurring = np.flatnonzero(pixels[1:]) + 1
        inside.append(np.stack([np.full(len(occurring), index), occurring, pixels[occurring]]))
    chosen = [owner, owner[scored.ravel()[at]]]
    known, values = owner[:0], np.zeros(0)
    if percent is not None:
        here = percent.ravel()[at]
        known, values = owner[here != NODATA], here[here != NODATA].astype(np.float64)
    sums = [np.bincount(one, minlength=size) for one in (*chosen, known)]
    sums.append(np.bincount(known, values, minlength=size).astype(np.int64))
    counts = np.stack(sums)
    return Parts(
        (row + window.row) * width + col + window.col,
        counts[:, 1:],
        tuple(side.astype(np.int64) for side in (number[0], number[-1], number[:, 0], number[:, -1])),  # type: ignore[arg-type]
        np.concatenate([np.zeros((3, 0), np.int64), *inside], axis=1).astype(np.int64),
    )


class PartJoiner:
    """Joins the parts of windows, which may come in any order, to objects."""

    def __init__(self) -> None:
        self._truth, self._mapped = _Side(), _Side()
        self._pairs: list[Ints] = []

    def add(self, parts: WindowParts) -> None:
        pairs = parts.pairs.copy()
        pairs[0] += self._truth.add(parts.truth, parts.window)
        pairs[1] += self._mapped.add(parts.mapped, parts.window)
        self._pairs.append(pairs)

    def result(self) -> Objects:
        truth, truth_at = self._truth.result()
        mapped, mapped_at = self._mapped.result()
        pairs = np.concatenate([np.zeros((3, 0), np.int64), *self._pairs], axis=1)
        return Objects(truth, mapped, _summed(truth_at[pairs[0]], mapped_at[pairs[1]], pairs[2]))


class _Side:
    """The parts on one side of the comparison; numbered from 0."""

    def __init__(self) -> None:
        self._groups = Groups()
        self._open: dict[Side, Ints] = {}
        self._parts: list[Parts] = []
        self._regions: list[Ints] = []
        self._used = 0

    def add(self, parts: Parts, window: Window) -> int:
        """Returns what is to be added to the window's own numbers."""
        shift = self._used - 1
        self._used += len(parts.first)
        upper, lower, left, right = parts.sides
        self._meet(("row", window.row, window.col), upper, shift)
        self._meet(("row", window.row_end, window.col), lower, shift)
        self._meet(("col", window.col, window.row), left, shift)
        self._meet(("col", window.col_end, window.row), right, shift)
        regions = parts.regions.copy()
        regions[1] += shift
        self._regions.append(regions)
        self._parts.append(parts)
        return shift

    def _meet(self, side: Side, numbers: Ints, shift: int) -> None:
        """Connect what lies on both sides of a line, once both are there."""
        numbers = np.where(numbers > 0, numbers + shift, -1)
        across = self._open.pop(side, None)
        if across is None:
            self._open[side] = numbers
            return
        touching = (numbers >= 0) & (across >= 0)
        for a, b in np.unique(np.stack([numbers[touching], across[touching]]), axis=1).T.tolist():
            self._groups.connect(a, b)

    def result(self) -> tuple[ObjectSet, Ints]:
        """The objects in scan order, and which of them each part belongs to."""
        roots = np.arange(self._used)
        for member in self._groups.members:
            roots[member] = self._groups.find(member)
        root, group = np.unique(roots, return_inverse=True)
        first = np.full(len(root), np.iinfo(np.int64).max)
        np.minimum.at(first, group, np.concatenate([NO_INTS, *(p.first for p in self._parts)]))
        order = np.argsort(first)
        group = np.argsort(order)[group]
        totals = np.zeros((4, len(root)), np.int64)
        every = np.concatenate([np.zeros((4, 0), np.int64), *(p.counts for p in self._parts)], axis=1)
        for total, values in zip(totals, every, strict=True):
            np.add.at(total, group, values)
        regions = np.concatenate([np.zeros((3, 0), np.int64), *self._regions], axis=1)
        pixels, scored, known, percents = totals
        found = ObjectSet(pixels, scored, known, percents, _summed(regions[0], group[regions[1]], regions[2]))
        return found, group


def _summed(a: Ints, b: Ints, counts: Ints) -> Ints:
    """(3, entry): each pair of numbers once, in order, with the sum of its counts."""
    pairs, place = np.unique(np.stack([a, b]), axis=1, return_inverse=True)
    total = np.zeros(pairs.shape[1], np.int64)
    np.add.at(total, place.ravel(), counts)
    return np.concatenate([pairs, total[None]])


@dataclass(frozen=True, eq=False)
class ObjectSet:
    """Whole objects in scan order of their first pixels: (object,) each.

    pixels; scored: those of them that are labelled and mapped; known, percents: those with a confidence, and the
    sum of these. regions: (3, entry), region, object, pixels inside.
    """

    pixels: Ints
    scored: Ints
    known: Ints
    percents: Ints
    regions: Ints

    @property
    def confidence(self) -> Floats:
        """Mean percent; -1 where unknown."""
        return np.where(self.known > 0, self.percents / np.maximum(self.known, 1), -1.0)

    def within(self, region: int | None) -> Bools:
        """The objects of which more than half lies in a region; all without one."""
        if region is None:
            return np.ones(len(self.pixels), np.bool_)
        found = np.zeros(len(self.pixels), np.bool_)
        _, member, inside = self.regions[:, self.regions[0] == region]
        found[member] = 2 * inside > self.pixels[member]
        return found


@dataclass(frozen=True)
class ObjectScore:
    """How objects match one to one.

    truth, mapped: objects; matched: pairs with an IoU above 0.5; iou_sum: of these pairs. ap50, ap75: average
    precision at an IoU of 0.5 and 0.75; None without labelled objects, or without a confidence.
    """

    truth: int
    mapped: int
    matched: int
    iou_sum: float
    ap50: float | None
    ap75: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values; panoptic quality as in Kirillov et al. (2019), for one class."""
        both = self.truth + self.mapped
        return {
            "truth": self.truth,
            "mapped": self.mapped,
            "matched": self.matched,
            "precision": self.matched / self.mapped if self.mapped else None,
            "recall": self.matched / self.truth if self.truth else None,
            "f1": 2 * self.matched / both if both else None,
            "panoptic_quality": 2 * self.iou_sum / both if both else None,
            "mean_matched_iou": self.iou_sum / self.matched if self.matched else None,
            "ap50": self.ap50,
            "ap75": self.ap75,
        }


@dataclass(frozen=True, eq=False)
class Objects:
    """Labelled and mapped objects. pairs: (3, entry), labelled object, mapped object, pixels in both."""

    truth: ObjectSet
    mapped: ObjectSet
    pairs: Ints

    def score(self, region: int | None = None, ranked: bool = True) -> ObjectScore:
        """Scores of the whole raster, or of a region by its number.

        IoU looks at pixels that are labelled and mapped. An object of which at most half is, is left out unless it
        is matched. A matched pair lies in a region where its labelled object does. ranked: whether mapped objects
        have a confidence to be ranked by.
        """
        t, m, shared, union = self._overlaps()
        here = self.truth.within(region)
        matched = (2 * shared > union) & here[t]
        truth = _counted(self.truth, t[2 * shared > union]) & here
        mapped = _counted(self.mapped, m[2 * shared > union]) & self.mapped.within(region)
        mapped[m[2 * shared > union]] = False
        return ObjectScore(
            int(truth.sum()),
            int(mapped.sum()) + int(matched.sum()),
            int(matched.sum()),
            float((shared[matched] / union[matched]).sum()),
            self._average_precision(region, 1, 2) if ranked else None,
            self._average_precision(region, 3, 4) if ranked else None,
        )

    def _overlaps(self) -> tuple[Ints, Ints, Ints, Ints]:
        t, m, shared = self.pairs
        return t, m, shared, self.truth.scored[t] + self.mapped.scored[m] - shared

    def _average_precision(self, region: int | None, part: int, whole: int) -> float | None:
        """As COCO does: greedily by confidence, at an IoU of at least part / whole."""
        t, m, shared, union = self._overlaps()
        enough = whole * shared >= part * union
        t, m, iou = t[enough], m[enough], shared[enough] / union[enough]
        rank = self.mapped.confidence
        owner = np.full(len(self.mapped.pixels), -1, np.int64)
        taken = np.zeros(len(self.truth.pixels), np.bool_)
        for n in np.lexsort((t, -iou, m, -rank[m])).tolist():
            if owner[m[n]] < 0 and not taken[t[n]]:
                owner[m[n]], taken[t[n]] = t[n], True
        hit = owner >= 0
        here = self.truth.within(region)
        truth = _counted(self.truth, np.flatnonzero(taken)) & here
        listed = np.where(
            hit,
            np.append(here, False)[owner],
            _counted(self.mapped, np.flatnonzero(hit)) & self.mapped.within(region),
        )
        order = np.argsort(-rank, kind="stable")
        return average_precision(hit[order][listed[order]], int(truth.sum()))


def average_precision(hit: Bools, truth: int) -> float | None:
    """Mean of the interpolated precision at 101 levels of recall (COCO); None without labelled objects.

    hit: (object,), whether each mapped object is right, from the surest to the least sure.
    """
    if not truth:
        return None
    right = np.cumsum(hit)
    recall, precision = right / truth, right / np.arange(1, len(hit) + 1)
    best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return float(best[np.searchsorted(recall, RECALLS, side="left")].mean())


def _counted(objects: ObjectSet, matched: Ints) -> Bools:
    found = 2 * objects.scored > objects.pixels
    found[matched] = True
    return found
