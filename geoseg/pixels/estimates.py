"""Areas adjusted for the errors of a map, with their uncertainty.

Counting a map's pixels gives a biased area wherever one class is taken for another more often than the reverse.
A sample of places whose true class is known tells how often; the estimator below puts that right and says how
sure it is. It is the stratified (or poststratified) one of Olofsson et al. (2014), Good practices for estimating
area and assessing accuracy of land change, Remote Sensing of Environment 148: 42-57, whose equations are named.

The standard errors hold for a probability sample of independent places. Labelled pixels of a test region are
neither: they lie where somebody drew them, and a pixel's neighbors tell little that it does not tell itself. The
estimates stand to the extent that the labelled places resemble the rest; the intervals are too narrow, and the true
sample size is nearer to the number of separately labelled places than to the number of pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from geoseg.errors import SpecError

Z95 = 1.96
"""Half of a 95 % confidence interval, in standard errors; the rounded value of the paper."""
MIN_SAMPLE = 2
"""A stratum's variance takes two places or more."""

Values = tuple[float | None, ...]


@dataclass(frozen=True)
class AreaEstimates:
    """What a sample says of a map, per class in the order of the map's classes; standard errors end in _se.

    area: true area of each class, in the unit of the mapped areas. users: share of what is mapped as a class that is
    that class; producers: share of a class that is mapped as such; overall: share of the area that is mapped right.
    All shares are weighted by mapped area, in 0..1, and None where a class does not occur.
    """

    area: tuple[float, ...]
    area_se: tuple[float, ...]
    users: Values
    users_se: Values
    producers: Values
    producers_se: Values
    overall: float
    overall_se: float

    @property
    def area_ci95(self) -> tuple[float, ...]:
        """Half of each area's 95 % confidence interval, in the unit of the areas."""
        return tuple(Z95 * se for se in self.area_se)


def adjusted_areas(counts: np.ndarray, mapped_area: np.ndarray) -> AreaEstimates:
    """Estimate the true area of each class, and the map's accuracies, from a sample stratified by mapped class.

    counts: (map class, reference class) whole numbers of sampled places; note that a `ConfusionMatrix` has the
    reference in its rows, so its counts are transposed first (see `map_by_reference`). mapped_area: (class,) area
    that the map gives to each class, from 0, in any unit. A class of no mapped area is no stratum: its row is left
    out of areas and of overall and producer's accuracy.
    Raises SpecError for other shapes or values, where nothing is mapped, or where a stratum has fewer than two
    sampled places (see `thin_strata`).
    """
    counts, mapped = _checked(counts, mapped_area)
    thin = thin_strata(counts, mapped)
    if thin:
        where = ", ".join(map(str, thin))
        raise SpecError(f"classes at {where} are mapped but have fewer than {MIN_SAMPLE} sampled places")
    if mapped.sum() <= 0:
        raise SpecError("no class has any mapped area")
    sampled = counts.sum(axis=1)
    strata = np.flatnonzero(mapped > 0)
    shares = counts[strata] / sampled[strata, None]  # n_ij / n_i., of strata only
    spread = shares * (1 - shares) / (sampled[strata, None] - 1)  # its variance
    weighted = mapped[strata, None] * shares
    area = weighted.sum(axis=0)  # eq. 9, times the total area
    area_se = np.sqrt((mapped[strata, None] ** 2 * spread).sum(axis=0))  # eqs. 10 and 11
    right = np.arange(len(strata)), strata
    total = mapped.sum()
    overall = weighted[right].sum() / total  # eq. 1
    overall_se = math.sqrt((mapped[strata] ** 2 * spread[right]).sum()) / total  # eq. 5
    producers, producers_se = _producers(mapped[strata], shares, spread, strata, area)
    users, users_se = _users(counts)
    return AreaEstimates(
        area=tuple(area.tolist()), area_se=tuple(area_se.tolist()),
        users=users, users_se=users_se, producers=producers, producers_se=producers_se,
        overall=float(overall), overall_se=float(overall_se),
    )  # fmt: skip


def thin_strata(counts: np.ndarray, mapped_area: np.ndarray) -> tuple[int, ...]:
    """Positions of the classes that are mapped somewhere but have too few sampled places for an estimate."""
    counts, mapped = _checked(counts, mapped_area)
    return tuple(np.flatnonzero((mapped > 0) & (counts.sum(axis=1) < MIN_SAMPLE)).tolist())


def map_by_reference(confusion: np.ndarray) -> np.ndarray:
    """The counts of a `ConfusionMatrix`, (reference class, map class + unmapped), as (map class, reference class).

    Places that the map leaves without an answer are in no stratum, and are left out.
    """
    return np.ascontiguousarray(confusion[:, :-1].T)


def _checked(counts: np.ndarray, mapped_area: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mapped = np.asarray(mapped_area, np.float64)
    counts = np.asarray(counts)
    if counts.dtype.kind not in "iu" or counts.shape != (mapped.size, mapped.size) or (counts < 0).any():
        raise SpecError(
            f"{mapped.size} mapped areas take {mapped.size} x {mapped.size} whole counts from 0, "
            f"got {counts.shape} of {counts.dtype}"
        )
    if not np.isfinite(mapped).all() or (mapped < 0).any():
        raise SpecError(f"mapped areas must be finite and not below 0, got {mapped.tolist()}")
    return counts.astype(np.int64), mapped


def _users(counts: np.ndarray) -> tuple[Values, Values]:
    """User's accuracy (eq. 2) and its standard error (eq. 6)."""
    shares: list[float | None] = []
    errors: list[float | None] = []
    for hits, n in zip(np.diagonal(counts).tolist(), counts.sum(axis=1).tolist(), strict=True):
        share = hits / n if n else None
        shares.append(share)
        errors.append(None if share is None or n < MIN_SAMPLE else math.sqrt(share * (1 - share) / (n - 1)))
    return tuple(shares), tuple(errors)


def _producers(
    mapped: np.ndarray, shares: np.ndarray, spread: np.ndarray, strata: np.ndarray, area: np.ndarray
) -> tuple[Values, Values]:
    """Producer's accuracy (eq. 3) and its standard error (eq. 7).

    mapped, strata: (stratum,) area and class. shares, spread: (stratum, class). area: (class,) estimated.
    """
    accuracies: list[float | None] = []
    errors: list[float | None] = []
    for k, whole in enumerate(area.tolist()):
        if whole <= 0:
            accuracies.append(None)
            errors.append(None)
            continue
        own = strata == k
        accuracy = float((mapped * shares[:, k])[own].sum()) / whole
        factor = np.where(own, 1 - accuracy, accuracy)
        variance = float((mapped**2 * factor**2 * spread[:, k]).sum()) / whole**2
        accuracies.append(accuracy)
        errors.append(math.sqrt(variance))
    return tuple(accuracies), tuple(errors)
