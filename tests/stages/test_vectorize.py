"""Vector layers do not depend on blocks, their order or the engine."""

import json
import os
import pickle
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import pyogrio
import pytest
import rasterio
import rasterio.features
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pyproj import CRS
from shapely.geometry import shape

from geoseg.errors import OutputError, SpecError
from geoseg.grid.geogrid import GeoGrid
from geoseg.grid.window import Window
from geoseg.io import vectors
from geoseg.io.classmap import TAG_LEGEND, ClassMap
from geoseg.io.vectors import GeoPackageStore
from geoseg.legend import NODATA, LandClass, Legend
from geoseg.run.vectorizing import vectorize_file
from geoseg.stages.layers import FIELDS, Context, raw_layers, role_layers
from geoseg.stages.vectorize import vectorize
from tests.data import DATA, needs_data

LEGEND = Legend(
    (
        LandClass(0, "land", (0, 0, 0)),
        LandClass(1, "house", (1, 0, 0), "building"),
        LandClass(2, "street", (2, 0, 0), "road"),
        LandClass(3, "shed", (3, 0, 0), "building"),
    )
)
TRANSFORM = Affine(0.5, 0, 1000, 0, -0.5, 2000)
TRACED = tuple(replace(layer, squared=False) for layer in role_layers(LEGEND))
"""Buildings and roads along the sides of pixels, as other programs trace them."""


@dataclass(frozen=True)
class Raster:
    """A class raster in memory."""

    values: np.ndarray = field(repr=False)
    nodata: int | None = None
    path: str = "raster"

    @property
    def grid(self):
        return GeoGrid(*self.values.shape, TRANSFORM)

    def read(self, window):
        return self.values[window.within(self.grid.window)]


class MemoryStore:
    """A store, spool and writer in memory. batch: how many polygons it hands to squaring at once."""

    batch = 2

    def __init__(self):
        self.files, self.rows, self.layers, self.redrawn = {}, [], {}, {}

    def put(self, name, content):
        self.files[name] = content

    def get(self, name):
        return self.files[name]

    @contextmanager
    def spool(self):
        yield self

    @contextmanager
    def writer(self, crs):
        yield self

    def add(self, *columns):
        self.rows += zip(*columns, strict=True)

    def in_order(self, class_ids, count):
        found = sorted(((r << 32) + c, one) for r, c, one in self.rows if one.class_id in class_ids)
        for at in range(0, len(found), count):
            yield found[at : at + count]

    def traced(self, class_ids):
        for batch in self.in_order(class_ids, self.batch):
            yield [place for place, _ in batch], [one.wkb for _, one in batch]

    def redraw(self, batches):
        self.redrawn = {place: wkb for batch in batches for place, wkb in zip(*batch, strict=True)}

    def read(self, class_ids):
        for batch in self.in_order(class_ids, self.batch):
            yield [one._replace(redrawn=self.redrawn.get(place)) for place, one in batch]

    def append(self, layer, wkb, columns):
        rows = zip(wkb, *(values.tolist() for values in columns.values()), strict=True)
        self.layers.setdefault(layer, []).extend([repr(row) for row in rows])


class KeepingStore(MemoryStore):
    """Keeps features as they were written."""

    def append(self, layer, wkb, columns):
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        self.layers.setdefault(layer, []).extend(zip(wkb, rows, strict=True))

    def rows_of(self, *layers):
        return [row for layer in layers for row in self.layers[layer]]


def shuffled(function, items):
    """Computes in another order than it answers in."""
    items = list(items)
    done = {
        i: function(pickle.loads(pickle.dumps(items[i]))) for i in sorted(range(len(items)), reverse=True)
    }
    return iter([done[i] for i in range(len(items))])


def in_threads(function, items):
    with ThreadPoolExecutor(3) as pool:
        yield from pool.map(function, items)


def layers_of(labels, layers, block_px, mapper=map, aoi=None, percent=None):
    store = MemoryStore()
    confidence = None if percent is None else Raster(percent)
    context = Context(confidence, aoi, (("scene", "x"), ("date", None)))
    counts = vectorize(Raster(labels), layers, store, mapper, block_px, context)
    assert counts == {name: len(rows) for name, rows in store.layers.items()}
    return store.layers


def label_images():
    shapes = hnp.array_shapes(min_dims=2, max_dims=2, max_side=14)
    return hnp.arrays(np.uint8, shapes, elements=st.sampled_from([0, 1, 1, 2, 3, 255]))


@settings(max_examples=80, deadline=None)
@given(label_images(), st.integers(1, 9), st.sampled_from([map, shuffled, in_threads]), st.booleans())
def test_layers_are_the_same_for_any_block_size_and_order(labels, block_px, mapper, raw):
    layers = raw_layers(None, 0) if raw else role_layers(LEGEND)
    percent = percent_of(labels)
    assert layers_of(labels, layers, block_px, mapper, percent=percent) == layers_of(
        labels, layers, 100, percent=percent
    )


def percent_of(labels):
    noise = np.random.default_rng(labels.size).integers(0, 101, labels.shape).astype(np.uint8)
    return np.where(labels == NODATA, np.uint8(NODATA), noise)


@settings(max_examples=60, deadline=None)
@given(label_images(), st.integers(1, 9))
def test_what_a_polygon_says_of_its_pixels(labels, block_px):
    """Against rasterio burning each polygon by itself, and numpy."""
    percent, store = percent_of(labels), KeepingStore()
    vectorize(Raster(labels), TRACED, store, map, block_px, Context(Raster(percent)))
    outside = np.pad(labels == NODATA, 1, constant_values=True)
    beside = outside[:-2, 1:-1] | outside[2:, 1:-1] | outside[1:-1, :-2] | outside[1:-1, 2:]
    for wkb, row in store.rows_of("buildings", "roads"):
        pixels = rasterio.features.rasterize([shapely.from_wkb(wkb)], labels.shape, transform=TRANSFORM) > 0
        assert (labels[pixels] == row["class_id"]).all()
        assert row["confidence_mean"] == pytest.approx(percent[pixels].mean())
        assert row["confidence_p10"] == np.percentile(percent[pixels], 10, method="inverted_cdf")
        assert row["touches_edge"] == beside[pixels].any()
    ids = [row["id"] for _, row in store.rows_of("buildings", "roads")]
    assert len(set(ids)) == len(ids)


@settings(max_examples=60, deadline=None)
@given(label_images(), st.integers(1, 9), st.lists(st.floats(0, 7), min_size=6, max_size=6))
def test_an_area_of_interest_gives_the_same_parts_for_any_block_size(labels, block_px, sides):
    x, y = np.array(sides).reshape(2, 3)
    aoi = shapely.convex_hull(shapely.multipoints(np.column_stack([1000 + x, 2000 - y])))
    cut, whole = (layers_of(labels, role_layers(LEGEND), px, aoi=aoi) for px in (block_px, 100))
    assert cut == whole


@pytest.mark.parametrize("layers", [TRACED, raw_layers(LEGEND, None)], ids=["roles", "raw"])
def test_memory_does_not_grow_with_the_polygons(tmp_path, monkeypatch, layers):
    """Noise four times as high has four times the polygons; arrays and objects held at once stay as they were."""
    monkeypatch.setattr(vectors, "BATCH", 200)
    rng, peaks, counts = np.random.default_rng(2), [], []
    for height in (160, 160, 640):  # what Python keeps of a first run is not counted
        source = Raster(rng.integers(0, 4, (height, 32)).astype(np.uint8))
        with GeoPackageStore.beside(tmp_path / "out.gpkg") as store:
            tracemalloc.start()
            counts.append(sum(vectorize(source, layers, store, map, 16).values()))
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert counts[2] > 3.8 * counts[1] > 5_000
    assert peaks[2] < 1.3 * peaks[1], peaks


def test_layers_by_role_and_raw():
    labels = np.array([[1, 1, 2, 255], [0, 3, 3, 2]], np.uint8)
    found = layers_of(labels, role_layers(LEGEND), 1)
    plain = "nan, nan, False, nan, nan, True, False, 'x', None)"
    assert [row.split(", ", 2)[2] for row in found["buildings"]] == [
        f"1, 'house', {plain}",
        f"3, 'shed', {plain}",
    ]
    assert [row.split(", ", 2)[2] for row in found["roads"]] == [f"2, 'street', {plain}"] * 2
    found = layers_of(labels, raw_layers(None, 2), 1)
    assert [row.split(", ", 1)[1] for row in found["polygons"]] == [f"{i}, None, nan)" for i in (1, 0, 3)]


def test_a_role_that_no_class_plays_gives_an_empty_layer():
    legend = Legend((LandClass(1, "house", (1, 0, 0), "building"),))
    assert layers_of(np.ones((2, 2), np.uint8), role_layers(legend), 2)["roads"] == []


def test_blocks_below_one_pixel_are_refused():
    with pytest.raises(SpecError, match="at least 1 px, got 0"):
        layers_of(np.ones((2, 2), np.uint8), role_layers(LEGEND), 0)


def write_raster(path, labels, legend=LEGEND, nodata=None, crs="EPSG:32640", transform=TRANSFORM):
    height, width = labels.shape
    profile = {
        "driver": "GTiff",
        "dtype": "uint8",
        "count": 1,
        "height": height,
        "width": width,
        "nodata": nodata,
    }
    with rasterio.open(path, "w", crs=crs, transform=transform, **profile) as dataset:
        dataset.write(labels, 1)
        if legend:
            dataset.update_tags(**{TAG_LEGEND: json.dumps(legend.to_list())})
    return str(path)


def test_a_file_of_buildings_and_roads(tmp_path):
    labels = np.random.default_rng(1).integers(0, 4, (40, 50)).astype(np.uint8)
    source = ClassMap.open(write_raster(tmp_path / "map.tif", labels))
    with GeoPackageStore.beside(tmp_path / "out.gpkg") as store:
        counts = vectorize(source, TRACED, store, map, 7)
    for layer, ids in (("buildings", (1, 3)), ("roads", (2,))):
        frame = pyogrio.read_dataframe(tmp_path / "out.gpkg", layer=layer, fid_as_index=True)
        assert list(frame.columns) == [*FIELDS, "geometry"]
        found = rasterio.features.shapes(labels, connectivity=4, transform=TRANSFORM)
        whole = {(int(v), shapely.normalize(shape(g)).wkb) for g, v in found if v in ids}
        assert set(zip(frame["class_id"], shapely.to_wkb(frame.geometry), strict=True)) == whole
        assert counts[layer] == len(frame) == len(whole)
        assert frame.index.tolist() == list(range(1, len(frame) + 1))
        assert not frame["clipped"].any()
        assert not frame["squared"].any()
        assert frame["area_m2"].sum() == pytest.approx(0.25 * np.isin(labels, ids).sum(), rel=0.01)
        first = [
            np.argwhere(rasterio.features.rasterize([g], labels.shape, transform=TRANSFORM))[0]
            for g in frame.geometry
        ]
        assert [tuple(f) for f in first] == sorted(tuple(f) for f in first)


def test_raw_polygons_need_no_legend_and_no_crs(tmp_path):
    labels = np.array([[5, 5, 0], [0, 9, 0]], np.uint8)
    path = write_raster(tmp_path / "map.tif", labels, legend=None, nodata=0, crs=None)
    written = vectorize_file(path, str(tmp_path / "out.gpkg"), True, 2, map)
    frame = pyogrio.read_dataframe(tmp_path / "out.gpkg", layer="polygons")
    assert written.layers == {"polygons": 2}
    assert list(frame.columns) == ["class_id", "class_name", "area_m2", "geometry"]
    assert frame["class_id"].tolist() == [5, 9]
    assert frame["class_name"].isna().all()
    assert frame["area_m2"].isna().all()
    assert frame.crs is None


def test_a_raster_without_legend_gives_polygons_of_every_class_as_traced(tmp_path):
    labels = np.random.default_rng(1).integers(0, 4, (40, 50)).astype(np.uint8)
    path = write_raster(tmp_path / "map.tif", labels, legend=None)
    vectorize_file(path, str(tmp_path / "out.gpkg"), False, 7, map)
    frame = pyogrio.read_dataframe(tmp_path / "out.gpkg", layer="polygons")
    found = rasterio.features.shapes(labels, connectivity=4, transform=TRANSFORM)
    whole = {(int(v), shapely.normalize(shape(g)).wkb) for g, v in found}
    assert set(zip(frame["class_id"], shapely.to_wkb(frame.geometry), strict=True)) == whole


def test_an_output_that_cannot_be_written_leaves_nothing(tmp_path):
    path = write_raster(tmp_path / "map.tif", np.ones((2, 2), np.uint8))
    with pytest.raises(OutputError, match="cannot be written"):
        vectorize_file(path, str(tmp_path / "map.tif" / "out.gpkg"), False, 2, map)
    assert os.listdir(tmp_path) == ["map.tif"]


def test_vectors_of_a_masked_map_end_at_the_area_of_interest(tmp_path):
    labels = np.ones((20, 20), np.uint8)
    labels[:, 8:10] = NODATA
    labels[4:7, 14:17] = 3
    aoi = shapely.Polygon([(1000.2, 1999.7), (1009.9, 1999.2), (1009.1, 1990.4), (1000.9, 1990.1)])
    inside = rasterio.features.rasterize([aoi], labels.shape, transform=TRANSFORM)
    labels[inside == 0] = NODATA
    source = ClassMap.open(write_raster(tmp_path / "map.tif", labels))
    with GeoPackageStore.beside(tmp_path / "out.gpkg") as store:
        vectorize(source, role_layers(LEGEND), store, map, 6, Context(aoi=aoi))
    frame = pyogrio.read_dataframe(tmp_path / "out.gpkg", layer="buildings")
    assert frame["clipped"].tolist() == [True, True, False]
    assert frame["class_id"].tolist() == [1, 1, 3]
    assert shapely.area(shapely.difference(frame.geometry.values, aoi)).max() < 1e-9
    assert Window(0, 0, 20, 20) == source.grid.window


@needs_data
@pytest.mark.parametrize("block_px", [2048, 1000])
def test_areas_of_real_labels_add_up_to_their_pixels(tmp_path, block_px):
    path = str(DATA / "dubai" / "dubai_5_labels.tif")
    written = vectorize_file(path, str(tmp_path / "out.gpkg"), True, block_px, in_threads)
    frame = pyogrio.read_dataframe(tmp_path / "out.gpkg", layer="polygons")
    source = ClassMap.open(path)
    labels = source.read(source.grid.window)
    assert written.layers["polygons"] == len(frame)
    for class_id, area in frame.groupby("class_id")["area_m2"].sum().items():
        pixel_m2 = source.grid.gsd_m**2
        assert area == pytest.approx((labels == class_id).sum() * pixel_m2, rel=1e-4)
    assert CRS(frame.crs) == CRS.from_epsg(32640)
