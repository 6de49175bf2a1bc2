"""Counts of pixel values per polygon: sums, so that pieces of a polygon add to the whole in any order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Tally:
    """How many pixels of each polygon have each value.

    owner: (entry,) int64, a polygon's position. value: (entry,) 0..255. count: (entry,), above zero.
    Sorted by owner, then value; each pair occurs once. Polygons without a counted pixel have no entry.
    """

    owner: Ints
    value: Ints
    count: Ints

    @classmethod
    def of(cls, owner: npt.ArrayLike, value: npt.ArrayLike, count: npt.ArrayLike | None = None) -> Tally:
        """Add up pixels, or entries that may repeat."""
        key = np.asarray(owner, np.int64) * 256 + np.asarray(value, np.int64)
        if count is None:
            keys, counts = np.unique(key, return_counts=True)
        else:
            keys, place = np.unique(key, return_inverse=True)
            counts = np.zeros(len(keys), np.int64)
            np.add.at(counts, place, np.asarray(count, np.int64))
        return cls(keys // 256, keys % 256, counts.astype(np.int64))

    @classmethod
    def concat(cls, parts: Iterable[tuple[Tally, int]]) -> Tally:
        """The tallies of some lists of polygons, one list behind the other; each with the length of its list."""
        owners, values, counts, used = [NONE.owner], [NONE.value], [NONE.count], 0
        for tally, polygons in parts:
            owners.append(tally.owner + used)
            values.append(tally.value)
            counts.append(tally.count)
            used += polygons
        return cls(np.concatenate(owners), np.concatenate(values), np.concatenate(counts))

    def take(self, polygons: Ints) -> Tally:
        """Of some polygons, which are numbered anew in the order given."""
        if not len(self.owner):
            return NONE
        start = np.searchsorted(self.owner, polygons)
        length = np.searchsorted(self.owner, polygons, side="right") - start
        ends = np.cumsum(length, dtype=np.int64)
        entries = np.repeat(start - (ends - length), length) + np.arange(ends[-1] if len(ends) else 0)
        return Tally(np.repeat(np.arange(len(polygons)), length), self.value[entries], self.count[entries])

    def regroup(self, group: Ints) -> Tally:
        """Of groups of polygons. group: (polygon,), the position of each polygon's group."""
        return Tally.of(group[self.owner], self.value, self.count)

    def means(self, polygons: int) -> npt.NDArray[np.float64]:
        """Mean value of each polygon's pixels: (polygon,); NaN without any."""
        total = np.bincount(self.owner, self.value * self.count, minlength=polygons)
        pixels = np.bincount(self.owner, self.count, minlength=polygons)
        means: npt.NDArray[np.float64] = np.full(polygons, np.nan)
        np.divide(total, pixels, out=means, where=pixels > 0)
        return means

    def percentiles(self, polygons: int, percent: int) -> npt.NDArray[np.float64]:
        """The lowest value that at least `percent` of a polygon's pixels do not exceed: (polygon,); NaN without any.

        This is numpy's `inverted_cdf`.
        """
        found = np.full(polygons, np.nan)
        if not len(self.owner):
            return found
        first = np.flatnonzero(np.diff(self.owner, prepend=-1))
        length = np.diff(first, append=len(self.owner))
        total = np.add.reduceat(self.count, first)
        before = np.cumsum(self.count)[first] - self.count[first]
        running = np.cumsum(self.count) - np.repeat(before, length)
        enough = np.flatnonzero(100 * running >= percent * np.repeat(total, length))
        owners, at = np.unique(self.owner[enough], return_index=True)
        found[owners] = self.value[enough[at]]
        return found


NONE = Tally(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64))
