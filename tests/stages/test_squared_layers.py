"""Squared buildings: the same for any blocks and batches, right on the ground in any CRS, and apart from each other."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from unittest.mock import patch

import numpy as np
import pyogrio
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import CRS, Geod, Transformer
from rasterio.features import rasterize
from shapely import affinity

from geoseg.grid.geogrid import GeoGrid
from geoseg.grid.window import Window
from geoseg.io.vectors import GeoPackageStore
from geoseg.legend import NODATA, LandClass, Legend
from geoseg.pixels import sweep
from geoseg.pixels.polygons import apply, polygonize_block
from geoseg.pixels.squaring import square_footprints
from geoseg.stages.layers import Context, role_layers
from geoseg.stages.vectorize import vectorize
from tests.pixels.test_squaring import corners
from tests.pixels.test_sweep import SQUARE_NEAR_PX, streets
from tests.stages.test_vectorize import KeepingStore, shuffled

LEGEND = Legend(
    (
        LandClass(1, "house", (1, 0, 0), "building"),
        LandClass(2, "shed", (2, 0, 0), "building"),
        LandClass(3, "street", (3, 0, 0), "road"),
    )
)
SQUARED = role_layers(LEGEND)
TRACED = tuple(replace(layer, squared=False) for layer in SQUARED)
UTM = CRS.from_epsg(32640)
TRANSFORM = Affine(0.5, 0, 500_000, 0, -0.5, 2_700_000)
ENGINEERING = CRS.from_wkt(
    'ENGCRS["a site",EDATUM["a stone"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],LENGTHUNIT["metre",1]]'
)


@dataclass(frozen=True)
class Raster:
    """A class raster in memory, anywhere."""

    values: np.ndarray = field(repr=False)
    transform: Affine = TRANSFORM
    crs: CRS | None = UTM
    nodata: int | None = None
    path: str = "raster"

    @property
    def grid(self):
        return GeoGrid(*self.values.shape, self.transform, self.crs and self.crs.to_wkt())

    def read(self, window):
        return self.values[window.within(self.grid.window)]


def layers_of(raster, layers=SQUARED, block_px=10_000, mapper=map, batch=1000, aoi=None):
    """Polygons as WKB, and their fields: all layers, one behind the other."""
    store = KeepingStore()
    store.batch = batch
    vectorize(raster, layers, store, mapper, block_px, Context(aoi=aoi))
    return store.layers["buildings"] + store.layers["roads"]


def as_text(rows):
    return [(wkb, repr(row)) for wkb, row in rows]


def overlap_m2(polygons):
    """The largest overlap of two polygons."""
    first, second = shapely.STRtree(polygons).query(polygons, predicate="intersects")
    once = first < second
    both = shapely.intersection(polygons[first[once]], polygons[second[once]])
    return shapely.area(both).max(initial=0)


@settings(max_examples=8)
@given(streets(), st.integers(3, 500), st.integers(5, 200), st.sampled_from([1, 500]))
def test_blocks_strips_batches_and_order_decide_nothing(labels, block_px, batch, step):
    raster = Raster(labels)
    reference = layers_of(raster)
    with patch.multiple(sweep, STEP_VERTICES=step, STEP_SHARE=0, NEAR_PX=SQUARE_NEAR_PX):
        found = layers_of(raster, block_px=block_px, batch=batch, mapper=shuffled)
    assert as_text(found) == as_text(reference)


@settings(max_examples=10)
@given(streets(), st.integers(20, 500))
def test_polygons_are_those_of_squaring_all_at_once(labels, block_px):
    """In whole pixels, which are square here; then placed on the map."""
    raster = Raster(labels)
    buildings = [row for row in layers_of(raster, block_px=block_px) if row[1]["class_name"] != "street"]
    pieces = polygonize_block(labels, Window(0, 0, *labels.shape), (1, 2))
    rows, cols = pieces.first_pixels()
    raw = pieces.geometries(raster.transform)[np.lexsort((cols, rows))]
    raw = shapely.transform(raw, lambda xy: np.rint(apply(~raster.transform, xy)))
    squared, changed = square_footprints(raw, 1.0)
    placed = shapely.normalize(shapely.transform(squared, lambda xy: apply(raster.transform, xy)))
    assert [wkb for wkb, _ in buildings] == shapely.to_wkb(placed).tolist()
    assert [row["squared"] for _, row in buildings] == changed.tolist()


@settings(max_examples=6)
@given(streets())
def test_names_are_those_of_traced_polygons_and_sizes_those_of_squared_ones(labels):
    squared, traced = layers_of(Raster(labels)), layers_of(Raster(labels), TRACED)
    assert len(squared) == len(traced)
    geod = Geod(ellps="WGS84")
    to_lonlat = Transformer.from_crs(UTM, 4326, always_xy=True)
    for (wkb, row), (raw, other) in zip(squared, traced, strict=True):
        measured = {"area_m2", "perimeter_m", "squared"}
        assert {k: repr(v) for k, v in row.items() if k not in measured} == {
            k: repr(v) for k, v in other.items() if k not in measured
        }
        assert not other["squared"]
        assert (wkb != raw) == row["squared"]
        assert row["squared"] <= (row["class_name"] != "street")
        if row["squared"]:
            on_earth = shapely.transform(
                shapely.from_wkb(wkb), lambda xy: np.column_stack(to_lonlat.transform(*xy.T))
            )
            assert row["area_m2"] == pytest.approx(abs(geod.geometry_area_perimeter(on_earth)[0]), rel=1e-5)
            rings = shapely.get_rings(on_earth)
            assert row["perimeter_m"] == pytest.approx(sum(map(geod.geometry_length, rings)), rel=1e-5)


def pixel_grid(crs, lon, lat, shape, sides, degrees=0.0, flip=1):
    """A raster whose middle lies at a place. sides: of its pixels, in map units."""
    x, y = (0.0, 0.0) if crs is None else (lon, lat)
    if crs is not None and crs.is_projected:
        x, y = Transformer.from_crs(4326, crs, always_xy=True).transform(lon, lat)
    middle = Affine.translation(-shape[1] / 2, -shape[0] / 2)
    return (
        Affine.translation(x, y)
        @ Affine.rotation(degrees)
        @ Affine.scale(sides[0], -flip * sides[1])
        @ middle
    )


DEGREE_M = 111_320
LON_70 = np.cos(np.radians(70))
PLACES = {
    "utm": (UTM, 57, 24, (400, 400), (0.5, 0.5), {}),
    "south up": (UTM, 57, 24, (400, 400), (0.5, 0.5), {"flip": -1}),
    "rotated": (UTM, 57, 24, (400, 400), (0.5, 0.5), {"degrees": 31}),
    "rotated, oblong": (UTM, 57, 24, (800, 400), (0.5, 0.25), {"degrees": -40}),
    "web mercator at 60 N": (CRS.from_epsg(3857), 57, 60, (400, 400), (1.0, 1.0), {}),
    "degrees at 70 N": (CRS.from_epsg(4326), 20, 70, (400, 1170), (0.5 / DEGREE_M,) * 2, {}),
    "square on the ground at 70 N": (
        CRS.from_epsg(4326), 20, 70, (400, 400), (0.5 / DEGREE_M / LON_70, 0.5 / DEGREE_M), {},
    ),
    "no crs": (None, 0, 0, (400, 400), (0.5, 0.5), {}),
    "a site": (ENGINEERING, 0, 0, (400, 400), (0.5, 0.5), {"degrees": 10}),
}  # fmt: skip


def town_at(place):
    """Houses drawn on the ground in metres, the raster that holds them, and the way back to the ground."""
    crs, lon, lat, shape, sides, more = PLACES[place]
    transform = pixel_grid(crs, lon, lat, shape, sides, **more)
    ell = shapely.Polygon([(-10, -8), (10, -8), (10, 0), (-1, 0), (-1, 8), (-10, 8)])
    houses = []
    for n in range(16):
        house = affinity.rotate(ell if n % 2 else shapely.box(-10, -6, 10, 6), 5.3 * n + 3, origin=(0, 0))
        houses.append(
            affinity.translate(house, (n % 4 - 1.5) * 40 + n * 0.37, (n // 4 - 1.5) * 40 - n * 0.21)
        )
    ground = lambda xy: xy  # noqa: E731
    placed = np.array(houses)
    if crs is not None and crs != ENGINEERING:
        plane = CRS.from_dict({"proj": "aeqd", "lat_0": lat, "lon_0": lon, "ellps": "WGS84"})
        there, back = (Transformer.from_crs(*way, always_xy=True) for way in ((plane, crs), (crs, plane)))
        placed = shapely.transform(
            shapely.segmentize(placed, 2), lambda xy: np.column_stack(there.transform(*xy.T))
        )
        ground = lambda xy: np.column_stack(back.transform(*xy.T))  # noqa: E731
    in_pixels = shapely.transform(placed, lambda xy: apply(~transform, xy))
    labels = rasterize([(house, 1) for house in in_pixels], shape, dtype=np.uint8)
    return houses, Raster(labels, transform, crs), ground


@pytest.mark.parametrize("place", PLACES)
def test_right_angles_are_right_on_the_ground(place):
    houses, raster, ground = town_at(place)
    rows = layers_of(raster, block_px=150)
    assert len(rows) == len(houses)
    assert all(row["squared"] for _, row in rows)
    found = shapely.transform(shapely.from_wkb([wkb for wkb, _ in rows]), ground)
    tree = shapely.STRtree(found)
    for house in houses:
        squared = found[tree.nearest(house)]
        assert squared.intersection(house).area / squared.union(house).area > 0.93
        assert len(corners(squared)) == len(house.exterior.coords) - 1
        assert np.abs(corners(squared) - 90).max() < 0.1


def test_pixels_without_a_shape_on_the_ground_stay_as_traced():
    _, raster, _ = town_at("utm")
    north = replace(raster, crs=CRS.from_epsg(4326), transform=Affine(1e-5, 0, 20, 0, -1e-5, 85))
    nowhere = replace(raster, transform=Affine(0.5, 0, 4e8, 0, -0.5, 4e8))
    for odd in (north, nowhere):
        assert [wkb for wkb, _ in layers_of(odd)] == [wkb for wkb, _ in layers_of(odd, TRACED)]


@settings(max_examples=15)
@given(streets(classes=2), st.sampled_from(sorted(PLACES)))
def test_polygons_are_valid_and_apart_and_share_walls_bit_by_bit(labels, place):
    crs, lon, lat, _, sides, more = PLACES[place]
    raster = Raster(labels, pixel_grid(crs, lon, lat, labels.shape, sides, **more), crs)
    metres = 0.25 / abs(raster.transform.determinant)  # a pixel has about that many square metres
    squared, traced = (
        [row for row in layers_of(raster, layers) if row[1]["class_id"] in (1, 2)]
        for layers in (SQUARED, TRACED)
    )
    polygons, raw = (shapely.from_wkb([wkb for wkb, _ in rows]) for rows in (squared, traced))
    assert shapely.is_valid(polygons).all()
    assert (shapely.get_num_interior_rings(polygons) == shapely.get_num_interior_rings(raw)).all()
    assert overlap_m2(polygons) * metres < 1e-6
    changed = np.array([row["squared"] for _, row in squared], bool)
    first, second = shapely.STRtree(raw).query(raw, predicate="intersects")
    first, second = first[first < second], second[first < second]
    side = float(np.hypot(raster.transform.a, raster.transform.d))
    wall = shapely.length(shapely.intersection(raw[first], raw[second])) > 0.2 * side
    for one, two in zip(first[wall], second[wall], strict=True):
        if changed[one] and changed[two]:
            ends = [set(map(tuple, shapely.get_coordinates(polygons[k]))) for k in (one, two)]
            assert len(ends[0] & ends[1]) >= 2


@settings(max_examples=15)
@given(streets(classes=1), st.lists(st.floats(0, 1), min_size=8, max_size=8), st.integers(10, 500))
def test_an_area_of_interest_gives_what_the_whole_raster_gives(labels, sides, block_px):
    """But for what it cuts, and what stands so near to that that it may have stepped back for it."""
    raster = Raster(labels)
    scale = np.array(labels.shape[::-1])
    hull = shapely.convex_hull(shapely.multipoints(np.array(sides).reshape(4, 2) * scale))
    if hull.area < 1:
        return
    aoi = shapely.transform(hull, lambda xy: apply(raster.transform, xy))
    masked = np.where(rasterize([hull], labels.shape), labels, np.uint8(NODATA))
    whole = {row["id"]: (wkb, row) for wkb, row in layers_of(raster)}
    part = layers_of(replace(raster, values=masked), block_px=block_px, aoi=aoi)
    cut = shapely.union_all(shapely.from_wkb([wkb for wkb, row in part if row["clipped"]]))
    for wkb, row in part:
        polygon = shapely.from_wkb(wkb)
        assert polygon.difference(aoi).area < 1e-9
        if not row["clipped"] and polygon.distance(cut) > SQUARE_NEAR_PX / 2:
            original, fields = whole[row["id"]]
            assert (wkb, row["area_m2"], row["squared"]) == (original, fields["area_m2"], fields["squared"])


def test_what_an_area_of_interest_cuts_is_not_squared_but_what_it_holds_is():
    _, raster, _ = town_at("utm")
    rows = layers_of(raster)
    middle = shapely.from_wkb(rows[0][0]).centroid
    _, y0, x1, y1 = shapely.total_bounds(shapely.from_wkb([wkb for wkb, _ in rows]))
    aoi = shapely.box(middle.x, y0 - 5, x1 + 5, y1 + 5)
    inside = rasterize([shapely.transform(aoi, lambda xy: apply(~raster.transform, xy))], raster.values.shape)
    masked = replace(raster, values=np.where(inside, raster.values, np.uint8(NODATA)))
    found = layers_of(masked, aoi=aoi)
    assert {row["clipped"] for _, row in found} == {True, False}
    assert all(row["squared"] != row["clipped"] for _, row in found)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("share", "classes"), [(0.5, (1, 2)), (0.62, (1,)), (0.7, (1, 2))])
def test_salt_and_pepper_ends_soon_and_is_valid(tmp_path, share, classes):
    random = np.random.default_rng(7)
    labels = np.where(random.random((140, 140)) < share, random.choice(classes, (140, 140)), 0).astype(
        np.uint8
    )
    with GeoPackageStore.beside(tmp_path / "out.gpkg") as store:
        vectorize(Raster(labels), SQUARED, store, map, 128)
    polygons = shapely.from_wkb(pyogrio.raw.read(tmp_path / "out.gpkg", layer="buildings")[2])
    assert shapely.is_valid(polygons).all()
    assert overlap_m2(polygons) < 1e-6
    assert shapely.area(polygons).sum() == pytest.approx(0.25 * (labels > 0).sum(), rel=0.01)


def test_a_file_says_which_polygons_were_squared(tmp_path):
    houses, raster, _ = town_at("utm")
    values = raster.values.copy()
    values[:20, :20] = 1
    values[-20:, :20] = 3
    with GeoPackageStore.beside(tmp_path / "out.gpkg") as store:
        vectorize(replace(raster, values=values), SQUARED, store, map, 100)
    layers = [pyogrio.read_dataframe(tmp_path / "out.gpkg", layer=layer) for layer in ("buildings", "roads")]
    assert layers[0]["squared"].tolist() == [False] + [True] * len(houses)
    assert layers[1]["squared"].tolist() == [False]
    rows = layers_of(replace(raster, values=values))
    assert [wkb for wkb, _ in rows] == [
        wkb for frame in layers for wkb in shapely.to_wkb(frame.geometry.to_numpy())
    ]
