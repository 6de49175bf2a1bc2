"""Generalized polygons are those of the class raster that the same rules, written out plainly, leave."""

import pickle

import numpy as np
import pytest
import shapely
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from geoseg.errors import SpecError
from geoseg.grid.window import Window
from geoseg.pixels.generalize import GeneralizeRules, fill_holes, generalize, merge_small
from geoseg.pixels.polygons import EMPTY, describe, polygonize_block
from geoseg.pixels.rings import dissolve
from tests.pixels.test_polygons import COMB, HOLES_TOUCH, NESTED, PINCH, SPIRAL, join, picture

NODATA = 255
CLASSES = (0, 1, 2, 3)
CHECKS = np.indices((6, 7)).sum(axis=0).astype(np.uint8) % 2
RINGS = picture("000000000", "011111110", "010000010", "010222010", "010232010", "010222010", "010000010",
                "011111110", "000000000")  # fmt: skip
FAR_NODATA = picture("00000000", "01111110", "01222210", "012..210", "01222210", "01111110", "00000000")


def parts_of(labels):
    """Masks of the polygons of a raster, in scan order."""
    found = []
    for class_id in np.unique(labels[labels != NODATA]):
        numbers, count = ndimage.label(labels == class_id)
        found += [numbers == n for n in range(1, count + 1)]
    return sorted(found, key=lambda mask: int(np.flatnonzero(mask)[0]))


def merged(labels, weights, minimum):
    """The raster with small polygons merged. weights: the area of each pixel."""
    labels = labels.copy()
    while True:
        masks = parts_of(labels)
        number = np.full(labels.shape, -1)
        for n, mask in enumerate(masks):
            number[mask] = n
        areas = [float(weights[mask].sum()) for mask in masks]
        classes = [int(labels[mask][0]) for mask in masks]
        border = {n: {} for n in range(len(masks))}
        rows, cols = labels.shape
        for row in range(rows):
            for col in range(cols):
                for other in ((row + 1, col), (row, col + 1)):
                    if other[0] < rows and other[1] < cols:
                        a, b = int(number[row, col]), int(number[other])
                        if a != b and a >= 0 and b >= 0:
                            border[a][b] = border[a].get(b, 0) + 1
                            border[b][a] = border[b].get(a, 0) + 1
        groups = [{n} for n in range(len(masks))]
        moved = False
        for n in range(len(masks)):
            if areas[n] < minimum.get(classes[n], 0) and border[n]:
                moved = True
                target = max(border[n], key=lambda other: (border[n][other], -other))
                mine = next(g for g in groups if n in g)
                theirs = next(g for g in groups if target in g)
                if mine is not theirs:
                    groups.remove(theirs)
                    mine |= theirs
        if not moved:
            return labels
        for group in groups:
            enough = [n for n in group if areas[n] >= minimum.get(classes[n], 0)]
            largest = max(enough or group, key=lambda n: (areas[n], -n))
            for n in group:
                labels[masks[n]] = classes[largest]


def filled(labels, weights, minimum):
    """The raster with small holes filled: by each polygon, from the one whose hole is the largest."""
    result, holes = labels.copy(), []
    for mask in parts_of(labels):
        class_id = int(labels[mask][0])
        numbers, count = ndimage.label(ndimage.binary_fill_holes(mask) & ~mask)
        for n in range(1, count + 1):
            hole = numbers == n
            if (labels[hole] != NODATA).all() and weights[hole].sum() < minimum.get(class_id, 0):
                holes.append((int(hole.sum()), class_id, hole))
    for _, class_id, hole in sorted(holes, key=lambda h: h[0]):  # so that the outermost is filled last
        result[hole] = class_id
    return result


def generalized(labels, weights, rules):
    labels = filled(labels, weights, rules.min_hole_m2)
    labels = merged(labels, weights, rules.min_area_m2)
    return filled(labels, weights, rules.min_hole_m2)


def percent_of(labels):
    """A confidence for each pixel, some unknown."""
    rows, cols = np.indices(labels.shape)
    percent = ((rows * 7 + cols * 3) % 11).astype(np.uint8)
    percent[(rows + 2 * cols) % 5 == 0] = NODATA
    return percent


def polygons_of(labels):
    window = Window(0, 0, *labels.shape)
    return describe(polygonize_block(labels, window, CLASSES), labels, percent_of(labels), window, window)


def areas_of(pieces, weights):
    areas = np.zeros(len(pieces))
    for n, polygon in enumerate(pieces.geometries()):
        rows, cols = np.indices(weights.shape)
        areas[n] = weights[shapely.contains_xy(polygon, cols + 0.5, rows + 0.5)].sum()
    return areas


def told(pieces, scan_order=True):
    """All that polygons tell, comparable: in scan order, or as they come."""
    rows, cols = pieces.first_pixels()
    pieces = pieces.take(np.lexsort((cols, rows))) if scan_order else pieces
    tally = pieces.percents
    return (
        pieces.class_ids.tolist(),
        shapely.to_wkb(pieces.geometries()).tolist(),
        pieces.at_edge.tolist(),
        [tally.owner.tolist(), tally.value.tolist(), tally.count.tolist()],
    )


@st.composite
def blobs(draw: st.DrawFn) -> np.ndarray:
    """Fields of several pixels with noise on them, and with nodata in some."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.integers(1, 16)), draw(st.integers(1, 16))
    labels = rng.integers(0, draw(st.integers(1, 4)), shape).astype(np.uint8)
    for _ in range(draw(st.integers(0, 3))):
        labels = ndimage.median_filter(labels, 3)
    noisy = rng.random(shape) < draw(st.sampled_from([0, 0.1, 0.3]))
    labels[noisy] = rng.integers(0, 4, shape)[noisy]
    labels[rng.random(shape) < draw(st.sampled_from([0, 0, 0.05, 0.3]))] = NODATA
    return labels


@st.composite
def label_images(draw: st.DrawFn) -> np.ndarray:
    drawn = st.sampled_from([COMB, SPIRAL, CHECKS, PINCH, NESTED, HOLES_TOUCH, RINGS, FAR_NODATA])
    image = draw(st.one_of(blobs(), blobs(), drawn))
    return np.ascontiguousarray(np.rot90(image, draw(st.integers(0, 3))))


limits = st.dictionaries(st.sampled_from(CLASSES), st.sampled_from([0.5, 1, 2, 3, 4.5, 8, 20, 1e6]))
every_limit = st.sampled_from([1.5, 3, 6, 30]).map(lambda area: dict.fromkeys(CLASSES, area))
rules_drawn = st.builds(GeneralizeRules, limits | every_limit, limits | every_limit)
weights_drawn = st.sampled_from(["equal", "mixed"])


def weights_like(labels, kind):
    """Areas of pixels, in sixteenths, so that their sums are exact in any order."""
    if kind == "equal":
        return np.full(labels.shape, 0.75)
    return np.random.default_rng(labels.size).integers(1, 40, labels.shape) / 16


@settings(max_examples=250, deadline=None)
@given(label_images(), rules_drawn, weights_drawn)
@example(CHECKS, GeneralizeRules({0: 2, 1: 2}), "equal")
def test_merging_is_that_of_the_class_raster(labels, rules, kind):
    pieces, weights = polygons_of(labels), weights_like(labels, kind)
    found, areas = merge_small(pieces, areas_of(pieces, weights), rules)
    expected = merged(labels, weights, rules.min_area_m2)
    assert told(found, scan_order=False) == told(polygons_of(expected))
    assert areas.tolist() == areas_of(found, weights).tolist()


@settings(max_examples=250, deadline=None)
@given(label_images(), rules_drawn, weights_drawn)
@example(RINGS, GeneralizeRules({}, {0: 40, 1: 10}), "equal")
def test_filling_is_that_of_the_class_raster(labels, rules, kind):
    pieces, weights = polygons_of(labels), weights_like(labels, kind)
    found, areas = fill_holes(pieces, areas_of(pieces, weights), rules)
    expected = filled(labels, weights, rules.min_hole_m2)
    assert told(found, scan_order=False) == told(polygons_of(expected))
    assert areas.tolist() == areas_of(found, weights).tolist()


@settings(max_examples=100, deadline=None)
@given(label_images(), rules_drawn, st.data())
def test_generalizing_knows_neither_blocks_nor_the_order_of_polygons(labels, rules, data):
    weights = weights_like(labels, "mixed")
    cuts = [
        data.draw(st.sets(st.integers(1, size - 1)).map(sorted)) if size > 1 else [] for size in labels.shape
    ]
    pieces = join(labels, *cuts, CLASSES)
    pieces = pieces.take(np.array(data.draw(st.permutations(range(len(pieces)))), np.int64))
    found = generalize(pieces, areas_of(pieces, weights), rules)
    whole = polygons_of(labels)
    again = generalize(whole, areas_of(whole, weights), rules)
    assert told(found, scan_order=False)[:2] == told(again, scan_order=False)[:2]
    assert told(again, scan_order=False) == told(polygons_of(generalized(labels, weights, rules)))


@settings(max_examples=100, deadline=None)
@given(label_images(), rules_drawn)
def test_nothing_too_small_remains_and_a_second_time_changes_nothing(labels, rules):
    weights = weights_like(labels, "mixed")
    pieces = polygons_of(labels)
    found = generalize(pieces, areas_of(pieces, weights), rules)
    areas, outlines = areas_of(found, weights), found.geometries()
    assert told(generalize(found, areas, rules), scan_order=False) == told(found, scan_order=False)
    for polygon, class_id, area in zip(outlines, found.class_ids.tolist(), areas, strict=True):
        if area < rules.min_area_m2.get(class_id, 0):
            assert shapely.length(shapely.intersection(polygon, outlines)).astype(bool).sum() == 1  # itself
    assert shapely.area(outlines).sum() == (labels != NODATA).sum()


@settings(max_examples=100, deadline=None)
@given(label_images(), st.integers(0, 2**32 - 1))
def test_dissolving_any_connected_groups_is_polygonizing_their_raster(labels, seed):
    pieces = polygons_of(labels)
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, 2, len(pieces))
    new = np.full(labels.shape, NODATA, np.uint8)
    rows, cols = np.indices(labels.shape)
    for class_id, polygon in zip(classes, pieces.geometries(), strict=True):
        new[shapely.contains_xy(polygon, cols + 0.5, rows + 0.5)] = class_id
    expected = polygons_of(new)
    at, inside = expected.first_pixels(), shapely.point_on_surface(pieces.geometries())
    tree = shapely.STRtree(expected.geometries())
    group = np.zeros(len(pieces), np.int64)
    polygon, which = tree.query(inside, predicate="intersects")
    group[polygon] = np.lexsort(at[::-1]).argsort()[which] * 3 - 7
    found = dissolve(pieces, group)
    assert told(found, scan_order=False)[1:] == told(expected)[1:]


def after(labels, rules):
    """The raster of generalized polygons, where a pixel is 1 m2."""
    pieces = polygons_of(labels)
    found = generalize(pieces, areas_of(pieces, np.ones(labels.shape)), rules)
    result = np.full(labels.shape, NODATA, np.uint8)
    rows, cols = np.indices(labels.shape)
    for class_id, polygon in zip(found.class_ids, found.geometries(), strict=True):
        result[shapely.contains_xy(polygon, cols + 0.5, rows + 0.5)] = class_id
    return result


@pytest.mark.parametrize(
    ("before", "expected", "rules"),
    [
        (("0011", "0211", "0011"), ("0011", "0011", "0011"), {2: 2}),  # the longest border
        (("0211",), ("0011",), {2: 2}),  # of equal ones the first
        (("2.00",), ("2.00",), {2: 2}),  # no neighbor
        (("2.", ".0"), ("2.", ".0"), {2: 2}),  # a corner is no border
        (("0013200",), ("0000200",), {1: 2, 3: 2}),  # a chain of pointers
        (("1120", "1120"), ("1111", "1111"), {2: 3, 0: 3}),  # two small ones in a row
        (("12",), ("11",), {1: 2, 2: 2}),  # they point to each other
        (("11211",), ("11111",), {2: 2}),  # what was cut in two is one
    ],
)
def test_small_polygons_go_where_the_rule_says(before, expected, rules):
    assert after(picture(*before), GeneralizeRules(rules)).tolist() == picture(*expected).tolist()


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (1, RINGS),
        (2, np.where(RINGS == 3, 2, RINGS)),
        (10, np.where(RINGS >= 2, 0, RINGS)),
        (26, np.where(RINGS > 0, 1, np.pad(np.ones((7, 7), np.uint8), 1))),
    ],
)
def test_the_outermost_hole_that_is_too_small_decides(size, expected):
    rules = GeneralizeRules({}, dict.fromkeys(CLASSES, size))
    assert after(RINGS, rules).tolist() == expected.tolist()


def test_holes_with_nodata_stay_and_keep_what_else_lies_in_them():
    assert (after(FAR_NODATA, GeneralizeRules({}, dict.fromkeys(CLASSES, 1e6))) == FAR_NODATA).all()
    courtyard = picture("111111", "121.11", "111111")
    expected = picture("111111", "111.11", "111111")
    assert (after(courtyard, GeneralizeRules({}, {1: 5})) == expected).all()


def test_what_lies_in_a_hole_counts_before_a_polygon_is_found_too_small():
    yard = picture("0000000", "0111110", "0122210", "0111110", "0000000")
    rules = GeneralizeRules({1: 14, 2: 4}, {1: 5})
    assert (after(yard, rules) == np.where(yard == 2, 1, yard)).all()


@pytest.mark.parametrize("name", ["min_area_m2", "min_hole_m2"])
@pytest.mark.parametrize("limit", [{-1: 5}, {255: 5}, {1: -0.1}, {1: float("nan")}, {1: float("inf")}])
def test_rules_are_checked_at_birth(name, limit):
    with pytest.raises(SpecError, match=name):
        GeneralizeRules(**{name: limit})


def test_rules_travel_and_cannot_be_changed_from_outside():
    mine = {1: 5.0}
    rules = GeneralizeRules(mine)
    mine[1] = 7
    assert pickle.loads(pickle.dumps(rules)) == GeneralizeRules({1: 5.0})


@pytest.mark.parametrize("areas", [[1.0, np.nan], [1.0, 0], [1.0]])
def test_areas_must_be_known(areas):
    with pytest.raises(SpecError, match="area"):
        generalize(polygons_of(picture("12")), np.array(areas), GeneralizeRules())


def test_no_polygons_are_no_polygons():
    rules = GeneralizeRules({0: 5}, {0: 5})
    assert len(generalize(EMPTY, np.zeros(0), rules)) == 0
    assert len(merge_small(EMPTY, np.zeros(0), rules)[1]) == 0
