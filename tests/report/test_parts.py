"""The parts that pages are made of: laws first, each against a plain way to get the same."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from geoseg.errors import SourceError
from geoseg.grid.geogrid import GeoGrid
from geoseg.grid.window import Window
from geoseg.io.glimpse import layer_counts, read_layer, read_reduced, reduced_shape
from geoseg.report import pictures
from geoseg.report.charts import bar, histogram, reliability
from geoseg.report.facts import SceneFacts
from geoseg.report.footprints import WIDE, Footprint, draw_world
from geoseg.report.outlines import LONG_SIDE, MapFrame, draw_layer, draw_regions, path_of
from geoseg.report.page import json_for_script
from geoseg.report.places import cell_px, main_mistake, worst_places
from geoseg.report.scene import class_shares
from tests.report.folders import CRS, LEGEND, TRANSFORM, boxes, write_layer, write_raster, write_run


def grid(height: int, width: int) -> GeoGrid:
    return GeoGrid(height, width, TRANSFORM, None)


@given(st.recursive(st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8))  # fmt: skip
def test_any_json_survives_a_script_element(value) -> None:
    text = json_for_script(value)
    assert json.loads(text) == value
    assert not set("<>&\u2028\u2029") & set(text)


@settings(max_examples=25)
@given(st.integers(1, 420), st.integers(1, 420), st.integers(1, 300), st.integers(0, 99))
def test_a_view_reads_every_part_once(
    tmp_path_factory, height: int, width: int, side: int, seed: int
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width)).astype(np.uint8)
    path = write_raster(tmp_path_factory.mktemp("view") / "a.tif", pixels)
    whole, valid = read_reduced(path, Window(0, 0, height, width), (height, width))
    assert (whole[0] == pixels).all() and (valid == (pixels != 255)).all()
    shape = reduced_shape(height, width, side)
    assert max(shape) <= max(side, 1) or shape == (height, width)
    part, _ = read_reduced(path, Window(0, 0, height, width), shape)
    rows, cols = (np.arange(n) * full / n for n, full in zip(shape, (height, width), strict=True))
    # Each pixel of the view is one of those that lie under it, or beside them where tiles were rounded.
    for r, c in [(0, 0), (shape[0] - 1, shape[1] - 1), (shape[0] // 2, shape[1] // 2)]:
        around = pixels[
            max(0, int(rows[r]) - 1) : int(rows[r] + height / shape[0]) + 2,
            max(0, int(cols[c]) - 1) : int(cols[c] + width / shape[1]) + 2,
        ]
        assert part[0, r, c] in around


@given(st.integers(0, 10**6), st.lists(st.integers(0, 255), max_size=20, unique=True))
def test_a_flat_picture_shows_the_palettes_colors_and_nothing_else(seed: int, values: list[int]) -> None:
    rng = np.random.default_rng(seed)
    palette = {value: tuple(rng.integers(0, 256, 3).tolist()) for value in values}
    indices = rng.integers(0, 256, (9, 13)).astype(np.uint8)
    shown = np.asarray(Image.open(io.BytesIO(pictures.flat(indices, palette))).convert("RGBA"))
    for row, col in np.ndindex(indices.shape):
        value = int(indices[row, col])
        if value in palette:
            assert tuple(shown[row, col].tolist()) == (*palette[value], 255)
        else:
            assert shown[row, col, 3] == 0


def test_other_types_are_stretched_and_bytes_are_not() -> None:
    values = np.arange(300, dtype=np.uint8).reshape(3, 10, 10) % 200
    image, _ = pictures.displayed(values, np.ones((10, 10), bool))
    assert (image.transpose(2, 0, 1) == values).all()
    deep = values.astype(np.float32) * 40 + 7
    deep[0, 0, 0] = np.nan
    image, valid = pictures.displayed(deep, np.ones((10, 10), bool))
    assert not valid[0, 0] and valid.sum() == 99
    assert image.min() == 0 and image.max() == 255


@settings(max_examples=60)
@given(st.integers(1, 900), st.integers(1, 900), st.integers(0, 10**6), st.floats(0, 0.8))
def test_the_worst_places_are_those_of_a_plain_search(
    height: int, width: int, seed: int, unknown: float
) -> None:
    """The view has every pixel here, so that cells can be cut out of it."""
    rng = np.random.default_rng(seed)
    side = cell_px(grid(height, width))
    rows, cols = -(-height // side), -(-width // side)
    bad = np.kron(rng.random((rows, cols)) ** 3, np.ones((side, side)))[:height, :width]
    bad[rng.random(bad.shape) < unknown] = np.nan
    places = worst_places(bad, grid(height, width))
    means = []
    for row in range(0, height, side):
        for col in range(0, width, side):
            cell = bad[row : row + side, col : col + side]
            known = ~np.isnan(cell)
            if known.mean() >= 0.5 and known.any():
                means.append((np.nanmean(cell), row, col))
    if means:
        assert places[0].badness == pytest.approx(max(means)[0], abs=1e-6)
    assert len(places) <= 12 and [p.badness for p in places] == sorted(
        (p.badness for p in places), reverse=True
    )
    for i, a in enumerate(places):
        assert a.window.overlap(Window(0, 0, height, width)) == a.window and a.window.area_px
        for b in places[:i]:
            assert not a.window.grow(1).touches(b.window)
    left = [mean for mean, row, col in means
            if not any(Window(row, col, side, side).grow(1).touches(p.window) for p in places)]  # fmt: skip
    assert len(places) == 12 or not left  # whatever is no neighbor of a chosen place was chosen, too


def test_the_main_mistake_is_the_commonest_pair() -> None:
    truth, mapped = np.array([1, 1, 2, 2, 2], np.uint8), np.array([1, 3, 3, 3, 2], np.uint8)
    assert main_mistake(truth, mapped) == (2, 3, 0.4)
    assert main_mistake(truth, truth) is None
    assert main_mistake(truth[:0], mapped[:0]) is None


def points_of(path: str) -> list[list[tuple[int, int]]]:
    """The vertices of each part of a path, read the way SVG says."""
    parts = []
    for x, y, moves in re.findall(r"M(-?\d+) (-?\d+)l([^Mz]*)", path):
        points, numbers = [(int(x), int(y))], list(map(int, re.findall(r"-?\d+", moves)))
        for dx, dy in zip(numbers[::2], numbers[1::2], strict=True):
            points.append((points[-1][0] + dx, points[-1][1] + dy))
        parts.append(points)
    return parts


@given(
    st.lists(st.tuples(st.integers(-500, 500), st.integers(-500, 500)), min_size=3, max_size=9, unique=True)
)
def test_a_path_has_the_vertices_of_its_polygon(corners: list[tuple[int, int]]) -> None:
    hull = shapely.MultiPoint(corners).convex_hull
    if hull.geom_type != "Polygon":
        return
    (points,) = points_of(path_of(hull))
    assert points == [(round(x), round(y)) for x, y in list(hull.exterior.coords)[:-1]]


def test_holes_and_lines_have_paths_of_their_own() -> None:
    ring = shapely.Point(0, 0).buffer(50).difference(shapely.Point(0, 0).buffer(20))
    assert path_of(ring).count("M") == path_of(ring).count("z") == 2
    line = path_of(shapely.LineString([(0, 0), (4, -3), (4.2, -3.1), (9, 9)]))
    assert line == "M0 0l4-3 5 12"
    assert path_of(shapely.Point(1, 1)) == path_of(shapely.Polygon()) == ""


def test_outlines_grow_coarser_and_then_give_up(tmp_path: Path) -> None:
    path, frame = tmp_path / "a.gpkg", MapFrame.of(grid(900, 1000))
    discs = [box.centroid.buffer(0.45 * np.sqrt(box.area), quad_segs=64) for box in boxes(900, 1000, 25)]
    write_layer(path, "roads", discs, ["x"] * 25)
    fine = draw_layer(path, "roads", frame, 10**6)
    assert fine is not None and fine.count("M") == 25
    coarse = draw_layer(path, "roads", frame, int(0.7 * len(fine)))
    assert coarse is not None and len(coarse) <= 0.7 * len(fine) and coarse.count("M") == 25
    assert draw_layer(path, "roads", frame, 300) is None
    for points in points_of(fine):
        assert all(0 <= x <= LONG_SIDE and 0 <= y <= 0.9 * LONG_SIDE for x, y in points)


def test_regions_keep_their_order_and_the_largest_are_kept(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("geoseg.report.outlines.MOST_REGIONS", 3)
    shapes = boxes(400, 400, 5)
    shapes[0], shapes[3] = shapes[0].buffer(-20), shapes[3].buffer(-40)
    write_layer(tmp_path / "a.gpkg", "regions", shapes, list("abcde"))
    drawn, count = draw_regions(tmp_path / "a.gpkg", "regions", MapFrame.of(grid(400, 400)), 10**6)
    assert [(region.index, region.name) for region in drawn] == [(1, "b"), (2, "c"), (4, "e")]
    assert count == 5
    boxed, _ = draw_regions(tmp_path / "a.gpkg", "regions", MapFrame.of(grid(400, 400)), 10)
    assert all(len(points_of(region.path)[0]) == 4 for region in boxed)


def test_what_the_run_counted_wins_over_what_a_view_shows(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "out", shape=(90, 80), names=(), labels=False)
    facts = SceneFacts.read(folder)
    view = np.full((9, 8), 3, np.uint8)
    shares, exact, _ = class_shares(facts, view)
    assert exact and shares == {c.id: facts.row["shares"][c.name] for c in LEGEND.classes}
    (tmp_path / "out/run.json").unlink()
    shares, exact, mapped_px = class_shares(SceneFacts.read(folder), view)
    assert (shares[3], exact, mapped_px) == (1.0, False, 7200)


def test_a_layer_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file"):
        layer_counts(tmp_path / "none.gpkg")
    write_layer(tmp_path / "a.gpkg", "regions", boxes(50, 50, 2), ["a", "b"])
    assert layer_counts(tmp_path / "a.gpkg") == {"regions": 2}
    with pytest.raises(SourceError, match="cannot be read"):
        list(read_layer(tmp_path / "a.gpkg", "roads"))
    ((_, names),) = read_layer(tmp_path / "a.gpkg", "regions", "region")
    assert names == ["a", "b"]


def test_a_scene_across_180_degrees_is_drawn_on_both_sides() -> None:
    world = draw_world([Footprint("date line", "./a/report.html", (179.5, -18, -179.5, -17))], 2)
    assert world is not None and world["svg"].count("foot") == 2
    assert "1 without a known place is not shown" in world["note"]
    xs = [float(x) for x in re.findall(r'class="foot" x="([\d.-]+)"', world["svg"])]
    assert min(xs) < WIDE / 4 and max(xs) > 3 * WIDE / 4
    assert draw_world([], 3) is None


@given(st.floats(-1, 3), st.floats(-1, 3), st.floats(-1, 3))
def test_bars_stay_in_their_room(share: float, low: float, high: float) -> None:
    drawn = bar(share, "#ff0000", low, high)
    assert all(0 <= float(p) <= 100 for p in re.findall(r'"([\d.e-]+)%"', drawn))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_histogram_columns_have_heights_in_proportion(shares: list[float]) -> None:
    heights = [float(h) for h in re.findall(r'class="value"[^>]*height="([\d.]+)"', histogram(shares, "x"))]
    shown = [share for share in shares if share > 0]
    assert len(heights) == len(shown) and max(heights, default=0) <= 260.1
    for height, share in zip(heights, shown, strict=True):
        assert height == pytest.approx(share / max(shown) * max(heights), abs=0.11)


def test_the_reliability_curve_goes_through_its_points() -> None:
    drawn = reliability([(1.0, 1.0, 0.5), (0.0, 0.0, 0.5)], 'a "quoted" label')
    assert 'points="40.0,270.0 300.0,10.0"' in drawn
    assert "a &#34;quoted&#34; label" in drawn


def test_a_frame_puts_the_rasters_corners_on_the_maps() -> None:
    turned = GeoGrid(100, 200, Affine.translation(5, 5) @ Affine.rotation(30) @ Affine.scale(2, -2), CRS)
    frame = MapFrame.of(turned)
    assert (frame.width, frame.height) == (LONG_SIDE, LONG_SIDE // 2)
    assert frame.to_units @ (turned.transform @ (200, 100)) == pytest.approx((LONG_SIDE, LONG_SIDE / 2))
