"""Buildings and the lots they stand on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .canvas import BUILDING, LAND, ROAD, VEGETATION, WATER, Canvas, Material, Points
from .look import ROOF_TONES, Color, Look, varied
from .roads import asphalt, park_cars, plant

Rect = tuple[float, float, float, float]
"""Left, near, right, far in lot coordinates (pixels): near 0 is the street side, left 0 the middle."""

PARAPET = 1.1
"""Width of the bright edge around a flat roof, in pixels."""


PROBES: Points = np.stack(np.meshgrid(np.linspace(-0.5, 0.5, 5), np.linspace(0.0, 1.0, 5)), axis=-1).reshape(
    -1, 2
)
"""Where a lot of unit width and depth is asked what it lies on."""


@dataclass(frozen=True)
class Lot:
    """A rectangle of ground at a street: the middle of its street side, and its extent in pixels."""

    front: tuple[float, float]
    along: tuple[float, float]  # unit vector along the street
    inward: tuple[float, float]  # unit vector away from the street
    width: float
    depth: float

    def points(self, local: npt.ArrayLike) -> Points:
        """Lot coordinates (n, 2) as pixels."""
        basis = np.array([self.along, self.inward])
        return np.asarray(np.asarray(local, np.float64) @ basis + np.array(self.front))

    def ring(self, rect: Rect, inset: float = 0.0) -> Points:
        """The four corners (4, 2) in pixels of a rectangle, shrunk by ``inset``."""
        left, near, right, far = rect[0] + inset, rect[1] + inset, rect[2] - inset, rect[3] - inset
        return self.points([(left, near), (right, near), (right, far), (left, far)])

    def probes(self) -> Points:
        """Points (25, 2) spread over the lot, to ask what it lies on."""
        return self.points(PROBES * (self.width, self.depth - 1.0) + (0.0, 0.5))

    @property
    def whole(self) -> Rect:
        return -self.width / 2, 0.0, self.width / 2, self.depth


@dataclass(frozen=True)
class Brush:
    """What every builder needs: where to draw, whence the chance comes, and the look of the place."""

    canvas: Canvas
    rng: np.random.Generator
    look: Look

    def roof_color(self, spread: float = 17.0) -> Color:
        """A roof colour in the proportions of the place."""
        kind = int(np.searchsorted(np.cumsum(self.look.roof_weights), self.rng.random()))
        return varied(self.rng, ROOF_TONES[min(kind, len(ROOF_TONES) - 1)], spread)

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def between(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))


def _scaled(color: Color, factor: float) -> Color:
    red, green, blue = (min(254.0, c * factor) for c in color)
    return red, green, blue


def flat_roof(brush: Brush, lot: Lot, wings: list[Rect], height: float, color: Color, clutter: float) -> None:
    """A flat-roofed building of overlapping wings: parapet, roof, and roof clutter per 100 square pixels."""
    rim = _scaled(color, brush.between(0.66, 1.34))
    for wing in wings:
        brush.canvas.add(lot.ring(wing), Material(rim, BUILDING, height + 0.9, grain=0.04))
    for wing in wings:
        brush.canvas.add(lot.ring(wing, PARAPET), Material(color, BUILDING, height, grain=0.09))
    for left, near, right, far in wings:
        span, reach = right - left, far - near
        if min(span, reach) < 7.0:
            continue
        if brush.chance(0.6):
            x, y = brush.between(left + 1, right - 6), brush.between(near + 1, far - 6)
            box = (x, y, x + brush.between(3.5, 5.5), y + brush.between(3.5, 5.5))
            tone = _scaled(color, brush.between(0.85, 1.2))
            brush.canvas.add(lot.ring(box), Material(tone, BUILDING, height + 2.6))
        for _ in range(int(brush.rng.poisson(1.5 * clutter * span * reach / 100.0))):
            x, y = brush.between(left + 1.5, right - 3.5), brush.between(near + 1.5, far - 3.5)
            unit = (x, y, x + brush.between(1.2, 2.6), y + brush.between(1.2, 2.6))
            tone = _scaled((200.0, 200.0, 204.0), brush.between(0.35, 1.2))
            brush.canvas.add(lot.ring(unit), Material(tone, BUILDING, height + 1.1))


def pitched_roof(brush: Brush, lot: Lot, wing: Rect, height: float, color: Color) -> None:
    """A hipped roof: four slopes, each as bright as it faces the sun."""
    left, near, right, far = wing
    rise = min(right - left, far - near) / 2 * 0.86
    if right - left > far - near:
        ridge = ((left + rise, (near + far) / 2), (right - rise, (near + far) / 2))
    else:
        ridge = (((left + right) / 2, near + rise), ((left + right) / 2, far - rise))
    corners = ((left, near), (right, near), (right, far), (left, far))
    wide = right - left > far - near
    first, last = ridge
    slopes = (
        (((corners[0], corners[1], last, first) if wide else (corners[0], corners[1], first)), (0.0, -1.0)),
        (((corners[1], corners[2], last) if wide else (corners[1], corners[2], last, first)), (1.0, 0.0)),
        (((corners[2], corners[3], first, last) if wide else (corners[2], corners[3], last)), (0.0, 1.0)),
        (((corners[3], corners[0], first) if wide else (corners[3], corners[0], first, last)), (-1.0, 0.0)),
    )
    brush.canvas.add(lot.ring(wing), Material(color, BUILDING, height))
    sun = np.array(brush.look.sun_direction)
    for outline, facing in slopes:
        normal = lot.points([facing])[0] - np.array(lot.front)
        bright = 1.0 + 0.3 * float(normal @ sun)
        brush.canvas.add(lot.points(outline), Material(_scaled(color, bright), BUILDING, height + 1.0))


def _wings(brush: Brush, box: Rect) -> list[Rect]:
    """Split a bounding box into the overlapping wings of a plain, L, U, T or courtyard plan."""
    left, near, right, far = box
    span, reach = right - left, far - near
    arm = brush.between(0.42, 0.58)
    plan = int(brush.rng.integers(0, 10))
    if plan < 3 or min(span, reach) < 13:
        return [box]
    back = (left, far - arm * reach, right, far)
    left_arm = (left, near, left + arm * span, far)
    if plan < 6:
        other = (right - arm * span, near, right, far)
        return [back, left_arm if brush.chance(0.5) else other]
    thin = 0.34
    if plan == 6:
        return [
            (left, far - thin * reach, right, far),
            (left, near, left + thin * span, far),
            (right - thin * span, near, right, far),
        ]
    if plan == 7 and min(span, reach) > 17:
        ring = 0.31
        return [
            (left, far - ring * reach, right, far),
            (left, near, right, near + ring * reach),
            (left, near, left + ring * span, far),
            (right - ring * span, near, right, far),
        ]
    middle = (left + 0.28 * span, near, right - 0.28 * span, far)
    return [(left, near + 0.3 * reach, right, far - 0.15 * reach), middle]


def _yard(brush: Brush, lot: Lot, inset: float) -> int:
    """The ground of a lot behind its wall: sand, lawn or paving; return its class."""
    draw = brush.rng.random()
    green = 0.16 + 0.34 * brush.look.greenness
    if draw < green:
        material = Material(varied(brush.rng, brush.look.grass, 9.0), VEGETATION, grain=0.14)
    elif draw < green + 0.22:
        material = Material(varied(brush.rng, (142, 136, 134), 15.0), ROAD, grain=0.07)
    else:
        material = Material(varied(brush.rng, _scaled(brush.look.sand[1], 0.86), 14.0), LAND, grain=0.11)
    if inset > 0.5:
        wall = Material(varied(brush.rng, (196, 190, 184), 16.0), material.label, height=2.0)
        brush.canvas.add(lot.ring(lot.whole, 0.2), wall)
    brush.canvas.add(lot.ring(lot.whole, inset), material)
    return material.label


def _garden_trees(brush: Brush, lot: Lot, count: float, radius: tuple[float, float]) -> None:
    number = int(brush.rng.poisson(count))
    if number:
        half = lot.width / 2 - 2.5
        local = np.stack(
            [brush.rng.uniform(-half, half, number), brush.rng.uniform(2, lot.depth - 2, number)], axis=1
        )
        plant(brush.canvas, brush.rng, brush.look, lot.points(local), radius)


def villa(brush: Brush, lot: Lot, color: Color) -> None:
    """A walled compound: yard, house, perhaps an annexe, a pool, trees and a car at the gate."""
    label = _yard(brush, lot, 1.2)
    half, depth = lot.width / 2, lot.depth
    side = brush.between(2.5, 5.0)
    box = (-half + side, brush.between(4, 8), half - brush.between(2.5, 5.0), depth - brush.between(4, 11))
    height = brush.between(5.5, 9.5)
    if brush.chance(0.25):
        pitched_roof(brush, lot, box, height, varied(brush.rng, color, 8.0))
    else:
        flat_roof(brush, lot, _wings(brush, box), height, varied(brush.rng, color, 9.0), 1.0)
    if brush.chance(0.35):
        annexe = (-half + 1.5, depth - 7.0, -half + brush.between(7, 11), depth - 1.5)
        flat_roof(brush, lot, [annexe], 3.2, varied(brush.rng, color, 14.0), 0.0)
    if label != LAND and brush.chance(0.3):
        x = brush.between(-half + 3, half - 10)
        pool = (x, depth - 6.5, x + brush.between(5, 8), depth - 3.0)
        brush.canvas.add(lot.ring(pool, -0.8), Material((188, 184, 180), ROAD))
        brush.canvas.add(lot.ring(pool), Material(varied(brush.rng, (66, 142, 160), 12.0), WATER))
    if brush.chance(0.3):
        spot = lot.points([(half - 4.5, 4.0)])
        park_cars(brush.canvas, brush.rng, spot, np.array([lot.inward]))
    _garden_trees(brush, lot, 0.7 + 2.6 * brush.look.greenness, (2.0, 4.0))


def town_house(brush: Brush, lot: Lot, color: Color) -> None:
    """A house of the old town that fills most of its lot, wall to wall with its neighbours."""
    _yard(brush, lot, 0.0)
    half, depth = lot.width / 2, lot.depth
    box = (-half + brush.between(0, 1.2), brush.between(0.5, 3), half, depth - brush.between(0, 4))
    flat_roof(brush, lot, _wings(brush, box), brush.between(4, 13), brush.roof_color(15.0), 1.6)
    if brush.chance(0.2):
        _garden_trees(brush, lot, 0.8, (1.8, 3.2))


def _parking(brush: Brush, lot: Lot, area: Rect) -> None:
    """Rows of parked cars on a paved area."""
    left, near, right, far = area
    for y in np.arange(near + 4.0, far - 3.0, 11.0):
        x = np.arange(left + 3.0, right - 2.0, 3.4)
        x = x[brush.rng.random(len(x)) < 0.55]
        spots = lot.points(np.stack([x, np.full(len(x), y)], axis=1)) if len(x) else np.empty((0, 2))
        park_cars(brush.canvas, brush.rng, spots, np.tile(np.array(lot.inward), (len(spots), 1)))


def tower(brush: Brush, lot: Lot, color: Color) -> None:
    """A podium with a tower on it, on a paved lot with parking and a strip of green."""
    brush.canvas.add(lot.ring(lot.whole, 0.5), Material(varied(brush.rng, (136, 130, 130), 12.0), ROAD))
    half, depth = lot.width / 2, lot.depth
    _parking(brush, lot, (-half + 2, 2.0, half - 2, depth * 0.28))
    podium = (-half + 6, depth * 0.34, half - 6, depth - 8)
    height = brush.between(9, 16)
    flat_roof(brush, lot, [podium], height, brush.roof_color(), 0.5)
    x, y = podium[0] + brush.between(2, 8), podium[1] + brush.between(2, 8)
    slab = (
        x,
        y,
        min(x + brush.between(24, 40), podium[2] - 2),
        min(y + brush.between(20, 34), podium[3] - 2),
    )
    flat_roof(brush, lot, _wings(brush, slab), height + brush.between(12, 62), brush.roof_color(), 1.0)
    lawn = Material(brush.look.grass, VEGETATION, grain=0.14)
    brush.canvas.add(lot.ring((-half + 2, depth - 6, half - 2, depth - 1)), lawn)
    _garden_trees(brush, lot, 7.0, (2.0, 3.6))


def public_hall(brush: Brush, lot: Lot) -> None:
    """A school, mosque or market hall, on paved ground with parking and a lawn."""
    half, depth = lot.width / 2, lot.depth
    brush.canvas.add(
        lot.ring(lot.whole, 1.0), Material(varied(brush.rng, (150, 142, 138), 14.0), ROAD, grain=0.06)
    )
    _parking(brush, lot, (-half + 2, 1.0, half - 2, 14.0))
    split = brush.between(-0.2, 0.4) * half
    lawn = Material(varied(brush.rng, brush.look.grass, 6.0), VEGETATION, grain=0.14)
    brush.canvas.add(lot.ring((split + 4, depth * 0.55, half - 3, depth - 3)), lawn)
    tone = brush.roof_color()
    hall = (-half + 4, 18.0, split, depth - 4)
    flat_roof(brush, lot, _wings(brush, hall), brush.between(7, 12), tone, 0.8)
    flat_roof(brush, lot, [(split - 4, 18.0, half - 5, depth * 0.48)], brush.between(5, 9), tone, 0.8)
    _garden_trees(brush, lot, 9.0, (2.0, 4.2))


def warehouse(brush: Brush, lot: Lot, color: Color) -> None:
    """A large ribbed roof on a paved or sandy yard with goods and lorries."""
    half, depth = lot.width / 2, lot.depth
    if brush.chance(0.6):
        brush.canvas.add(lot.ring(lot.whole, 1.0), asphalt(brush.rng, brush.look, 16.0))
    else:
        yard = varied(brush.rng, _scaled(brush.look.sand[1], 0.84), 10.0)
        brush.canvas.add(lot.ring(lot.whole, 1.0), Material(yard, LAND, grain=0.12))
    near = brush.between(12, 24)
    count = int(brush.rng.integers(1, 4))
    span = (lot.width - 12) / count
    tone = brush.roof_color(8.0)
    ribs = np.array(lot.along) * (2 * math.pi / brush.between(4.0, 7.0))
    for k in range(count):
        left = -half + 6 + k * span
        hall = (left, near, left + span - brush.between(0.5, 7), depth - brush.between(3, 18))
        height = brush.between(7, 12)
        brush.canvas.add(lot.ring(hall), Material(_scaled(tone, 0.82), BUILDING, height))
        wave = (float(ribs[0]), float(ribs[1]))
        color = varied(brush.rng, tone, 7.0)
        brush.canvas.add(lot.ring(hall, 1.0), Material(color, BUILDING, height + 0.4, 0.03, wave, 0.06))
        for x in np.arange(hall[0] + 5, hall[2] - 5, 13.0):
            vent = (x, (near + depth) / 2 - 2.0, x + 2.0, (near + depth) / 2 + 2.0)
            brush.canvas.add(lot.ring(vent), Material(_scaled(tone, 0.7), BUILDING, height + 1.6))
    _parking(brush, lot, (-half + 4, 2.0, half * brush.between(0.0, 0.9), near - 2))
    for _ in range(int(brush.rng.poisson(5))):
        x = brush.between(-half + 3, half - 18)
        box = (x, depth - 7.0, x + brush.between(7, 15), depth - 4.0)
        tone = varied(
            brush.rng, ((70, 96, 140), (160, 76, 52), (196, 192, 186))[int(brush.rng.integers(3))], 14.0
        )
        brush.canvas.add(lot.ring(box), Material(tone, ROAD, 2.6))
