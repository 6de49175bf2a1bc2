"""Lines and nodes of a raster's roads: in place, in metres, whatever the CRS and the order of the polygons."""

from dataclasses import dataclass, field

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from affine import Affine
from pyproj import CRS, Geod, Transformer

from geoseg.grid.geogrid import GeoGrid
from geoseg.grid.window import Window
from geoseg.io.classmap import ClassMap
from geoseg.io.networks import add_road_network
from geoseg.pixels.polygons import polygonize_block
from geoseg.stages.roads import geodesic_lengths_m, ground_sides_m, trace_roads
from tests.run.results import run, write_scene

ROAD = 2
UTM = CRS.from_epsg(32640).to_wkt()
LONLAT = CRS.from_epsg(4326).to_wkt()
NORTH_UP = Affine(0.5, 0, 400_000, 0, -0.5, 2_700_000)


@dataclass(frozen=True)
class Raster:
    """A raster in memory."""

    values: np.ndarray = field(repr=False)
    transform: Affine = NORTH_UP
    crs: str | None = UTM
    nodata: int | None = 255
    path: str = "raster"

    @property
    def grid(self):
        return GeoGrid(*self.values.shape, self.transform, self.crs)

    def read(self, window):
        return self.values[window.within(self.grid.window)]


def crossing(height=401, width=601, half=6):
    """A road along row 200, another along column 300, both 2 * half + 1 pixels wide."""
    labels = np.ones((height, width), np.uint8)
    labels[200 - half : 201 + half] = ROAD
    labels[:, 300 - half : 301 + half] = ROAD
    return labels


def polygons_of(raster):
    pieces = polygonize_block(raster.values, Window(0, 0, *raster.values.shape), [ROAD])
    return pieces.geometries(raster.transform)


def traced(raster, confidence=None, polygons=None):
    polygons = polygons_of(raster) if polygons is None else polygons
    return trace_roads(polygons, raster, confidence, [ROAD], (("scene", "s"),))


def test_a_crossing_has_four_arms_of_known_length_and_width():
    net = traced(Raster(crossing()))
    degrees = sorted(net.node_columns["degree"].tolist())
    assert degrees == [1, 1, 1, 1, 4]
    lengths = np.sort(net.line_columns["length_m"])

    assert lengths == pytest.approx([100.25, 100.25, 150.25, 150.25], abs=1.5)
    assert net.line_columns["width_mean_m"] == pytest.approx([6.5] * 4, abs=0.5)
    (middle,) = net.nodes[net.node_columns["degree"] == 4]
    assert shapely.distance(middle, shapely.Point(NORTH_UP @ (300.5, 200.5))) < 0.5
    assert set(net.line_columns["scene"]) == {"s"}


def test_lines_end_at_the_nodes_they_name():
    net = traced(Raster(crossing()))
    for end, name in ((0, "from_node"), (-1, "to_node")):
        ends = shapely.get_point(net.lines, end)
        assert shapely.equals_exact(ends, net.nodes[net.line_columns[name] - 1], 1e-6).all()


@pytest.mark.parametrize(
    "transform",
    [
        pytest.param(Affine(0.5, 0, 400_000, 0, 0.5, 2_700_000), id="south-up"),
        pytest.param(
            Affine.translation(400_000, 2_700_000) @ Affine.rotation(30) @ Affine.scale(0.5, -0.5),
            id="rotated",
        ),
    ],
)
def test_the_network_lies_on_the_same_pixels_in_any_orientation(transform):
    labels = crossing()
    plain, turned = traced(Raster(labels)), traced(Raster(labels, transform))

    def in_pixels(net, to_map):
        return shapely.transform(net.lines, lambda xy: np.column_stack((~to_map) @ xy.T))

    a = shapely.union_all(in_pixels(plain, NORTH_UP))
    b = shapely.union_all(in_pixels(turned, transform))
    assert shapely.hausdorff_distance(a, b) < 1.0
    assert np.sort(turned.line_columns["length_m"]) == pytest.approx(
        np.sort(plain.line_columns["length_m"]), rel=0.01
    )


def test_lengths_and_widths_are_metres_on_the_ground_at_70_north():
    """Pixels of equal degrees are three times as high as wide there."""
    side = 1e-5
    transform = Affine(side, 0, 20, 0, -side, 70)
    labels = np.ones((200, 600), np.uint8)
    labels[97:104] = ROAD  # 7 rows of 1.1 m each
    raster = Raster(labels, transform, LONLAT)
    across, down = ground_sides_m(raster.grid)
    assert down == pytest.approx(1.1156, abs=1e-3) and across == pytest.approx(0.3819, abs=1e-3)
    (line,) = range(len((net := traced(raster)).lines))
    geod = Geod(ellps="WGS84")
    *_, truth = geod.inv(20, 70 - 100.5 * side, 20 + 600 * side, 70 - 100.5 * side)
    assert net.line_columns["length_m"][line] == pytest.approx(truth, abs=2 * down)
    assert net.line_columns["width_mean_m"][line] == pytest.approx(7 * down, rel=0.1)


def test_lengths_are_those_of_the_ellipsoid():
    points = np.array([[300_000.0, 2_700_000], [300_400, 2_700_300], [300_400, 2_701_000]])
    (found,) = geodesic_lengths_m(np.array([shapely.LineString(points)]), UTM)
    lon, lat = Transformer.from_crs(32640, 4326, always_xy=True).transform(*points.T)
    assert found == pytest.approx(Geod(ellps="WGS84").line_length(lon, lat), rel=1e-12)


def test_without_a_crs_there_are_lines_but_no_metres():
    net = traced(Raster(crossing(), crs=None))
    assert len(net.lines) == 4
    for name in ("length_m", "width_mean_m", "width_min_m", "bridge_m"):
        assert np.isnan(net.line_columns[name]).all()


def test_confidence_is_the_mean_of_the_road_pixels_under_a_line():
    labels = crossing()
    percent = np.full(labels.shape, 10, np.uint8)
    percent[labels == ROAD] = 60
    percent[200:, 294:307] = 80
    net = traced(Raster(labels), Raster(percent))
    north_south = np.abs(np.diff(shapely.bounds(net.lines)[:, [0, 2]], axis=1).ravel()) < 10
    south = north_south & (shapely.bounds(net.lines)[:, 1] < (NORTH_UP @ (0, 300))[1])
    assert south.sum() == 1
    assert net.line_columns["confidence_mean"][south] == pytest.approx([80], abs=0.5)
    assert net.line_columns["confidence_mean"][~south] == pytest.approx([60] * 3, abs=1.0)


def test_the_order_of_the_polygons_decides_nothing():
    labels = crossing()
    labels[150:160] = 1  # two parts, a gap of 5 m between them
    labels[:30, 500:510] = ROAD
    raster = Raster(labels)
    polygons = polygons_of(raster)
    assert len(polygons) == 3
    a, b = traced(raster), traced(raster, polygons=polygons[::-1].copy())
    assert shapely.to_wkb(a.lines).tolist() == shapely.to_wkb(b.lines).tolist()
    assert a.line_columns["id"].tolist() == b.line_columns["id"].tolist()
    assert a.line_columns["bridge_m"].max() == pytest.approx(5, abs=1)


def test_no_roads_make_empty_layers(tmp_path):
    net = traced(Raster(np.ones((50, 60), np.uint8)))
    assert len(net.lines) == len(net.nodes) == 0
    assert all(len(column) == 0 for column in (*net.line_columns.values(), *net.node_columns.values()))


@pytest.fixture(scope="module")
def mapped(tiny_bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("roads")
    scene = write_scene(folder / "scene.tif")
    for name, block_px in (("small", 128), ("large", 10_000)):
        assert (
            run(scene, folder / name, tiny_bundle, centerlines=True, block_px=block_px, format=("fgb",)) == 0
        )
    return folder


def test_a_run_writes_the_network_equal_for_any_block_size(mapped):
    a, b = (mapped / name / "scene" / "vectors.gpkg" for name in ("small", "large"))
    for layer in ("road_centerlines", "road_nodes"):
        meta, _, wkb, columns = pyogrio.raw.read(a, layer=layer)
        _, _, wkb_b, columns_b = pyogrio.raw.read(b, layer=layer)
        assert len(wkb) and wkb.tolist() == wkb_b.tolist()
        for name, x, y in zip(meta["fields"], columns, columns_b, strict=True):
            np.testing.assert_array_equal(x, y, err_msg=name)
        assert meta["crs"] == "EPSG:32640"
        assert (mapped / "small" / "scene" / f"{layer}.fgb").is_file()


def test_the_written_network_is_that_of_the_written_roads(mapped, tmp_path):
    folder = mapped / "large" / "scene"
    copy = tmp_path / "copy.gpkg"
    copy.write_bytes((folder / "vectors.gpkg").read_bytes())
    source, confidence = (ClassMap.open(str(folder / name)) for name in ("landcover.tif", "confidence.tif"))
    counts = add_road_network(source, confidence, [ROAD], (), str(copy))
    for layer, count in counts.items():
        again, before = (pyogrio.raw.read(p, layer=layer)[2] for p in (copy, folder / "vectors.gpkg"))
        assert len(again) == count and again.tolist() == before.tolist()
    with rasterio.open(folder / "landcover.tif") as dataset:
        _, _, wkb, _ = pyogrio.raw.read(copy, layer="road_centerlines")
        middle = shapely.get_coordinates(
            shapely.line_interpolate_point(shapely.from_wkb(wkb), 0.5, normalized=True)
        )
        on_road = [value[0] == ROAD for value in dataset.sample(middle)]
    assert np.mean(on_road) > 0.9


def test_a_run_that_asks_no_more_for_the_network_removes_it(mapped, tiny_bundle, tmp_path):
    scene = mapped / "scene.tif"
    assert run(scene, tmp_path / "out", tiny_bundle, centerlines=True, format=("fgb",)) == 0
    assert run(scene, tmp_path / "out", tiny_bundle, format=("fgb",)) == 0
    folder = tmp_path / "out" / "scene"
    assert not (folder / "road_centerlines.fgb").exists()
    assert "road_centerlines" not in [name for name, _ in pyogrio.list_layers(folder / "vectors.gpkg")]
