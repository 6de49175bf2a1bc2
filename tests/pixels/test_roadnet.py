"""Laws of a road network, on roads drawn as pixels."""

from itertools import pairwise

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from geoseg.errors import SpecError
from geoseg.grid.window import Window
from geoseg.pixels.polygons import polygonize_block
from geoseg.pixels.roadnet import RoadNetwork, road_network
from geoseg.pixels.seams import join_blocks

PX = 0.8
SIZE = 160
angles = st.floats(0, 360)
widths = st.floats(4, 14)


def metres(shape):
    return shapely.transform(shape, lambda xy: xy * (PX, -PX))


def turned(shape, angle: float):
    return shapely.affinity.rotate(shape, angle, origin=(SIZE / 2 + 0.3, SIZE / 2 + 0.1))


def pixels_of(shape) -> np.ndarray:
    """(row, col) uint8: 1 where a shape in pixels covers the center of a pixel."""
    row, col = np.mgrid[:SIZE, :SIZE] + 0.5
    return shapely.contains_xy(shape, col, row).astype(np.uint8)


def traced(labels: np.ndarray) -> np.ndarray:
    return metres(polygonize_block(labels, Window(0, 0, *labels.shape), [1]).geometries())


def roads(*lines, width: float):
    return shapely.unary_union(shapely.buffer(shapely.linestrings(list(lines)), width / 2, cap_style="flat"))


def network(shape, **options) -> RoadNetwork:
    found = road_network(traced(pixels_of(shape)), PX, **options)
    check(found)
    return found


def check(net: RoadNetwork) -> None:
    """What holds for any network."""
    assert len(net.lines) == len(net.from_node) == len(net.to_node) == len(net.mean_width_m)
    for line, a, b in zip(net.lines, net.from_node, net.to_node, strict=True):
        assert line.coords[0] == tuple(net.nodes[a]) and line.coords[-1] == tuple(net.nodes[b])
    assert (net.from_node <= net.to_node).all()
    ends = np.concatenate([net.from_node, net.to_node])
    assert np.bincount(ends, minlength=len(net.nodes)).tolist() == net.degree.tolist()
    order = np.lexsort((net.nodes[:, 0], -net.nodes[:, 1]))
    assert order.tolist() == list(range(len(order)))
    assert (np.lexsort((net.to_node, net.from_node)) == np.arange(len(net))).all()
    assert (net.min_width_m > 0).all() and (net.min_width_m <= net.mean_width_m + 1e-9).all()


def same(a: RoadNetwork, b: RoadNetwork) -> bool:
    fields = ("from_node", "to_node", "mean_width_m", "min_width_m", "bridge_m", "nodes", "degree")
    return shapely.to_wkb(a.lines).tolist() == shapely.to_wkb(b.lines).tolist() and all(
        np.array_equal(getattr(a, name), getattr(b, name)) for name in fields
    )


@settings(max_examples=40, deadline=None)
@given(angles, widths)
def test_a_straight_road_is_its_axis(angle, width):
    axis = turned(shapely.LineString([(25, 80), (135, 80)]), angle)
    net = network(axis.buffer(width / 2, cap_style="flat"))
    (line,) = net.lines
    assert net.degree.tolist() == [1, 1]
    body = metres(turned(shapely.box(25 + width, 0, 135 - width, 160), angle))
    inner = line.intersection(body)
    assert shapely.hausdorff_distance(inner, metres(axis).intersection(body), densify=0.02) < 0.5 * PX + 0.1
    assert line.distance(metres(axis.boundary.geoms[0])) < 2.5 * PX
    assert line.distance(metres(axis.boundary.geoms[1])) < 2.5 * PX
    assert net.mean_width_m[0] == pytest.approx(width * PX, abs=PX)
    assert net.min_width_m[0] == pytest.approx(width * PX, abs=1.5 * PX)


@settings(max_examples=40, deadline=None)
@given(angles, widths, st.floats(50, 130))
def test_a_fork_is_one_node_of_degree_three(angle, width, side):
    away = (80 + 60 * np.cos(np.radians(side)), 80 + 60 * np.sin(np.radians(side)))
    shape = turned(roads([(20, 80), (140, 80)], [(80, 80), away], width=width), angle)
    net = network(shape)
    assert sorted(net.degree) == [1, 1, 1, 3]
    place = net.nodes[net.degree == 3][0]
    assert (
        metres(turned(shapely.Point(80, 80), angle)).distance(shapely.Point(place)) < 0.25 * width * PX + PX
    )


@settings(max_examples=40, deadline=None)
@given(angles, widths, st.floats(50, 130))
def test_a_crossing_is_one_node_of_degree_four(angle, width, side):
    arm = 60 * np.array([np.cos(np.radians(side)), np.sin(np.radians(side))])
    net = network(turned(roads([(20, 80), (140, 80)], [80 - arm, 80 + arm], width=width), angle))
    assert sorted(net.degree) == [1, 1, 1, 1, 4]
    place = net.nodes[net.degree == 4][0]
    assert metres(turned(shapely.Point(80, 80), angle)).distance(shapely.Point(place)) < 1.5 * PX


def test_staggered_side_roads_meet_in_one_node_only_if_closer_than_the_road_is_wide():
    def stagger(by):
        return roads([(10, 80), (150, 80)], [(80, 80), (80, 20)], [(80 + by, 80), (80 + by, 140)], width=8)

    assert sorted(network(stagger(5)).degree) == [1, 1, 1, 1, 4]
    assert sorted(network(stagger(30)).degree) == [1, 1, 1, 1, 3, 3]


def test_a_ring_road_is_one_closed_line():
    net = network(shapely.Point(80, 80).buffer(50).boundary.buffer(4))
    (line,) = net.lines
    assert line.is_closed and line.is_simple and net.degree.tolist() == [2]
    assert abs(line.length / PX / (100 * np.pi) - 1) < 0.01
    assert net.nodes[0, 1] == pytest.approx(-30 * PX, abs=PX)


def test_a_roundabout_keeps_its_island():
    shape = shapely.Point(80, 80).buffer(14).boundary.buffer(4)
    net = network(shape.union(roads([(10, 80), (66, 80)], [(94, 80), (150, 80)], width=8)))
    assert sorted(net.degree) == [1, 1, 3, 3]
    assert not any(line.intersects(metres(shapely.Point(80, 80).buffer(9))) for line in net.lines)


@pytest.mark.parametrize("angle", [0, 17, 45, 90])
def test_gaps_are_bridged_where_ends_face_each_other(angle):
    def pair(gap_m):
        gap = gap_m / PX
        return turned(roads([(10, 80), (70, 80)], [(70 + gap, 80), (150, 80)], width=7), angle)

    net = network(pair(10))
    assert len(net) == 1 and net.degree.tolist() == [1, 1]
    assert net.bridge_m[0] == pytest.approx(10, abs=2 * PX)
    assert net.mean_width_m[0] == pytest.approx(7 * PX, abs=PX)
    assert len(network(pair(40))) == 2
    assert len(network(pair(10), bridge_m=5.0)) == 2


def test_gaps_are_not_bridged_around_corners_nor_across_roads():
    upright = roads([(10, 80), (70, 80)], [(80, 90), (80, 150)], width=6)
    assert network(upright).bridge_m.tolist() == [0, 0]
    passed = roads([(10, 80), (72, 80)], [(88, 80), (150, 80)], [(80, 10), (80, 150)], width=5)
    net = network(passed)
    assert len(net) == 3 and not net.bridge_m.any()


def test_a_short_bump_is_no_road_and_a_long_one_is():
    for length, lines in ((6, 1), (40, 3)):
        assert len(network(roads([(10, 80), (150, 80)], [(80, 80), (80, 80 + length)], width=10))) == lines


def town(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    wires = shapely.linestrings(rng.uniform(5, 155, (9, 2, 2)))
    labels = pixels_of(shapely.unary_union(shapely.buffer(wires, rng.uniform(1.5, 5, 9))))
    return np.where(rng.random(labels.shape) < 0.01, 1 - labels, labels).astype(np.uint8)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_lines_stay_in_the_road_and_order_does_not_matter(seed):
    polygons = traced(town(seed))
    net = road_network(polygons, PX)
    check(net)
    filled = [
        shapely.Polygon(p.exterior, [h for h in p.interiors if shapely.Polygon(h).area >= 9 * PX**2])
        for p in polygons
    ]
    room = shapely.unary_union(filled).buffer(0.5 * PX)
    for line, bridged in zip(net.lines, net.bridge_m, strict=True):
        assert line.difference(room).length <= bridged + 1e-6
    shuffled = np.random.default_rng(seed).permutation(len(polygons))
    assert same(road_network(polygons[shuffled], PX), net)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0, 0.7, 2]), st.floats(0.3, 0.8))
def test_noise_gives_a_network_as_well(seed, sigma, share):
    noise = gaussian_filter(np.random.default_rng(seed).random((60, 70)), sigma)
    polygons = traced((noise > np.quantile(noise, share)).astype(np.uint8))
    net = road_network(polygons, PX)
    check(net)
    assert shapely.is_valid(net.lines).all() and (shapely.length(net.lines) > 0).all()
    room = shapely.buffer(shapely.unary_union([shapely.Polygon(p.exterior) for p in polygons]), PX)
    assert all(a.difference(room).length <= b + 1e-6 for a, b in zip(net.lines, net.bridge_m, strict=True))


def test_blocks_do_not_matter():
    labels = town(7)
    cuts = [0, 37, 100, SIZE]
    blocks = [
        polygonize_block(np.ascontiguousarray(labels[:, a:b]), Window(0, a, SIZE, b - a), [1])
        for a, b in pairwise(cuts)
    ]
    joined = metres(join_blocks(blocks, cuts[1:-1]).geometries())
    assert same(road_network(joined, PX), road_network(traced(labels), PX))


def test_nothing_gives_nothing():
    for polygons in ([], [shapely.box(0, 0, PX, PX)], [shapely.box(0, 0, 9 * PX, 9 * PX)]):
        net = road_network(np.array(polygons, dtype=object), PX)
        check(net)
        assert len(net) == 0 and net.nodes.shape == (0, 2) and net.mean_width_m.shape == (0,)


@pytest.mark.parametrize("pixel_m, bridge_m", [(0.0, 15.0), (-1.0, 15.0), (0.8, -1.0), (float("nan"), 1.0)])
def test_sizes_that_cannot_be(pixel_m, bridge_m):
    with pytest.raises(SpecError, match=r"got "):
        road_network(np.zeros(0, dtype=object), pixel_m, bridge_m)
