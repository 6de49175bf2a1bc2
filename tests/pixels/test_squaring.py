"""Squared footprints: valid, near the raw ones, apart where those are apart, and joined where those share walls."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rasterio.features import rasterize, shapes
from shapely import affinity
from shapely.geometry import shape

from geoseg.errors import SpecError
from geoseg.pixels import snapping
from geoseg.pixels.ladder import REACH_PX, TOLERANCE_PX
from geoseg.pixels.outlines import trace
from geoseg.pixels.snapping import MOST_MOVED_PX
from geoseg.pixels.squaring import square_footprints
from geoseg.pixels.thinning import thin
from tests.pixels.test_sweep import streets

PIXEL_M = 0.5
RECTANGLE = shapely.box(-10, -6, 10, 6)
ELL = shapely.Polygon([(-10, -8), (10, -8), (10, 0), (-1, 0), (-1, 8), (-10, 8)])
YARD = shapely.box(-15, -12, 15, 12) - shapely.box(-6, -4, 6, 5)


def traced(labels: np.ndarray, pixel_m: float = PIXEL_M) -> np.ndarray:
    """The polygons of all classes above 0, as the pipeline traces them."""
    transform = Affine(pixel_m, 0, 0, 0, -pixel_m, labels.shape[0] * pixel_m)
    found = shapes(labels.astype(np.uint8), labels > 0, connectivity=4, transform=transform)
    return np.array([shape(geometry) for geometry, _ in found], dtype=object)


def mask_of(*buildings: shapely.Geometry, size: int = 120) -> np.ndarray:
    transform = Affine(PIXEL_M, 0, 0, 0, -PIXEL_M, size * PIXEL_M)
    return rasterize(
        [(building, number) for number, building in enumerate(buildings, 1)],
        (size, size),
        transform=transform,
        dtype=np.uint8,
    )


def placed(building: shapely.Geometry, degrees: float, at: tuple[float, float] = (30.1, 29.8)):
    return affinity.translate(affinity.rotate(building, degrees, origin=(0, 0)), *at)


@st.composite
def towns(draw: st.DrawFn) -> np.ndarray:
    """Rectangles of a few classes, turned, drawn over each other, with or without noise."""
    size = draw(st.integers(20, 70))
    houses = []
    for _ in range(draw(st.integers(1, 9))):
        width, depth = draw(st.integers(2, 24)), draw(st.integers(2, 24))
        at = draw(st.integers(0, size)), draw(st.integers(0, size))
        box = affinity.rotate(
            shapely.box(-width / 2, -depth / 2, width / 2, depth / 2), draw(st.integers(0, 89))
        )
        houses.append((affinity.translate(box, *at), draw(st.integers(0, 3))))
    labels = rasterize(houses, (size, size), dtype=np.uint8)
    if draw(st.booleans()):
        random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        spots = random.random(labels.shape) < draw(st.sampled_from([0.02, 0.2]))
        labels = np.where(spots, random.integers(0, 4, labels.shape), labels).astype(np.uint8)
    return labels


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4, (20, 20)).astype(np.uint8)


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return shapely.area(shapely.intersection(a, b)) / shapely.area(shapely.union(a, b))


def touching(polygons: np.ndarray) -> np.ndarray:
    pairs = shapely.STRtree(polygons).query(polygons, predicate="dwithin", distance=1e-6)
    return pairs[:, pairs[0] < pairs[1]]


def shared_m(polygons: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Length of the walls that pairs of polygons share, to a micron."""
    one, other = (shapely.boundary(polygons[side]) for side in pairs)
    return shapely.length(shapely.intersection(shapely.buffer(one, 1e-6), other))


def moved(polygons: np.ndarray, east: float, north: float) -> np.ndarray:
    return shapely.transform(polygons, lambda xy: xy + np.array([east, north]))


def same(a: np.ndarray, b: np.ndarray, tolerance: float = 1e-6) -> bool:
    counts = [(shapely.get_num_coordinates(p), shapely.get_num_interior_rings(p)) for p in (a, b)]
    apart = shapely.hausdorff_distance(shapely.boundary(a), shapely.boundary(b))
    return np.array_equal(*counts) and bool((apart <= tolerance).all())


@settings(max_examples=60)
@given(towns() | streets(), st.sampled_from([0.0, 0.3, 0.85, 0.97]))
@example(noise(1), 0.5)
@example(noise(2), 0.0)
def test_results_are_valid_near_the_raw_ones_and_keep_their_holes(labels, guard):
    raw = traced(labels)
    squared, changed = square_footprints(raw, PIXEL_M, guard)
    assert len(squared) == len(changed) == len(raw)
    assert shapely.is_valid(squared).all()
    assert (shapely.get_type_id(squared) == shapely.GeometryType.POLYGON).all()
    assert (shapely.area(squared) > 0).all()
    assert (shapely.get_num_interior_rings(squared) == shapely.get_num_interior_rings(raw)).all()
    assert (iou(raw, squared)[changed] >= guard - 1e-9).all()
    assert all(a is b for a, b in zip(raw[~changed], squared[~changed], strict=True))
    assert not shapely.equals(raw[changed], squared[changed]).any() or not same(
        raw[changed], squared[changed]
    )


@settings(max_examples=25)
@given(towns() | streets(), st.sampled_from([0.5, 1, MOST_MOVED_PX]))
def test_no_part_of_an_outline_goes_farther_than_it_may(labels, most):
    """What is farther apart than twice that cannot clash, so that it need not be looked at together."""
    raw = traced(labels)
    with patch.object(snapping, "MOST_MOVED_PX", most):
        squared, _ = square_footprints(raw, PIXEL_M, 0.3)
        if len(raw):
            outlines = trace(shapely.transform(raw, lambda xy: xy / PIXEL_M))
            thinned = outlines.keep(thin(outlines, TOLERANCE_PX)[outlines.walk])
            _, places = snapping.squared(outlines, thinned)
            assert np.hypot(*(places - outlines.points).T).max() < most + 1e-5
    far = shapely.hausdorff_distance(shapely.boundary(squared), shapely.boundary(raw), densify=0.1)
    assert (far <= (TOLERANCE_PX + most) * PIXEL_M).all()
    assert TOLERANCE_PX + MOST_MOVED_PX == REACH_PX


@settings(max_examples=60)
@given(towns() | streets())
@example(noise(1))
def test_neighbors_do_not_overlap(labels):
    squared, _ = square_footprints(traced(labels), PIXEL_M, 0.5)
    first, second = shapely.STRtree(squared).query(squared, predicate="intersects")
    apart = first != second
    assert (shapely.area(shapely.intersection(squared[first[apart]], squared[second[apart]])) < 1e-6).all()


@settings(max_examples=60)
@given(towns())
@example(noise(1))
def test_houses_that_share_walls_do_so_afterwards_without_slivers(labels):
    raw = traced(labels)
    squared, _ = square_footprints(raw, PIXEL_M, 0.5)
    pairs = touching(raw)
    walls = pairs[:, shared_m(raw, pairs) > PIXEL_M / 2]
    assert (shared_m(squared, walls) > 0.1 * PIXEL_M).all()
    # Two houses may lose a corner where they touched, but gain no gap.
    before, after = (_gaps(polygons, walls) for polygons in (raw, squared))
    assert (after <= before).all()


def _gaps(polygons: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Number of holes and parts of each pair of houses together."""
    both = shapely.union_all(
        np.stack([polygons[pairs[0]], polygons[pairs[1]]], axis=1), axis=1, grid_size=1e-6
    )
    holes = [sum(len(part.interiors) for part in shapely.get_parts(one)) for one in both]
    return np.column_stack([holes, shapely.get_num_geometries(both)])


@settings(max_examples=40)
@given(towns() | streets(), st.randoms(use_true_random=False))
def test_the_order_of_the_polygons_decides_nothing(labels, random):
    raw = traced(labels)
    order = random.sample(range(len(raw)), len(raw))
    squared, changed = square_footprints(raw, PIXEL_M, 0.7)
    again, changed_again = square_footprints(raw[order], PIXEL_M, 0.7)
    assert shapely.to_wkb(again).tolist() == shapely.to_wkb(squared[order]).tolist()
    assert changed_again.tolist() == changed[order].tolist()


@settings(max_examples=60)
@given(
    towns(),
    st.integers(-5_000_000, 5_000_000),
    st.integers(-5_000_000, 5_000_000),
    st.sampled_from([0.3, 0.5]),
)
def test_moved_polygons_give_moved_results(labels, east, north, pixel_m):
    raw = traced(labels, pixel_m)
    squared, changed = square_footprints(raw, pixel_m)
    far, far_changed = square_footprints(moved(raw, east, north), pixel_m)
    assert same(moved(far, -east, -north), squared)
    assert far_changed.tolist() == changed.tolist()


@settings(max_examples=40)
@given(towns(), towns())
def test_polygons_far_away_change_nothing(labels, others):
    raw, far = traced(labels), moved(traced(others), -1000, 1000)
    alone, _ = square_footprints(raw, PIXEL_M)
    together, _ = square_footprints(np.concatenate([far, raw]), PIXEL_M)
    assert same(together[len(far) :], alone, 1e-9)


def corners(polygon: shapely.Polygon) -> np.ndarray:
    """The angle at each corner of the exterior, in degrees."""
    side = np.diff(shapely.get_coordinates(polygon.exterior), axis=0)
    heading = np.degrees(np.arctan2(side[:, 1], side[:, 0]))
    return 180 - np.abs((heading - np.roll(heading, 1) + 180) % 360 - 180)


@pytest.mark.parametrize(("building", "vertices"), [(RECTANGLE, 4), (ELL, 6)], ids=["rectangle", "L"])
def test_a_turned_building_comes_back_with_its_right_angles(building, vertices):
    counts = []
    for degrees in range(90):
        true = placed(building, degrees + 0.3)
        (squared,), (changed,) = square_footprints(traced(mask_of(true)), PIXEL_M)
        assert changed
        assert iou(squared, true) > 0.93
        counts.append(len(corners(squared)))
        if counts[-1] == vertices:
            assert np.abs(corners(squared) - 90).max() < 0.5
            side = np.diff(shapely.get_coordinates(squared.exterior), axis=0)
            heading = np.degrees(np.arctan2(side[:, 1], side[:, 0]))
            assert np.abs((heading - degrees - 0.3 + 45) % 90 - 45).max() < 2
    assert counts.count(vertices) >= 86


def test_an_axis_parallel_rectangle_stays_as_it_is():
    raw = traced(mask_of(placed(RECTANGLE, 0)))
    squared, changed = square_footprints(raw, PIXEL_M)
    assert squared[0] is raw[0]
    assert not changed[0]


@pytest.mark.parametrize("degrees", [0, 20, 45, 77])
def test_a_courtyard_is_squared_and_a_pixel_hole_is_kept(degrees):
    mask = mask_of(placed(YARD, degrees))
    mask[tuple(index[7] for index in np.nonzero(mask))] = 1
    row, col = (int(index[len(index) // 8]) for index in np.nonzero(mask))
    mask[row, col] = 0
    (squared,), _ = square_footprints(traced(mask), PIXEL_M)
    tiny, yard = sorted(squared.interiors, key=lambda ring: shapely.Polygon(ring).area)
    assert shapely.Polygon(tiny).area == pytest.approx(PIXEL_M**2)
    assert len(yard.coords) - 1 == len(squared.exterior.coords) - 1 == 4
    assert np.abs(corners(shapely.Polygon(yard)) - 90).max() < 0.5
    assert iou(squared, placed(YARD, degrees)) > 0.93


@pytest.mark.parametrize("degrees", [0, 10, 33, 61])
def test_a_row_of_houses_keeps_its_walls_and_gets_right_angles(degrees):
    row = [placed(shapely.box(x, -6, x + 10, 6 + x % 4), degrees) for x in (-15, -5, 5)]
    raw = traced(mask_of(*row))
    squared, changed = square_footprints(raw, PIXEL_M)
    assert len(squared) == 3
    assert changed.all() or degrees == 0
    assert np.isclose(shapely.area(squared).sum(), shapely.union_all(squared, grid_size=1e-6).area, atol=1e-3)
    assert not shapely.union_all(squared, grid_size=1e-6).interiors
    for house in squared:
        bends = corners(house)
        assert (np.minimum(np.abs(bends - 90), np.abs(bends - 180)) < 0.5).all()


def test_houses_of_other_classes_have_another_direction_unless_they_share_a_wall():
    apart = [placed(RECTANGLE, 10, (15, 30)), placed(RECTANGLE, 40, (43, 30))]
    squared, changed = square_footprints(traced(mask_of(*apart)), PIXEL_M)
    assert changed.all()
    found = sorted(
        np.degrees(np.arctan2(*np.diff(np.array(house.exterior.coords)[:2], axis=0)[0][::-1])) % 90
        for house in squared
    )
    assert found == pytest.approx([10, 40], abs=1.5)


def test_a_filled_courtyard_stays_filled():
    block = placed(YARD, 25)
    yard = shapely.Polygon(block.interiors[0])
    squared, changed = square_footprints(traced(mask_of(shapely.Polygon(block.exterior), yard)), PIXEL_M)
    outer, inner = sorted(squared, key=lambda p: -len(p.interiors))
    assert changed.all()
    assert same(np.array([shapely.Polygon(outer.interiors[0])]), np.array([inner]))
    assert len(inner.exterior.coords) == 5


def test_two_houses_that_would_overlap_both_step_back():
    # By itself each is squared to a rectangle whose corner reaches over the other's.
    one = shapely.Polygon([(0, 0), (10, 0), (10, 9.5), (9.5, 9.5), (9.5, 10), (0, 10)])
    raw = np.array([one, shapely.transform(one, lambda xy: 19.5 - xy)])
    alone = np.concatenate([square_footprints(raw[[k]], PIXEL_M)[0] for k in (0, 1)])
    assert [len(corners(house)) for house in alone] == [4, 4]
    assert shapely.intersection(*alone).area > 1e-3
    squared, _ = square_footprints(raw, PIXEL_M)
    assert shapely.intersection(*squared).area < 1e-6
    assert not any(same(squared[[k]], alone[[k]]) for k in (0, 1))


def test_of_two_that_would_overlap_none_wins_by_its_place():
    """Level walls of houses that lean to and fro turn into each other, but not as far as the other one stands now."""
    lean = [affinity.skew(shapely.box(20, row, 44, row + 40), xs=xs) for row, xs in ((5, 10), (48, -10))]
    raw = traced(rasterize([(house, 1) for house in lean], (100, 70), dtype=np.uint8))
    alone = np.concatenate([square_footprints(raw[[k]], PIXEL_M)[0] for k in (0, 1)])
    assert shapely.intersection(*alone).area > 0.01
    assert shapely.area(shapely.intersection(alone, raw[::-1])).max() < 1e-9
    for order in ([0, 1], [1, 0]):
        squared, changed = square_footprints(raw[order], PIXEL_M)
        assert changed.all()
        assert not any(same(squared[[k]], alone[order][[k]]) for k in (0, 1))


@pytest.mark.parametrize(
    ("pixel_m", "guard"), [(0, 0.8), (-1, 0.8), (float("nan"), 0.8), (0.5, 1.2), (0.5, -0.1)]
)
def test_settings_that_cannot_be_are_refused(pixel_m, guard):
    with pytest.raises(SpecError):
        square_footprints(np.array([RECTANGLE]), pixel_m, guard)


def test_nothing_gives_nothing():
    squared, changed = square_footprints(np.zeros(0, dtype=object), PIXEL_M)
    assert len(squared) == len(changed) == 0
