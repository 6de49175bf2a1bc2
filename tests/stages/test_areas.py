"""Areas do not depend on windows, their order or the engine, and are those of the ground."""

from __future__ import annotations

import json
import pickle
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyproj import CRS, Transformer

from geoseg.errors import SourceError, SpecError
from geoseg.grid.geogrid import GeoGrid
from geoseg.grid.window import Window
from geoseg.io.regions import NamedPolygon
from geoseg.legend import NODATA, LandClass, Legend
from geoseg.pixels.confusion import ConfusionMatrix
from geoseg.pixels.estimates import adjusted_areas
from geoseg.pixels.footprints import geodesic_sizes_m
from geoseg.pixels.ground import PixelAreas
from geoseg.stages.areas import add_estimates, measure_areas

LEGEND = Legend(
    tuple(LandClass(i, name, (i, i, i)) for i, name in ((1, "building"), (2, "road"), (5, "water")))
)
UTM = CRS.from_epsg(32640).to_wkt()
PLACES = {
    "utm": (UTM, Affine(0.5, 0, 338000.1, 0, -0.5, 2776000.7)),
    "turned": (UTM, Affine(0.5, 0, 338000.1, 0, -0.5, 2776000.7) @ Affine.rotation(30)),
    "mercator": (CRS.from_epsg(3857).to_wkt(), Affine(20, 0, 2.5e6, 0, -20, 8.4e6)),
    "degrees": (CRS.from_epsg(4326).to_wkt(), Affine(1e-3, 0, 10, 0, -1e-3, 60)),
    "no crs": (None, Affine.identity()),
}
EXACT = 1e-6


@dataclass(frozen=True)
class Raster:
    """A class raster in memory."""

    values: np.ndarray = field(repr=False)
    place: str = "utm"
    nodata: int | None = NODATA
    path: str = "map.tif"

    @property
    def grid(self):
        crs, transform = PLACES[self.place]
        return GeoGrid(*self.values.shape, transform, crs)

    def read(self, window: Window):
        return self.values[window.within(self.grid.window)]


def random_map(seed, place="utm", height=37, width=41):
    rng = np.random.default_rng(seed)
    return Raster(rng.choice(np.array([1, 2, 5, NODATA], np.uint8), (height, width)), place)


def in_threads(function, items):
    with ThreadPoolExecutor(3) as pool:
        yield from pool.map(function, items)


def shuffled(function, items):
    tasks = [pickle.loads(pickle.dumps(item)) for item in items]
    random.Random(3).shuffle(tasks)
    return map(pickle.loads(pickle.dumps(function)), tasks)


def region(name, *points_px, place="utm"):
    """A polygon of columns and rows, repaired as `read_polygons` does."""
    transform = PLACES[place][1]
    polygon = shapely.make_valid(shapely.Polygon([transform @ point for point in points_px]))
    parts = [p for p in shapely.get_parts(polygon) if p.geom_type in ("Polygon", "MultiPolygon")]
    return NamedPolygon(name, shapely.union_all(parts))


def box(name, left, top, right, bottom, place="utm"):
    return region(name, (left, top), (right, top), (right, bottom), (left, bottom), place=place)


corners = st.tuples(st.floats(-10, 50, allow_nan=False), st.floats(-10, 50, allow_nan=False))
rings = st.lists(corners, min_size=3, max_size=6)


@settings(max_examples=40)
@given(st.integers(0, 99), st.lists(rings, max_size=4), st.integers(5, 60), st.sampled_from(sorted(PLACES)))
def test_windows_order_and_engine_change_no_figure(seed, placed, window_px, place):
    mapped = random_map(seed, place)
    regions = [region(str(i), *ring, place=place) for i, ring in enumerate(placed)]
    whole = measure_areas(mapped, LEGEND, regions, map, 4096)
    for mapper in (map, shuffled, in_threads):
        assert measure_areas(mapped, LEGEND, regions, mapper, window_px) == whole


SPIKE = [(0, 0), (1, 0), (0, 1), (0, 3)]


@settings(max_examples=25)
@given(st.integers(0, 99), rings, st.sampled_from(["utm", "turned", "mercator", "degrees"]))
@example(0, SPIKE, "turned")
@example(0, SPIKE[::-1], "turned")
def test_areas_are_those_of_pixels_cut_out_one_by_one(seed, ring, place):
    """What a turn makes invalid, as it does a spike, is repaired for the referee, which cannot cut it. The areas need
    no repair: they are sums along edges, and the two sides of a spike cancel."""
    mapped = random_map(seed, place)
    one = region("one", *ring, place=place)
    (found,) = measure_areas(mapped, LEGEND, [one], map, 16).regions
    rows, cols = np.indices(mapped.values.shape)
    inverse = ~mapped.grid.transform
    in_pixels = shapely.transform(one.geometry, lambda xy: np.column_stack(inverse @ (xy[:, 0], xy[:, 1])))
    in_pixels = shapely.make_valid(in_pixels, method="structure", keep_collapsed=False)
    shares = shapely.area(shapely.intersection(shapely.box(cols, rows, cols + 1, rows + 1), in_pixels))
    hectares = shares * PixelAreas.of(mapped.grid).of_window(mapped.grid.window) / 1e4
    tolerance = 2e-4 * hectares.max(initial=0) + 1e-4 * PixelAreas.of(mapped.grid).largest_m2 / 1e4
    assert found.hectares == pytest.approx(
        [hectares[mapped.values == i].sum() for i in LEGEND.ids], abs=tolerance
    )
    assert found.nodata_ha == pytest.approx(hectares[mapped.values == NODATA].sum(), abs=tolerance)
    assert found.pixels == pytest.approx([shares[mapped.values == i].sum() for i in LEGEND.ids], abs=2e-4)


@pytest.mark.parametrize("place", ["utm", "turned", "mercator", "degrees"])
@pytest.mark.parametrize("shift", [0, -15.3])
def test_classes_nodata_and_outside_are_the_regions_area_on_the_ellipsoid(place, shift):
    """Independent of pixel areas and coverage: geodesic polygons."""
    mapped = random_map(4, place, 300, 250)
    turned = region("x", (20 + shift, 11.3), (200, 3), (260 + shift, 200), (90, 290.5), place=place)
    (found,) = measure_areas(mapped, LEGEND, [turned], map, 64).regions
    fine = shapely.segmentize(turned.geometry, np.hypot(mapped.grid.transform.a, mapped.grid.transform.d))
    (expected,), _ = geodesic_sizes_m(np.array([fine]), mapped.grid.crs, mapped.grid.transform)
    total = sum(found.hectares) + found.nodata_ha + found.outside_ha
    assert total == pytest.approx(expected / 1e4, rel=EXACT)
    assert (found.outside_ha > 0) == (shift == 0)


def test_regions_that_tile_the_raster_add_up_to_it():
    mapped = random_map(7, "turned", 90, 80)
    parts = [region("a", (0, 0), (80, 0), (33.3, 47.1)), region("b", (80, 0), (80, 90), (33.3, 47.1))]
    parts += [region("c", (80, 90), (0, 90), (33.3, 47.1)), region("d", (0, 90), (0, 0), (33.3, 47.1))]
    turn = PLACES["turned"][1] @ ~PLACES["utm"][1]
    parts = [
        NamedPolygon(
            p.name, shapely.transform(p.geometry, lambda xy: np.column_stack(turn @ (xy[:, 0], xy[:, 1])))
        )
        for p in parts
    ]
    whole = measure_areas(mapped, LEGEND, [], map, 32).whole
    found = measure_areas(mapped, LEGEND, parts, map, 32).regions
    assert whole.name == "overall"
    assert whole.outside_ha == 0
    assert sum(whole.pixels) + whole.nodata_pixels == 90 * 80
    assert np.sum([r.hectares for r in found], axis=0) == pytest.approx(whole.hectares, rel=1e-7)
    assert sum(r.nodata_ha for r in found) == pytest.approx(whole.nodata_ha, rel=1e-7)
    assert sum(r.outside_ha for r in found) == pytest.approx(0, abs=1e-9)


def test_overlapping_outside_and_empty_regions_by_eye():
    values = np.full((10, 20), 2, np.uint8)
    values[:, :5] = NODATA
    mapped = Raster(values)
    regions = [box("left", -5, -5, 10, 10), box("all", 0, 0, 20, 10), box("away", 30, 30, 40, 40)]
    regions += [box("half pixels", 5.5, 0.5, 7.5, 1.5), NamedPolygon("empty", shapely.Polygon())]
    found = measure_areas(mapped, LEGEND, regions, map, 8)
    assert [r.pixels for r in found.regions] == [(0, 50, 0), (0, 150, 0), (0, 0, 0), (0, 2, 0), (0, 0, 0)]
    assert [r.nodata_pixels for r in found.regions] == [50, 50, 0, 0, 0]
    pixel_ha = PixelAreas.of(mapped.grid).of_window(Window(0, 0, 1, 1))[0, 0] / 1e4
    assert [r.outside_ha / pixel_ha for r in found.regions] == pytest.approx([125, 0, 100, 0, 0], rel=EXACT)
    assert found.regions[0].shares == (0, 1, 0)
    assert found.regions[2].shares == (None, None, None)
    assert found.remarks == ("no pixel of the map lies in 2 regions: away, empty",)


def test_a_thousand_regions():
    mapped = random_map(1, height=100, width=100)
    regions = [
        box(str(i), i % 40 * 2.5, i // 40 * 4, i % 40 * 2.5 + 2.5, i // 40 * 4 + 4) for i in range(1000)
    ]
    found = measure_areas(mapped, LEGEND, regions, map, 33)
    assert len(found.regions) == 1000
    whole = found.whole
    assert whole == measure_areas(mapped, LEGEND, [], map).whole
    assert np.sum([r.hectares for r in found.regions], axis=0) == pytest.approx(whole.hectares, rel=1e-7)


def test_without_a_crs_there_are_shares_only():
    values = np.array([[1, 1, 2, NODATA]], np.uint8)
    found = measure_areas(Raster(values, "no crs"), LEGEND, [], map)
    one = found.whole
    assert one.shares == (2 / 3, 1 / 3, 0)
    assert (one.hectares, one.nodata_ha, one.outside_ha, one.mapped_ha) == (None, None, None, None)
    assert "has no CRS" in found.remarks[0]
    assert "shares are of pixels" in found.remarks[0]
    assert [row["hectares"] for row in found.rows()] == [None] * 3
    json.dumps(found.to_dict(), allow_nan=False)


def test_web_mercator_hectares_are_those_of_the_ground():
    """A square kilometre at 60 degrees north looks like four in EPSG:3857."""
    x, y = Transformer.from_crs(4326, 3857, always_xy=True).transform(25, 60)
    PLACES["north"] = (CRS.from_epsg(3857).to_wkt(), Affine(20, 0, x, 0, -20, y))
    found = measure_areas(Raster(np.full((100, 100), 1, np.uint8), "north"), LEGEND, [], map).whole
    assert found.hectares[0] == pytest.approx(100, rel=1e-2)


def test_values_outside_the_legend_are_refused():
    values = np.ones((4, 4), np.uint8)
    values[2, 3] = 77
    with pytest.raises(
        SourceError, match=r"^map\.tif: holds values that are no class: 77; .* ids are 1, 2, 5$"
    ):
        measure_areas(Raster(values), LEGEND, [], map, 2)
    odd = Raster(values, nodata=77)
    assert measure_areas(odd, LEGEND, [], map, 2).whole.nodata_pixels == 1


@pytest.mark.parametrize("window_px", [0, 5000])
def test_windows_that_cannot_be_summed_are_refused(window_px):
    with pytest.raises(SpecError, match="windows must lie in"):
        measure_areas(random_map(1), LEGEND, [], map, window_px)


def sample(seed=0):
    rng = np.random.default_rng(seed)
    labels, mapped = rng.choice(np.array([1, 2, 5], np.uint8), (2, 40, 40))
    mapped = np.where(rng.random(labels.shape) < 0.7, labels, mapped)
    return ConfusionMatrix.count(labels, mapped, LEGEND)


def test_estimates_are_those_of_the_regions_own_sample():
    found = measure_areas(random_map(1), LEGEND, [box("a", 0, 0, 20, 20), box("b", 10, 10, 30, 30)], map)
    matrix = sample()
    of_all = sample(1)
    better = add_estimates(found, {"a": matrix, "elsewhere": matrix}, of_all)
    a, b = better.regions
    assert better.whole.estimates == adjusted_areas(of_all.counts[:, :3].T, np.array(found.whole.hectares))
    assert a.estimates == adjusted_areas(matrix.counts[:, :3].T, np.array(found.regions[0].hectares))
    assert b == found.regions[1]
    assert better.remarks == ("no labels are known of 1 regions, so their areas are not adjusted: b",)
    row = better.rows()[1]
    assert list(row) == better.columns()
    assert (row["region"], row["class_id"], row["class_name"]) == ("a", 2, "road")
    assert row["adjusted_ha"] == a.estimates.area[1]
    assert row["adjusted_ci95_ha"] == 1.96 * a.estimates.area_se[1]
    assert better.rows()[4]["adjusted_ha"] is None
    content = json.loads(json.dumps(better.to_dict(), allow_nan=False))
    assert content["overall"]["classes"][1]["adjusted_ha"] == better.whole.estimates.area[1]
    assert content["regions"][0]["overall_accuracy"] == a.estimates.overall
    assert content["regions"][0]["classes"][1]["adjusted_ha"] == a.estimates.area[1]
    assert "adjusted_ha" not in content["regions"][1]["classes"][1]
    assert any("too narrow" in note for note in content["notes"])
    assert not any("too narrow" in note for note in found.to_dict()["notes"])


def test_a_class_without_sample_is_remarked():
    found = measure_areas(random_map(1), LEGEND, [box("a", 0, 0, 20, 20)], map)
    better = add_estimates(found, {"a": ConfusionMatrix.zero(LEGEND)}, None)
    assert better.regions == found.regions
    assert better.remarks[0].endswith("no area is adjusted: a (building, road, water)")


@given(st.integers(0, 99), st.lists(rings, max_size=3), st.sampled_from(sorted(PLACES)))
def test_the_last_rows_are_the_whole_grid_whatever_the_regions(seed, placed, place):
    """By counting, pixel by pixel."""
    mapped = random_map(seed, place)
    regions = [region(str(i), *ring, place=place) for i, ring in enumerate(placed)]
    found = measure_areas(mapped, LEGEND, regions, map, 16)
    rows = found.rows()
    assert [row["region"] for row in rows[-3:]] == ["overall"] * 3
    assert len(rows) == 3 * (len(regions) + 1)
    counts = np.array([(mapped.values == i).sum() for i in LEGEND.ids])
    assert [row["pixels"] for row in rows[-3:]] == counts.tolist()
    assert (found.whole.nodata_pixels, found.whole.outside_ha or 0) == ((mapped.values == NODATA).sum(), 0)
    if place != "no crs":
        sizes = np.broadcast_to(PixelAreas.of(mapped.grid).of_window(mapped.grid.window), mapped.values.shape)
        expected = [sizes[mapped.values == i].sum() / 1e4 for i in LEGEND.ids]
        assert [row["hectares"] for row in rows[-3:]] == pytest.approx(expected, rel=EXACT)


def test_a_region_called_as_the_whole_is_remarked():
    found = measure_areas(random_map(1), LEGEND, [box("overall", 0, 0, 2, 2)], map)
    assert found.remarks == ("a region is called 'overall', too; all of the map comes last",)
    assert [row["pixels"] for row in found.rows()[3:]] == list(found.whole.pixels)


def test_fewer_classes_keep_their_figures():
    found = measure_areas(random_map(1), LEGEND, [box("a", 0, 0, 20, 20)], map)
    fewer = found.only({1, 5})
    assert fewer.legend.ids == (1, 5)
    for all_of_them, kept in zip(found.every, fewer.every, strict=True):
        assert kept.hectares == (all_of_them.hectares[0], all_of_them.hectares[2])
        assert kept.pixels == (all_of_them.pixels[0], all_of_them.pixels[2])
