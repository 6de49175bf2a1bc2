"""Frames of pixels hold the angles and the proportions that geodesics have on the ground."""

from __future__ import annotations

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import CRS, Geod, Transformer

from geoseg.pixels.frames import MOST_OBLONG, STEPS, Frame, Frames

GEOD = Geod(ellps="WGS84")
KINDS = {"EPSG:4326": 1e-5, "EPSG:3857": 1.0, "EPSG:32640": 0.7, "EPSG:3035": 10.0}
"""Units of a CRS, and a pixel side in them."""


def centered(crs: str, lon: float, lat: float, sides: np.ndarray) -> Affine:
    """Pixels with given sides, (axis, xy), the first corner at a place."""
    x, y = Transformer.from_crs(4326, crs, always_xy=True).transform(lon, lat)
    (a, d), (b, e) = (sides * KINDS[crs]).tolist()
    return Affine(a, b, x, d, e, y)


def on_ground(transform: Affine, crs: str) -> np.ndarray:
    """East and north of a step along the columns and one along the rows, by geodesics: (axis, 2)."""
    to_lonlat = Transformer.from_crs(crs, 4326, always_xy=True)
    found = []
    for step in ((8, 0), (0, 8)):
        ends = [to_lonlat.transform(*(transform @ (sign * step[0], sign * step[1]))) for sign in (-1, 1)]
        azimuth, back, length = GEOD.inv(*ends[0], *ends[1])
        heading = np.radians((azimuth + ((back + 180 - azimuth + 180) % 360 - 180) / 2) % 360)
        found.append([length * np.sin(heading), length * np.cos(heading)])
    return np.array(found)


@settings(max_examples=150)
@given(
    st.sampled_from(sorted(KINDS)), st.floats(51, 63), st.floats(-70, 70), st.floats(0, 360), st.floats(0.4, 1),
    st.sampled_from([-1, 1]), st.floats(60, 120),
)  # fmt: skip
def test_a_frame_has_the_shape_of_a_pixel_on_the_ground(crs, lon, lat, turn, ratio, flip, between):
    if crs == "EPSG:3035":
        lon, lat = lon - 45, abs(lat) * 0.4 + 35
    directions = np.radians([turn, turn + flip * between])
    sides = np.column_stack([np.cos(directions), np.sin(directions)]) * [[1], [ratio]]
    transform = centered(crs, lon, lat, sides)
    (numbers,) = Frames.of(transform, CRS.from_user_input(crs).to_wkt()).at(np.zeros((1, 2)))
    col, row = on_ground(transform, crs)
    lengths = np.hypot(*col), np.hypot(*row)
    longest = max(lengths)
    shear, area = (col * row).sum() / lengths[0], abs(np.linalg.det([col, row])) / lengths[0]
    expected = np.array([lengths[0], shear, area]) / longest
    oblong = np.linalg.cond([[expected[0], expected[1]], [0, expected[2]]])
    if np.isnan(numbers).any():
        assert oblong > 0.99 * MOST_OBLONG
    else:
        assert oblong < 1.01 * MOST_OBLONG
        assert np.abs(numbers - expected).max() < 1 / STEPS
        assert (numbers * STEPS == np.round(numbers * STEPS)).all()


@given(
    st.tuples(*[st.integers(1, STEPS)] * 2),
    st.integers(-STEPS, STEPS),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
)
def test_whole_pixels_come_back_exactly(scales, shear, col, row):
    frame = Frame(scales[0] / STEPS, shear / STEPS, scales[1] / STEPS)
    points = np.array([[col, row], [0, 0]], float)
    assert np.abs(frame.to_pixels(frame.of_pixels(points)) - points).max() < 1e-6
    upright = frame._replace(row_x=0.0)
    assert (upright.to_pixels(upright.of_pixels(points)) == points).all()


def test_square_pixels_keep_their_frame_over_a_whole_utm_zone():
    frames = Frames.of(Affine(10, 0, 200_000, 0, -10, 9_000_000), CRS.from_epsg(32640).to_wkt())
    places = np.stack(np.meshgrid(np.arange(0, 60_000, 5_000.0), np.arange(0, 800_000, 50_000.0)), 2).reshape(
        -1, 2
    )
    assert (frames.at(places) == [1, 0, 1]).all()


@pytest.mark.parametrize(
    "crs",
    [
        None,
        'ENGCRS["a site",EDATUM["a stone"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],LENGTHUNIT["metre",1]]',
        "nonsense",
    ],
)
def test_without_a_usable_crs_map_units_are_lengths(crs):
    frames = Frames.of(Affine(0, -2, 7, 1, 0, 9), crs)
    assert frames.at(np.array([[3.0, 4.0]])).tolist() == [[0.5, 0, 1]]


def test_a_place_has_its_frame_whatever_else_is_asked():
    frames = Frames.of(Affine(1e-3, 0, 0, 0, -1e-3, 75), CRS.from_epsg(4326).to_wkt())
    places = np.column_stack([np.zeros(200), np.linspace(0, 60_000, 200)])
    together = frames.at(places)
    assert len(np.unique(together[:, 0])) > 100
    assert (together == np.concatenate([frames.at(place[None]) for place in places])).all()


@pytest.mark.parametrize(
    ("transform", "crs"),
    [
        (Affine(1e-5, 0, 0, 0, -1e-5, 89), "EPSG:4326"),
        (Affine(1e-5, 0, 0, 0, -1e-5, 90), "EPSG:4326"),
        (Affine(1e-5, 0, 0, 0, -1e-5, 95), "EPSG:4326"),
        (Affine(1, 0, 0, 0, -5, 0), None),
        (Affine(1, 1, 0, 0, 0.1, 0), None),
        (Affine(10, 0, 4e8, 0, -10, 4e8), "EPSG:32640"),
    ],
    ids=["too oblong", "pole", "beyond the pole", "bands", "sheared", "out of reach"],
)  # fmt: skip
def test_pixels_of_no_usable_shape_have_no_frame(transform, crs):
    wkt = crs and CRS.from_user_input(crs).to_wkt()
    assert np.isnan(Frames.of(transform, wkt).at(np.zeros((1, 2)))).all()


def test_the_antimeridian_is_crossed():
    frames = Frames.of(Affine(1e-4, 0, 180, 0, -1e-4, 10), CRS.from_epsg(4326).to_wkt())
    across, before = frames.at(np.array([[0.0, 0.0], [-1000.0, 0.0]]))
    wrapped = Frames.of(Affine(1.0, 0, -17_976_931, 0, -1.0, 0), CRS.from_epsg(3832).to_wkt())
    assert (across == before).all()
    assert np.isfinite(wrapped.at(np.zeros((1, 2)))).all()
