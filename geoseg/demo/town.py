"""Built quarters: their street grids, straight or curved, and the lots between the streets."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from shapely.geometry import LineString
from shapely.geometry.base import BaseGeometry

from . import houses
from .canvas import LAND, ROAD, VEGETATION, WATER, Material, Points
from .houses import Brush, Lot
from .layout import Layout, Quarter
from .look import Color, varied
from .roads import asphalt, oriented_boxes, park_cars, plant, stations

SHORE_MARGIN = 20.0
"""Pixels that buildings keep from the waterline."""

EMPTY_BLOCKS = 0.04
"""Share of the blocks left bare."""

PUBLIC_BLOCKS = 0.08
"""Share of the blocks given to one large building."""

PUBLIC_LOT = 50.0
"""Only districts whose lots are narrower than this, in pixels, have public buildings."""

Builder = Callable[[Brush, Lot, Color], None]


@dataclass(frozen=True)
class Style:
    """How a quarter is laid out; lengths in pixels."""

    build: Builder
    lot_width: tuple[float, float]
    lot_depth: tuple[float, float]
    block_lots: tuple[int, int]  # lots along one block
    street: tuple[float, float]  # width of its streets
    occupied: tuple[float, float]  # share of the lots that are built on
    curved: float  # chance that the streets bend
    gap: float  # pixels between neighbouring lots
    parks: float  # share of the blocks that are green


STYLES: dict[str, Style] = {
    "villas": Style(houses.villa, (24, 34), (32, 42), (6, 12), (9, 13), (0.82, 0.97), 0.75, 0.6, 0.06),
    "new_town": Style(houses.villa, (28, 40), (36, 46), (5, 9), (10, 14), (0.2, 0.6), 0.5, 2.0, 0.03),
    "old_town": Style(houses.town_house, (15, 24), (17, 26), (4, 8), (6, 10), (0.9, 0.98), 0.25, 0.3, 0.02),
    "harbour": Style(houses.warehouse, (60, 90), (60, 84), (2, 4), (13, 17), (0.75, 0.95), 0.0, 4.0, 0.05),
    "industry": Style(houses.warehouse, (54, 100), (60, 90), (3, 6), (12, 16), (0.75, 0.95), 0.0, 3.0, 0.0),
    "towers": Style(houses.tower, (62, 84), (66, 84), (2, 4), (13, 18), (0.65, 0.9), 0.4, 5.0, 0.12),
}


@dataclass(frozen=True)
class Grid:
    """Street coordinates (u along the streets, v across them) bent around a far centre."""

    center: tuple[float, float]
    angle: float  # radians
    curvature: float  # one over the radius in pixels; 0 for straight streets
    wave: float  # amplitude in pixels of a slow sway

    def to_pixels(self, u: npt.ArrayLike, v: npt.ArrayLike) -> Points:
        """Positions (..., 2) of street coordinates."""
        u_at, v_at = np.asarray(u, np.float64), np.asarray(v, np.float64)
        v_at = v_at + self.wave * np.sin(u_at / 170.0)
        if self.curvature:
            radius = 1.0 / self.curvature
            x = (radius + v_at) * np.sin(u_at / radius)
            y = (radius + v_at) * np.cos(u_at / radius) - radius
        else:
            x, y = np.broadcast_arrays(u_at, v_at)
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return np.stack([x * cos - y * sin + self.center[0], x * sin + y * cos + self.center[1]], axis=-1)


def _draw_grid(rng: np.random.Generator, quarter: Quarter, style: Style, reach: float) -> Grid:
    middle = quarter.outline.centroid
    curvature, wave = 0.0, 0.0
    if rng.random() < style.curved:
        curvature = float(rng.choice([-1.0, 1.0])) / (reach * float(rng.uniform(1.15, 2.2)))
        wave = float(rng.uniform(0.0, 9.0))
    return Grid((middle.x, middle.y), quarter.angle, curvature, wave)


def _cuts(rng: np.random.Generator, reach: float, step: Callable[[], float], street: float) -> Points:
    """Spans (n, 2) between parallel streets from -reach to reach."""
    spans = []
    at = -reach
    while at < reach:
        length = step()
        spans.append((at, at + length))
        at += length + street
    return np.array(spans)


def _streets(brush: Brush, quarter: Quarter, grid: Grid, rows: Points, cols: Points, width: float) -> None:
    """Pave the gaps between the blocks; park cars at their kerbs."""
    inside = quarter.outline.buffer(-2.0)
    reach = float(cols[-1, 1])
    u = np.arange(-reach, reach, 22.0)
    lines = [grid.to_pixels(u, np.full(len(u), v + width / 2)) for v in rows[:, 1]]
    v = np.arange(rows[0, 0], rows[-1, 1], 22.0)
    lines += [grid.to_pixels(np.full(len(v), c + width / 2), v) for c in cols[:, 1] if brush.chance(0.9)]
    surface = asphalt(brush.rng, brush.look)
    kept: list[Points] = []
    for line in lines:
        cut: BaseGeometry = LineString(line).intersection(inside)
        brush.canvas.add(cut.buffer(width / 2 - 0.8, cap_style="square"), surface)
        parts = getattr(cut, "geoms", [cut])
        kept.extend(np.array(part.coords) for part in parts if part.length > 20.0)
    for points in kept:
        for side in (-1.0, 1.0):
            spots, along = stations(points, 9.0, side * (width / 2 - 2.4))
            chosen = brush.rng.random(len(spots)) < 0.07
            park_cars(brush.canvas, brush.rng, spots[chosen], along[chosen])


def _free(layout: Layout, labels: npt.NDArray[np.uint8], zone: int, points: Points) -> npt.NDArray[np.bool_]:
    """Which lots (n, k, 2) lie wholly in the zone, away from roads and the shore."""
    same = layout.sample(layout.zones, points) == zone
    dry = layout.sample(layout.shore, points) > SHORE_MARGIN
    open_ground = layout.sample(labels, points) == LAND
    inside = (points > 1.0).all(axis=-1) & (points < layout.size - 1.0).all(axis=-1)
    return np.asarray((same & dry & open_ground & inside).all(axis=-1))


def _lots(
    rng: np.random.Generator, grid: Grid, style: Style, row: Points, col: Points
) -> tuple[list[Lot], npt.NDArray[np.float64]]:
    """The lots of one block, two rows back to back, and probe points (n, 9, 2) for each."""
    start, end = grid.to_pixels(col, np.full(2, row.mean()))
    length = float(np.hypot(*(end - start)))
    count = max(1, round(length / float(rng.uniform(*style.lot_width))))
    width = length / count
    depth = (row[1] - row[0]) / 2
    centers = col[0] + (col[1] - col[0]) / count * (np.arange(count) + 0.5)
    lots, probes = [], []
    for near, sign in ((row[0], 1.0), (row[1], -1.0)):
        front = grid.to_pixels(centers, np.full(count, near + sign * 0.8))
        back = grid.to_pixels(centers, np.full(count, near + sign * depth))
        for f, b in zip(front, back, strict=True):
            inward = (b - f) / max(float(np.hypot(*(b - f))), 1e-6)
            along = (inward[1] * sign, -inward[0] * sign)
            lot = Lot(
                (float(f[0]), float(f[1])),
                (float(along[0]), float(along[1])),
                (float(inward[0]), float(inward[1])),
                width - style.gap,
                depth - 0.8 - style.gap / 2,
            )
            lots.append(lot)
            probes.append(lot.probes())
    return lots, np.array(probes)


def _green_block(brush: Brush, lots: list[Lot]) -> None:
    """A small park instead of the houses of a block."""
    lawn = Material(varied(brush.rng, brush.look.grass, 6.0), VEGETATION, grain=0.16)
    for lot in lots:
        brush.canvas.add(lot.ring(lot.whole, -0.6), lawn)
        count = int(brush.rng.poisson(lot.width * lot.depth / 190.0))
        half = lot.width / 2
        local = np.stack(
            [brush.rng.uniform(-half, half, count), brush.rng.uniform(0, lot.depth, count)], axis=1
        )
        plant(brush.canvas, brush.rng, brush.look, lot.points(local), (2.2, 5.0))


def _public_lot(grid: Grid, row: Points, col: Points) -> Lot:
    """One lot as deep as the block, in its middle, for a school or a market hall."""
    middle = float(col.mean())
    front, back = grid.to_pixels([middle, middle], [row[0] + 1.0, row[1] - 1.0])
    inward = (back - front) / float(np.hypot(*(back - front)))
    axes = (float(inward[1]), float(-inward[0])), (float(inward[0]), float(inward[1]))
    width, depth = min(0.9 * float(col[1] - col[0]), 120.0), float(row[1] - row[0]) - 2.0
    return Lot((float(front[0]), float(front[1])), *axes, width, depth)


def draw_streets(brush: Brush, layout: Layout, number: int) -> tuple[Grid, Points, Points] | None:
    """Lay the street grid of a quarter; return it with its spans across and along the streets."""
    quarter = layout.quarters[number]
    if quarter.kind not in STYLES:
        return None
    style = STYLES[quarter.kind]
    rng = brush.rng
    left, top, right, bottom = quarter.outline.bounds
    reach = 0.56 * math.hypot(right - left, bottom - top)
    grid = _draw_grid(rng, quarter, style, reach)
    width = float(rng.uniform(*style.street))
    lot_depth, lot_width = float(rng.uniform(*style.lot_depth)), float(np.mean(style.lot_width))
    rows = _cuts(rng, reach, lambda: 2 * lot_depth * float(rng.uniform(0.94, 1.08)), width)
    low, high = style.block_lots
    cols = _cuts(rng, reach, lambda: lot_width * float(rng.integers(low, high + 1)), width)
    _streets(brush, quarter, grid, rows, cols, width)
    return grid, rows, cols


def draw_lots(
    brush: Brush,
    layout: Layout,
    number: int,
    plan: tuple[Grid, Points, Points],
    labels: npt.NDArray[np.uint8],
) -> None:
    """Build on the lots of a quarter; ``labels`` (size, size) are the classes with its streets burnt."""
    style = STYLES[layout.quarters[number].kind]
    grid, rows, cols = plan
    occupied = brush.between(*style.occupied)
    for row in rows:
        for col in cols:
            probes = grid.to_pixels(
                *np.meshgrid(np.linspace(col[0], col[1], 9), np.linspace(row[0], row[1], 5))
            )
            if not (layout.sample(layout.zones, probes) == number + 1).any():
                continue
            lots, probes = _lots(brush.rng, grid, style, row, col)
            lots = [
                lot for lot, ok in zip(lots, _free(layout, labels, number + 1, probes), strict=True) if ok
            ]
            if lots and brush.chance(style.parks):
                _green_block(brush, lots)
                continue
            if brush.chance(EMPTY_BLOCKS):
                continue
            if style.lot_width[1] < PUBLIC_LOT and brush.chance(PUBLIC_BLOCKS):
                ground = _public_lot(grid, row, col)
                if _free(layout, labels, number + 1, ground.probes()[None])[0]:
                    houses.public_hall(brush, ground)
                    continue
            color = brush.roof_color()
            for lot in lots:
                if brush.chance(occupied):
                    style.build(brush, lot, color if brush.chance(0.7) else brush.roof_color())


def draw_piers(brush: Brush, layout: Layout, number: int) -> None:
    """Quays, piers and boats along the shore of a harbour quarter (over the water)."""
    rows, cols = np.nonzero((layout.zones == number + 1) & (np.abs(layout.shore - 4.0) < 0.5))
    if not len(rows):
        return
    picks = brush.rng.permutation(len(rows))[: max(2, len(rows) // 220)]
    start = np.stack([cols[picks], rows[picks]], axis=1).astype(np.float64)
    step_east, step_south = np.array([14.0, 0.0]), np.array([0.0, 14.0])
    shore = layout.shore
    east = layout.sample(shore, start + step_east) - layout.sample(shore, start - step_east)
    south = layout.sample(shore, start + step_south) - layout.sample(shore, start - step_south)
    outward = -np.stack([east, south], axis=1).astype(np.float64)
    outward /= np.maximum(np.hypot(*outward.T), 1e-6)[:, None]
    deck = Material((150, 144, 138), ROAD, height=1.5)
    for spot, out in zip(start, outward, strict=True):
        length = brush.between(40, 110)
        points = np.stack([spot, spot + out * length])
        for ring in oriented_boxes(points[1:] - out * length / 2, out[None], length, brush.between(4, 9)):
            brush.canvas.add(ring, deck)
        for side in (-1.0, 1.0):
            berths, along = stations(points, 7.0, side * 11.0)
            berths = berths[brush.rng.random(len(berths)) < 0.6]
            wet = berths[layout.sample(layout.shore, berths) < -6.0]
            across = np.stack([-along[: len(wet), 1], along[: len(wet), 0]], axis=1)
            _moor(brush, wet, across)


def _moor(brush: Brush, points: Points, along: Points) -> None:
    """Boats at ``points``; a boat counts as the water it lies on."""
    for point, axis in zip(points, along, strict=True):
        ring = oriented_boxes(point[None], axis[None], brush.between(7, 13), brush.between(2.4, 3.8))[0]
        brush.canvas.add(
            ring, Material(varied(brush.rng, (226, 226, 226), 16.0), WATER, height=1.5, grain=0.03)
        )
