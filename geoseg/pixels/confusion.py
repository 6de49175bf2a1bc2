"""Confusion matrices, and the scores taken from them.

Counts are sums: they add over windows, regions and workers in any order. Ratios do not, so they are taken
from the final counts only.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from geoseg.errors import SourceError, SpecError
from geoseg.legend import NODATA, Legend
from geoseg.pixels.labels import count_values

PER_CLASS = ("iou", "dice", "precision", "recall")
OVER_ALL = ("accuracy", "miou", "mean_dice", "mean_accuracy", "frequency_weighted_iou", "kappa")


def figures(
    hits: npt.NDArray[np.float64], truth: npt.NDArray[np.float64], mapped: npt.NDArray[np.float64]
) -> dict[str, npt.NDArray[np.float64]]:
    """Scores of one or many samples of pixels that are both labelled and mapped; NaN where undefined.

    hits, truth, mapped: (..., class), pixels of a class in both, in the labels, in the map. Returns PER_CLASS,
    (..., class), and OVER_ALL, (...,):
    iou, dice (F1), precision and recall of each class. miou, mean_dice: means over the classes that occur on
    either side. mean_accuracy: mean recall of the classes that are labelled (balanced accuracy).
    frequency_weighted_iou: mean IoU weighted by labelled pixels. kappa: Cohen (1960); undefined where both
    sides hold one and the same class only.
    """
    total = truth.sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = {
            "iou": hits / (truth + mapped - hits),
            "dice": 2 * hits / (truth + mapped),
            "precision": hits / mapped,
            "recall": hits / truth,
            "accuracy": hits.sum(axis=-1) / total,
        }
        found["miou"] = mean_defined(found["iou"])
        found["mean_dice"] = mean_defined(found["dice"])
        found["mean_accuracy"] = mean_defined(found["recall"])
        found["frequency_weighted_iou"] = np.nansum(truth * found["iou"], axis=-1) / total
        chance = (truth / total[..., None] * (mapped / total[..., None])).sum(axis=-1)
        one_class = (truth > 0).sum(axis=-1) + (mapped > 0).sum(axis=-1) == 2
        agreed = one_class & (hits.sum(axis=-1) == total)
        found["kappa"] = np.where(agreed, np.nan, (found["accuracy"] - chance) / (1 - chance))
    return found


def mean_defined(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean over the last axis of what is not NaN; NaN where nothing is."""
    with np.errstate(invalid="ignore"):
        means: npt.NDArray[np.float64] = np.nansum(values, axis=-1) / (~np.isnan(values)).sum(axis=-1)
    return means


def pair_codes(
    labels: np.ndarray, prediction: np.ndarray, legend: Legend, ignore: Collection[int] = ()
) -> npt.NDArray[np.uint16]:
    """Which cell of the confusion matrix each pixel belongs to, row by row; class * (class + 1) for none.

    Takes and raises what `ConfusionMatrix.count` does.
    """
    if labels.shape != prediction.shape or labels.dtype != np.uint8 or prediction.dtype != np.uint8:
        raise SpecError(
            f"labels and prediction must be uint8 of one shape, got {labels.shape} of {labels.dtype} "
            f"and {prediction.shape} of {prediction.dtype}"
        )
    _check_values(labels, {*legend.ids, *ignore, 0, NODATA}, legend, "labels")
    _check_values(prediction, {*legend.ids, NODATA}, legend, "prediction")
    row = channels(legend, ignore)[labels].astype(np.uint16)
    col = channels(legend)[prediction].astype(np.uint16)
    size = len(legend.classes)
    col[col == NODATA] = size
    codes: npt.NDArray[np.uint16] = np.where(row == NODATA, size * (size + 1), row * (size + 1) + col)
    return codes.astype(np.uint16, copy=False)


def channels(legend: Legend, ignore: Collection[int] = ()) -> npt.NDArray[np.uint8]:
    """The position in the legend of each value from 0 to 255: (256,) uint8; 255 for what is no class."""
    table = np.full(256, NODATA, np.uint8)
    table[list(legend.ids)] = np.arange(len(legend.classes))
    table[list(ignore)] = NODATA
    return table


@dataclass(frozen=True, eq=False)
class ConfusionMatrix:
    """How often each labelled class was mapped to each class.

    counts: (class, class + 1) int64; rows are the labelled classes and columns the mapped classes, both in
    legend order; the last column counts labelled pixels that the map leaves without an answer (nodata). The
    intersection over union of a class is TP / (TP + FP + FN). It is None where the class occurs neither in
    the labels nor in the map; such a class is left out of the mean. The plain scores look at mapped pixels
    only, as scikit-learn's and torchmetrics' do; the strict ones count an unmapped labelled pixel as a miss
    (FN) of its class. Any score is None where it is undefined: see `figures`.
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
        size = len(legend.classes)
        codes = pair_codes(labels, prediction, legend, ignore)
        counts = np.bincount(codes.ravel(), minlength=size * (size + 1) + 1)[:-1]
        return cls(legend, counts.reshape(size, size + 1))

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
    def support(self) -> tuple[int, ...]:
        """Labelled and mapped pixels of each class, in legend order."""
        return tuple(self._mapped.sum(axis=1).tolist())

    @property
    def absent(self) -> tuple[str, ...]:
        """The classes that occur neither in the labels nor in the map."""
        return tuple(n for n, iou in zip(self.legend.names, self.iou, strict=True) if iou is None)

    def supported(self, least: int) -> tuple[bool, ...]:
        """Which classes have at least `least` (and any) labelled and mapped pixels."""
        return tuple(pixels >= max(1, least) for pixels in self.support)

    def per_class(self, name: str) -> tuple[float | None, ...]:
        """One of PER_CLASS, in legend order."""
        return tuple(map(_known, self._figures[name].tolist()))

    def over_all(self, name: str) -> float | None:
        """One of OVER_ALL."""
        return _known(float(self._figures[name]))

    def mean(self, name: str, chosen: Sequence[bool]) -> float | None:
        """The mean of one of PER_CLASS over some classes, those without a score left out."""
        return _known(float(mean_defined(self._figures[name][np.asarray(chosen, np.bool_)])))

    @property
    def accuracy(self) -> float | None:
        """Share of labelled and mapped pixels that got their class; None where there are none."""
        return self.over_all("accuracy")

    @property
    def iou(self) -> tuple[float | None, ...]:
        """Intersection over union of each class, in legend order, over mapped pixels."""
        return self.per_class("iou")

    @property
    def miou(self) -> float | None:
        """Mean of `iou` over the classes that occur in labels or map; None where none occurs."""
        return self.over_all("miou")

    @property
    def strict_iou(self) -> tuple[float | None, ...]:
        """As `iou`, where unmapped labelled pixels are misses."""
        return tuple(map(_known, self._strict["iou"].tolist()))

    @property
    def strict_miou(self) -> float | None:
        """Mean of `strict_iou` over the classes that occur in labels or map."""
        return _known(float(self._strict["miou"]))

    @property
    def _mapped(self) -> np.ndarray:
        return self.counts[:, :-1]

    @cached_property
    def _figures(self) -> dict[str, npt.NDArray[np.float64]]:
        return self._scored(self._mapped.sum(axis=1))

    @cached_property
    def _strict(self) -> dict[str, npt.NDArray[np.float64]]:
        return self._scored(self.counts.sum(axis=1))

    def _scored(self, truth: np.ndarray) -> dict[str, npt.NDArray[np.float64]]:
        hits, mapped = np.diagonal(self._mapped), self._mapped.sum(axis=0)
        return figures(hits.astype(np.float64), truth.astype(np.float64), mapped.astype(np.float64))


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value


def _check_values(values: np.ndarray, known: set[int], legend: Legend, side: str) -> None:
    unknown = [value for value in np.flatnonzero(count_values(values)).tolist() if value not in known]
    if unknown:
        raise SourceError(
            f"{side} hold values that are no class: {', '.join(map(str, unknown))}; "
            f"the legend's ids are {', '.join(map(str, legend.ids))}",
            side=side,
        )
