"""Buildings that are gone or new: the same in tiles as at once, and never where nobody looked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

from geoseg.grid.geogrid import GeoGrid
from geoseg.grid.window import Window
from geoseg.legend import NODATA
from geoseg.stages import turnover
from geoseg.stages.turnover import Footprints, covered_shares, find_missing

TRANSFORM = Affine(0.5, 0, 1000, 0, -0.5, 2000)


@dataclass(frozen=True)
class Layer:
    """Buildings in memory, given in columns and rows."""

    boxes: tuple[tuple[float, float, float, float], ...]

    def read(self, box):
        shapes = np.array([shapely.box(*placed(*b)) for b in self.boxes], dtype=object).reshape(-1)
        hit = shapely.intersects(shapes, shapely.box(*box)) if len(shapes) else np.zeros(0, bool)
        ids = np.array([str(i) for i in range(len(shapes))], dtype=object)
        return Footprints(shapes, ids, np.arange(len(shapes)) + 0.5, np.full(len(shapes), 80.0)).at(hit)


@dataclass(frozen=True)
class Raster:
    values: np.ndarray
    path: str = "map.tif"
    nodata: int | None = NODATA

    @property
    def grid(self):
        return GeoGrid(*self.values.shape, TRANSFORM)

    def read(self, window: Window):
        return self.values[window.within(self.grid.window)]


def placed(left, top, right, bottom):
    return *(TRANSFORM @ (left, bottom)), *(TRANSFORM @ (right, top))


ALL_SEEN = Raster(np.ones((50, 60), np.uint8))
boxes = st.tuples(st.floats(0, 55), st.floats(0, 45), st.floats(0.5, 9), st.floats(0.5, 9)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)


def missing(own, other, seen=ALL_SEEN, overlap=0.25):
    found = list(find_missing(Layer(tuple(own)), Layer(tuple(other)), seen, overlap))
    shares = {i: c for tile in found for i, c in zip(tile.buildings.ids, tile.covered, strict=True)}
    return shares, sum(tile.judged for tile in found)


@given(st.lists(boxes, max_size=12), st.lists(boxes, max_size=6), st.integers(3, 60))
def test_tiles_change_no_answer(own, other, tile_px):
    at_once = missing(own, other)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(turnover, "TILE_PX", tile_px)
        assert missing(own, other) == at_once
    assert at_once[1] == len(own)


@given(st.lists(boxes, min_size=1, max_size=8), st.lists(boxes, max_size=8))
def test_covered_shares_are_those_of_whole_layers(own, other):
    """Others that do not overlap one another: their union cut into parts."""
    mine = np.array([shapely.box(*b) for b in own], dtype=object)
    whole = shapely.union_all([shapely.box(*b) for b in other])
    parts = shapely.get_parts(whole)
    expected = shapely.area(shapely.intersection(mine, whole)) / shapely.area(mine)
    np.testing.assert_allclose(covered_shares(mine, parts), expected, atol=1e-9)


def test_gone_halved_and_kept_by_eye():
    own = [(0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10)]
    other = [(0, 0, 10, 10), (20, 0, 22, 10)]
    assert missing(own, other) == ({"1": pytest.approx(0.2), "2": 0}, 3)
    assert missing(own, other, overlap=0.15) == ({"2": 0}, 3)
    assert missing(own, []) == ({"0": 0, "1": 0, "2": 0}, 3)
    assert missing([], own) == ({}, 0)


def test_a_building_under_a_cloud_is_not_gone():
    values = np.ones((50, 60), np.uint8)
    values[:, :6] = NODATA
    own = [(0, 0, 10, 10), (2, 20, 22, 30), (0, 40, 5, 45)]
    assert missing(own, [], Raster(values)) == ({"1": 0}, 1)


def test_a_building_beyond_the_other_map_is_not_gone():
    assert missing([(70, 0, 80, 10), (0, 0, 5, 5)], []) == ({"1": 0}, 1)
