"""Pixel areas are those of the ground, whatever the CRS and the window."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from pyproj import CRS, Geod, Transformer

from geoseg.errors import GridError
from geoseg.grid.geogrid import GeoGrid
from geoseg.grid.window import Window
from geoseg.pixels.ground import PixelAreas


def grid(crs, transform, height=300, width=400) -> GeoGrid:
    return GeoGrid(height, width, transform, CRS.from_user_input(crs).to_wkt() if crs else None)


def placed(crs, lon, lat, pixel, height=300, width=400, turn=0.0, flip=-1) -> GeoGrid:
    """A raster whose middle lies at a place."""
    x, y = Transformer.from_crs(4326, crs, always_xy=True).transform(lon, lat)
    middle = Affine.translation(-width / 2, -height / 2)
    return grid(
        crs, Affine.translation(x, y) @ Affine.rotation(turn) @ Affine.scale(pixel, flip * pixel) @ middle,
        height, width,
    )  # fmt: skip


PLACES = {
    "utm at the equator": placed(32631, 3, 0, 0.5),
    "utm at 60 north": placed(32631, 5.5, 60, 10, 3000, 2000),
    "utm far off its zone": placed(32631, 12, 25, 30, 2000, 3000),
    "web mercator at the equator": placed(3857, 55, 0, 0.6),
    "web mercator at 60 north": placed(3857, 25, 60, 20, 2000, 3000),
    "web mercator of a continent": placed(3857, 20, 20, 2000, 3000, 3000),
    "degrees at the equator": placed(4326, 10, 0, 1e-5),
    "degrees at 60 north": placed(4326, 10, 60, 1e-3),
    "degrees of the earth": grid(4326, Affine(0.5, 0, -180, 0, -0.5, 90), 360, 720),
    "degrees, south up": placed(4326, 10, 60, 1e-3, flip=1),
    "degrees, turned": placed(4326, 10, 60, 1e-4, turn=20),
    "utm, turned and south up": placed(32631, 5, 60, 30, 2000, 1000, turn=-35, flip=1),
    "conic of europe": placed(3034, 10, 50, 1000, 2000, 2000),
    "equal area of europe": placed(3035, 10, 50, 1000, 2000, 2000),
    "stereographic at the pole": placed(3413, 0, 89, 500, 1000, 1000),
    "american feet": placed(2229, -118, 34, 1.0),
    "on the antimeridian": placed(3832, 180, 10, 100, 1000, 1000),
    "grads from paris": placed(4807, 2, 48, 1e-3),
    "grads from paris, turned": placed(4807, 2, 48, 1e-3, turn=10),
    "projected from grads": placed(27572, 2, 48, 5),
    "old datum of germany": placed(31467, 9, 50, 2),
}


def outline_area_m2(of: GeoGrid, window: Window) -> float:
    """The referee: a geodesic polygon around a window, with edges followed in small steps."""
    t = np.linspace(0, 1, 2001)[:-1]
    x = np.concatenate([t, np.ones_like(t), 1 - t, np.zeros_like(t)]) * window.width + window.col
    y = np.concatenate([np.zeros_like(t), t, np.ones_like(t), 1 - t]) * window.height + window.row
    crs = CRS.from_wkt(of.crs)
    base = crs.geodetic_crs
    lon, lat = Transformer.from_crs(crs, base, always_xy=True).transform(*(of.transform @ (x, y)))
    unit = math.degrees(base.axis_info[0].unit_conversion_factor)
    return abs(base.get_geod().polygon_area_perimeter(lon * unit, lat * unit)[0])


@pytest.mark.parametrize("name", [n for n in PLACES if n not in ("degrees of the earth",)])
def test_pixels_add_up_to_the_area_of_the_raster(name: str) -> None:
    of = PLACES[name]
    found = np.broadcast_to(PixelAreas.of(of).of_window(of.window), of.window.shape)
    assert found.sum() == pytest.approx(outline_area_m2(of, of.window), rel=1e-6)


@pytest.mark.parametrize("name", PLACES)
def test_pieces_of_the_raster_are_right_too(name: str) -> None:
    of, rng = PLACES[name], np.random.default_rng(5)
    areas = PixelAreas.of(of)
    side = of.height // 20
    for _ in range(12):
        window = Window(
            int(rng.integers(0, of.height - side)), int(rng.integers(0, of.width - side)), side, side
        )
        found = np.broadcast_to(areas.of_window(window), window.shape)
        assert found.sum() == pytest.approx(outline_area_m2(of, window), rel=1e-6)
        assert found.max() <= areas.largest_m2


def test_the_earth_adds_up() -> None:
    of = PLACES["degrees of the earth"]
    total = np.broadcast_to(PixelAreas.of(of).of_window(of.window), of.window.shape).sum()
    geod = Geod(ellps="WGS84")
    half = abs(geod.polygon_area_perimeter([0, 90, 180, 270], [0, 0, 0, 0])[0])
    assert total == pytest.approx(2 * half, rel=1e-12)
    beyond = grid(
        4326, Affine(0.5, 0, -180.25, 0, -0.5, 90.25), 361, 720
    )  # registered on points, as some are
    assert np.broadcast_to(PixelAreas.of(beyond).of_window(beyond.window), (361, 720)).sum() == pytest.approx(
        total
    )


def test_web_mercator_is_not_taken_at_its_word() -> None:
    of = PLACES["web mercator at 60 north"]
    middle = PixelAreas.of(of).of_window(Window(1000, 1500, 1, 1))[0, 0]
    assert middle / 20**2 == pytest.approx(math.cos(math.radians(60)) ** 2, rel=1e-2)


@given(st.sampled_from(["utm at 60 north", "web mercator of a continent", "degrees at 60 north", "degrees, turned"]),
       st.integers(0, 299), st.integers(0, 399), st.integers(1, 300), st.integers(1, 400))  # fmt: skip
def test_windows_change_no_bit(name: str, row: int, col: int, height: int, width: int) -> None:
    areas, whole = whole_of(name)
    window = Window(row, col, height, width).overlap(Window(0, 0, 300, 400))
    found = np.broadcast_to(areas.of_window(window), window.shape)
    np.testing.assert_array_equal(found, whole[window.within(Window(0, 0, 300, 400))])


@cache
def whole_of(name: str) -> tuple[PixelAreas, np.ndarray]:
    areas = PixelAreas.of(PLACES[name])
    return areas, np.broadcast_to(areas.of_window(Window(0, 0, 300, 400)), (300, 400))


def test_one_pixel() -> None:
    of = placed(32631, 5, 60, 10, 1, 1)
    assert PixelAreas.of(of).of_window(of.window)[0, 0] == pytest.approx(
        outline_area_m2(of, of.window), rel=1e-6
    )


@pytest.mark.parametrize(
    ("crs", "transform", "reason"),
    [
        (None, Affine.identity(), "has no CRS"),
        (
            'LOCAL_CS["site",UNIT["metre",1],AXIS["x",EAST],AXIS["y",NORTH]]',
            Affine.identity(),
            "is in site, in which",
        ),
        (4978, Affine.identity(), "in which pixels have no known size"),
        ("+proj=ortho +lat_0=20", Affine(1e5, 0, -7e6, 0, -1e5, 7e6), "does not reach all of it"),
    ],
)
def test_unknown_sizes_are_said(crs, transform, reason) -> None:
    with pytest.raises(GridError, match=reason):
        PixelAreas.of(grid(crs, transform, 140, 140))
