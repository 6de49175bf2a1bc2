"""Changes between two maps do not depend on windows, and are those of whole arrays."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import CRS

from geoseg.errors import GridError, SourceError, SpecError
from geoseg.grid.geogrid import GeoGrid
from geoseg.grid.window import Window
from geoseg.io.regions import NamedPolygon
from geoseg.legend import NODATA, LandClass, Legend
from geoseg.stages.areas import measure_areas
from geoseg.stages.compare import (
    NO_ANSWER,
    Changes,
    change_legend,
    change_values,
    measure_changes,
    occurring,
    pair_up,
)
from geoseg.stages.weighing import outline

LEGEND = Legend(
    tuple(LandClass(i, name, (i, i, 9)) for i, name in ((1, "building"), (2, "road"), (5, "water")))
)
NEWER = Legend(tuple(LandClass(i, name, (9, i, i)) for i, name in ((1, "road"), (3, "building"))))
TRANSFORM = Affine(0.5, 0, 338000.1, 0, -0.5, 2776000.7)
UTM = CRS.from_epsg(32640).to_wkt()


@dataclass(frozen=True)
class Raster:
    """A class raster in memory."""

    values: np.ndarray = field(repr=False)
    transform: Affine = TRANSFORM
    crs: str | None = UTM
    nodata: int | None = NODATA
    path: str = "map.tif"

    @property
    def grid(self):
        return GeoGrid(*self.values.shape, self.transform, self.crs)

    def read(self, window: Window):
        return self.values[window.within(self.grid.window)]


def random_map(seed, legend=LEGEND, height=37, width=41, **place):
    rng = np.random.default_rng(seed)
    return Raster(rng.choice(np.array([*legend.ids, NODATA], np.uint8), (height, width)), **place)


def moved(right, down):
    return TRANSFORM @ Affine.translation(right, down)


def shuffled(function, items):
    tasks = list(items)
    random.Random(3).shuffle(tasks)
    return map(function, tasks)


def pixels_of(found: Changes):
    return np.array(found.whole.pixels)


@settings(max_examples=30)
@given(
    st.integers(0, 99), st.integers(5, 60), st.sampled_from([(0, 0), (0.4, -0.3), (0.7, 0.6), (-0.9, 0.2)])
)
def test_windows_and_order_change_no_figure(seed, window_px, off):
    pair = pair_up(random_map(seed), random_map(seed + 1, NEWER, transform=moved(*off)), LEGEND, NEWER)
    parts = [
        NamedPolygon("all of it", outline(pair.grid)),
        NamedPolygon("again", outline(pair.grid).buffer(-3.3)),
    ]
    whole = measure_changes(pair, parts, map, 4096)
    for mapper in (map, shuffled):
        assert measure_changes(pair, parts, mapper, window_px) == whole


@given(st.integers(0, 99))
def test_counts_are_those_of_whole_arrays(seed):
    a, b = random_map(seed), random_map(seed + 1, NEWER)
    pair = pair_up(a, b, LEGEND, NEWER)
    found = measure_changes(pair, [], map, 16)
    for i, old in enumerate((*LEGEND.ids, NODATA)):
        for j, new in enumerate((*NEWER.ids, NODATA)):
            both = (a.values == old) & (b.values == new)
            assert pixels_of(found)[i, j] == both.sum()
    values = change_values(pair, pair.grid.window)
    legend = change_legend(pair)
    names = {c.id: c.name for c in legend.classes} | {NODATA: None}
    for row, col in np.ndindex(a.values.shape):
        old = dict(zip(LEGEND.ids, LEGEND.names, strict=True)).get(a.values[row, col])
        new = dict(zip(NEWER.ids, NEWER.names, strict=True)).get(b.values[row, col])
        expected = None if None in (old, new) else "unchanged" if old == new else f"{old} to {new}"
        assert names[values[row, col]] == expected


def test_margins_are_the_areas_of_each_map():
    a, b = random_map(1), random_map(2, NEWER)
    found = measure_changes(pair_up(a, b, LEGEND, NEWER), [], map).whole
    before, after = (measure_areas(m, legend, [], map).whole for m, legend in ((a, LEGEND), (b, NEWER)))
    hectares = np.array(found.hectares)
    assert hectares.sum(axis=1) == pytest.approx([*before.hectares, before.nodata_ha], rel=1e-12)
    assert hectares.sum(axis=0) == pytest.approx([*after.hectares, after.nodata_ha], rel=1e-12)


def test_rows_by_eye():
    a = Raster(np.array([[1, 1, 1, 2, NODATA]], np.uint8))
    b = Raster(np.array([[3, 1, NODATA, NODATA, 1]], np.uint8))
    rows = measure_changes(pair_up(a, b, LEGEND, NEWER), [], map).rows()
    assert len(rows) == 12
    found = {(r["from_class"], r["to_class"]): (r["pixels"], r["share"]) for r in rows}
    assert found["building", "building"] == (1, pytest.approx(0.5))
    assert found["building", "road"] == (1, pytest.approx(0.5))
    assert found["building", NO_ANSWER] == (1, None)
    assert found["road", NO_ANSWER] == (1, None)
    assert found["road", "road"] == (0, None)
    assert found[NO_ANSWER, "road"] == (1, None)
    assert [row["to_id"] for row in rows[:3]] == [1, 3, 255]


@pytest.mark.parametrize(
    ("off", "shape", "first", "size", "said"),
    [
        ((0, 0), (37, 41), (0, 0), (37, 41), 0),
        ((0.4, -0.3), (37, 41), (0, 0), (37, 41), 0.5),
        ((0.9, 0.1), (37, 41), (0, 1), (37, 40), 2**0.5 / 10),
        ((-0.8, 0.6), (37, 41), (1, 0), (36, 40), 0.2**0.5 / 1),
        ((0, 0), (37, 41), (0, 0), (37, 41), 0),
    ],
)
def test_pixels_are_compared_with_the_nearest(off, shape, first, size, said):
    """Maps whose every pixel says where on the ground it lies."""
    rows, cols = np.indices(shape)
    truth = np.where((rows // 4 + cols // 4) % 2, 1, 2).astype(np.uint8)
    a, b = Raster(truth), Raster(truth, transform=moved(*off))
    pair = pair_up(a, b, LEGEND, LEGEND)
    assert pair.grid.window.shape == size
    assert pair.grid.transform == moved(first[1], first[0])
    shift = round(off[0]), round(off[1])
    expected_b = {(r + shift[1], c + shift[0]): truth[r, c] for r, c in np.ndindex(truth.shape)}
    before, after = (part.read(pair.grid.window) for part in (pair.before, pair.after))
    for row, col in np.ndindex(size):
        place = row + first[0], col + first[1]
        assert before[row, col] == truth[place]
        assert after[row, col] == expected_b[place]
    assert pair.off_px == pytest.approx(said)
    remarks = measure_changes(pair, [], map).remarks
    assert bool(remarks) == (said > 0)
    assert all("px apart" in remark for remark in remarks)


@pytest.mark.parametrize(
    ("place", "shape", "reason"),
    [
        ({"transform": moved(1, 0)}, (37, 41), "with a corner 1 px apart"),
        ({}, (37, 43), "with a corner 2 px apart"),
        ({"transform": TRANSFORM @ Affine.scale(1.05)}, (37, 41), "different sizes or directions"),
        ({"transform": TRANSFORM @ Affine.scale(2)}, (18, 20), "different sizes or directions"),
        ({"transform": TRANSFORM @ Affine.rotation(5)}, (37, 41), "different sizes or directions"),
        ({"crs": CRS.from_epsg(32639).to_wkt()}, (37, 41), "different CRSs"),
        ({"crs": None}, (37, 41), "different CRSs"),
    ],
)
def test_other_grids_are_refused(place, shape, reason):
    other = random_map(2, height=shape[0], width=shape[1], **place)
    with pytest.raises(GridError, match=reason):
        pair_up(random_map(1), other, LEGEND, LEGEND)


def test_grids_of_almost_one_size():
    """One column more, a part of a pixel to the left; and the same corners, but finer pixels."""
    wider = random_map(2, width=42, transform=moved(-0.3, 0))
    pair = pair_up(random_map(1), wider, LEGEND, LEGEND)
    assert pair.grid.window.shape == (37, 41)
    finer = Affine(0.5 * 41 / 42, 0, TRANSFORM.c, 0, -0.5, TRANSFORM.f)
    with pytest.raises(GridError, match="pixels of different sizes"):
        pair_up(random_map(1), random_map(2, width=42, transform=finer), LEGEND, LEGEND)


def test_without_a_crs_there_are_pixels_only():
    found = measure_changes(
        pair_up(random_map(1, crs=None), random_map(2, crs=None), LEGEND, LEGEND), [], map
    )
    assert found.whole.hectares is None
    assert "has no CRS" in found.remarks[0]
    assert {row["hectares"] for row in found.rows()} == {None}


def test_values_outside_the_legend_name_their_map():
    bad = Raster(np.full((37, 41), 77, np.uint8), path="after.tif")
    with pytest.raises(SourceError, match=r"^after\.tif: .* no class: 77"):
        measure_changes(pair_up(random_map(1), bad, LEGEND, LEGEND), [], map)


def test_ids_of_changes_are_stable_and_colored_as_the_new_class():
    pair = pair_up(random_map(1), random_map(2), LEGEND, LEGEND)
    legend = change_legend(pair)
    assert [(c.id, c.name) for c in legend.classes] == [
        (0, "unchanged"), (2, "building to road"), (3, "building to water"), (4, "road to building"),
        (6, "road to water"), (7, "water to building"), (8, "water to road"),
    ]  # fmt: skip
    assert legend.classes[1].color == LEGEND.classes[1].color


def test_too_many_classes_are_refused():
    many = Legend(tuple(LandClass(i, str(i), (0, 0, 0)) for i in range(16)))
    with pytest.raises(SpecError, match="256 pairs of classes"):
        change_legend(pair_up(random_map(1), random_map(2), many, many))


@settings(max_examples=30)
@given(st.integers(0, 99), st.lists(st.integers(0, 255), min_size=1, max_size=9), st.integers(5, 60))
def test_the_values_that_occur_are_those_of_the_whole_array(seed, values, window_px):
    rng = np.random.default_rng(seed)
    source = Raster(rng.choice(np.array(values, np.uint8), (23, 31)), nodata=values[0])
    assert set(occurring(source, shuffled, window_px)) == set(np.unique(source.values)) - {values[0], NODATA}
