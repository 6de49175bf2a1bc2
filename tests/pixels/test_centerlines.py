"""The medial axis: where it lies, how it hangs together, and that steps leave no trace."""

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from geoseg.grid.window import Window
from geoseg.pixels.centerlines import edges_of, ends_of, medial_axis, prune, trace
from geoseg.pixels.polygons import polygonize_block

PX = 0.8


def traced(shape: shapely.Geometry, size: int = 120) -> np.ndarray:
    """Polygons, in metres, of the pixels whose centers a shape in pixels covers."""
    row, col = np.mgrid[:size, :size] + 0.5
    labels = shapely.contains_xy(shape, col, row).astype(np.uint8)
    polygons = polygonize_block(labels, Window(0, 0, size, size), [1]).geometries()
    return shapely.transform(polygons, lambda xy: xy * (PX, -PX))


def components(axis) -> int:
    count = len(axis.points)
    graph = coo_array((np.ones(len(axis.edges)), axis.edges.T), shape=(count, count))
    return connected_components(graph, directed=False)[0]


def parts_of(lines) -> np.ndarray:
    """Groups of lines that touch."""
    return shapely.get_parts(shapely.unary_union(shapely.buffer(lines, 1e-3)))


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 180), st.floats(3, 20), st.floats(0, 1), st.floats(0, 1))
def test_the_axis_of_a_rotated_road_is_one_straight_path(angle, width, dx, dy):
    middle = (60 + dx, 60 + dy)
    straight = shapely.LineString([(15 + dx, 60 + dy), (105 + dx, 60 + dy)])
    center = shapely.affinity.rotate(straight, angle, origin=middle)
    (road,) = traced(center.buffer(width / 2, cap_style="flat"))
    axis = medial_axis(road, PX)
    (path,) = prune(axis, PX)
    drawn = road.area / (90 * PX)
    inner = [v for v in path if axis.radius_m[v] > 0.4 * drawn]
    truth = shapely.transform(center, lambda xy: xy * (PX, -PX))
    away = shapely.distance(truth, shapely.points(axis.points[inner]))
    assert np.mean(away) < 0.5 * PX + 1e-9
    assert abs(2 * np.mean(axis.radius_m[inner]) - drawn) < 0.5 * PX


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_axis_is_connected_and_has_a_loop_for_each_hole(seed):
    rng = np.random.default_rng(seed)
    wires = shapely.linestrings(rng.uniform(10, 110, (6, 2, 2)))
    for polygon in traced(shapely.unary_union(shapely.buffer(wires, 4))):
        axis = medial_axis(polygon, PX)
        assert components(axis) == 1
        loops = len(axis.edges) - len(axis.points) + 1
        # Where rings touch at a corner, the axis may lead through it or not.
        assert len(parts_of(polygon.boundary)) - 1 <= loops <= len(polygon.interiors)
        assert (axis.radius_m > 0).all()
        assert shapely.contains_xy(polygon, *axis.points.T).all()
        real = shapely.distance(polygon.boundary, shapely.points(axis.points))
        assert np.abs(real - axis.radius_m).max() < PX


def test_the_staircase_of_a_curve_leaves_no_spur():
    bow = shapely.Point(60, 60).buffer(50).boundary.intersection(shapely.box(0, 0, 120, 80))
    for width in (4, 7, 12):
        for road in traced(shapely.line_merge(bow).buffer(width / 2)):
            assert len(prune(medial_axis(road, PX), PX)) == 1


def test_a_pixel_has_no_axis_and_a_square_no_direction():
    assert len(medial_axis(shapely.box(0, 0, PX, PX), PX).points) == 0
    for side in range(2, 12):
        assert prune(medial_axis(shapely.box(0, 0, side * PX, side * PX), PX), PX) == []


@pytest.mark.parametrize("turn", [0, 3])
def test_paths_of_a_graph(turn):
    """A stem, a loop at its end, a ring apart and a double edge."""
    edges = np.roll([[0, 1], [1, 2], [2, 3], [3, 4], [4, 2], [5, 6], [6, 7], [7, 5], [8, 9], [8, 9]], turn, 0)
    paths = trace(edges, 11)
    assert sorted(len(path) for path in paths) == [3, 3, 4, 4]
    assert {frozenset(path.tolist()) for path in paths} == {
        frozenset({0, 1, 2}), frozenset({2, 3, 4}), frozenset({5, 6, 7}), frozenset({8, 9}),
    }  # fmt: skip
    assert all(path[0] == path[-1] for path in paths if 0 not in path)
    assert sorted(map(sorted, edges_of(paths).tolist())) == sorted(map(sorted, edges.tolist()))
    assert ends_of(paths, 11)[2].tolist() == [1, 0, 3, 0, 0, 2, 0, 0, 2, 0, 0] or turn
    assert trace(np.zeros((0, 2), np.int64), 0) == []
