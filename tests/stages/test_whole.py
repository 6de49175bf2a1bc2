"""Least areas and the coverage layer, as they are written: equal for any blocks, nothing lost, nothing overlapping."""

from collections import Counter

import numpy as np
import pyogrio
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg.errors import SpecError
from geoseg.io.vectors import GeoPackageStore
from geoseg.legend import NODATA, LandClass, Legend
from geoseg.pixels.footprints import geodesic_sizes_m
from geoseg.pixels.generalize import GeneralizeRules
from geoseg.run.job import generalize_rules, make_job
from geoseg.stages.layers import coverage_layer, raw_layers, role_layers
from geoseg.stages.vectorize import vectorize
from tests.run.results import run, write_scene
from tests.stages.test_roads import UTM, Raster

LEGEND = Legend(
    (
        LandClass(1, "house", (200, 0, 0), "building"),
        LandClass(2, "street", (90, 90, 90), "road"),
        LandClass(3, "land", (220, 200, 150)),
    )
)
PIXEL_M2 = 0.25


def map_of(seed, side=40, nodata=True):
    """Blobs and noise of three classes, and a hole without data."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(1, 4, (side // 8 + 1, side // 8 + 1), dtype=np.uint8)
    labels = coarse.repeat(8, 0).repeat(8, 1)[:side, :side].copy()
    noisy = rng.random(labels.shape) < 0.08
    labels[noisy] = rng.integers(1, 4, noisy.sum(), dtype=np.uint8)
    if nodata:
        labels[5:9, 20:26] = NODATA
    return labels


def written(folder, raster, layers, block_px=64, rules=None):
    """What each layer holds: geometries and classes, in order."""
    path = folder / f"{block_px}.gpkg"
    with GeoPackageStore.beside(path) as store:
        vectorize(raster, layers, store, map, block_px, rules=rules)
    found = {}
    for layer in layers:
        meta, _, wkb, columns = pyogrio.raw.read(path, layer=layer.name)
        fields = dict(zip(meta["fields"], columns, strict=True))
        found[layer.name] = shapely.from_wkb(wkb), fields
    return found


@settings(max_examples=15)
@given(seed=st.integers(0, 10_000), block_px=st.integers(3, 50))
def test_blocks_change_neither_least_areas_nor_the_coverage(tmp_path_factory, seed, block_px):
    raster = Raster(map_of(seed))
    layers = (*role_layers(LEGEND), coverage_layer(LEGEND))
    rules = GeneralizeRules({1: 3.0, 2: 1.0, 3: 2.0}, {3: 5.0})
    folder = tmp_path_factory.mktemp("blocks")
    whole, cut = (written(folder, raster, layers, px, rules) for px in (1000, block_px))
    for layer in layers:
        (a, fields_a), (b, fields_b) = whole[layer.name], cut[layer.name]
        assert shapely.to_wkb(a).tolist() == shapely.to_wkb(b).tolist()
        for name in fields_a:
            np.testing.assert_array_equal(fields_a[name], fields_b[name], err_msg=name)


@pytest.mark.parametrize("seed", range(4))
def test_the_coverage_has_no_gap_and_no_overlap(tmp_path, seed):
    raster = Raster(map_of(seed, side=90))
    found = written(tmp_path, raster, (coverage_layer(LEGEND), *raw_layers(LEGEND, None)))
    polygons, fields = found["landcover"]
    raw, raw_fields = found["polygons"]
    assert shapely.is_valid(polygons).all() and shapely.coverage_is_valid(polygons)
    mapped = (raster.values != NODATA).sum() * PIXEL_M2
    assert shapely.area(polygons).sum() == pytest.approx(mapped)
    assert shapely.area(shapely.union_all(polygons)) == pytest.approx(mapped)
    assert Counter(fields["class_id"].tolist()) == Counter(raw_fields["class_id"].tolist())
    assert shapely.get_num_coordinates(polygons).sum() < shapely.get_num_coordinates(raw).sum()
    assert not fields["squared"].any()


def test_no_polygon_below_the_least_area_is_left_and_none_goes_to_nothing(tmp_path):
    raster = Raster(map_of(7, side=120))
    raw = raw_layers(LEGEND, None)
    least = {1: 4.0, 2: 2.0, 3: 3.0}
    before, _ = written(tmp_path, raster, raw)["polygons"]
    polygons, fields = written(tmp_path, raster, raw, rules=GeneralizeRules(least))["polygons"]
    sizes, _ = geodesic_sizes_m(polygons, UTM, raster.transform)
    assert (sizes >= np.array([least[i] for i in fields["class_id"].tolist()])).all()
    assert shapely.area(polygons).sum() == pytest.approx(shapely.area(before).sum())
    assert len(polygons) < len(before) / 2


def test_square_metres_need_a_crs(tmp_path):
    raster = Raster(map_of(0), crs=None)
    with pytest.raises(SpecError, match="has no CRS"):
        written(tmp_path, raster, raw_layers(LEGEND, None), rules=GeneralizeRules({1: 3.0}))
    assert not (tmp_path / "64.gpkg").exists()


def test_classes_go_by_name_by_id_or_all_together():
    assert generalize_rules({}, {}, LEGEND) is None
    rules = generalize_rules({"all": 5.0, "street": 7.0}, {"3": 9.0}, LEGEND)
    assert rules == GeneralizeRules({1: 5.0, 2: 7.0, 3: 5.0}, {3: 9.0})
    with pytest.raises(SpecError, match="no class 'sea'; there are house, street, land, and 'all'"):
        generalize_rules({"sea": 1.0}, {}, LEGEND)
    job = make_job({"scenes": ("a.tif",), "output": "o", "min_area": 3})
    assert job.min_area == {"all": 3.0}


def test_a_run_writes_them(tiny_bundle, tmp_path):
    scene = write_scene(tmp_path / "scene.tif", 400, 420)
    options = {
        "coverage": True,
        "min_area": {"all": 20.0},
        "min_hole": {"building": 30.0},
        "format": ("parquet",),
    }
    for name, block_px in (("small", 128), ("large", 5000)):
        assert run(scene, tmp_path / name, tiny_bundle, block_px=block_px, **options) == 0
    folders = [tmp_path / name / "scene" for name in ("small", "large")]
    tables = [pyogrio.raw.read(folder / "vectors.gpkg", layer="landcover") for folder in folders]
    assert len(tables[0][2]) and tables[0][2].tolist() == tables[1][2].tolist()
    assert shapely.coverage_is_valid(shapely.from_wkb(tables[0][2]))
    assert (folders[0] / "landcover.parquet").is_file()
    for layer in ("buildings", "roads"):
        meta, _, _, columns = pyogrio.raw.read(folders[0] / "vectors.gpkg", layer=layer)
        fields = dict(zip(meta["fields"], columns, strict=True))
        assert (fields["area_m2"][~fields["squared"].astype(bool)] >= 20).all()


def test_an_unknown_class_is_refused_before_anything_is_computed(tiny_bundle, tmp_path):
    scene = write_scene(tmp_path / "scene.tif", 300, 300)
    with pytest.raises(SpecError, match="no class 'sea'"):
        run(scene, tmp_path / "out", tiny_bundle, min_area={"sea": 20.0})
    assert not (tmp_path / "out").exists()
