"""Shares of pixels in polygons: exact, the same for any window, and complete where polygons meet."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

from geoseg.grid.geogrid import GeoGrid
from geoseg.grid.window import Window
from geoseg.pixels.shares import FULL, pixel_shares

NORTH_UP = Affine(0.3, 0, 338000.1, 0, -0.3, 2776000.7)
TRANSFORMS = (
    NORTH_UP,
    Affine(0.3, 0, 338000.1, 0, 0.3, 2776000.7),
    NORTH_UP @ Affine.rotation(30),
    Affine(2, 0, 500, 0, -2, 900),
    Affine(1e-6, 0, 55.1, 0, -1e-6, 25.3),
)
HEIGHT, WIDTH = 50, 60
ROWS, COLS = np.indices((HEIGHT, WIDTH))
PIXELS = shapely.box(COLS, ROWS, COLS + 1, ROWS + 1)
EXACT = 2e-5
"""Vertices move by up to half a millionth of a pixel, and so does the longest edge in a pixel."""

coordinates = st.one_of(
    st.integers(-20, 140).map(lambda half: half / 2), st.floats(-10, 70, allow_nan=False, width=32)
)
rings = st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=9)
transforms = st.sampled_from(TRANSFORMS)


def shares_of(geometry, window, grid):
    return pixel_shares(geometry, window, grid) / FULL


def polygonal(geometry):
    parts = shapely.get_parts(shapely.make_valid(geometry))
    return shapely.union_all([part for part in parts if part.geom_type in ("Polygon", "MultiPolygon")])


def to_map(geometry, transform):
    return shapely.transform(geometry, lambda xy: np.column_stack(transform @ (xy[:, 0], xy[:, 1])))


def grid_of(transform):
    return GeoGrid(HEIGHT, WIDTH, transform)


def clipped(polygon):
    """The referee: each pixel cut out of the polygon, and measured."""
    return shapely.area(shapely.intersection(PIXELS, polygon))


@given(st.lists(rings, min_size=1, max_size=2), transforms)
def test_shares_are_those_of_pixels_cut_out_one_by_one(parts, transform) -> None:
    drawn = shapely.union_all([polygonal(shapely.Polygon(ring)) for ring in parts])
    grid = grid_of(transform)
    polygon = polygonal(to_map(drawn, transform))  # rounding may have broken it
    found = shares_of(polygon, grid.window, grid)
    np.testing.assert_allclose(found, clipped(polygonal(to_map(polygon, ~transform))), atol=EXACT)


windows = st.tuples(
    *[st.integers(*ends) for ends in ((0, HEIGHT - 1), (0, WIDTH - 1), (1, HEIGHT), (1, WIDTH))]
)


@given(rings, transforms, st.lists(windows, min_size=1, max_size=8))
def test_windows_change_no_bit(ring, transform, placed) -> None:
    grid = grid_of(transform)
    polygon = to_map(polygonal(shapely.Polygon(ring)), transform)
    whole = shares_of(polygon, grid.window, grid)
    for window in (Window(*place).overlap(grid.window) for place in placed):
        np.testing.assert_array_equal(shares_of(polygon, window, grid), whole[window.within(grid.window)])


@given(st.lists(st.tuples(coordinates, coordinates), min_size=2, max_size=12, unique=True), transforms)
def test_polygons_that_share_edges_fill_the_pixels_on_them(points, transform) -> None:
    lines = shapely.union_all([shapely.LineString(pair) for pair in pairwise(points)])
    outer = shapely.boundary(shapely.box(-10, -10, 70, 70))
    parts = shapely.get_parts(shapely.polygonize([shapely.union(lines, outer)]))
    grid = grid_of(transform)
    total = sum(shares_of(to_map(part, transform), grid.window, grid) for part in parts)
    np.testing.assert_allclose(total, 1, atol=1e-8 * len(parts))


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_pixel_corners_are_met_exactly(transform) -> None:
    """A region drawn along pixels holds them whole, however its coordinates were rounded."""
    grid = grid_of(transform)
    found = shares_of(to_map(shapely.box(10, 5, 20, 9), transform), grid.window, grid)
    expected = np.zeros((HEIGHT, WIDTH))
    expected[5:9, 10:20] = 1
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("step", [1, -1])
def test_a_spike_has_no_area_whether_or_not_its_sides_still_meet(transform, step) -> None:
    """Valid on the map where rounding has opened it by a hair, invalid again in pixels: no repair is needed."""
    grid = grid_of(transform)
    spiked = to_map(shapely.Polygon([(0, 0), (1, 0), (0, 1), (0, 3)][::step]), transform)
    expected = np.zeros((HEIGHT, WIDTH))
    expected[0, 0] = 0.5
    np.testing.assert_allclose(shares_of(spiked, grid.window, grid), expected, atol=EXACT)
    np.testing.assert_allclose(shares_of(polygonal(spiked), grid.window, grid), expected, atol=EXACT)


def test_holes_parts_and_halves_by_eye() -> None:
    grid = GeoGrid(3, 6, Affine.identity())
    ring = shapely.box(0, 0, 3, 3) - shapely.box(1, 1, 2, 2)
    both = shapely.MultiPolygon([ring, shapely.Polygon([(4, 0), (6, 0), (4, 2)])])
    expected = [[1, 1, 1, 0, 1, 0.5], [1, 0, 1, 0, 0.5, 0], [1, 1, 1, 0, 0, 0]]
    assert shares_of(both, grid.window, grid).tolist() == expected
    assert not shares_of(shapely.Polygon(), grid.window, grid).any()
    assert shares_of(shapely.box(-9, -9, 9, 9), grid.window, grid).all()
    assert shares_of(ring, Window(1, 1, 0, 0), grid).shape == (0, 0)


def test_a_region_far_larger_than_the_raster() -> None:
    """An edge of 25,000 km, at half a pixel below the diagonal, over pixels of 0.3 m."""
    grid = grid_of(NORTH_UP)
    far = 3e7
    below = shapely.Polygon([(-far, -far + 0.5), (far, far + 0.5), (-far, far)])
    found = shares_of(to_map(below, NORTH_UP), grid.window, grid)
    rows, cols = np.indices(grid.window.shape)
    expected = np.select([rows > cols + 1, rows == cols + 1, rows == cols], [1, 7 / 8, 1 / 8], 0)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_exactextract_agrees() -> None:
    exactextract = pytest.importorskip("exactextract")
    rng = np.random.default_rng(3)
    grid = grid_of(Affine.identity())
    source = exactextract.raster.NumPyRasterSource(np.zeros((HEIGHT, WIDTH)), 0, -HEIGHT, WIDTH, 0)
    for _ in range(20):
        polygon = polygonal(shapely.Polygon(rng.uniform(-10, 70, (int(rng.integers(3, 20)), 2))))
        flipped = shapely.transform(polygon, lambda xy: xy * (1, -1))
        feature = {"type": "Feature", "geometry": shapely.geometry.mapping(flipped), "properties": {}}
        (answer,) = exactextract.exact_extract(source, [feature], ["cell_id", "coverage"])
        theirs = np.zeros(HEIGHT * WIDTH)
        theirs[answer["properties"]["cell_id"]] = answer["properties"]["coverage"]
        ours = shares_of(polygon, grid.window, grid)
        np.testing.assert_allclose(ours, theirs.reshape(HEIGHT, WIDTH), atol=1e-5)
