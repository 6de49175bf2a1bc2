"""Simplified polygons of a map fit together as the raw ones do."""

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from geoseg.errors import SpecError
from geoseg.grid.window import Window
from geoseg.pixels.noding import noded
from geoseg.pixels.polygons import EMPTY, apply, polygonize_block
from geoseg.pixels.simplify import simplify_coverage
from tests.pixels.test_generalize import CLASSES, NODATA, label_images
from tests.pixels.test_polygons import join, picture

NORTH_UP = Affine(0.5, 0, 345742.25, 0, -0.5, 2767004.75)
TURNED = Affine(0.4, 0.3, 5e5, 0.3, -0.4, 3e6)
PLAIN = Affine.identity()
tolerances = st.sampled_from([0, 0.4, 0.71, 1, 1.5, 2.5, 6, 100])


def polygons_of(labels, class_ids=CLASSES):
    return polygonize_block(labels, Window(0, 0, *labels.shape), class_ids)


def fields(side):
    """Fields with curved borders."""
    rng = np.random.default_rng(3)
    scores = [ndimage.gaussian_filter(rng.normal(size=(side, side)), 2) for _ in CLASSES]
    return np.argmax(scores, axis=0).astype(np.uint8)


def neighbors(polygons):
    """Pairs that share more than points."""
    first, second = shapely.STRtree(polygons).query(polygons, predicate="intersects")
    first, second = first[first < second], second[first < second]
    shared = shapely.length(shapely.intersection(polygons[first], polygons[second])) > 0
    return set(zip(first[shared].tolist(), second[shared].tolist(), strict=True))


def corners_of(polygons):
    return {tuple(corner) for corner in shapely.get_coordinates(polygons).tolist()}


@settings(max_examples=150, deadline=None)
@given(label_images())
def test_noded_polygons_are_the_same_and_a_coverage(labels):
    pieces = polygons_of(labels)
    rings, raw = noded(pieces), pieces.geometries()
    polygons = rings.polygons()
    assert shapely.coverage_is_valid(polygons)
    assert shapely.equals(polygons, raw).all()
    assert (shapely.area(polygons) == shapely.area(raw)).all()
    first, second = rings.twins()
    assert (rings.start[first] == rings.end[second]).all()
    assert (rings.start[second] == rings.end[first]).all()
    owner = rings.polygon_of_ring[rings.ring_of_side]
    assert (owner[first] != owner[second]).all()
    shared = sum(
        ((a != b) & (a != NODATA) & (b != NODATA)).sum()
        for a, b in ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1]))
    )
    assert rings.lengths(first).sum() == shared


@settings(max_examples=250, deadline=None)
@given(label_images(), tolerances, st.booleans(), st.sampled_from([PLAIN, NORTH_UP, TURNED]))
def test_simplified_polygons_are_a_coverage_with_the_same_neighbors(labels, tolerance, boundary, transform):
    pieces = polygons_of(labels)
    found = simplify_coverage(pieces, transform, tolerance * 0.5, boundary)
    raw = pieces.geometries(transform)
    assert shapely.is_valid(found).all()
    assert shapely.coverage_is_valid(found)
    assert (shapely.area(found) > 0).all()
    assert (shapely.get_type_id(found) == shapely.GeometryType.POLYGON).all()
    assert (shapely.get_num_interior_rings(found) == shapely.get_num_interior_rings(raw)).all()
    assert neighbors(found) == neighbors(pieces.geometries())
    noded_raw = shapely.transform(noded(pieces).polygons(), lambda xy: apply(transform, xy))
    assert corners_of(found) <= corners_of(noded_raw)


@settings(max_examples=150, deadline=None)
@given(label_images(), tolerances)
def test_with_its_boundary_kept_a_coverage_covers_exactly_what_it_did(labels, tolerance):
    pieces = polygons_of(labels)
    found = simplify_coverage(pieces, PLAIN, tolerance)
    assert shapely.area(found).sum() == (labels != NODATA).sum()
    raw = shapely.union_all(pieces.geometries())
    assert shapely.equals(shapely.union_all(found), raw)


@settings(max_examples=100, deadline=None)
@given(label_images(), tolerances, st.booleans(), st.data())
def test_neither_blocks_nor_the_order_of_polygons_change_it(labels, tolerance, boundary, data):
    cuts = [
        data.draw(st.sets(st.integers(1, size - 1)).map(sorted)) if size > 1 else [] for size in labels.shape
    ]
    cut, whole = join(labels, *cuts, CLASSES), polygons_of(labels)
    order = np.array(data.draw(st.permutations(range(len(cut)))), np.int64)
    rows, cols = whole.first_pixels()
    expected = simplify_coverage(whole, NORTH_UP, tolerance, boundary)[np.lexsort((cols, rows))]
    found = simplify_coverage(cut.take(order), NORTH_UP, tolerance, boundary)
    assert shapely.to_wkb(found).tolist() == shapely.to_wkb(expected[order]).tolist()


def test_it_does_not_matter_where_a_cut_made_a_ring_start():
    disk = (np.hypot(*(np.indices((24, 24)) - 11.6)) < 8.3).astype(np.uint8)
    cut, whole = join(disk, [7], []), polygons_of(disk)
    where = [{tuple(p.coords[start]) for start in p.ring_starts[:-1]} for p in (cut, whole)]
    assert where[0] != where[1]
    for tolerance in (1, 1.5, 3):
        found = [set(shapely.to_wkb(simplify_coverage(p, PLAIN, tolerance))) for p in (cut, whole)]
        assert found[0] == found[1]


@settings(max_examples=50, deadline=None)
@given(label_images())
def test_nothing_moves_without_a_tolerance(labels):
    pieces = polygons_of(labels)
    found = simplify_coverage(pieces, NORTH_UP, 0)
    assert shapely.equals(found, pieces.geometries(NORTH_UP)).all()


@pytest.mark.parametrize("transform", [NORTH_UP, TURNED])
def test_the_georeference_decides_nothing(transform):
    pieces = polygons_of(fields(60))
    pixel = np.sqrt(abs(transform.determinant))
    in_pixels = simplify_coverage(pieces, PLAIN, 1.3)
    placed = simplify_coverage(pieces, transform, 1.3 * pixel)
    assert (shapely.get_num_coordinates(in_pixels) == shapely.get_num_coordinates(placed)).all()
    assert np.allclose(shapely.area(placed), shapely.area(in_pixels) * pixel**2)


def test_stairs_become_straight_and_less_remains_the_coarser_it_is():
    stairs = polygons_of(np.tri(12, dtype=np.uint8))
    assert shapely.get_num_coordinates(simplify_coverage(stairs, PLAIN, 0.71)).max() <= 7
    assert shapely.get_num_coordinates(simplify_coverage(stairs, PLAIN, 0.7)).min() > 20
    pieces = polygons_of(fields(80))
    left = [shapely.get_num_coordinates(simplify_coverage(pieces, PLAIN, t)).sum() for t in (0, 0.71, 1.5, 4)]
    assert left == sorted(left, reverse=True)
    assert left[2] < left[0] / 2


def test_a_pixel_among_others_is_never_lost():
    labels = picture("11111", "12131", "11111")
    found = simplify_coverage(polygons_of(labels), PLAIN, 100)
    assert len(found) == 3
    assert (shapely.area(found) > 0).all()


def test_the_raster_keeps_its_corners_and_nodata_its_borders_unless_told_otherwise():
    labels = fields(40)
    labels[np.hypot(*np.indices(labels.shape)) < 25] = NODATA
    pieces = polygons_of(labels)
    kept = shapely.union_all(simplify_coverage(pieces, PLAIN, 3))
    assert shapely.equals(kept, shapely.union_all(pieces.geometries()))
    cut = shapely.union_all(simplify_coverage(pieces, PLAIN, 3, simplify_boundary=True))
    assert shapely.get_num_coordinates(cut) < shapely.get_num_coordinates(kept)

    with_nodata = polygons_of(labels, (*CLASSES, NODATA))
    smooth = simplify_coverage(with_nodata, PLAIN, 3)
    assert shapely.equals(shapely.union_all(smooth), shapely.box(0, 0, 40, 40))
    map_only = shapely.union_all(smooth[with_nodata.class_ids != NODATA])
    assert shapely.get_num_coordinates(map_only) < shapely.get_num_coordinates(kept)


@pytest.mark.parametrize("tolerance", [-1, float("nan"), float("inf")])
def test_a_tolerance_that_cannot_be_is_refused(tolerance):
    with pytest.raises(SpecError, match="tolerance"):
        simplify_coverage(EMPTY, PLAIN, tolerance)


def test_no_polygons_are_no_polygons():
    assert len(simplify_coverage(EMPTY, NORTH_UP, 1)) == 0
