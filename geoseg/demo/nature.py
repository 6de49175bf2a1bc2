"""Ground, water and growth: sand and dunes, shoals, fields, parks, shrubs and tracks."""

from __future__ import annotations

import math

import numpy as np
import shapely
from scipy import ndimage
from shapely.geometry import LineString, Point, Polygon
from shapely.geometry.base import BaseGeometry

from .canvas import GRASS_ID, LAND, SCRUB_ID, VEGETATION, WATER, Canvas, Material, Points
from .layout import Layout, Quarter
from .look import Color, Look, varied
from .noise import BoolArray, FloatArray, fractal, smoothstep, upsample
from .roads import plant
from .shore import COARSE
from .town import Grid

ZONE_BRIGHTNESS: dict[str, float] = {
    "sea": 1.0,
    "harbour": 0.8,
    "villas": 0.74,
    "old_town": 0.64,
    "industry": 0.82,
    "fields": 0.8,
    "park": 0.8,
    "desert": 0.95,
    "towers": 0.78,
    "new_town": 0.95,
}
"""Brightness of bare ground by kind of quarter: traffic and water darken the sand."""

FIELD_MARGIN = 24.0
"""Pixels that fields keep from the waterline."""


def _scatter(
    rng: np.random.Generator, mask: BoolArray, spacing: float, density: FloatArray | float
) -> Points:
    """Jittered points about ``spacing`` pixels apart where ``mask`` (size, size) holds; ``density`` 0..1."""
    size = mask.shape[0]
    count = int(size / spacing)
    rows, cols = np.mgrid[0:count, 0:count]
    points = (np.stack([cols, rows], axis=-1).reshape(-1, 2) + rng.random((count * count, 2))) * spacing
    at = np.clip(points.astype(np.intp), 0, size - 1)
    keep = mask[at[:, 1], at[:, 0]]
    chance = density if isinstance(density, float) else density[at[:, 1], at[:, 0]]
    return np.asarray(points[keep & (rng.random(len(points)) < chance)])


def _crop(rng: np.random.Generator, look: Look) -> tuple[Color, int, float]:
    """Colour, class and coarseness of one parcel: crop, orchard floor or fallow."""
    draw = rng.random()
    if draw < 0.2 - 0.1 * look.greenness:
        return varied(rng, (140, 132, 122), 16.0), LAND, 0.08
    if draw < 0.55:
        return varied(rng, look.grass, 9.0), VEGETATION, 0.08
    if draw < 0.8:
        return varied(rng, (84, 92, 62), 9.0), VEGETATION, 0.1
    return varied(rng, look.foliage, 8.0), VEGETATION, 0.2


def _row_wave(angle: float, period: float) -> tuple[float, float]:
    """Radians per column and per row of stripes ``period`` pixels apart, across ``angle``."""
    rate = 2 * math.pi / period
    return -rate * math.sin(angle), rate * math.cos(angle)


def draw_fields(
    canvas: Canvas, rng: np.random.Generator, look: Look, layout: Layout, quarter: Quarter
) -> None:
    """Parcels with crop rows, windbreaks between them, palm groves and a few round irrigated fields."""
    inside = quarter.outline.buffer(-26.0)
    left, top, right, bottom = quarter.outline.bounds
    reach = 0.55 * math.hypot(right - left, bottom - top)
    middle = quarter.outline.centroid
    grid = Grid((middle.x, middle.y), quarter.angle, 0.0, 0.0)
    if reach > 500:
        inside = inside.difference(_round_fields(canvas, rng, look, layout, grid, inside, reach))
    v = -reach
    while v < reach:
        height, u = float(rng.uniform(55, 120)), -reach
        while u < reach:
            width = float(rng.uniform(60, 190))
            ring = grid.to_pixels(
                [u, u + width - 6, u + width - 6, u], [v, v, v + height - 5, v + height - 5]
            )
            dry = bool((layout.sample(layout.shore, ring) > FIELD_MARGIN).all())
            area = Polygon(ring).intersection(inside)
            if dry and area.area > 0.3 * Polygon(ring).area and rng.random() < 0.88:
                _parcel(canvas, rng, look, quarter, ring, area)
            u += width
        v += height


def _round_fields(
    canvas: Canvas,
    rng: np.random.Generator,
    look: Look,
    layout: Layout,
    grid: Grid,
    inside: BaseGeometry,
    reach: float,
) -> BaseGeometry:
    """Up to three fields under turning sprinklers; return the ground they take."""
    taken: BaseGeometry = Polygon()
    for _ in range(int(rng.integers(0, 4))):
        spot = Point(*grid.to_pixels(rng.uniform(-0.5, 0.5) * reach, rng.uniform(-0.5, 0.5) * reach))
        radius = float(rng.uniform(70, 130))
        area = spot.buffer(radius + 8)
        if (
            inside.contains(area)
            and not taken.intersects(area)
            and float(layout.sample(layout.shore, np.array(spot.coords))[0]) > radius
        ):
            color = varied(rng, look.grass, 8.0)
            canvas.add(spot.buffer(radius + 3), Material(varied(rng, look.sand[1], 6.0), LAND))
            canvas.add(spot.buffer(radius), Material(color, VEGETATION, 0.3, 0.09))
            canvas.add(spot.buffer(radius * 0.55).exterior.buffer(0.8), Material(look.sand[1], LAND))
            taken = taken.union(area)
    return taken


def _parcel(
    canvas: Canvas, rng: np.random.Generator, look: Look, quarter: Quarter, ring: Points, area: BaseGeometry
) -> None:
    """One field of a farm, often edged by trees or set with palms in rows."""
    color, label, grain = _crop(rng, look)
    angle = quarter.angle + (math.pi / 2 if rng.random() < 0.4 else 0.0)
    wave = _row_wave(angle, float(rng.uniform(3.2, 7.0)))
    depth = float(rng.uniform(0.05, 0.2)) * (1.0 if label == VEGETATION else 0.4)
    canvas.add(area, Material(color, label, 0.3 if label == VEGETATION else 0.0, grain, wave, depth))
    width = float(np.hypot(*(ring[1] - ring[0])))
    if rng.random() < 0.3:
        edge = np.linspace(ring[0], ring[1], max(2, int(width / 6)))
        edge = edge[shapely.contains_xy(area.buffer(1.0), edge)] + rng.normal(0, 0.8, 2)
        plant(canvas, rng, look, edge, (2.2, 3.8))
    if label == VEGETATION and rng.random() < 0.3:
        across, down = ring[1] - ring[0], ring[3] - ring[0]
        s, t = np.meshgrid(np.arange(0.04, 1, 9.0 / width), np.arange(0.06, 1, 9.0 / np.hypot(*down)))
        palms = ring[0] + s.reshape(-1, 1) * across + t.reshape(-1, 1) * down
        palms = palms[shapely.contains_xy(area, palms)]
        plant(canvas, rng, look, palms + rng.normal(0, 0.5, palms.shape), (2.4, 3.6))


def draw_park(
    canvas: Canvas, rng: np.random.Generator, look: Look, layout: Layout, inside: BoolArray
) -> None:
    """Golf-like ground: fairways, rough with trees, bunkers and ponds, within the mask (size, size)."""
    size = layout.size
    rolling = upsample(fractal(rng, -(-size // 2), 64, 4, 0.5), 2, size)
    fine = fractal(rng, size, 64, 4, 0.6)
    inside = inside & (layout.shore > 16.0)
    canvas.fill(inside & (rolling + 0.2 * fine > -1.0), SCRUB_ID)
    canvas.fill(inside & (rolling > -0.1), GRASS_ID)
    canvas.fill_material(
        inside & (np.abs(rolling - 0.1) < 0.5) & (fine > 2.2), Material((224, 214, 196), LAND, grain=0.03)
    )
    pond = inside & (rolling + 0.04 * fine > 1.75)
    color = tuple(0.8 * c for c in look.deep_water)
    canvas.fill_material(pond, Material((color[0], color[1], color[2]), WATER, -0.5, 0.02))
    rough = np.where(rolling > -0.1, np.float32(0.04), np.float32(0.32)).astype(np.float32)
    spots = _scatter(rng, inside & (rolling > -0.8) & ~pond & (fine < 2.0), 7.0, rough)
    plant(canvas, rng, look, spots, (2.2, 5.2))
    path = inside & (np.abs(rolling + 0.1) < 0.035)
    canvas.fill_material(path, Material((168, 160, 150), LAND, grain=0.04))


def draw_wild_growth(canvas: Canvas, rng: np.random.Generator, look: Look, layout: Layout) -> None:
    """Shore scrub where it is wet, shrubs on open ground; the smallest are texture, not vegetation."""
    size = layout.size
    patch = upsample(fractal(rng, -(-size // COARSE), 64, 4, 0.7), COARSE, size)
    kinds = np.array([""] + [q.kind for q in layout.quarters])
    wild = np.isin(kinds, ["desert", "sea", "harbour", "fields"])[layout.zones]
    reach = 60.0 * (0.4 + look.greenness)
    scrub = wild & (layout.shore > 5.0) & (layout.shore < reach) & (patch > 0.45)
    canvas.fill(scrub & (canvas.ids == 0), SCRUB_ID)
    bare = (canvas.ids == 0) & (layout.shore > 14.0)
    dense = smoothstep(patch, 0.2, 2.2) * np.float32(0.55 * (0.35 + look.greenness))
    plant(canvas, rng, look, _scatter(rng, bare, 8.0, dense), (0.5, 2.2))
    plant(canvas, rng, look, _scatter(rng, bare, 23.0, 0.04 + 0.10 * look.greenness), (0.6, 3.4))


def draw_tracks(canvas: Canvas, rng: np.random.Generator, look: Look, layout: Layout) -> None:
    """Winding vehicle tracks over open ground."""
    size = layout.size
    for quarter in layout.quarters:
        if quarter.kind not in ("desert", "new_town", "fields"):
            continue
        count = int(rng.integers(2, 5)) + int(size / 1500)
        for _ in range(count):
            middle = np.array(quarter.outline.centroid.coords[0])
            turn = rng.uniform(0, 2 * math.pi) + np.cumsum(rng.normal(0.0, 0.10, 60))
            steps = np.stack([np.cos(turn), np.sin(turn)], axis=1) * (size / 70)
            path = np.cumsum(steps, axis=0)
            line = LineString(path - path[30] + middle + rng.normal(0, size * 0.05, 2))
            line = line.intersection(quarter.outline)
            bright = float(rng.choice([0.84, 0.9, 1.1]))
            color = tuple(min(250.0, c * bright) for c in look.sand[0])
            tone = Material((color[0], color[1], color[2]), LAND, grain=0.08)
            for offset in (-1.6, 1.6) if rng.random() < 0.5 else (0.0,):
                width = 0.9 if offset else float(rng.uniform(1.5, 3.0))
                for part in shapely.get_parts(line):
                    canvas.add(shapely.offset_curve(part, offset).buffer(width), tone)


def _dunes(rng: np.random.Generator, side: int) -> FloatArray:
    """Heights of crescent-like dune trains on the coarse raster (side, side), about -1..1."""
    sway = fractal(rng, side, 64, 16, 0.5)
    rows, cols = np.mgrid[0:side, 0:side].astype(np.float32)
    angle = float(rng.uniform(0, math.pi))
    period = float(rng.uniform(7.0, 13.0))
    phase = (cols * math.cos(angle) + rows * math.sin(angle)) * (2 * math.pi / period) + 2.2 * sway
    crest = np.sin(phase) + 0.4 * np.sin(2 * phase + 0.9)
    return np.asarray(crest * smoothstep(sway + fractal(rng, side, 128, 16, 0.6), -1.2, 1.2), np.float32)


def ground_color(rng: np.random.Generator, look: Look, layout: Layout) -> FloatArray:
    """Bare ground (3, size, size) on the 0..255 scale: mixed sands, crusts, dunes, relief shading, beach."""
    side = -(-layout.size // COARSE)
    broad, mid, stain = (
        fractal(rng, side, c, f, g) for c, f, g in ((256, 2, 0.5), (64, 1, 0.7), (32, 1, 0.9))
    )
    zones = layout.zones[::COARSE, ::COARSE]
    table = np.array([1.0] + [ZONE_BRIGHTNESS[q.kind] for q in layout.quarters], np.float32)
    bright = ndimage.gaussian_filter(table[zones], 5.0)
    open_land = np.array(
        [0.3] + [1.0 if q.kind in ("desert", "new_town", "sea") else 0.25 for q in layout.quarters]
    )
    wild = ndimage.gaussian_filter(open_land.astype(np.float32)[zones], 6.0)
    relief = 2.8 * wild * _dunes(rng, side) + 0.2 * mid + 0.3 * broad
    sun_col, sun_row = look.sun_direction
    slope = -(np.gradient(relief, axis=1) * sun_col + np.gradient(relief, axis=0) * sun_row)
    light = bright * (1.0 + np.clip(0.14 * slope, -0.26, 0.2) + 0.025 * stain)
    light *= 1.0 - 0.34 * smoothstep(broad * 0.8 + stain * 0.35, 1.3, 2.1)
    crust = 0.75 * smoothstep(broad + 0.25 * mid, -0.8, 2.0)
    drift = 0.8 * smoothstep(0.3 * mid - broad, 0.3, 2.2)
    planes = []
    for base, dark, fresh in zip(*look.sand, strict=True):
        tone = base + (dark - base) * crust
        tone += (fresh - tone) * drift
        planes.append(upsample(np.asarray(tone * light, np.float32), COARSE, layout.size))
    ground = np.stack(planes)
    reach = 8.0 + 9.0 * np.clip(upsample(broad, COARSE, layout.size) + 0.6, 0.0, 2.4)
    beach = smoothstep(-layout.shore / reach, -1.3, -0.5)
    wet = 1.0 - 0.35 * smoothstep(-layout.shore, -7.0, -1.0)
    for plane, bright_sand in zip(ground, look.sand[2], strict=True):
        plane += (min(246.0, 1.06 * bright_sand) - plane) * beach * 0.85
        plane *= wet
    return np.asarray(ground, np.float32)


def water_color(rng: np.random.Generator, look: Look, layout: Layout, mottle: FloatArray) -> FloatArray:
    """Water (3, size, size): shoals that fade into the deep, ripples and wind streaks."""
    size = layout.size
    shoal = upsample(fractal(rng, -(-size // COARSE), 128, 4, 0.6), COARSE, size)
    reach = float(rng.uniform(20.0, 60.0)) * np.exp(np.clip(0.75 * shoal, -1.6, 1.5))
    clear = np.exp(np.minimum(layout.shore, 0.0) / reach)
    surf = smoothstep(layout.shore, -7.0, 0.0) * smoothstep(mottle + 1.5 * shoal, 0.6, 2.6)
    angle = float(rng.uniform(0, math.pi))
    rows, cols = np.arange(size, dtype=np.float32)[:, None], np.arange(size, dtype=np.float32)[None]
    phase = (cols * math.cos(angle) + rows * math.sin(angle)) * np.float32(2 * math.pi / 9.0)
    ripple = 1.3 * np.sin(phase + 2.6 * mottle + 3.0 * shoal) + 2.8 * mottle + 1.0 * shoal
    planes = [
        deep + (shallow - deep) * clear + (214.0 - deep) * (0.4 * clear**6 + 0.3 * surf) + ripple
        for deep, shallow in zip(look.deep_water, look.shallow_water, strict=True)
    ]
    return np.asarray(np.stack(planes), np.float32)


def scrub_color(look: Look, mottle: FloatArray, tone: FloatArray) -> FloatArray:
    """Rough ground (3, size, size): dry growth between bushes and bare spots."""
    bush = smoothstep(mottle + 0.6 * tone, -0.6, 1.0)
    planes = []
    for grass, sand, leaf in zip(look.grass, look.sand[1], look.foliage, strict=True):
        dry = 0.75 * grass + 0.25 * sand
        planes.append(dry + (leaf * 1.05 - dry) * bush)
    return np.asarray(np.stack(planes), np.float32)


def grass_color(look: Look, mottle: FloatArray, tone: FloatArray) -> FloatArray:
    """Lawns (3, size, size) with worn patches."""
    worn = smoothstep(mottle, 0.6, 2.4) * np.float32(0.45)
    planes = [g + (s - g) * worn + 7.0 * tone for g, s in zip(look.grass, look.sand[1], strict=True)]
    return np.asarray(np.stack(planes), np.float32)
