from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from geoseg.legend import NODATA
from geoseg.pixels.shrink import shrink_classes, shrink_percent

rasters = arrays(
    np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.sampled_from([0, 1, 2, 7, NODATA])
)


def fours(pixels: np.ndarray):
    padded = np.pad(pixels, ((0, pixels.shape[0] % 2), (0, pixels.shape[1] % 2)), mode="edge")
    for row in range(0, padded.shape[0], 2):
        for col in range(0, padded.shape[1], 2):
            yield (row // 2, col // 2), padded[row : row + 2, col : col + 2].ravel().tolist()


@given(rasters)
def test_the_commonest_of_four_and_the_lowest_of_equals(pixels: np.ndarray) -> None:
    small = shrink_classes(pixels)
    for place, four in fours(pixels):
        counts = Counter(four)
        assert small[place] == min(v for v in counts if counts[v] == max(counts.values()))


@given(rasters)
def test_the_mean_of_those_that_have_one(pixels: np.ndarray) -> None:
    small = shrink_percent(pixels, NODATA)
    for place, four in fours(pixels):
        known = [v for v in four if v != NODATA]
        assert small[place] == (int(sum(known) / len(known) + 0.5) if known else NODATA)
