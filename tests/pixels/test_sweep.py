"""Squaring in scan order gives what squaring all at once gives, whatever the batches are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.features import rasterize
from shapely import affinity

from geoseg.grid.window import Window
from geoseg.pixels import sweep as module
from geoseg.pixels.frames import Frames
from geoseg.pixels.ladder import REACH_PX
from geoseg.pixels.polygons import polygonize_block
from geoseg.pixels.squaring import square_footprints
from geoseg.pixels.sweep import Arrived, Redrawn, sweep

PIXELS = Frames.of(Affine.identity(), None)
SQUARE_NEAR_PX = int(np.ceil(2 * REACH_PX))
"""Enough where pixels are square; the sweep waits for more, since they may be oblong."""


def arrived(labels: np.ndarray, fixed: np.ndarray | None = None) -> Arrived:
    pieces = polygonize_block(labels, Window(0, 0, *labels.shape), (1, 2, 3))
    rows, cols = pieces.first_pixels()
    places = (rows << 32) + cols
    order = np.argsort(places)
    flags = np.zeros(len(places), bool) if fixed is None else fixed[: len(places)]
    return Arrived(places[order], pieces.geometries()[order], flags)


def in_batches(whole: Arrived, ends: list[int]) -> Iterator[Arrived]:
    for index in np.split(np.arange(len(whole.places)), sorted(e % (len(whole.places) + 1) for e in ends)):
        yield Arrived(*(column[index] for column in whole))


def as_dict(results: Iterator[Redrawn]) -> dict[int, bytes]:
    return {
        place: wkb
        for redrawn in results
        for place, wkb in zip(redrawn.places.tolist(), shapely.to_wkb(redrawn.polygons), strict=True)
    }


@contextmanager
def settings_of(**constants: float) -> Iterator[None]:
    with patch.multiple(module, **constants):
        yield


def terrace(
    random: np.random.Generator, height: int, width: int, classes: int
) -> list[tuple[shapely.Polygon, int]]:
    """A row of houses that share walls, or whose walls slant a pixel apart: squared alone, one moves into the next."""
    deep, long, turn = random.integers(8, 24), random.integers(60, height + 60), random.uniform(-40, 40)
    gap, tilt = random.choice([0, 0.8, 1.0, 1.3]), random.choice([0, 0.3, 0.5])
    place = random.integers(0, width), random.integers(0, height)
    houses, at, top = [], -long / 2, 0.0
    while at < long / 2:
        end, bottom = at + random.integers(6, 25), random.uniform(-tilt, tilt) * deep / 2
        sides = (
            (-deep / 2, at + top),
            (deep / 2, at - top),
            (deep / 2, end - bottom - gap),
            (-deep / 2, end + bottom - gap),
        )
        house = affinity.rotate(shapely.Polygon(sides), turn, origin=(0, 0))
        houses.append((affinity.translate(house, *place), int(random.integers(1, classes + 1))))
        at, top = end, bottom
    return houses


@st.composite
def streets(draw: st.DrawFn, classes: int = 3) -> np.ndarray:
    """A tall raster of terraces and single houses, some very long, with or without noise."""
    height, width = draw(st.integers(150, 400)), draw(st.integers(20, 60))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    houses = []
    for _ in range(draw(st.integers(0, 12))):
        long, deep = random.integers(2, draw(st.sampled_from([12, 30, 90])), 2)
        house = affinity.rotate(shapely.box(-deep / 2, -long / 2, deep / 2, long / 2), random.integers(0, 90))
        place = random.integers(0, width), random.integers(0, height)
        houses.append((affinity.translate(house, *place), int(random.integers(0, classes + 1))))
    for _ in range(draw(st.integers(0, 5))):
        houses += terrace(random, height, width, draw(st.sampled_from([1, classes])))
    if not houses:
        return np.zeros((height, width), np.uint8)
    labels = rasterize(houses, (height, width), dtype=np.uint8)
    spots = random.random(labels.shape) < draw(st.sampled_from([0, 0, 0.002, 0.2]))
    return np.where(spots, random.integers(0, classes + 1, labels.shape), labels).astype(np.uint8)


@settings(max_examples=40)
@given(
    streets(), st.lists(st.integers(0, 1000), max_size=12), st.sampled_from([60, 200, 20_000]),
    st.sampled_from([SQUARE_NEAR_PX, module.NEAR_PX]), st.booleans(), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_batches_decide_nothing(labels, ends, most, near, some_fixed, seed):
    """Nor do the limit on vertices and polygons that must stay, which reach through groups and chains of them."""
    fixed = np.random.default_rng(seed).random(labels.size) < 0.1 * some_fixed
    whole = arrived(labels, fixed)
    with settings_of(MOST_VERTICES=most):
        at_once = as_dict(sweep([whole], PIXELS))
        with settings_of(STEP_VERTICES=1, STEP_SHARE=0, NEAR_PX=near):
            assert as_dict(sweep(in_batches(whole, ends), PIXELS)) == at_once
    assert not set(at_once) & set(whole.places[whole.fixed].tolist())


@settings(max_examples=25)
@given(streets(), st.lists(st.integers(0, 1000), max_size=12))
def test_a_sweep_gives_what_squaring_all_polygons_at_once_gives(labels, ends):
    whole = arrived(labels)
    with settings_of(STEP_VERTICES=1, STEP_SHARE=0, NEAR_PX=SQUARE_NEAR_PX):
        found = as_dict(sweep(in_batches(whole, ends), PIXELS))
    if not len(whole.places):
        assert not found
        return
    squared, changed = square_footprints(whole.polygons, 1.0)
    wkb = shapely.to_wkb(shapely.normalize(squared[changed]))
    assert found == dict(zip(whole.places[changed].tolist(), wkb, strict=True))


def test_what_is_far_below_is_not_waited_for():
    """Of many rows of houses only a few are held at a time, and what is decided is told at once."""
    houses = [(affinity.rotate(shapely.box(5, y, 25, y + 14), 20), 1) for y in range(0, 4000, 40)]
    whole = arrived(rasterize(houses, (4000, 40), dtype=np.uint8))
    batches, held, told = in_batches(whole, list(range(100))), [], []
    with settings_of(STEP_VERTICES=1, STEP_SHARE=0):
        inner = module._settle

        def watched(holding, row, frames):
            held.append(len(holding.places))
            return inner(holding, row, frames)

        with settings_of(_settle=watched):
            for redrawn in sweep(batches, PIXELS):
                told.append(len(redrawn.places))
    assert max(held) <= 6
    assert sum(told) == 100
    assert np.flatnonzero(told)[0] < 6


def test_a_group_beyond_the_limit_stays_as_it_is_and_its_neighbors_do_not():
    """Two houses that share a wall are one vertex too many; the house beside them is not concerned."""
    turned = [
        affinity.rotate(shapely.box(x, 10, x + w, 30), 25, origin=(30, 20))
        for x, w in ((5, 14), (19, 14), (42, 14))
    ]
    whole = arrived(
        rasterize([(t, c) for t, c in zip(turned, (1, 2, 1), strict=True)], (60, 70), dtype=np.uint8)
    )
    vertices = shapely.get_num_coordinates(whole.polygons)
    free = as_dict(sweep([whole], PIXELS))
    assert len(free) == 3
    walls = shapely.length(shapely.intersection(whole.polygons[:, None], whole.polygons[None])) - np.diag(
        shapely.length(whole.polygons)
    )
    alone = ~(walls > 0).any(axis=1)
    assert alone.sum() == 1
    with settings_of(MOST_VERTICES=int(vertices[~alone].sum()) - 1):
        found = as_dict(sweep([whole], PIXELS))
    assert found == {place: free[place] for place in whole.places[alone].tolist()}


def test_a_chain_of_clashes_beyond_the_limit_stays_as_it_is():
    """As in the test of two houses that would both overlap when squared: they are decided together."""
    labels = np.zeros((40, 40), np.uint8)
    labels[:20, :20] = labels[19:39, 19:39] = 1
    labels[19, 19] = 0
    whole = arrived(labels)
    assert len(whole.places) == 2
    vertices = int(shapely.get_num_coordinates(whole.polygons).sum())
    with settings_of(MOST_VERTICES=vertices):
        assert as_dict(sweep([whole], PIXELS))
    with settings_of(MOST_VERTICES=vertices - 1):
        assert not as_dict(sweep([whole], PIXELS))


def tower(*floors: tuple[int, int, int]) -> np.ndarray:
    """Leaning houses with level floors and ceilings, each above the next: class, height and the gap below.

    Squared alone, floors and ceilings turn to be at right angles with the leaning walls, and into each other. Spots
    begin in each row near floors and in some between, so that the sweep goes on from row to row.
    """
    houses, tops, row = [], [], 0
    for class_id, height, gap in floors:
        house = affinity.skew(shapely.box(0, 0, 24, height), xs=12, origin=(0, 0))
        houses.append((affinity.translate(house, 60, row), class_id))
        row += height + gap
        tops.append(row)
    labels = rasterize(houses, (row + 60, 120), dtype=np.uint8)
    rows = np.arange(len(labels))
    rows = rows[(rows % 5 == 0) | (np.abs(rows[:, None] - tops) < 3).any(axis=1)]
    labels[rows, rows % 2 * 2] = 3
    return labels


def one_by_one(whole: Arrived) -> dict[int, bytes]:
    with settings_of(STEP_VERTICES=1, STEP_SHARE=0, NEAR_PX=SQUARE_NEAR_PX):
        return as_dict(sweep(in_batches(whole, list(range(len(whole.places)))), PIXELS))


@pytest.mark.parametrize("heights", [(40, 40), (40, 120), (40, 30, 40, 90)])
def test_houses_wait_for_those_that_they_may_clash_with(heights):
    """For one that begins in a later row, and for one that is so tall that more may be built on to it."""
    whole = arrived(tower(*((1, height, 1) for height in heights)))
    at_once = as_dict(sweep([whole], PIXELS))
    houses = shapely.get_num_coordinates(whole.polygons) > 5
    assert houses.sum() == len(heights)
    clashing = module.ladder_of(whole.polygons[houses], module.Frame(1.0, 0.0, 1.0)).rungs[0].polygons
    assert shapely.area(shapely.intersection(clashing[1:], clashing[:-1])).min() > 0.1
    assert set(at_once) <= set(whole.places[houses].tolist())
    assert one_by_one(whole) == at_once


def test_what_stays_is_known_to_those_beside_it_until_they_are_decided():
    """The second house waits for the tall one beside it, long after the sweep has passed the first, which stays."""
    labels = tower((1, 40, 1), (1, 40, 200))
    labels[41:270, 96:104] = 2
    whole = arrived(labels)
    houses = np.flatnonzero(shapely.get_num_coordinates(whole.polygons) > 5)
    alone = Arrived(*(column[np.arange(len(whole.places)) != houses[0]] for column in whole))
    whole.fixed[houses[0]] = True
    found = one_by_one(whole)
    assert found == as_dict(sweep([whole], PIXELS))
    assert found != as_dict(sweep([alone], PIXELS))


@pytest.mark.parametrize("count", [3, 6])
def test_a_chain_beyond_the_limit_is_known_to_the_last_house_of_it(count):
    whole = arrived(tower(*[(1, 40, 1)] * count))
    vertices = int(shapely.get_num_coordinates(whole.polygons).max())
    assert as_dict(sweep([whole], PIXELS))
    with settings_of(MOST_VERTICES=int(2.5 * vertices)):
        assert not as_dict(sweep([whole], PIXELS))
        assert not one_by_one(whole)


def test_a_house_is_not_chained_to_a_group_that_grows_beyond_the_limit():
    """Below it stand houses that share walls, too many; these stay as they are, so that it alone steps back."""
    whole = arrived(tower((1, 40, 1), *[(1, 40, 0), (2, 40, 0)] * 3))
    vertices = int(shapely.get_num_coordinates(whole.polygons).max())
    with settings_of(MOST_VERTICES=int(2.5 * vertices)):
        found = as_dict(sweep([whole], PIXELS))
        assert len(found) == 1
        assert one_by_one(whole) == found
