"""No ground on both sides of a split."""

from __future__ import annotations

import logging

import pytest
import rasterio
import rasterio.warp
import shapely
from affine import Affine
from hypothesis import assume, given
from hypothesis import strategies as st

from geoseg.errors import SpecError
from geoseg.grid.geogrid import GeoGrid
from geoseg.io.regions import NamedPolygon
from geoseg.train.ground import Ground, check_ground


def wkt(epsg: int) -> str:
    return str(rasterio.CRS.from_epsg(epsg).to_wkt(version="WKT2_2019"))


UTM40, UTM39, LONLAT = wkt(32640), wkt(32639), wkt(4326)
CORNER = (300_000.0, 2_800_000.0)


def scene(name: str, split: str, col: float = 0, row: float = 0, width: int = 50, height: int = 40) -> Ground:
    """Placed by columns and rows of one grid of 2 m."""
    transform = Affine.translation(CORNER[0] + 2 * col, CORNER[1] - 2 * row) @ Affine.scale(2, -2)
    return Ground(name, GeoGrid(height, width, transform, UTM40), split)


def in_crs(ground: Ground, name: str, crs: str, split: str) -> Ground:
    """A scene of the same ground, as rasterio would warp it."""
    grid = ground.grid
    bounds = rasterio.transform.array_bounds(grid.height, grid.width, grid.transform)
    transform, width, height = rasterio.warp.calculate_default_transform(
        grid.crs, crs, grid.width, grid.height, *bounds
    )
    return Ground(name, GeoGrid(height, width, transform, crs), split)


def leaks(*scenes: Ground) -> bool:
    try:
        check_ground(scenes)
    except SpecError:
        return True
    return False


places = st.tuples(st.integers(-80, 80), st.integers(-80, 80), st.integers(1, 90), st.integers(1, 90))


@given(st.lists(st.tuples(places, st.sampled_from(["train", "validation", "test"])), max_size=4))
def test_only_scenes_of_two_splits_may_not_overlap(drawn):
    """Against whole rectangles: a shared edge or corner is no overlap."""
    scenes = [scene(f"{n}", split, *place) for n, (place, split) in enumerate(drawn)]
    expected = any(
        a_split != b_split
        and min(a[0] + a[2], b[0] + b[2]) > max(a[0], b[0])
        and min(a[1] + a[3], b[1] + b[3]) > max(a[1], b[1])
        for n, (a, a_split) in enumerate(drawn)
        for b, b_split in drawn[:n]
    )
    assert leaks(*scenes) == expected


@given(
    col=st.integers(-120, 120),
    row=st.integers(-120, 120),
    crs=st.sampled_from([UTM39, LONLAT]),
    turned=st.booleans(),
)
def test_overlaps_are_found_across_crs(col, row, crs, turned):
    """But for a margin, in which a warped footprint is a little larger than what it was made from."""
    first, moved = scene("a", "train"), scene("b", "test", col, row)
    apart = max(abs(col) - 50, abs(row) - 40)
    assume(abs(apart) > 4)
    second = in_crs(moved, "b", crs, "test")
    assert leaks(*((second, first) if turned else (first, second))) == (apart < 0)


def test_both_scenes_are_named_with_their_splits():
    with pytest.raises(
        SpecError,
        match=r"a\.tif: is in split train but shows ground of b\.tif \(split test; 50 % of the smaller",
    ) as e:
        check_ground([scene("a.tif", "train"), scene("b.tif", "test", col=25)])
    assert "\n" not in str(e.value)


def holding(ground: Ground, left: float, right: float) -> Ground:
    """The same scene with the region between two columns held out."""
    (x0, y0), (x1, y1) = (ground.grid.transform @ corner for corner in ((left, 0), (right, 40)))
    region = NamedPolygon("north", shapely.box(x0, y1, x1, y0))
    return Ground(ground.path, ground.grid, ground.split, (region,))


@given(st.integers(-60, 60), st.integers(0, 40), st.sampled_from([UTM40, UTM39]))
def test_no_training_scene_shows_what_another_holds_out(col, left, crs):
    first = holding(scene("a", "train"), left, left + 10)
    second = scene("b", "train", col)
    if crs != UTM40:
        second = in_crs(second, "b", crs, "train")
    shared = min(col + 50, left + 10) - max(col, left)
    assume(crs == UTM40 or abs(shared) > 4)
    assert leaks(first, second) == (shared > 0)
    assert leaks(second, first) == (shared > 0)


def test_ground_that_both_hold_out_is_nobodys():
    first = holding(scene("a", "train"), 20, 50)
    assert leaks(first, scene("b", "train", 20))
    assert not leaks(first, holding(scene("b", "train", 20), 0, 30))
    assert leaks(first, holding(scene("b", "train", 20), 0, 29))


def test_a_scene_without_a_place_is_passed_over_with_a_warning(caplog):
    nowhere = [Ground(s, GeoGrid(9, 9, Affine.identity()), s) for s in ("train", "test")]
    with caplog.at_level(logging.WARNING):
        check_ground(nowhere)
    assert "train: its CRS tells no place" in caplog.text


def test_the_date_line_hides_nothing():
    def at(lon: float, split: str) -> Ground:
        transform = Affine(0.001, 0, lon, 0, -0.001, -17)
        return Ground(split, GeoGrid(100, 100, transform, LONLAT), split)

    grid = GeoGrid(500, 500, Affine(100, 0, 800_000, 0, -100, 8_120_000), wkt(32760))
    across = Ground("utm", grid, "test")  # 179.8 degrees east to 179.7 degrees west
    assert leaks(across, at(179.9, "train"))
    assert leaks(across, at(-179.95, "train"))
    assert not leaks(across, at(20, "train"))
