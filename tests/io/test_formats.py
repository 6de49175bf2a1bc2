"""Copies of a GeoPackage hold what it holds, in its order; they appear whole or not at all."""

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import geopandas
import numpy as np
import pyarrow.parquet as pq
import pyogrio
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import CRS, Transformer

from geoseg.errors import OutputError, SourceError, SpecError
from geoseg.io import formats
from geoseg.io.formats import FORMATS, export_layers

UTM = CRS.from_epsg(32640).to_wkt()
LAYERS = ("buildings", "roads", "regions", "road_nodes", "road_centerlines")
TOOLS = (
    Path(os.environ.get("GEOSEG_DATA") or Path(__file__).resolve().parents[2].parent / "shared/data").parent
    / "tools"
)


def write(path, layer, geometries, kind, crs=UTM, **fields):
    pyogrio.raw.write(
        path, shapely.to_wkb(np.array(geometries, object)), list(fields.values()), list(fields),
        layer=layer, driver="GPKG", geometry_type=kind, crs=crs, append=path.exists(),
    )  # fmt: skip


def boxes(count, seed=0):
    rng = np.random.default_rng(seed)
    x, y = np.array([[338000], [2776000]]) + rng.uniform(0, 5000, (2, count))
    return shapely.box(x, y, x + rng.uniform(1, 20, count), y + rng.uniform(1, 20, count), ccw=False)


def attributes(count):
    return {
        "class_id": np.arange(count, dtype=np.int32),
        "class_name": np.array([None if i % 5 == 4 else f"Häuser {i}" for i in range(count)], object),
        "area_m2": np.array([np.nan if i % 7 == 3 else i / 3 for i in range(count)]),
        "clipped": np.arange(count) % 2 == 0,
    }


@pytest.fixture
def package(tmp_path):
    """What a scene's vectors.gpkg holds: polygons, an empty layer, multipolygons, points, lines, and styles."""
    path = tmp_path / "vectors.gpkg"
    shapes = boxes(25)
    write(path, "buildings", shapes, "Polygon", **attributes(25))
    write(path, "roads", [], "Polygon", **attributes(0))
    write(
        path, "regions", [shapely.MultiPolygon([*shapes[:2]])], "MultiPolygon", region=np.array(["a"], object)
    )
    write(path, "road_nodes", shapely.centroid(shapes[:3]), "Point", degree=np.array([1, 3, 4]))
    write(path, "road_centerlines", shapely.boundary(shapes[:2]), "LineString", width_m=np.array([2.5, 3]))
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE layer_styles (id INTEGER PRIMARY KEY, styleQML TEXT)")
        database.execute(
            "INSERT INTO gpkg_contents (table_name, data_type) VALUES ('layer_styles', 'attributes')"
        )
    return path


def read(path):
    return geopandas.read_parquet(path) if path.suffix == ".parquet" else pyogrio.read_dataframe(path)


def plain(frame):
    """Attributes as plain values, None where there is none."""
    rows = frame.drop(columns="geometry").to_dict("records")
    return [{k: None if v is None or v != v else v for k, v in row.items()} for row in rows]


def test_one_file_per_layer_and_format(package, tmp_path):
    written = export_layers(package, tmp_path / "deep" / "out", FORMATS)
    assert [path.name for path in written] == [f"{layer}.{ending}" for layer in LAYERS for ending in FORMATS]
    assert sorted(os.listdir(tmp_path / "deep" / "out")) == sorted(path.name for path in written)
    assert export_layers(package, tmp_path / "none", []) == []
    assert len(export_layers(package, tmp_path / "twice", ["fgb", "fgb"])) == len(LAYERS)


@pytest.mark.parametrize("ending", ["gpkg", "parquet", "fgb"])
@pytest.mark.parametrize("layer", LAYERS)
def test_features_attributes_types_and_crs_are_the_layers(package, tmp_path, monkeypatch, layer, ending):
    monkeypatch.setattr(formats, "BATCH", 7)
    export_layers(package, tmp_path, [ending])
    path = tmp_path / f"{layer}.{ending}"
    there, here = pyogrio.read_dataframe(package, layer=layer), read(path)
    if ending == "fgb" and len(there):  # the index orders them
        there, here = (frame.sort_values(frame.columns[0], ignore_index=True) for frame in (there, here))
    assert here.columns.tolist() == there.columns.tolist()
    assert plain(here) == plain(there)
    assert shapely.to_wkb(here.geometry.values).tolist() == shapely.to_wkb(there.geometry.values).tolist()
    assert here.crs == CRS.from_epsg(32640)
    if ending != "parquet":
        old = pyogrio.read_info(package, layer=layer)
        new = pyogrio.read_info(path, force_feature_count=True)
        assert new["layer_name"] == layer
        for fact in ("geometry_type", "features"):
            assert new[fact] == old[fact]
        for fact in ("dtypes", "ogr_types", "ogr_subtypes"):
            assert list(new[fact]) == list(old[fact])


def test_parquet_says_what_geoparquet_asks(package, tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "BATCH", 4)
    monkeypatch.setattr(formats, "ROW_GROUP", 10)
    export_layers(package, tmp_path, ["parquet"])
    file = pq.ParquetFile(tmp_path / "buildings.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [12, 12, 1]
    assert {file.metadata.row_group(0).column(i).compression for i in range(3)} == {"ZSTD"}
    geo = json.loads(file.schema_arrow.metadata[b"geo"])
    column = geo["columns"]["geometry"]
    shapes = pyogrio.read_dataframe(package, layer="buildings").geometry.values
    assert (geo["version"], geo["primary_column"], column["encoding"]) == ("1.1.0", "geometry", "WKB")
    assert column["geometry_types"] == ["Polygon"]
    assert column["bbox"] == shapely.total_bounds(shapes).tolist()
    assert CRS.from_json_dict(column["crs"]) == CRS.from_epsg(32640)
    assert column["covering"]["bbox"]["xmin"] == ["bbox", "xmin"]
    table = file.read(["bbox"])["bbox"].combine_chunks().flatten()
    np.testing.assert_array_equal(
        np.column_stack([np.asarray(side) for side in table]), shapely.bounds(shapes)
    )
    west = geopandas.read_parquet(tmp_path / "buildings.parquet", bbox=(338000, 2776000, 339000, 2781000))
    assert len(west) == shapely.intersects(shapes, shapely.box(338000, 2776000, 339000, 2781000)).sum()
    empty = json.loads(pq.read_schema(tmp_path / "roads.parquet").metadata[b"geo"])["columns"]["geometry"]
    assert empty["geometry_types"] == []
    assert "bbox" not in empty


def test_flatgeobuf_has_an_index(package, tmp_path):
    export_layers(package, tmp_path, ["fgb"])
    info = pyogrio.read_info(tmp_path / "buildings.fgb")
    assert info["capabilities"]["fast_spatial_filter"]
    window = (338000, 2776000, 340000, 2781000)
    found = pyogrio.read_dataframe(tmp_path / "buildings.fgb", bbox=window)
    shapes = pyogrio.read_dataframe(package, layer="buildings").geometry.values
    assert len(found) == shapely.intersects(shapes, shapely.box(*window)).sum() > 0


def test_geojson_is_rfc_7946(package, tmp_path):
    export_layers(package, tmp_path, ["geojson"], crs="EPSG:3035")
    found = json.loads((tmp_path / "buildings.geojson").read_text(encoding="utf-8"))
    assert found["type"] == "FeatureCollection"
    assert "crs" not in found
    frame = pyogrio.read_dataframe(package, layer="buildings")
    assert [feature["properties"] for feature in found["features"]] == plain(frame)
    to_lonlat = Transformer.from_crs(32640, 4326, always_xy=True)
    for feature, shape in zip(found["features"], frame.geometry, strict=True):
        (ring,) = feature["geometry"]["coordinates"]
        assert shapely.is_ccw(shapely.LinearRing(ring))
        assert all(value == round(value, 7) for point in ring for value in point)
        assert 55 < ring[0][0] < 56
        assert 25 < ring[0][1] < 26
        expected = np.column_stack(to_lonlat.transform(*shapely.get_coordinates(shape).T))
        np.testing.assert_allclose(np.sort(ring, axis=0), np.sort(expected, axis=0), atol=1e-7)
    assert json.loads((tmp_path / "roads.geojson").read_text())["features"] == []


def test_geojson_is_cut_at_the_antimeridian(tmp_path):
    path = tmp_path / "vectors.gpkg"
    write(path, "buildings", [shapely.box(179.9, 10, 180.1, 11)], "Polygon", "EPSG:4326", n=np.array([1]))
    there = Transformer.from_crs(4326, 32601, always_xy=True)
    x, y = there.transform([179.9, 180.1], [10, 11])
    write(path, "roads", [shapely.box(x[0], y[0], x[1], y[1])], "Polygon", "EPSG:32601", n=np.array([1]))
    export_layers(path, tmp_path, ["geojson"])
    for layer in ("buildings", "roads"):
        (feature,) = json.loads((tmp_path / f"{layer}.geojson").read_text())["features"]
        assert feature["geometry"]["type"] == "MultiPolygon"
        west, east = sorted(
            shapely.bounds(shapely.from_geojson(json.dumps(feature["geometry"]))).tolist()[::2]
        )
        assert (west, east) == (-180, 180)


@pytest.mark.parametrize("ending", ["gpkg", "parquet", "fgb"])
@pytest.mark.parametrize("code", ["EPSG:4326", "EPSG:3035", "OGC:CRS84", "EPSG:3857"])
def test_reprojected_with_x_before_y(package, tmp_path, ending, code):
    """EPSG:4326 and EPSG:3035 name their northing first; files hold x first all the same."""
    export_layers(package, tmp_path, [ending], code)
    here = read(tmp_path / f"buildings.{ending}").sort_values("class_id")
    there = pyogrio.read_dataframe(package, layer="buildings")
    moved = Transformer.from_crs(32640, code, always_xy=True).transform(
        *shapely.get_coordinates(there.geometry).T
    )
    np.testing.assert_array_equal(shapely.get_coordinates(here.geometry), np.column_stack(moved))
    assert here.crs == CRS.from_user_input(code)
    assert plain(here) == plain(there)


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("crs", [None, "EPSG:3857"])
def test_features_without_extent_are_kept(tmp_path, ending, crs):
    path = tmp_path / "vectors.gpkg"
    shape = shapely.MultiPolygon([shapely.box(0, 0, 1, 1)])
    for layer, shapes in (
        ("regions", [shape, shapely.MultiPolygon(), None, shape]),
        ("none", [shapely.MultiPolygon()]),
    ):
        write(path, layer, shapes, "MultiPolygon", "EPSG:4326", n=np.arange(len(shapes)))
    export_layers(path, tmp_path / "out", [ending], crs)
    here = read(tmp_path / "out" / f"regions.{ending}")
    assert here["n"].tolist() == [0, 1, 2, 3]
    assert [g is None or g.is_empty for g in here.geometry] == [False, True, True, False]
    assert len(read(tmp_path / "out" / f"none.{ending}")) == 1


@settings(max_examples=20)
@given(
    count=st.integers(0, 30), batch=st.integers(1, 40), ending=st.sampled_from(["gpkg", "parquet", "geojson"])
)
def test_the_size_of_batches_changes_no_answer(tmp_path_factory, count, batch, ending):
    folder = tmp_path_factory.mktemp("law")
    write(folder / "vectors.gpkg", "buildings", boxes(count, batch), "Polygon", **attributes(count))
    frames = []
    for size, name in ((batch, "some"), (1000, "all")):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(formats, "BATCH", size)
            (path,) = export_layers(folder / "vectors.gpkg", folder / name, [ending])
        frames.append(read(path))
    assert plain(frames[0]) == plain(frames[1])
    assert plain(frames[0]) == plain(pyogrio.read_dataframe(folder / "vectors.gpkg"))
    assert (
        shapely.to_wkb(frames[0].geometry.values).tolist()
        == shapely.to_wkb(frames[1].geometry.values).tolist()
    )


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
def test_a_layer_without_crs(tmp_path):
    path = tmp_path / "vectors.gpkg"
    write(path, "buildings", boxes(2), "Polygon", None, n=np.array([1, 2]))
    for ending in ("gpkg", "parquet", "fgb"):
        export_layers(path, tmp_path, [ending])
        assert read(tmp_path / f"buildings.{ending}").crs is None
    before = sorted(os.listdir(tmp_path))
    for wanted, crs, words in (
        (["fgb", "geojson"], None, "written as GeoJSON"),
        (["fgb"], "EPSG:4326", "WGS 84"),
    ):
        with pytest.raises(
            SourceError, match=f"layer 'buildings' has no CRS, so it cannot be .*{words}"
        ) as caught:
            export_layers(path, tmp_path / "out", wanted, crs)
        assert "\n" not in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == before


def test_what_cannot_be_asked_for(package, tmp_path):
    with pytest.raises(SpecError, match="unknown format 'shp'; known are gpkg, parquet, fgb, geojson"):
        export_layers(package, tmp_path / "out", ["fgb", "shp"])
    with pytest.raises(SpecError, match="'EPSG:0' is no coordinate reference system"):
        export_layers(package, tmp_path / "out", ["fgb"], "EPSG:0")
    package.rename(tmp_path / "roads.gpkg")
    with pytest.raises(SpecError, match="overwritten by its own copy"):
        export_layers(tmp_path / "roads.gpkg", tmp_path, ["gpkg"])
    assert not (tmp_path / "out").exists()


def test_a_source_that_cannot_be_read(tmp_path):
    with pytest.raises(SourceError, match="no such file"):
        export_layers(tmp_path / "missing.gpkg", tmp_path, ["fgb"])
    (tmp_path / "text.gpkg").write_text("hello")
    with pytest.raises(SourceError, match="cannot be read as a GeoPackage"):
        export_layers(tmp_path / "text.gpkg", tmp_path, ["fgb"])


@pytest.mark.parametrize("ending", ["gpkg", "parquet", "fgb"])
def test_a_vertex_without_a_place_leaves_nothing(tmp_path, ending):
    path = tmp_path / "vectors.gpkg"
    write(path, "buildings", [shapely.box(0, -89, 1, 90)], "Polygon", "EPSG:4326", n=np.array([1]))
    with pytest.raises(
        SourceError, match="layer 'buildings': 3 vertices, as 1, -89, have no place in"
    ) as caught:
        export_layers(path, tmp_path / "out", [ending], "+proj=ortho +lat_0=90")
    assert caught.value.path == str(path)
    assert os.listdir(tmp_path / "out") == []


@pytest.mark.parametrize("ending", FORMATS)
def test_a_place_that_cannot_be_written(package, tmp_path, ending):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OutputError, match="cannot be written") as caught:
        export_layers(package, tmp_path / "file", [ending])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ending", FORMATS)
def test_a_failure_on_the_way_keeps_the_older_file(package, tmp_path, monkeypatch, ending):
    target = tmp_path / "out" / f"buildings.{ending}"
    target.parent.mkdir()
    target.write_text("old")

    def fail(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(formats._Features, "_placed", fail)
    with pytest.raises(SourceError, match="No space left"):
        export_layers(package, tmp_path / "out", [ending])
    assert target.read_text() == "old"
    assert os.listdir(tmp_path / "out") == [target.name]


@pytest.mark.skipif(not (TOOLS / "geo_validate.py").is_file(), reason=f"no geo_validate.py in {TOOLS}")
def test_validators_agree(package, tmp_path):
    written = export_layers(package, tmp_path / "out", ["gpkg", "parquet", "fgb"])
    full = [str(path) for path in written if "roads" not in path.name]  # it cannot judge empty layers
    done = subprocess.run(
        [sys.executable, TOOLS / "geo_validate.py", *full], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning: no bbox" not in done.stdout
