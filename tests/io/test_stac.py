"""STAC items and catalogs: what they say of a scene, where it lies, and that schemas agree."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pystac
import pystac.validation
import pytest
import rasterio.warp
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import CRS, Transformer

from geoseg.errors import SourceError, SpecError
from geoseg.grid.geogrid import GeoGrid
from geoseg.io.stac import MapFacts, UsedModel, footprint, utc, write_catalog, write_item
from geoseg.legend import LandClass, Legend

TOOLS = (
    Path(os.environ.get("GEOSEG_DATA") or Path(__file__).resolve().parents[2].parent / "shared/data").parent
    / "tools"
)
UTM = CRS.from_epsg(32640).to_wkt()
DUBAI = GeoGrid(200, 300, Affine(0.3, 0, 338000, 0, -0.3, 2776000), UTM)
LEGEND = Legend((LandClass(1, "building", (200, 60, 6)), LandClass(4, "bare soil", (0, 255, 171))))
MODEL = UsedModel("landcover-rgb", "1.0", "ab" * 32, "../model.json")
VERSIONS = {"python": "3.11.2", "geoseg": "0.1.0", "gdal": "3.9.3"}
CUSTOM = "+proj=laea +lat_0=25 +lon_0=55 +datum=WGS84 +units=m"


def facts(grid=DUBAI, **changes):
    known = {
        "name": "dubai",
        "grid": grid,
        "legend": LEGEND,
        "model": MODEL,
        "started": "2026-11-21T06:05:04+02:00",
    }
    return MapFacts(**{**known, "versions": VERSIONS, **changes})


def fill(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or ("landcover.tif", "confidence.tif", "vectors.gpkg", "metrics.json"):
        (folder / name).write_bytes(f"content of {name}".encode())
    return folder


def item_of(folder, **changes):
    path = write_item(fill(folder), facts(**changes))
    item = json.loads(path.read_text())
    core = {**item, "stac_extensions": []}  # the extensions' schemas are not bundled with pystac
    pystac.validation.validate_dict(core)
    return item


def test_an_item_by_eye(tmp_path):
    item = item_of(
        tmp_path,
        acquired="2020-02-03",
        catalog="../catalog.json",
        versions={**VERSIONS, "ray": "not installed"},
    )
    assert (item["type"], item["stac_version"], item["id"]) == ("Feature", "1.1.0", "dubai")
    properties = item["properties"]
    assert properties["datetime"] == "2020-02-03T00:00:00Z"
    assert properties["processing:datetime"] == "2026-11-21T04:05:04Z"
    assert properties["proj:code"] == "EPSG:32640"
    assert properties["proj:shape"] == [200, 300]
    assert properties["proj:transform"] == [0.3, 0, 338000, 0, -0.3, 2776000]
    assert properties["proj:bbox"] == [338000, 2775940, 338090, 2776000]
    assert properties["gsd"] == pytest.approx(0.3, abs=1e-3)
    assert list(properties["processing:software"].items()) == sorted(VERSIONS.items())
    assert properties["geoseg:model_digest"] == MODEL.digest
    assert item["links"][0] == {
        "rel": "derived_from",
        "href": "../model.json",
        "type": "application/json",
        "title": "landcover-rgb 1.0",
        "mlm:name": "landcover-rgb",
    }
    assert [(link["rel"], link["href"]) for link in item["links"][1:]] == [
        ("root", "../catalog.json"),
        ("parent", "../catalog.json"),
    ]


def test_assets_are_the_files_that_are_there(tmp_path):
    fill(tmp_path, "buildings.parquet", "roads.geojson", "landcover.qml", ".part-1-roads.fgb")
    assets = item_of(tmp_path)["assets"]
    assert list(assets) == [
        "landcover",
        "confidence",
        "vectors",
        "metrics",
        "buildings.parquet",
        "roads.geojson",
    ]
    land = assets["landcover"]
    assert land["href"] == "./landcover.tif"
    assert land["type"] == "image/tiff; application=geotiff; profile=cloud-optimized"
    assert (land["data_type"], land["nodata"], land["raster:sampling"]) == ("uint8", 255, "area")
    assert land["classification:classes"] == [
        {"value": 1, "name": "building", "description": "building", "color_hint": "C83C06"},
        {"value": 4, "name": "bare_soil", "description": "bare soil", "color_hint": "00FFAB"},
    ]
    assert assets["confidence"]["unit"] == "%"
    for asset in assets.values():
        content = (tmp_path / asset["href"]).read_bytes()
        assert asset["file:size"] == len(content)
        assert bytes.fromhex(asset["file:checksum"]) == b"\x12\x20" + hashlib.sha256(content).digest()
    assert "bands" not in land


def test_names_of_classes_stay_distinct(tmp_path):
    names = ("wald", "Straße", "Stra e", "水")
    legend = Legend(tuple(LandClass(i, name, (0, 0, 0)) for i, name in enumerate(names)))
    classes = item_of(tmp_path, legend=legend)["assets"]["landcover"]["classification:classes"]
    assert [entry["name"] for entry in classes] == ["wald", "class_1", "class_2", "class_3"]
    assert [entry["description"] for entry in classes] == list(names)


def test_equal_input_gives_equal_bytes(tmp_path):
    shuffled = dict(reversed(VERSIONS.items()))
    one = write_item(fill(tmp_path / "one"), facts()).read_bytes()
    assert write_item(fill(tmp_path / "two"), facts(versions=shuffled)).read_bytes() == one
    assert write_item(tmp_path / "one", facts()).read_bytes() == one  # an item is no asset of itself


def test_a_crs_without_a_code_is_spelled_out(tmp_path):
    grid = GeoGrid(200, 300, DUBAI.transform, CRS.from_user_input(CUSTOM).to_wkt())
    properties = item_of(tmp_path, grid=grid)["properties"]
    assert properties["proj:code"] is None
    assert CRS.from_wkt(properties["proj:wkt2"]) == CRS.from_user_input(CUSTOM)
    assert CRS.from_json_dict(properties["proj:projjson"]) == CRS.from_user_input(CUSTOM)


def test_a_raster_without_crs_has_no_place(tmp_path):
    item = item_of(tmp_path, grid=GeoGrid(200, 300, Affine.identity()))
    assert item["geometry"] is None
    assert "bbox" not in item
    assert item["properties"]["proj:code"] is None
    assert "gsd" not in item["properties"]
    assert item["properties"]["datetime"] == "2026-11-21T04:05:04Z"


def outline(grid):
    geometry, bbox = footprint(grid)
    shape = shapely.from_geojson(json.dumps(geometry))
    assert shape.is_valid
    assert all(shapely.is_ccw(part.exterior) for part in shapely.get_parts(shape))
    west, south, east, north = shape.bounds
    assert -180 <= west <= east <= 180
    assert (bbox[1], bbox[3]) == (south, north)
    return shape, bbox


def test_a_small_scene_is_a_quadrilateral():
    shape, bbox = outline(DUBAI)
    assert len(shape.exterior.coords) == 5
    to_lonlat = Transformer.from_crs(32640, 4326, always_xy=True)
    np.testing.assert_allclose(
        sorted(shape.exterior.coords[:-1]),
        sorted(to_lonlat.transform(x, y) for x in (338000, 338090) for y in (2775940, 2776000)),
        atol=1e-7,
    )
    assert bbox == list(shape.bounds)


@settings(max_examples=50)
@given(
    lon=st.floats(-180, 180),
    lat=st.floats(-89.9, 89.9),
    size_km=st.floats(0.1, 3000),
    angle=st.integers(0, 359),
)
def test_a_pixel_lies_in_the_footprint_where_it_lies_in_the_raster(lon, lat, size_km, angle):
    """Anywhere on the globe, poles and antimeridian included: points of the raster, and points around it."""
    crs = CRS.from_user_input(f"+proj=laea +lat_0={lat!r} +lon_0={lon!r} +datum=WGS84")
    side = size_km * 1000
    transform = Affine.rotation(angle) @ Affine(side / 100, 0, -side / 2, 0, -side / 100, side / 2)
    shape, bbox = outline(GeoGrid(100, 100, transform, crs.to_wkt()))
    to_lonlat = Transformer.from_crs(crs, "OGC:CRS84", always_xy=True)
    cols, rows = np.meshgrid(np.linspace(-20, 120, 15), np.linspace(-20, 120, 15))
    lons, lats = to_lonlat.transform(*(transform @ (cols.ravel(), rows.ravel())))
    edge = np.minimum(np.abs(cols - 50), np.abs(rows - 50)), np.maximum(np.abs(cols - 50), np.abs(rows - 50))
    inside, clear = edge[1].ravel() < 50, np.abs(edge[1].ravel() - 50) > 1
    found = shapely.intersects_xy(shape, lons, lats)
    np.testing.assert_array_equal(found[clear], inside[clear])
    west, south, east, north = bbox
    between = (lons >= west) & (lons <= east) if west <= east else (lons >= west) | (lons <= east)
    assert (between & (lats >= south) & (lats <= north))[inside & clear].all()


def test_antimeridian_and_pole_by_eye():
    fiji = GeoGrid(100, 200, Affine(0.01, 0, 179, 0, -0.01, -16), "EPSG:4326")
    fiji = GeoGrid(100, 200, fiji.transform, CRS.from_epsg(4326).to_wkt())
    shape, bbox = outline(fiji)
    assert sorted(part.bounds for part in shape.geoms) == [(-180, -17, -179, -16), (179, -17, 180, -16)]
    assert bbox == [179, -17, -179, -16]
    world = GeoGrid(180, 360, Affine(1, 0, -180, 0, -1, 90), CRS.from_epsg(4326).to_wkt())
    assert outline(world)[0].equals(shapely.box(-180, -90, 180, 90))
    pacific = GeoGrid(180, 360, Affine(1, 0, 0, 0, -1, 90), CRS.from_epsg(4326).to_wkt())
    assert outline(pacific)[0].equals(shapely.box(-180, -90, 180, 90))
    assert outline(pacific)[1] == [-180, -90, 180, 90]
    south = GeoGrid(100, 100, Affine(10000, 0, -500000, 0, -10000, 500000), CRS.from_epsg(3031).to_wkt())
    shape, bbox = outline(south)
    assert bbox[:2] + bbox[2:3] == [-180, -90, 180]
    assert shape.contains(shapely.Point(12, -89.99))


@pytest.mark.parametrize("x, y", [(0, 0), (0, 5e5), (-5e5, 1e6), (-1e6, 0.3e6)])
def test_a_pole_on_the_outline_or_in_a_corner(x, y):
    """x, y: the top left corner of a square of 1000 km around, beside or touching the north pole."""
    crs = CRS.from_epsg(3413)
    grid = GeoGrid(100, 100, Affine(10000, 0, x, 0, -10000, y), crs.to_wkt())
    shape, _ = outline(grid)
    to_lonlat = Transformer.from_crs(crs, "OGC:CRS84", always_xy=True)
    cols, rows = np.random.default_rng(0).uniform(-50, 150, (2, 500))
    found = shapely.intersects_xy(shape, *to_lonlat.transform(*(grid.transform @ (cols, rows))))
    np.testing.assert_array_equal(found, (np.abs(cols - 50) < 50) & (np.abs(rows - 50) < 50))


def test_an_outline_beyond_the_globe_is_no_place():
    disk = CRS.from_user_input("+proj=geos +h=35785831 +lon_0=0 +datum=WGS84 +sweep=y")
    assert footprint(GeoGrid(100, 100, Affine(120000, 0, -6e6, 0, -120000, 6e6), disk.to_wkt())) is None


def test_times():
    assert utc("2026-11-21") == "2026-11-21T00:00:00Z"
    assert utc("2026-11-21T06:05:04.25") == "2026-11-21T06:05:04.250000Z"
    assert utc("2026-11-21T01:05:04+02:00") == "2026-11-20T23:05:04Z"
    with pytest.raises(SpecError, match="'yesterday' is no date or time in ISO 8601"):
        utc("yesterday")


def test_a_catalog_links_items_by_relative_paths(tmp_path):
    items = [
        write_item(fill(tmp_path / name), facts(name=name, catalog="../catalog.json"))
        for name in ("b c", "a")
    ]
    path = write_catalog(tmp_path, items, "Nightly run")
    catalog = json.loads(path.read_text())
    pystac.validation.validate_dict(catalog)
    assert (catalog["type"], catalog["id"], catalog["title"]) == ("Catalog", "Nightly_run", "Nightly run")
    assert [link["href"] for link in catalog["links"]] == [
        "./catalog.json",
        "./b c/item.json",
        "./a/item.json",
    ]
    found = pystac.Catalog.from_file(str(path))
    assert [item.id for item in found.get_items()] == ["b c", "a"]
    assert path.read_bytes() == write_catalog(tmp_path, items, "Nightly run").read_bytes()
    with pytest.raises(SpecError, match="two items have the id 'a'"):
        write_catalog(tmp_path, [items[1], items[1]], "x")
    with pytest.raises(SourceError, match="is no STAC item"):
        write_catalog(tmp_path, [path], "x")
    assert json.loads(write_catalog(tmp_path / "none", [], "x").read_text())["links"][0]["rel"] == "root"


@pytest.mark.skipif(not (TOOLS / "geo_validate.py").is_file(), reason=f"no geo_validate.py in {TOOLS}")
def test_schemas_of_the_extensions_agree(tmp_path):
    grids = {
        "code": DUBAI,
        "custom": GeoGrid(200, 300, DUBAI.transform, CRS.from_user_input(CUSTOM).to_wkt()),
        "nowhere": GeoGrid(200, 300, Affine.identity()),
        "pole": GeoGrid(100, 100, Affine(10000, 0, -500000, 0, -10000, 500000), CRS.from_epsg(3031).to_wkt()),
    }
    items = [
        write_item(fill(tmp_path / name), facts(grid, name=name, catalog="../catalog.json"))
        for name, grid in grids.items()
    ]
    paths = [*items, write_catalog(tmp_path, items, "all")]
    done = subprocess.run(
        [sys.executable, TOOLS / "geo_validate.py", *paths], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in done.stdout
    assert done.stdout.count("OK") == 5


def test_rasterio_reads_the_same_outline(tmp_path):
    """An independent way to the same box."""
    bounds = rasterio.warp.transform_bounds(UTM, "OGC:CRS84", 338000, 2775940, 338090, 2776000)
    np.testing.assert_allclose(outline(DUBAI)[1], bounds, atol=1e-7)
