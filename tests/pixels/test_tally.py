from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from geoseg.pixels.tally import NONE, Tally

POLYGONS = 6
pixels = st.lists(st.tuples(st.integers(0, POLYGONS - 1), st.integers(0, 100)), max_size=60)


def tally_of(found: list[tuple[int, int]]) -> Tally:
    return Tally.of([owner for owner, _ in found], [value for _, value in found])


def same(a: Tally, b: Tally) -> bool:
    return all(np.array_equal(x, y) for x, y in ((a.owner, b.owner), (a.value, b.value), (a.count, b.count)))


@given(pixels, st.integers(0, 100))
def test_means_and_percentiles_are_numpys(found: list[tuple[int, int]], percent: int) -> None:
    tally = tally_of(found)
    for polygon in range(POLYGONS):
        values = [value for owner, value in found if owner == polygon]
        mean, low = tally.means(POLYGONS)[polygon], tally.percentiles(POLYGONS, percent)[polygon]
        if values:
            assert np.isclose(mean, np.mean(values))
            assert low == np.percentile(values, percent, method="inverted_cdf")
        else:
            assert np.isnan(mean)
            assert np.isnan(low)


@given(pixels, pixels)
def test_pieces_add_to_the_whole(left: list[tuple[int, int]], right: list[tuple[int, int]]) -> None:
    both = Tally.concat([(tally_of(left), POLYGONS), (tally_of(right), POLYGONS)])
    group = np.tile(np.arange(POLYGONS), 2)
    assert same(both.regroup(group), tally_of(left + right))


@given(pixels, st.lists(st.integers(0, POLYGONS - 1), unique=True))
def test_taking_some(found: list[tuple[int, int]], wanted: list[int]) -> None:
    taken = tally_of(found).take(np.array(wanted, np.int64))
    assert same(taken, tally_of([(wanted.index(o), v) for o, v in found if o in wanted]))


def test_nothing() -> None:
    assert same(NONE.take(np.zeros(0, np.int64)), NONE)
    assert same(Tally.concat([]), NONE)
    assert np.isnan(NONE.means(2)).all()
