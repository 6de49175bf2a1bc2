from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from geoseg.pixels.labels import count_values


@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=9)), st.integers(1, 3))
def test_every_value_is_counted_as_numpy_counts_it(pixels: np.ndarray, step: int) -> None:
    part = pixels[:, ::step]
    assert count_values(part).tolist() == np.bincount(part.ravel(), minlength=256).tolist()
