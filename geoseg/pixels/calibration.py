"""Whether a confidence keeps its promise: how many of the pixels with 80 percent are right?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geoseg.errors import SourceError
from geoseg.legend import NODATA
from geoseg.pixels.labels import count_values

Ints = npt.NDArray[np.int64]
PERCENTS = 101


@dataclass(frozen=True)
class Calibration:
    """Pixels that are labelled, mapped and have a confidence, by whole percent from 0 to 100.

    pixels, correct: (101,), all of them, and those that got their class.
    """

    pixels: tuple[int, ...]
    correct: tuple[int, ...]

    @classmethod
    def of(cls, counts: Ints) -> Calibration:
        """counts: (2, 101), in the order of the fields."""
        return cls(*(tuple(row) for row in counts.tolist()))

    @property
    def total(self) -> int:
        return sum(self.pixels)

    @property
    def mean_confidence(self) -> float | None:
        """Mean confidence as a share; None without pixels."""
        return sum(p * n for p, n in enumerate(self.pixels)) / (100 * self.total) if self.total else None

    @property
    def accuracy(self) -> float | None:
        """Share of these pixels that got their class."""
        return sum(self.correct) / self.total if self.total else None

    @property
    def expected_error(self) -> float | None:
        """Expected calibration error (Naeini et al. 2015): how far confidence and accuracy lie apart, on average
        over pixels, in bins of one percent. A share from 0 to 1; None without pixels."""
        if not self.total:
            return None
        # Whole numbers until the end: |correct - pixels * percent / 100| of each bin, times 100.
        apart = sum(
            abs(100 * c - n * p) for p, (n, c) in enumerate(zip(self.pixels, self.correct, strict=True))
        )
        return apart / (100 * self.total)

    def curve(self) -> list[tuple[int, int, float]]:
        """The reliability curve: percent, pixels with this confidence, share of them that got their class."""
        both = zip(self.pixels, self.correct, strict=True)
        return [(percent, n, c / n) for percent, (n, c) in enumerate(both) if n]


def percent_codes(
    percent: npt.NDArray[np.uint8], right: np.ndarray, scored: np.ndarray
) -> npt.NDArray[np.uint8]:
    """Percent of pixels that did not get their class, 101 + percent of those that did, 255 for all others.

    percent: (row, col) uint8, 0 to 100, 255 where unknown. right, scored: (row, col) bool. Raises SourceError
    for other values.
    """
    known = np.where(scored, percent, np.uint8(NODATA))
    highest = int(known.max(where=known != NODATA, initial=0))
    if highest >= PERCENTS:
        raise SourceError(
            f"is no raster of whole percent: it holds {highest}, where 0 to 100 and {NODATA} are known"
        )
    known += np.where(right & (known != NODATA), np.uint8(PERCENTS), np.uint8(0))
    return known


def count_percents(codes: npt.NDArray[np.uint8]) -> Ints:
    """(2, 101): see Calibration. codes: see `percent_codes`."""
    wrong, right = count_values(codes)[: 2 * PERCENTS].reshape(2, PERCENTS)
    return np.stack([wrong + right, right])
