"""Results open in QGIS with names, colors and place: checked as text, with GDAL, and where it is there with QGIS."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree

import geopandas
import numpy as np
import pyogrio
import pytest
import rasterio
import rasterio.shutil
import shapely
from affine import Affine
from pyproj import CRS

from geoseg.errors import OutputError
from geoseg.grid.geogrid import GeoGrid
from geoseg.io.qgis import SIDECARS, write_qgis
from geoseg.io.qgis_styles import attribute_table, class_style, percent_style, vector_style
from geoseg.io.vectors import GeoPackageStore, add_region_layer
from geoseg.legend import LandClass, Legend

UTM = CRS.from_epsg(32640).to_wkt()
OWN = CRS.from_proj4("+proj=laea +lat_0=24.31 +lon_0=54.47 +ellps=GRS80 +units=m").to_wkt()
pytestmark = pytest.mark.filterwarnings("ignore:.crs. was not provided")
NASTY = "<hut> & \"shed\" 'ü' 城"
LEGEND = Legend(
    (
        LandClass(1, "building", (219, 68, 55), "building"),
        LandClass(2, NASTY, (120, 40, 200), "building"),
        LandClass(4, "road", (97, 97, 97), "road"),
        LandClass(9, "wasser & süß", (66, 133, 244)),
    )
)
SIZE = 80
NORTH_UP = Affine(0.5, 0, 325_000, 0, -0.5, 2_785_000)
GRID = GeoGrid(SIZE, SIZE, NORTH_UP, UTM)
COLUMNS = ["region", "miou", "building", NASTY, "road", "pixels", "unmapped"]
LAYERS = ["buildings", "roads", "road_centerlines", "road_nodes", "regions"]
TREE = {
    "Vectors": ["Regions", "Road nodes", "Road centerlines", "Buildings", "Roads", "Regions by mIoU"],
    "Rasters": ["Confidence", "Land cover"],
}
SHOWN = [*TREE["Vectors"][:5], "Land cover"]
ROOT = Path(__file__).parents[2]
PROBE = ROOT / "tests" / "qgis_probe.py"


def land_classes():
    """Quarters: buildings with a hut in them, road, water, nodata."""
    values = np.full((SIZE, SIZE), 255, np.uint8)
    half = SIZE // 2
    values[:half, :half], values[:half, half:], values[half:, :half] = 1, 4, 9
    values[10:20, 10:20] = 2
    return values


def write_raster(path, values, grid, colors=None):
    profile = {
        "driver": "GTiff", "height": SIZE, "width": SIZE, "count": 1, "dtype": "uint8", "nodata": 255,
        "crs": grid.crs, "transform": grid.transform,
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as out:
        out.write(values, 1)
        if colors:
            out.write_colormap(1, colors)


def box(row, col, height, width, grid):
    corners = [(col, row), (col + width, row), (col + width, row + height), (col, row + height)]
    return shapely.Polygon([grid.transform @ corner for corner in corners])


def write_vectors(path, grid):
    half = SIZE // 2
    whole, hut = box(0, 0, half, half, grid), box(10, 10, 10, 10, grid)
    found = {
        "buildings": [(1, "building", whole.difference(hut)), (2, NASTY, hut)],
        "roads": [(4, "road", box(0, half, half, half, grid))],
    }
    with GeoPackageStore.beside(path) as store, store.writer(grid.crs) as writer:
        for layer, rows in found.items():
            columns = {
                "class_id": np.array([row[0] for row in rows], np.int32),
                "class_name": np.array([row[1] for row in rows], object),
                "area_m2": np.array([row[2].area for row in rows]),
                "clipped": np.zeros(len(rows), bool),
            }
            writer.append(layer, [shapely.to_wkb(row[2]) for row in rows], columns)
    ends = shapely.points([grid.transform @ (col, 20) for col in (half, SIZE)])
    extra = {"road_centerlines": [shapely.LineString(ends)], "road_nodes": list(ends)}
    for layer, shapes in extra.items():
        geopandas.GeoDataFrame({"id": range(len(shapes))}, geometry=shapes, crs=grid.crs).to_file(
            path, layer=layer
        )
    scores = [("North <&>", 0.71), ("South", None)]
    rows = [{**dict.fromkeys(COLUMNS), "region": name, "miou": miou} for name, miou in scores]
    add_region_layer(path, [box(0, 0, half, SIZE, grid), box(half, 0, half, SIZE, grid)], rows, grid.crs)


def make_scene(folder, crs=UTM, transform=NORTH_UP):
    """A scene folder as a run leaves it, with what QGIS needs; returns its grid."""
    grid = GeoGrid(SIZE, SIZE, transform, crs)
    write_raster(
        folder / "landcover.tif", land_classes(), grid, {c.id: (*c.color, 255) for c in LEGEND.classes}
    )
    percent = np.tile(np.linspace(0, 100, SIZE).astype(np.uint8), (SIZE, 1))
    write_raster(folder / "confidence.tif", percent, grid)
    write_vectors(folder / "vectors.gpkg", grid)
    write_qgis(folder, LEGEND, grid, LAYERS, COLUMNS, title="Town <&> ü")
    return grid


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scene")
    make_scene(folder)
    return folder


def parse(path):
    return ElementTree.fromstring(path.read_text(encoding="utf-8"))


def project_root(folder):
    with zipfile.ZipFile(folder / "project.qgz") as archive:
        assert archive.namelist() == ["project.qgs"]
        return ElementTree.fromstring(archive.read("project.qgs"))


def style_rows(folder):
    with closing(sqlite3.connect(folder / "vectors.gpkg")) as database:
        database.row_factory = sqlite3.Row
        return [dict(row) for row in database.execute("SELECT * FROM layer_styles ORDER BY id")]


def test_the_folder_holds_the_results_and_nothing_half_done(scene):
    expected = {"landcover.tif", "confidence.tif", "vectors.gpkg", *SIDECARS}
    assert {path.name for path in scene.iterdir()} == expected


def test_class_entries_are_the_legend_in_its_order(scene):
    entries = [e.attrib for e in parse(scene / "landcover.qml").iter("paletteEntry")]
    assert [(int(e["value"]), e["label"]) for e in entries] == [(c.id, c.name) for c in LEGEND.classes]
    assert [e["color"] for e in entries] == ["#db4437", "#7828c8", "#616161", "#4285f4"]


def test_confidence_runs_from_0_to_100_percent(scene):
    root = parse(scene / "confidence.qml")
    assert root.find(".//rasterrenderer").get("type") == "singlebandpseudocolor"
    items = [(item.get("value"), item.get("label")) for item in root.iter("item")]
    assert (items[0], items[-1]) == (("0", "0 %"), ("100", "100 %"))


def test_the_attribute_table_has_names_and_colors(scene):
    root = parse(scene / "landcover.tif.aux.xml")
    names = [field.findtext("Name") for field in root.iter("FieldDefn")]
    usages = [field.find("Usage").get("usageAsString") for field in root.iter("FieldDefn")]
    assert names == ["Value", "Class", "Red", "Green", "Blue"]
    assert usages == ["MinMax", "Name", "Red", "Green", "Blue"]
    rows = [[cell.text for cell in row] for row in root.iter("Row")]
    assert rows == [[str(c.id), c.name, *map(str, c.color)] for c in LEGEND.classes]
    categories = [category.text or "" for category in root.iter("Category")]
    assert {i: name for i, name in enumerate(categories) if name} == {c.id: c.name for c in LEGEND.classes}


def test_gdal_reads_the_category_names(scene, tmp_path):
    """rasterio has no call for them, but GDAL copies them into a VRT."""
    rasterio.shutil.copy(str(scene / "landcover.tif"), str(tmp_path / "copy.vrt"), driver="VRT")
    categories = [c.text or "" for c in parse(tmp_path / "copy.vrt").iter("Category")]
    assert [categories[c.id] for c in LEGEND.classes] == list(LEGEND.names)
    with rasterio.open(scene / "landcover.tif") as dataset:
        assert dataset.colormap(1)[9] == (66, 133, 244, 255)
        assert dataset.nodata == 255


def test_gdalinfo_reads_the_attribute_table(scene):
    if shutil.which("gdalinfo") is None:
        pytest.skip("gdalinfo is not installed")
    done = subprocess.run(
        ["gdalinfo", "-json", scene / "landcover.tif"], capture_output=True, text=True, check=True
    )
    rows = json.loads(done.stdout)["rat"]["row"]
    assert [(row["f"][0], row["f"][1]) for row in rows] == [(c.id, c.name) for c in LEGEND.classes]


def test_each_layer_has_one_default_style(scene):
    rows = style_rows(scene)
    order = ["regions", "road_nodes", "road_centerlines", "buildings", "roads"]
    assert [row["f_table_name"] for row in rows] == order
    for row in rows:
        assert (row["useAsDefault"], row["f_table_schema"], row["f_geometry_column"]) == (1, "", "geom")
        assert ElementTree.fromstring(row["styleQML"]).find("renderer-v2") is not None
    labels = [e.get("label") for e in ElementTree.fromstring(rows[3]["styleQML"]).iter("category")]
    assert labels == ["building", NASTY]
    with closing(sqlite3.connect(scene / "vectors.gpkg")) as database:
        query = "SELECT data_type FROM gpkg_contents WHERE table_name = 'layer_styles'"
        assert database.execute(query).fetchall() == [("attributes",)]
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert pyogrio.read_info(scene / "vectors.gpkg", layer="buildings")["features"] == 2


def test_the_same_arguments_give_the_same_bytes(scene, tmp_path):
    for name in ("landcover.tif", "confidence.tif", "vectors.gpkg"):
        shutil.copy(scene / name, tmp_path / name)
    names = [*SIDECARS, "vectors.gpkg"]
    write_qgis(tmp_path, LEGEND, GRID, LAYERS[::-1], COLUMNS, title="Town <&> ü")
    assert {n: (tmp_path / n).read_bytes() for n in names} == {n: (scene / n).read_bytes() for n in names}
    write_qgis(tmp_path, LEGEND, GRID, ["roads"], [])
    assert [row["f_table_name"] for row in style_rows(tmp_path)] == ["roads"]
    assert (tmp_path / "project.qgz").read_bytes() != (scene / "project.qgz").read_bytes()


def test_a_style_that_a_user_kept_stays(scene, tmp_path):
    make_scene(tmp_path)
    with closing(sqlite3.connect(tmp_path / "vectors.gpkg")) as database, database:
        database.execute("INSERT INTO layer_styles (f_table_name, styleName) VALUES ('roads', 'mine')")
    write_qgis(tmp_path, LEGEND, GRID, ["roads"], [])
    assert {row["styleName"] for row in style_rows(tmp_path)} == {"mine", "geoseg"}


def test_the_project_holds_the_layers_by_relative_paths(scene):
    root = project_root(scene)
    assert root.findtext("title") == "Town <&> ü"
    groups = {
        group.get("name"): [leaf.get("name") for leaf in group]
        for group in root.findall("layer-tree-group/layer-tree-group")
    }
    assert groups == TREE
    sources = [layer.findtext("datasource") for layer in root.iter("maplayer")]
    assert all(source.startswith("./") and str(scene) not in source for source in sources)
    ids = [layer.findtext("id") for layer in root.iter("maplayer")]
    assert ids == [leaf.get("id") for leaf in root.iter("layer-tree-layer")]
    assert len(set(ids)) == 8
    assert min(map(len, ids)) > 10


@pytest.mark.parametrize("layer", ["regions", "road_nodes", "road_centerlines", "buildings", "roads"])
@pytest.mark.parametrize("classes", [LEGEND.classes, LEGEND.classes[3:]])
def test_every_layer_has_a_style_whatever_the_legend(layer, classes):
    style = vector_style(layer, Legend(classes), COLUMNS)
    assert ElementTree.fromstring(style.qml()).find("renderer-v2/symbols/symbol/layer") is not None


def test_regions_without_scores_have_an_outline_and_a_name(scene, tmp_path):
    shutil.copy(scene / "vectors.gpkg", tmp_path)
    write_qgis(tmp_path, LEGEND, GRID, ["regions"], ["region"])
    style = ElementTree.fromstring(style_rows(tmp_path)[0]["styleQML"])
    assert style.find("renderer-v2").get("type") == "singleSymbol"
    assert style.find(".//text-style").get("fieldName") == '"region"'
    titles = [layer.findtext("layername") for layer in project_root(tmp_path).iter("maplayer")]
    assert titles == ["Regions", "Confidence", "Land cover"]


def test_characters_that_xml_cannot_hold_are_replaced():
    legend = Legend((LandClass(0, "a\x00\x1b\ud800\nb", (0, 0, 0)),))
    for text in (class_style(legend).qml(), attribute_table(legend)):
        assert ElementTree.fromstring(text.encode()) is not None
        assert "a\ufffd\ufffd\ufffd" in text


def test_opacity_is_for_the_project_only():
    opacity = [
        ElementTree.fromstring(style.qml()).find(".//rasterrenderer").get("opacity")
        for style in (percent_style(), percent_style(0.7))
    ]
    assert opacity == ["1.0", "0.7"]


def test_without_a_crs_the_project_has_none(tmp_path):
    make_scene(tmp_path, crs=None)
    root = project_root(tmp_path)
    assert root.find("projectCrs") is None
    assert root.find(".//spatialrefsys/wkt") is None
    assert root.findtext("properties/SpatialRefSys/ProjectionsEnabled") == "0"


@pytest.mark.parametrize("content", [None, b"", b"not a GeoPackage" * 100])
def test_a_broken_geopackage_is_one_line(tmp_path, content):
    path = tmp_path / "vectors.gpkg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(OutputError) as caught:
        write_qgis(tmp_path, LEGEND, GRID, LAYERS, COLUMNS)
    assert str(caught.value).startswith(f"{path}: cannot be written (")
    assert [p.name for p in tmp_path.iterdir()] == ([] if content is None else ["vectors.gpkg"])


def test_a_missing_layer_is_named(scene, tmp_path):
    shutil.copy(scene / "vectors.gpkg", tmp_path)
    with closing(sqlite3.connect(tmp_path / "vectors.gpkg")) as database, database:
        database.execute("DELETE FROM gpkg_geometry_columns WHERE table_name = 'road_centerlines'")
    with pytest.raises(OutputError, match=r"vectors\.gpkg: .*has no layer road_centerlines"):
        write_qgis(tmp_path, LEGEND, GRID, ["roads", "road_centerlines"], COLUMNS)
    assert style_rows(tmp_path) == style_rows(scene)


def test_a_place_that_cannot_be_written_is_one_line(scene, tmp_path):
    shutil.copy(scene / "vectors.gpkg", tmp_path)
    (tmp_path / "confidence.qml").mkdir()
    with pytest.raises(OutputError, match=r"confidence\.qml: cannot be written \("):
        write_qgis(tmp_path, LEGEND, GRID, LAYERS, COLUMNS)


def test_a_full_disk_leaves_the_geopackage_as_it_was(scene, tmp_path):
    """A limit on file size stands in for the full disk."""
    path = tmp_path / "vectors.gpkg"
    shutil.copy(scene / "vectors.gpkg", path)
    with closing(sqlite3.connect(path)) as database:
        database.executescript("DELETE FROM layer_styles; VACUUM;")
    before = path.read_bytes()
    script = f"""
import resource, signal
from pathlib import Path
from geoseg.errors import OutputError
from geoseg.io.qgis import store_styles
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({len(before)}, {len(before)}))
try:
    store_styles(Path({str(path)!r}), {{"roads": "x" * 100_000}})
except OutputError as error:
    print("refused", error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.startswith(f"refused {path}: cannot be written ("), done.stderr
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["vectors.gpkg"]


# With the real QGIS from here on.


@pytest.fixture(scope="module")
def probe():
    """Runs the probe in the system's Python."""
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen"}
    python = "/usr/bin/python3"
    try:
        found = subprocess.run([python, "-c", "import qgis.core"], capture_output=True, env=environment)
    except OSError as error:
        pytest.skip(f"{python} cannot be run ({error})")
    if found.returncode:
        pytest.skip(f"{python} has no PyQGIS (apt-get install qgis python3-qgis qgis-providers)")

    def run(folder, names):
        home = {**environment, "HOME": str(folder.parent), "XDG_RUNTIME_DIR": str(folder.parent)}
        command = [python, PROBE, *(str(folder / name) for name in names)]
        done = subprocess.run(command, capture_output=True, text=True, env=home, timeout=200)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


FILES = ("landcover.tif", "confidence.tif", *(f"vectors.gpkg|layername={layer}" for layer in LAYERS))


@pytest.fixture(scope="module")
def seen(probe, scene):
    """What QGIS makes of a copy of the scene in another place, so that only relative paths can work."""
    moved = scene.with_name("moved ü")
    shutil.copytree(scene, moved)
    return probe(moved, [*FILES, "project.qgz"])


def test_qgis_opens_each_result_with_its_own_style(seen):
    land, sure = seen["landcover.tif"], seen["confidence.tif"]
    assert land["renderer"] == "paletted"
    assert land["classes"] == [[c.id, c.name, "#" + bytes(c.color).hex()] for c in LEGEND.classes]
    assert set(land["map"]["colors"]) == {"#db4437", "#7828c8", "#616161", "#4285f4", "#ffffff"}
    assert sure["renderer"] == "singlebandpseudocolor"
    assert sure["map"]["distinct"] > 40
    buildings, roads, lines, nodes, regions = (seen[layer] for layer in LAYERS)
    assert lines["renderer"] == nodes["renderer"] == "singleSymbol"
    assert lines["symbol"]["line_color"] == nodes["symbol"]["outline_color"] == "58,58,58,255"
    assert buildings["renderer"] == "categorizedSymbol"
    assert buildings["classes"] == [["building", "#db4437"], [NASTY, "#7828c8"]]
    assert {"#db4437", "#7828c8"} <= set(buildings["map"]["colors"])
    assert roads["renderer"] == "singleSymbol"
    assert max(roads["map"]["colors"].items(), key=lambda item: item[1])[0] == "#616161"
    assert regions["renderer"] == "graduatedSymbol"
    assert [label for label, _ in regions["classes"]][-2:] == ["mIoU 0.8 to 1.0", "no labels"]
    assert "region" in regions["labels"]
    assert all(seen[name]["valid"] and seen[name]["crs"] == "EPSG:32640" for name in (*FILES[:2], *LAYERS))


def test_qgis_opens_the_project(seen):
    project = seen["project.qgz"]
    assert (project["read"], project["error"], project["title"]) == (True, "", "Town <&> ü")
    assert project["groups"] == TREE
    assert project["shown"] == SHOWN
    assert project["crs"] == "EPSG:32640"
    assert project["view"] == [325_000, 2_785_000 - SIZE / 2, 325_000 + SIZE / 2, 2_785_000]
    assert len(project["map"]["colors"]) > 4
    assert project["map"]["errors"] == []
    by_name = {layer["name"]: layer for layer in project["layers"]}
    assert all(layer["valid"] and layer["crs"] == "EPSG:32640" for layer in by_name.values())
    assert [label for _, label, _ in by_name["Land cover"]["classes"]] == list(LEGEND.names)
    assert by_name["Confidence"]["opacity"] == pytest.approx(0.7)
    ids = [layer["id"] for layer in project["layers"]]
    assert all(name.startswith((*LAYERS, "confidence_", "landcover_")) for name in ids)


@pytest.mark.parametrize("crs", [None, OWN], ids=["no CRS", "CRS without a code"])
def test_qgis_opens_a_scene_with_an_unusual_crs(probe, tmp_path, crs):
    make_scene(tmp_path, crs=crs)
    found = probe(tmp_path, [*FILES, "project.qgz"])
    project = found["project.qgz"]
    assert project["read"]
    assert project["shown"] == SHOWN
    assert all(layer["valid"] for layer in project["layers"])
    assert len(project["map"]["colors"]) > 4
    assert (project["crs"], bool(project["wkt"])) == ("", crs is not None)
    assert {bool(layer["wkt"]) for layer in project["layers"]} == {crs is not None}
    if crs is not None:
        ours = CRS.from_wkt(crs)
        assert all(CRS.from_wkt(layer["wkt"]).equals(ours) for layer in project["layers"])
