"""Areas adjusted for a map's errors: the published example, the formulas written out, and what must always hold."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg.errors import SpecError
from geoseg.legend import LandClass, Legend
from geoseg.pixels.confusion import ConfusionMatrix
from geoseg.pixels.estimates import adjusted_areas, map_by_reference, thin_strata

# Olofsson et al. 2014, Table 8: rows are deforestation, forest gain, stable forest, stable non-forest on the map.
COUNTS = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
MAPPED_HA = np.array([200_000, 150_000, 3_200_000, 6_450_000]) * 0.09  # Landsat pixels of 30 m


def test_the_published_example() -> None:
    found = adjusted_areas(COUNTS, MAPPED_HA)
    assert np.round(found.area).tolist() == [21158, 11686, 285770, 581386]
    assert np.round(found.area_ci95).tolist() == [6158, 3756, 15510, 16282]
    assert round(found.overall, 2) == 0.95
    assert round(1.96 * found.overall_se, 2) == 0.02
    assert np.round(found.users, 2).tolist() == [0.88, 0.73, 0.93, 0.96]
    assert np.round(1.96 * np.array(found.users_se), 2).tolist() == [0.07, 0.10, 0.04, 0.02]
    assert np.round(found.producers, 2).tolist() == [0.75, 0.85, 0.93, 0.96]
    producers = 1.96 * np.array(found.producers_se)
    assert np.round(producers, 2).tolist() == [
        0.21,
        0.25,
        0.03,
        0.02,
    ]  # the paper prints the last as 0.01


def test_an_older_published_example() -> None:
    """Olofsson et al. 2013, Making better use of accuracy data, Table 4."""
    found = adjusted_areas(
        np.array([[97, 0, 3], [3, 279, 18], [2, 1, 97]]), np.array([22353, 1122543, 610228])
    )
    assert np.round(found.users, 2).tolist() == [0.97, 0.93, 0.97]
    assert np.round(found.producers[:2], 2).tolist() == [0.48, 0.99]


def formulas(counts: np.ndarray, area: np.ndarray) -> dict[str, list[float]]:
    """Equations 1 to 11 of the paper, index by index."""
    size, total = len(area), area.sum()
    n, w = counts.sum(axis=1), area / total
    p = np.array([[w[i] * counts[i, j] / n[i] for j in range(size)] for i in range(size)])
    users = [p[i, i] / p[i].sum() for i in range(size)]
    producers = [p[j, j] / p[:, j].sum() for j in range(size)]
    variance = [
        sum(w[i] ** 2 * (counts[i, k] / n[i]) * (1 - counts[i, k] / n[i]) / (n[i] - 1) for i in range(size))
        for k in range(size)
    ]
    producers_variance = []
    for j in range(size):
        estimated = sum(area[i] / n[i] * counts[i, j] for i in range(size))
        own = area[j] ** 2 * (1 - producers[j]) ** 2 * users[j] * (1 - users[j]) / (n[j] - 1)
        others = sum(
            area[i] ** 2 * counts[i, j] / n[i] * (1 - counts[i, j] / n[i]) / (n[i] - 1)
            for i in range(size)
            if i != j
        )
        producers_variance.append((own + producers[j] ** 2 * others) / estimated**2)
    return {
        "area": [total * p[:, k].sum() for k in range(size)],
        "area_se": [total * math.sqrt(v) for v in variance],
        "users": users,
        "users_se": [math.sqrt(users[i] * (1 - users[i]) / (n[i] - 1)) for i in range(size)],
        "producers": producers,
        "producers_se": [math.sqrt(v) for v in producers_variance],
        "overall": [sum(p[i, i] for i in range(size))],
        "overall_se": [
            math.sqrt(sum(w[i] ** 2 * users[i] * (1 - users[i]) / (n[i] - 1) for i in range(size)))
        ],
    }


@st.composite
def samples(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Every class is mapped somewhere, sampled at least twice, and found at least once."""
    size = draw(st.integers(2, 5))
    counts = draw(st.lists(st.integers(0, 300), min_size=size * size, max_size=size * size))
    area = draw(st.lists(st.floats(0.01, 1e6), min_size=size, max_size=size))
    return np.array(counts).reshape(size, size) + 2 * np.eye(size, dtype=int), np.array(area)


@given(samples())
def test_the_formulas_written_out(sample: tuple[np.ndarray, np.ndarray]) -> None:
    found, expected = adjusted_areas(*sample), formulas(*sample)
    for name, values in expected.items():
        assert np.atleast_1d(getattr(found, name)) == pytest.approx(values, rel=1e-9, abs=1e-12), name
    assert sum(found.area) == pytest.approx(sample[1].sum())


@given(samples(), st.randoms(use_true_random=False), st.floats(0.1, 100))
def test_order_and_unit_of_the_classes_do_not_matter(sample, random, factor) -> None:
    counts, area = sample
    order = random.sample(range(len(area)), len(area))
    one, other = (
        adjusted_areas(counts, area),
        adjusted_areas(counts[np.ix_(order, order)], area[order] * factor),
    )
    for name in ("users", "users_se", "producers", "producers_se"):
        assert np.array(getattr(one, name))[order] == pytest.approx(getattr(other, name), abs=1e-12)
    assert np.array(one.area)[order] * factor == pytest.approx(other.area)
    assert np.array(one.area_se)[order] * factor == pytest.approx(other.area_se)
    assert one.overall == pytest.approx(other.overall)


@given(samples())
def test_a_map_without_errors_is_right_and_sure(sample) -> None:
    counts, area = np.diag(np.diag(sample[0])), sample[1]
    found = adjusted_areas(counts, area)
    assert found.area == pytest.approx(area)
    assert not any(found.area_se)
    assert (found.overall, found.overall_se) == (1, 0)
    assert set(found.users) == set(found.producers) == {1}


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """2000 stratified samples of a made-up population of which all is known."""
    rng = np.random.default_rng(1)
    mapped = np.array([1000.0, 3000.0, 6000.0])
    truth_where_mapped = np.array([[0.8, 0.15, 0.05], [0.1, 0.85, 0.05], [0.02, 0.08, 0.9]])
    truth = mapped @ truth_where_mapped
    held = np.zeros(3)
    mean = np.zeros(3)
    for _ in range(2000):
        counts = np.array([rng.multinomial(150, shares) for shares in truth_where_mapped])
        found = adjusted_areas(counts, mapped)
        held += np.abs(np.array(found.area) - truth) <= found.area_ci95
        mean += np.array(found.area) / 2000
    assert (held / 2000 > 0.93).all()
    assert (held / 2000 < 0.97).all()
    assert mean == pytest.approx(truth, rel=5e-3)  # the mapped areas are off by up to 37 %


def test_our_confusion_matrix_has_the_labels_in_its_rows() -> None:
    """Mapped is A everywhere; half of it is labelled B: half of the area is B's."""
    legend = Legend((LandClass(1, "A", (0, 0, 0)), LandClass(2, "B", (1, 1, 1))))
    labels = np.array([[1, 1, 2, 2, 1]], np.uint8)
    mapped = np.array([[1, 1, 1, 1, 255]], np.uint8)
    counts = map_by_reference(ConfusionMatrix.count(labels, mapped, legend).counts)
    assert counts.tolist() == [[2, 2], [0, 0]]
    found = adjusted_areas(counts, np.array([10.0, 0.0]))
    assert found.area == (5, 5)
    assert found.users == (0.5, None)
    assert found.producers == (1, 0)


def test_strata_without_a_sample_are_named_and_refused() -> None:
    counts, area = np.array([[5, 1, 0], [0, 1, 0], [0, 0, 0]]), np.array([3.0, 1.0, 0.0])
    assert thin_strata(counts, area) == (1,)
    with pytest.raises(SpecError, match="classes at 1 are mapped but have fewer than 2 sampled places"):
        adjusted_areas(counts, area)
    fine = adjusted_areas(counts, np.array([3.0, 0.0, 0.0]))
    assert fine.area == pytest.approx((2.5, 0.5, 0))
    assert fine.producers == (1, 0, None)
    assert fine.users == (5 / 6, 1, None)
    assert fine.users_se[1] is None


@pytest.mark.parametrize(
    ("counts", "area"),
    [
        (np.ones((2, 3), int), np.ones(2)),
        (np.ones((2, 2)), np.ones(2)),
        (-np.ones((2, 2), int), np.ones(2)),
        (np.full((2, 2), 9), np.array([1, -1.0])),
        (np.full((2, 2), 9), np.array([1, math.nan])),
        (np.full((2, 2), 9), np.zeros(2)),
    ],
)
def test_what_is_no_sample_is_refused(counts: np.ndarray, area: np.ndarray) -> None:
    with pytest.raises(SpecError):
        adjusted_areas(counts, area)
