"""Confusion matrices, and the scores taken from them.

Counts are sums: they add over windows, regions and workers in any order. Ratios do not, so they are taken
from the final counts only.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from geoseg.errors import SourceError, SpecError
from geoseg.legend import NODATA, Legend


@dataclass(frozen=True, eq=False)
class ConfusionMatrix:
    """How often each labelled class was mapped to each class.

    counts: (class, class + 1) int64; rows are the labelled classes and columns the mapped classes, both in
    legend order; the last column counts labelled pixels that the map leaves without an answer (nodata). The
    intersection over union of a class is TP / (TP + FP + FN). It is None where the class occurs neither in
    the labels nor in the map; such a class is left out of the mean. The plain scores look at mapped pixels
    only, as scikit-learn's and torchmetrics' do; the strict ones count an unmapped labelled pixel as a miss
    (FN) of its class.
    """

    legend: Legend
    counts: np.ndarray

    def __post_init__(self) -> None:
        size = len(self.legend.classes)
        counts = np.asarray(self.counts)
        if counts.shape != (size, size + 1) or counts.dtype.kind not in "iu" or (counts < 0).any():
            raise SpecError(
                f"a confusion matrix of {size} classes has {size} x {size + 1} whole counts from 0, "
                f"got {counts.shape} of {counts.dtype}"
            )
        counts = counts.astype(np.int64)
        counts.flags.writeable = False
        object.__setattr__(self, "counts", counts)

    @classmethod
    def zero(cls, legend: Legend) -> ConfusionMatrix:
        size = len(legend.classes)
        return cls(legend, np.zeros((size, size + 1), np.int64))

    @classmethod
    def count(
        cls, labels: np.ndarray, prediction: np.ndarray, legend: Legend, ignore: Collection[int] = ()
    ) -> ConfusionMatrix:
        """Compare two uint8 arrays of one shape, pixel by pixel.

        ignore: label values that are not scored, such as the label raster's nodata value; it wins over the
        legend. 255 is never scored, nor is 0 where 0 is no class. Any other label outside the legend raises
        SourceError, and so does a prediction that is neither a class nor 255; `facts["side"]` says which
        array was wrong.
        """
        if labels.shape != prediction.shape or labels.dtype != np.uint8 or prediction.dtype != np.uint8:
            raise SpecError(
                f"labels and prediction must be uint8 of one shape, got {labels.shape} of {labels.dtype} "
                f"and {prediction.shape} of {prediction.dtype}"
            )
        pairs = np.left_shift(labels, 8, dtype=np.uint16) | prediction
        joint = np.bincount(pairs.ravel(), minlength=256 * 256).reshape(256, 256)
        ids = list(legend.ids)
        _check_values(joint.sum(axis=1), {*ids, *ignore, 0, NODATA}, legend, "labels")
        _check_values(joint.sum(axis=0), {*ids, NODATA}, legend, "prediction")
        for value in ignore:
            joint[value] = 0
        return cls(legend, joint[np.ix_(ids, [*ids, NODATA])])

    def __add__(self, other: ConfusionMatrix) -> ConfusionMatrix:
        if self.legend != other.legend:
            raise SpecError(
                f"matrices of different legends do not add: {self.legend.names} and {other.legend.names}"
            )
        return ConfusionMatrix(self.legend, self.counts + other.counts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ConfusionMatrix):
            return NotImplemented
        return self.legend == other.legend and np.array_equal(self.counts, other.counts)

    def __hash__(self) -> int:
        return hash((self.legend, self.counts.tobytes()))

    @property
    def pixels(self) -> int:
        """Labelled and mapped pixels."""
        return int(self._mapped.sum())

    @property
    def unmapped(self) -> int:
        """Labelled pixels that the map leaves without an answer."""
        return int(self.counts[:, -1].sum())

    @property
    def accuracy(self) -> float | None:
        """Share of labelled and mapped pixels that got their class; None where there are none."""
        return _ratio(int(self._hits.sum()), self.pixels)

    @property
    def iou(self) -> tuple[float | None, ...]:
        """Intersection over union of each class, in legend order, over mapped pixels."""
        return self._iou(self._mapped.sum(axis=1))

    @property
    def miou(self) -> float | None:
        """Mean of `iou` over the classes that occur in labels or map; None where none occurs."""
        return _mean(self.iou)

    @property
    def strict_iou(self) -> tuple[float | None, ...]:
        """As `iou`, where unmapped labelled pixels are misses."""
        return self._iou(self.counts.sum(axis=1))

    @property
    def strict_miou(self) -> float | None:
        """Mean of `strict_iou` over the classes that occur in labels or map."""
        return _mean(self.strict_iou)

    @property
    def _mapped(self) -> np.ndarray:
        return self.counts[:, :-1]

    @property
    def _hits(self) -> np.ndarray:
        return np.diagonal(self._mapped)

    def _iou(self, labelled: np.ndarray) -> tuple[float | None, ...]:
        union = labelled + self._mapped.sum(axis=0) - self._hits
        return tuple(_ratio(int(hits), int(total)) for hits, total in zip(self._hits, union, strict=True))


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _mean(values: tuple[float | None, ...]) -> float | None:
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None


def _check_values(found: np.ndarray, known: set[int], legend: Legend, side: str) -> None:
    """found: (256,) how often each value occurs."""
    unknown = [value for value in np.flatnonzero(found).tolist() if value not in known]
    if unknown:
        raise SourceError(
            f"{side} hold values that are no class: {', '.join(map(str, unknown))}; "
            f"the legend's ids are {', '.join(map(str, legend.ids))}",
            side=side,
        )
