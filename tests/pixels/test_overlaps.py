"""Shared areas against shapely's overlays."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg.pixels import overlaps
from geoseg.pixels.overlaps import shared_area
from tests.pixels.test_squaring import towns, traced


@settings(max_examples=100)
@given(
    towns(), st.floats(-30, 30), st.tuples(st.floats(-9, 9), st.floats(-9, 9)), st.sampled_from([7, 10**6])
)
def test_shared_areas_are_those_of_overlays(labels, degrees, shift, batch):
    raw = traced(labels, 1.0)
    if not len(raw):
        assert not len(shared_area(raw, raw))
        return
    turned = np.array([shapely.affinity.rotate(p, degrees, origin="center") for p in raw])
    others = shapely.transform(turned, lambda xy: xy + shift)[::-1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlaps, "BATCH_PAIRS", batch)
        for two in (others, np.roll(raw, 1), raw):
            expected = shapely.area(shapely.intersection(raw, two))
            assert shared_area(raw, two) == pytest.approx(expected, abs=1e-8)


def test_sides_that_slant_and_many_sides_are_overlaid(monkeypatch):
    square = shapely.box(0, 0, 10, 10)
    diamond = shapely.Polygon([(0, 0), (5, 5), (0, 10), (-5, 5)])
    pairs = np.array([diamond, square]), np.array([square, diamond])
    assert shared_area(*pairs) == pytest.approx([25, 25])
    monkeypatch.setattr(overlaps, "MOST_PAIRS", 0)
    assert shared_area(*pairs) == pytest.approx([25, 25])
