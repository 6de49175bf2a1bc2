"""Polygons of vector files: read in the raster's CRS, and burnt alike for any window."""

from itertools import pairwise

import geopandas
import numpy as np
import pytest
import rasterio.features
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import CRS, Transformer

from geoseg.errors import SourceError
from geoseg.grid.geogrid import GeoGrid
from geoseg.grid.window import Window
from geoseg.io.regions import NamedPolygon, read_polygons
from geoseg.pixels.burn import burn

UTM = CRS.from_epsg(32640).to_wkt()
NORTH_UP = Affine(0.3, 0, 338000.1, 0, -0.3, 2776000.7)
SOUTH_UP = Affine(0.3, 0, 338000.1, 0, 0.3, 2776000.7)
ROTATED = NORTH_UP * Affine.rotation(30)
PLAIN = Affine(2, 0, 500, 0, -2, 900)  # half pixels are exact here: ties are true ties
TRANSFORMS = (NORTH_UP, SOUTH_UP, ROTATED, PLAIN)

coordinates = st.one_of(
    st.integers(-20, 140).map(lambda half: half / 2),  # pixel corners and pixel centers
    st.floats(-10, 70, allow_nan=False, width=32),
)
rings = st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=9)


def polygonal(geometry):
    parts = shapely.get_parts(shapely.make_valid(geometry))
    return shapely.union_all([part for part in parts if part.geom_type in ("Polygon", "MultiPolygon")])


def to_map(geometry, transform):
    return shapely.transform(geometry, lambda xy: np.column_stack(transform @ (xy[:, 0], xy[:, 1])))


def grid_of(transform, height=50, width=60):
    return GeoGrid(height, width, transform, UTM)


def tiles(grid, height, width):
    for row in range(0, grid.height, height):
        for col in range(0, grid.width, width):
            yield Window(row, col, height, width).overlap(grid.window)


@settings(deadline=None)
@given(
    st.lists(rings, min_size=1, max_size=3),
    st.sampled_from(TRANSFORMS),
    st.integers(7, 60),
    st.integers(7, 60),
)
def test_windows_agree_with_the_whole_raster(polygons, transform, height, width):
    grid = grid_of(transform)
    placed = [to_map(polygonal(shapely.Polygon(ring)), transform) for ring in polygons]
    whole = burn(placed, grid.window, grid)
    for window in tiles(grid, height, width):
        np.testing.assert_array_equal(burn(placed, window, grid), whole[window.within(grid.window)])


@settings(deadline=None)
@given(rings, st.sampled_from(TRANSFORMS))
def test_inside_means_that_the_center_is_inside(ring, transform):
    grid = grid_of(transform)
    polygon = polygonal(shapely.Polygon(ring))
    rows, cols = np.indices(grid.window.shape) + 0.5
    burnt = burn([to_map(polygon, transform)], grid.window, grid)
    clear = shapely.distance(shapely.boundary(polygon), shapely.points(cols, rows)) > 1e-6
    np.testing.assert_array_equal(burnt[clear], shapely.contains_xy(polygon, cols, rows)[clear])


@settings(deadline=None)
@given(st.lists(st.tuples(coordinates, coordinates), min_size=2, max_size=12, unique=True))
def test_polygons_that_share_edges_share_every_pixel_out(points):
    grid = grid_of(PLAIN)
    whole = shapely.box(-10, -10, 70, 70)
    lines = shapely.union_all([shapely.LineString(pair) for pair in pairwise(points)])
    parts = shapely.get_parts(shapely.polygonize([shapely.union(lines, shapely.boundary(whole))]))
    times = sum(burn([to_map(part, PLAIN)], grid.window, grid).astype(int) for part in parts)
    assert (times == 1).all()


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_gdal_agrees_where_no_center_lies_on_an_edge(transform):
    rng = np.random.default_rng(7)
    grid = grid_of(transform, 200, 300)
    for _ in range(20):
        ring = rng.uniform(-40, 340, (int(rng.integers(3, 30)), 2))
        polygon = to_map(polygonal(shapely.Polygon(ring)), transform)
        gdal = rasterio.features.rasterize([polygon], out_shape=grid.window.shape, transform=transform)
        np.testing.assert_array_equal(burn([polygon], grid.window, grid), gdal.astype(bool))


def test_holes_parts_and_overlaps_by_eye():
    grid = GeoGrid(3, 6, Affine.identity())
    ring = shapely.box(0, 0, 3, 3) - shapely.box(1, 1, 2, 2)
    two = shapely.MultiPolygon([ring, shapely.box(4, 0, 5, 2)])
    expected = ["###.#.", "#.#.#.", "###..."]
    assert [
        "".join(".#"[pixel] for pixel in row) for row in burn([two, ring], grid.window, grid).astype(int)
    ] == expected
    assert not burn([shapely.Polygon()], grid.window, grid).any()
    assert not burn([], grid.window, grid).any()
    assert burn([ring], grid.window, grid).sum() == 8


def write(path, geometries, crs=32640, **fields):
    geopandas.GeoDataFrame(fields, geometry=list(geometries), crs=crs).to_file(path)
    return str(path)


GRID = grid_of(NORTH_UP, 1000, 1000)
LEFT, BOTTOM, RIGHT, TOP = 338000.1, 2775700.7, 338300.1, 2776000.7
SQUARE = shapely.box(LEFT + 30, BOTTOM + 30, LEFT + 90, BOTTOM + 90)


def test_reads_in_file_order_and_unites_polygons_of_one_name(tmp_path):
    boxes = [shapely.box(LEFT + x, BOTTOM, LEFT + x + 20, BOTTOM + 20) for x in (0, 40, 10)]
    path = write(tmp_path / "r.gpkg", boxes, region=["b", "a", "b"])
    found = read_polygons(path, GRID, "region")
    assert [polygon.name for polygon in found] == ["b", "a"]
    assert found[0].geometry.equals(shapely.union(boxes[0], boxes[2]))
    assert found[1] == NamedPolygon("a", found[1].geometry)


def test_other_geometries_are_passed_over_and_names_need_not_be_text(tmp_path):
    mixed = [shapely.Point(LEFT, BOTTOM), SQUARE, None, SQUARE]
    path = write(tmp_path / "r.gpkg", mixed, number=[None, 7, None, 8])
    assert [polygon.name for polygon in read_polygons(path, GRID, "number")] == ["7", "8"]
    assert [polygon.name for polygon in read_polygons(path, GRID, None)] == ["2", "4"]


def test_the_layer_with_the_field_is_read(tmp_path):
    path = tmp_path / "r.gpkg"
    frame = geopandas.GeoDataFrame({"other": ["x"]}, geometry=[shapely.Point(LEFT, BOTTOM)], crs=32640)
    frame.to_file(path, layer="points")
    frame.set_geometry([SQUARE], crs=32640).to_file(path, layer="buildings")
    named = frame.set_geometry([SQUARE.buffer(-5)], crs=32640).rename(columns={"other": "region"})
    named.to_file(path, layer="regions")
    assert read_polygons(str(path), GRID, "region")[0].geometry.equals(SQUARE.buffer(-5))
    assert read_polygons(str(path), GRID, None)[0].geometry.equals(SQUARE)


def test_invalid_polygons_are_repaired(tmp_path):
    x, y = LEFT + 30, BOTTOM + 30
    bowtie = shapely.Polygon([(x, y), (x + 60, y + 60), (x + 60, y), (x, y + 60)])
    (found,) = read_polygons(write(tmp_path / "r.gpkg", [bowtie], region=["a"]), GRID, "region")
    assert found.geometry.is_valid
    assert found.geometry.area == pytest.approx(1800)


@pytest.mark.parametrize("epsg", [4326, 3857, 3035, 32639])
def test_straight_edges_of_another_crs_stay_in_place(tmp_path, epsg):
    """A long thin triangle: its edges, densely sampled in the file's CRS, lie on the edges that are read."""
    grid = GeoGrid(20000, 20000, Affine(5, 0, 300000, 0, -5, 2800000), UTM)
    there = Transformer.from_crs(32640, epsg, always_xy=True)
    corners = [there.transform(x, y) for x, y in ((290000, 2705000), (398000, 2705100), (350000, 2799000))]
    triangle = shapely.Polygon(corners)
    path = write(tmp_path / "r.gpkg", [triangle], epsg, region=["a"])
    (found,) = read_polygons(path, grid, "region")
    samples = shapely.get_coordinates(shapely.segmentize(triangle, triangle.length / 5000))
    back = Transformer.from_crs(epsg, 32640, always_xy=True).transform(*samples.T)
    off_px = shapely.distance(found.geometry.boundary, shapely.points(*back)) / 5
    assert off_px.max() < 0.02


@pytest.mark.parametrize("epsg", [3857, 32640])
def test_the_whole_world_covers_the_raster(tmp_path, epsg):
    there = Transformer.from_crs(4326, epsg, always_xy=True)
    x, y = there.transform(55.4, 25.1)
    grid = GeoGrid(100, 100, Affine(10, 0, x, 0, -10, y), CRS.from_epsg(epsg).to_wkt())
    path = write(tmp_path / "r.geojson", [shapely.box(-180, -90, 180, 90)], 4326, region=["world"])
    (found,) = read_polygons(path, grid, "region")
    assert burn([found.geometry], grid.window, grid).all()


def problem(path, grid=GRID, field="region"):
    with pytest.raises(SourceError) as caught:
        read_polygons(str(path), grid, field)
    assert caught.value.path == str(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_files_that_are_not_vectors(tmp_path):
    assert "no such file" in problem(tmp_path / "missing.gpkg")
    (tmp_path / "text.txt").write_text("hello")
    assert "cannot be read as a vector file" in problem(tmp_path / "text.txt")
    assert "cannot be read as a vector file" in problem(tmp_path)
    (tmp_path / "cut.geojson").write_text('{"type": "FeatureCollection", "features": [')
    assert "cannot be read as a vector file" in problem(tmp_path / "cut.geojson")


def test_fields_and_names(tmp_path):
    path = write(tmp_path / "r.gpkg", [SQUARE, SQUARE], district=["a", "b"], area=[1, 2])
    assert "has no field 'region'; its fields are: area, district" in problem(path)
    path = write(tmp_path / "n.gpkg", [SQUARE, SQUARE, SQUARE], region=["a", None, " "])
    assert "field 'region' is empty in 2 polygons (feature 2, 3)" in problem(path)


def test_files_without_polygons(tmp_path):
    assert "no layer of polygons" in problem(write(tmp_path / "p.gpkg", [SQUARE.centroid], region=["a"]))
    mixed = [SQUARE.centroid, SQUARE.boundary]
    assert "no polygons (2 features" in problem(write(tmp_path / "m.geojson", mixed, region=["a", "b"]))


def test_a_crs_on_one_side_only(tmp_path):
    path = write(tmp_path / "r.gpkg", [SQUARE], None, region=["a"])
    assert "has no CRS, but the raster is in WGS 84 / UTM zone 40N; state it" in problem(path)
    bare = GeoGrid(1000, 1000, NORTH_UP)
    assert len(read_polygons(path, bare, "region")) == 1
    assert "but the raster has no CRS; state it" in problem(
        write(tmp_path / "c.gpkg", [SQUARE], region=["a"]), bare
    )


def test_polygons_elsewhere(tmp_path):
    away = shapely.box(RIGHT, BOTTOM, RIGHT + 10, TOP)
    message = problem(write(tmp_path / "r.gpkg", [away], region=["a"]))
    assert (
        "none of its polygons overlaps the raster: they span x 338300.1 to 338310.1, y 2775700.7" in message
    )
    assert "the raster x 338000.1 to 338300.1, y 2775700.7 to 2776000.7" in message
    assert (
        len(read_polygons(write(tmp_path / "s.gpkg", [away, SQUARE], region=["a", "b"]), GRID, "region")) == 2
    )
