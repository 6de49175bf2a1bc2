"""Polygons joined from blocks are those of the whole raster, as GDAL's polygonizer gives them."""

import numpy as np
import pytest
import rasterio
import rasterio.features
import shapely
from affine import Affine
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pyproj import CRS, Geod, Proj, Transformer
from shapely.geometry import shape

from geoseg.grid.window import Window
from geoseg.pixels.footprints import clip, geodesic_sizes_m
from geoseg.pixels.polygons import EMPTY, Pieces, polygonize_block
from geoseg.pixels.seams import StripJoiner, join_blocks
from tests.data import DATA, needs_data

CLASSES = (0, 1, 3)


def picture(*rows: str) -> np.ndarray:
    """Labels drawn as text: a digit is a class, a dot is nodata."""
    return np.array([[255 if c == "." else int(c) for c in row] for row in rows], np.uint8)


COMB = picture("11111111", "1.1.1.1.", "1.1.1.1.", "1.1.1.1.", "1.1.1.11", "1.1.1...", "11111111")
SPIRAL = picture("1111111", "......1", "11111.1", "1...1.1", "1.111.1", "1.....1", "1111111")
CHECKS = np.indices((6, 7)).sum(axis=0).astype(np.uint8) % 2
DIAGONAL = picture("1...", ".1..", "..11", "..1.")
PINCH = picture("1110", "1011", "1101", "0111")
NESTED = picture(
    "11111111", "1......1", "1.3333.1", "1.3113.1", "1.3113.1", "1.3333.1", "1......1", "11111111"
)
HOLE_AT_EDGE = picture("1111", "1.11", ".111", "1111")
HOLES_TOUCH = picture("111111", "1.1.11", "11.111", "1.1.11", "111111")


def noise(classes: int) -> st.SearchStrategy[np.ndarray]:
    return hnp.arrays(
        np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=13), elements=st.integers(0, classes)
    )


@st.composite
def label_images(draw: st.DrawFn) -> np.ndarray:
    """Salt and pepper, blobs of several pixels, and the shapes above, turned and mirrored."""
    image = draw(
        st.one_of(noise(1), noise(3), st.sampled_from([COMB, SPIRAL, CHECKS, PINCH, NESTED, HOLES_TOUCH]))
    )
    image = image.repeat(draw(st.integers(1, 3)), axis=0).repeat(draw(st.integers(1, 3)), axis=1)
    return np.ascontiguousarray(np.rot90(image, draw(st.integers(0, 3))))


def reference(labels, class_ids=CLASSES, transform=None) -> list[tuple[int, bytes]]:
    """What GDAL gives for the whole raster: class and normalized WKB, in scan order of the first pixel."""
    rows = []
    moved = rasterio.features.shapes(labels, connectivity=4, transform=transform) if transform else None
    for geometry, value in rasterio.features.shapes(labels, connectivity=4):
        placed = next(moved)[0] if moved else geometry
        if int(value) in class_ids:
            covered = rasterio.features.rasterize([geometry], out_shape=labels.shape)
            first = int(np.flatnonzero(covered)[0])
            rows.append((first, int(value), shapely.normalize(shape(placed)).wkb))
    return [row[1:] for row in sorted(rows)]


def join(labels, row_cuts, col_cuts, class_ids=CLASSES) -> Pieces:
    """Cut at rows and columns, polygonize each block, join, and bring into scan order."""
    height, width = labels.shape
    joiner = StripJoiner(Window(0, 0, height, width))
    closed = []
    for top, bottom in zip([0, *row_cuts], [*row_cuts, height], strict=True):
        blocks = []
        for left, right in zip([0, *col_cuts], [*col_cuts, width], strict=True):
            window = Window(top, left, bottom - top, right - left)
            blocks.append(polygonize_block(labels[top:bottom, left:right], window, class_ids))
        closed.append(joiner.add(join_blocks(blocks, col_cuts), Window(top, 0, bottom - top, width)))
    assert joiner.open_polygons == 0
    pieces = Pieces.concat(closed)
    rows, cols = pieces.first_pixels()
    return pieces.take(np.lexsort((cols, rows)))


def rows_of(pieces: Pieces, transform=None) -> list[tuple[int, bytes]]:
    return list(
        zip(pieces.class_ids.tolist(), shapely.to_wkb(pieces.geometries(transform)).tolist(), strict=True)
    )


@st.composite
def cut_images(draw: st.DrawFn):
    labels = draw(label_images())
    row_cuts, col_cuts = (
        sorted(draw(st.sets(st.integers(1, size - 1)))) if size > 1 else [] for size in labels.shape
    )
    return labels, row_cuts, col_cuts


@settings(max_examples=400, deadline=None)
@given(cut_images())
@example((HOLE_AT_EDGE, [1, 2, 3], [1, 2, 3]))
@example((DIAGONAL, [1, 2, 3], [1, 2, 3]))
@example((PINCH, [2], [2]))
def test_joined_polygons_are_those_of_the_whole_raster_in_scan_order(cut):
    labels, row_cuts, col_cuts = cut
    assert rows_of(join(labels, row_cuts, col_cuts)) == reference(labels)


@settings(max_examples=60, deadline=None)
@given(label_images())
def test_blocks_of_one_pixel_change_nothing(labels):
    height, width = labels.shape
    assert rows_of(join(labels, list(range(1, height)), list(range(1, width)))) == reference(labels)


@settings(max_examples=100, deadline=None)
@given(cut_images(), st.floats(0, 5))
def test_polygons_are_still_equal_when_simplified(cut, tolerance):
    labels, row_cuts, col_cuts = cut
    joined = shapely.simplify(join(labels, row_cuts, col_cuts).geometries(), tolerance)
    whole = shapely.simplify(shapely.from_wkb([wkb for _, wkb in reference(labels)]), tolerance)
    assert shapely.to_wkb(joined).tolist() == shapely.to_wkb(whole).tolist()


@settings(max_examples=100, deadline=None)
@given(cut_images(), st.integers(0, 2**32 - 1))
def test_map_coordinates_have_the_bits_of_gdal_for_any_transform(cut, seed):
    labels, row_cuts, col_cuts = cut
    transform = Affine(*np.random.default_rng(seed).normal(size=6) * [0.7, 0.3, 5e5, 0.2, 0.8, 3e6])
    assert rows_of(join(labels, row_cuts, col_cuts), transform) == reference(labels, transform=transform)


@settings(max_examples=50, deadline=None)
@given(cut_images())
def test_no_straight_vertices_remain_and_every_polygon_is_valid(cut):
    polygons = join(*cut).geometries()
    assert shapely.is_valid(polygons).all()
    assert shapely.area(polygons).sum() == np.isin(cut[0], CLASSES).sum()
    for ring in shapely.get_rings(polygons):
        heading = np.diff(shapely.get_coordinates(ring), axis=0) != 0
        assert (heading[:, 0] != heading[:, 1]).all()
        assert (heading[:, 0] != np.roll(heading[:, 0], 1)).all()


def test_a_shared_corner_does_not_join_but_a_shared_side_does():
    labels = picture("1..", ".1.", ".11")
    assert shapely.area(join(labels, [1], [1, 2], (1,)).geometries()).tolist() == [1, 3]


def test_a_hole_that_crosses_a_seam_stays_a_hole():
    (polygon,) = join(picture("111", "1.1", "1.1", "111"), [2], [1, 2], (1,)).geometries()
    assert polygon.equals_exact(
        shapely.normalize(
            shapely.Polygon(shapely.box(0, 0, 3, 4).exterior, [shapely.box(1, 1, 2, 3).exterior.coords])
        )
    )


def test_closed_polygons_leave_at_once_and_only_open_ones_are_held():
    labels = picture("1.1", "..1", "1.1", "1..")
    joiner = StripJoiner(Window(0, 0, 4, 3))
    sizes = []
    for top in (0, 2):
        window = Window(top, 0, 2, 3)
        closed = joiner.add(polygonize_block(labels[top : top + 2], window, (1,)), window)
        sizes.append((sorted(shapely.area(closed.geometries())), joiner.open_polygons))
    assert sizes == [([1], 1), ([2, 3], 0)]


@settings(max_examples=30, deadline=None)
@given(label_images())
def test_pieces_survive_bytes_without_pickle(labels):
    pieces = polygonize_block(labels, Window(5, 7, *labels.shape), CLASSES)
    again = Pieces.from_bytes(pieces.to_bytes())
    assert rows_of(again) == rows_of(pieces)
    assert again.coords.dtype == np.int32


def test_a_block_without_wanted_classes_is_empty():
    assert len(polygonize_block(np.full((3, 3), 255, np.uint8), Window(0, 0, 3, 3), (0, 1))) == 0
    assert len(EMPTY.geometries()) == 0
    assert [len(part) for part in EMPTY.first_pixels()] == [0, 0]
    assert len(Pieces.from_bytes(EMPTY.to_bytes())) == 0


@needs_data
@pytest.mark.parametrize("block_px", [2048, 700])
def test_real_labels_give_the_same_polygons_cut_or_whole(block_px):
    with rasterio.open(DATA / "dubai" / "dubai_7_labels.tif") as dataset:
        labels, transform = dataset.read(1), dataset.transform
    found = list(rasterio.features.shapes(labels, connectivity=4, transform=transform))
    whole = shapely.to_wkb(shapely.normalize(np.array([shape(g) for g, _ in found])))
    height, width = labels.shape
    pieces = join(
        labels, list(range(block_px, height, block_px)), list(range(block_px, width, block_px)), range(6)
    )
    assert set(rows_of(pieces, transform)) == set(
        zip([int(v) for _, v in found], whole.tolist(), strict=True)
    )
    assert len(pieces) == len(found)
    row, col = pieces.first_pixels()
    assert (np.diff(row * width + col) > 0).all()
    assert (labels[row, col] == pieces.class_ids).all()


UTM = CRS.from_epsg(32640).to_wkt()


def test_areas_are_those_on_the_ellipsoid():
    transform = Affine(0.8, 0, 345742, 0, -0.8, 2767004)
    labels = np.random.default_rng(4).integers(0, 3, (60, 80)).astype(np.uint8)
    polygons = join(labels, [30], [50], (0, 1, 2)).geometries(transform)
    areas, perimeters = geodesic_sizes_m(polygons, UTM, transform)

    to_lonlat = Transformer.from_crs(32640, 4326, always_xy=True)
    for polygon, area, perimeter in zip(polygons, areas, perimeters, strict=True):
        on_earth = shapely.transform(polygon, lambda xy: np.column_stack(to_lonlat.transform(*xy.T)))
        geod = Geod(ellps="WGS84")
        # A geodesic polygon of a pixel or two is rounded to some square millimetres.
        assert area == pytest.approx(abs(geod.geometry_area_perimeter(on_earth)[0]), rel=1e-6, abs=1e-5)
        rings = [on_earth.exterior, *on_earth.interiors]
        assert perimeter == pytest.approx(sum(map(geod.geometry_length, rings)), rel=1e-6)
    scale = Proj(32640).get_factors(*to_lonlat.transform(345774, 2766980)).areal_scale
    assert areas == pytest.approx(shapely.area(polygons) / scale, rel=1e-6)
    assert areas.sum() == pytest.approx(labels.size * 0.64 / scale, rel=1e-6)


def test_areas_follow_straight_map_edges_and_need_a_crs():
    transform = Affine(0.01, 0, 10, 0, -0.01, 60)
    lonlat = CRS.from_epsg(4326).to_wkt()
    wide = np.array([shapely.box(10, 50, 30, 60)], dtype=object)
    west, south = (
        corner.ravel() for corner in np.meshgrid(np.arange(200) / 10 + 10, np.arange(100) / 10 + 50)
    )
    cells = shapely.box(west, south, west + 0.1, south + 0.1)
    ((area,), _) = geodesic_sizes_m(wide, lonlat, transform)
    assert area == pytest.approx(geodesic_sizes_m(cells, lonlat, transform)[0].sum(), rel=1e-5)
    assert np.isnan(geodesic_sizes_m(wide, None, transform)).all()
    local = (
        'ENGCRS["site",EDATUM["site"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],LENGTHUNIT["metre",1]]'
    )
    assert np.isnan(geodesic_sizes_m(wide, local, transform)).all()


@pytest.mark.parametrize("turned", [0, 30])
def test_the_size_of_a_polygon_is_the_same_bits_alone_and_among_others(turned):
    """A sum of eight or more numbers is rounded by how many they are, zeros included."""
    transform = Affine(0.8, 0, 345742, 0, -0.8, 2767004) @ Affine.rotation(turned)
    labels = np.random.default_rng(4).integers(0, 3, (40, 60)).astype(np.uint8)
    polygons = join(labels, [], [], (0, 1, 2)).geometries(transform)
    alone = [geodesic_sizes_m(polygons[[k]], UTM, transform) for k in range(len(polygons))]
    assert np.array_equal(
        np.column_stack(geodesic_sizes_m(polygons, UTM, transform)), np.array(alone)[..., 0]
    )


def test_an_area_of_interest_cuts_polygons_and_says_which():
    transform = Affine(1, 0, 0, 0, -1, 10)
    polygons = np.array(
        [
            shapely.box(1, 8, 2, 9),
            shapely.box(3, 1, 9, 9),
            shapely.box(20, 1, 21, 2),
            shapely.box(0.4, 4, 1, 5),
        ],
        dtype=object,
    )
    aoi = shapely.box(0, 0, 10, 10) - shapely.box(2.7, 4, 11, 6)
    parts, source, cut = clip(polygons, aoi, transform)
    assert source.tolist() == [0, 1, 1, 3]
    assert cut.tolist() == [False, True, True, True]
    assert [p.bounds for p in parts] == [(1, 8, 2, 9), (3, 6, 9, 9), (3, 1, 9, 4), (0.4, 4, 1, 5)]
