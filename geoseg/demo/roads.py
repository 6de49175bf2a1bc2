"""Main roads between the districts, the coast road, and what goes on roads: lane marks, cars, trees."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from shapely.geometry import LineString, Polygon

from .canvas import LAND, ROAD, VEGETATION, Canvas, Material, Points, Trees
from .layout import Layout
from .look import Color, Look, varied

BRIDGE_LIMIT = 230.0
"""Longest stretch of water, in pixels, that a main road bridges."""

COAST_ROAD = (34.0, 46.0)
"""Distance from the waterline, in pixels, of the two kerbs of the coast road."""

CAR = (5.6, 2.5)
"""Length and width of a car in pixels."""

CAR_COLORS: tuple[Color, ...] = (
    (246, 246, 246),
    (238, 238, 240),
    (160, 162, 166),
    (44, 44, 48),
    (70, 72, 80),
    (150, 50, 44),
    (196, 178, 150),
)

LANE = 4.4
"""Width of a traffic lane in pixels."""


def stations(points: Points, spacing: float, offset: float = 0.0) -> tuple[Points, Points]:
    """Points every ``spacing`` pixels along a polyline (n, 2), moved ``offset`` to its left; and tangents."""
    steps = np.hypot(*np.diff(points, axis=0).T)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    at = np.arange(spacing / 2, along[-1], spacing)
    place = np.stack([np.interp(at, along, points[:, k]) for k in (0, 1)], axis=1)
    index = np.clip(np.searchsorted(along, at) - 1, 0, len(steps) - 1)
    tangent = np.diff(points, axis=0)[index] / np.maximum(steps[index], 1e-6)[:, None]
    return place + offset * np.stack([tangent[:, 1], -tangent[:, 0]], axis=1), tangent


def oriented_boxes(centers: Points, along: Points, length: float, width: float) -> npt.NDArray[np.float64]:
    """Rings (n, 4, 2) of boxes around ``centers`` whose length lies ``along`` (unit vectors)."""
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    x, y = along * (length / 2), across * (width / 2)
    return np.stack([centers - x - y, centers + x - y, centers + x + y, centers - x + y], axis=1)


def park_cars(canvas: Canvas, rng: np.random.Generator, centers: Points, along: Points) -> None:
    """Put a car at each of ``centers``; one in twelve is a lorry."""
    lorries = rng.random(len(centers)) < 0.08
    for chosen, scale, height in ((~lorries, 1.0, 1.5), (lorries, 2.1, 3.2)):
        spots = centers[chosen] + rng.normal(0.0, 0.3, (int(chosen.sum()), 2))
        rings = oriented_boxes(spots, along[chosen], CAR[0] * scale, CAR[1] * math.sqrt(scale))
        for ring in rings:
            color = CAR_COLORS[int(rng.integers(len(CAR_COLORS)))]
            canvas.add(ring, Material(varied(rng, color, 8.0), ROAD, height=height, grain=0.02))


def plant(
    canvas: Canvas, rng: np.random.Generator, look: Look, points: Points, radius: tuple[float, float]
) -> None:
    """Plant a tree at each of ``points``; radii in pixels are drawn from ``radius``."""
    count = len(points)
    tint = rng.normal(0.0, 9.0, (count, 1)) + rng.normal(0.0, 3.0, (count, 3))
    radii = rng.uniform(*radius, count).astype(np.float32)
    sparse = np.clip(0.75 - 0.25 * radii, 0.0, 0.6)[:, None]  # low growth lets the sand show
    colors = np.clip(np.array(look.foliage) + tint, 8, 200) * (1 - sparse) + sparse * np.array(look.sand[1])
    canvas.trees.append(Trees(points, radii, colors.astype(np.float32)))


def asphalt(rng: np.random.Generator, look: Look, spread: float = 7.0) -> Material:
    """A road surface of its own age."""
    return Material(varied(rng, look.asphalt, spread), ROAD, grain=0.05)


def _runs(layout: Layout, line: LineString) -> list[tuple[Points, bool]]:
    """Cut a line into stretches over land and short stretches over water (True: a bridge)."""
    points, _ = stations(np.array(line.coords), 4.0)
    if len(points) < 4:
        return []
    wet = layout.sample(layout.shore, points) < 5.0
    edges = np.flatnonzero(np.diff(wet.astype(np.int8))) + 1
    pieces = []
    for part in np.split(np.arange(len(points)), edges):
        over_water = bool(wet[part[0]])
        inner = part[0] > 0 and part[-1] < len(points) - 1
        if over_water and not (inner and 4.0 * len(part) < BRIDGE_LIMIT):
            continue
        stretch = points[max(part[0] - 2, 0) : part[-1] + 3]
        if len(stretch) > 3:
            pieces.append((stretch, over_water))
    return pieces


def _lane_marks(canvas: Canvas, points: Points, half_width: float, median: float) -> None:
    """Dashes between the lanes and a line at each kerb of a carriageway pair."""
    for side in (-1.0, 1.0):
        lanes = np.arange(median + LANE, half_width - 2.0, LANE)
        for offset in lanes:
            place, _ = stations(points, 1.0, side * offset)
            canvas.marks.append(place[np.arange(len(place)) % 14 < 5])
        canvas.marks.append(stations(points, 1.0, side * (half_width - 0.8))[0])


def _main_road(
    canvas: Canvas, rng: np.random.Generator, look: Look, points: Points, half_width: float
) -> None:
    """One stretch of a main road: kerb strip, carriageways, median, marks, traffic and street trees."""
    line = LineString(points)
    strip = varied(rng, (150, 146, 146), 8.0)
    canvas.add(line.buffer(half_width + 3.0), Material(strip, LAND, grain=0.08))
    canvas.add(line.buffer(half_width), asphalt(rng, look))
    median = 0.0
    if half_width > 11.0 and line.length > 90.0:
        median = 2.6
        inner = LineString(points[5:-5]) if len(points) > 14 else line
        green = rng.random() < 0.35 + 0.5 * look.greenness
        color = look.grass if green else look.sand[1]
        label = VEGETATION if green else LAND
        canvas.add(inner.buffer(median, cap_style="flat"), Material(color, label, height=0.2, grain=0.15))
        spots, _ = stations(np.array(inner.coords), float(rng.uniform(11, 18)))
        plant(canvas, rng, look, spots, (2.0, 3.4))
    if rng.random() < 0.8:
        for side in (-1.0, 1.0):
            spots, _ = stations(points, float(rng.uniform(11, 20)), side * (half_width + 5.0))
            plant(canvas, rng, look, spots[rng.random(len(spots)) < 0.8], (2.2, 4.2))
    _lane_marks(canvas, points, half_width, median)


def _traffic(canvas: Canvas, rng: np.random.Generator, points: Points, half_width: float) -> None:
    """Cars on the lanes of a main road."""
    for offset in np.arange(LANE, half_width - 1.0, LANE):
        for side in (-1.0, 1.0):
            spots, along = stations(points, float(rng.uniform(30, 60)), side * float(offset))
            spots = spots + along * rng.uniform(-14, 14, (len(spots), 1))
            chosen = rng.random(len(spots)) < 0.55
            park_cars(canvas, rng, spots[chosen], along[chosen])


def draw_main_roads(canvas: Canvas, rng: np.random.Generator, look: Look, layout: Layout) -> list[Polygon]:
    """Draw the roads between the districts with their junctions; return the bridge decks, still to draw."""
    decks: list[Polygon] = []
    roads: list[tuple[Points, float]] = []
    widths = [(line, float(rng.choice([9.0, 14.5, 17.5, 19.5]))) for line in layout.borders]
    widths += [(line, float(rng.uniform(6.0, 9.0))) for line in layout.lanes]
    for line, half_width in widths:
        for points, over_water in _runs(layout, line):
            if over_water:
                decks.append(LineString(points).buffer(half_width * 0.8, cap_style="flat"))
            else:
                roads.append((points, half_width))
    for points, half_width in sorted(roads, key=lambda road: road[1]):
        _main_road(canvas, rng, look, points, half_width)
    for spot in layout.junctions:
        if layout.shore[int(spot.y), int(spot.x)] > 60.0:
            radius = float(rng.uniform(32, 40))
            canvas.add(spot.buffer(radius), asphalt(rng, look))
            canvas.add(spot.buffer(radius * 0.52), Material((176, 172, 168), ROAD))
            canvas.add(spot.buffer(radius * 0.48), Material(look.grass, VEGETATION, grain=0.15))
            turns = rng.uniform(0, 2 * math.pi, 9)
            ring = np.stack([np.cos(turns), np.sin(turns)], axis=1) * rng.uniform(2, radius * 0.36, (9, 1))
            plant(canvas, rng, look, np.array(spot.coords[0]) + ring, (2.2, 4.0))
    for points, half_width in roads:
        _traffic(canvas, rng, points, half_width)
    return decks


def draw_coast_road(canvas: Canvas, rng: np.random.Generator, look: Look, layout: Layout) -> None:
    """A road that follows the shore through the built districts."""
    built = ("harbour", "villas", "old_town", "towers", "park", "new_town")
    table = np.array([False] + [q.kind in built for q in layout.quarters])
    low, high = COAST_ROAD
    near = (layout.coast > low - 4) & (layout.coast < high + 4) & np.take(table, layout.zones)
    canvas.fill_material(near, Material(varied(rng, (158, 152, 148), 8.0), LAND, grain=0.08))
    canvas.fill_material(near & (layout.coast > low) & (layout.coast < high), asphalt(rng, look))
