"""From surfaces to a picture: textures, tree crowns, cast shadows, air, optics and sensor."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from .canvas import BUILDING, GRASS_ID, GROUND_ID, ROAD, SCRUB_ID, VEGETATION, WATER, WATER_ID, Canvas, Trees
from .layout import Layout
from .look import METRES_PER_PIXEL, Look
from .nature import grass_color, ground_color, scrub_color, water_color
from .noise import FloatArray, fractal, upsample

Labels = npt.NDArray[np.uint8]

SHRUB_RADIUS = 1.8
"""Crowns smaller than this, in pixels, are texture of the ground and keep its class."""

SHADOW_DEPTH = (0.70, 0.67, 0.62)
"""Share of the red, green and blue light that a full shadow takes."""

PSF_SIGMA = 0.62
"""Blur of optics and resampling, pixels."""

SHARPENING = 0.8
"""Strength of the sharpening that image vendors apply."""

NOISE_LEVELS = 2.2
"""Deviation of the sensor noise, 0..255 levels."""


def paint(canvas: Canvas, rng: np.random.Generator, look: Look, layout: Layout) -> FloatArray:
    """Colour of every pixel (3, size, size), 0..255, in plain light and without trees."""
    size = canvas.size
    mottle = fractal(rng, size, 16, 1, 0.75)
    tone = upsample(fractal(rng, -(-size // 4), 32, 2, 0.8), 4, size)
    fields = {
        GROUND_ID: ground_color(rng, look, layout),
        WATER_ID: water_color(rng, look, layout, mottle),
        GRASS_ID: grass_color(look, tone, mottle),
        SCRUB_ID: scrub_color(look, mottle, tone),
    }
    texture = 1.0 + canvas.lookup([m.grain for m in canvas.materials]) * (mottle + np.float32(0.3) * tone)
    texture += _rows(canvas)
    image = np.empty((3, size, size), np.float32)
    for band in range(3):
        image[band] = canvas.lookup([m.color[band] for m in canvas.materials])
        for surface, field in fields.items():
            np.copyto(image[band], field[band], where=canvas.ids == surface)
        image[band] *= texture
    _paint_marks(canvas, image)
    return image


def _rows(canvas: Canvas) -> FloatArray:
    """Relative brightness (size, size) of crop rows and roof ribs."""
    size = canvas.size
    wave = np.zeros((size, size), np.float32)
    depths = np.array([m.row_depth for m in canvas.materials], np.float32)
    rows, cols = np.nonzero(np.take(depths > 0, canvas.ids))
    ids = canvas.ids[rows, cols]
    rates = np.array([m.row_wave for m in canvas.materials], np.float32)[ids]
    wave[rows, cols] = depths[ids] * np.sin(cols * rates[:, 0] + rows * rates[:, 1])
    return wave


def _paint_marks(canvas: Canvas, image: FloatArray) -> None:
    """Lane lines, much narrower than a pixel: a faint lift of the asphalt they lie on."""
    if not canvas.marks:
        return
    cols, rows = np.concatenate(canvas.marks).astype(np.intp).T
    inside = (cols >= 0) & (rows >= 0) & (cols < canvas.size) & (rows < canvas.size)
    rows, cols = rows[inside], cols[inside]
    roads = np.array([m.label == ROAD and m.height == 0.0 for m in canvas.materials])
    paved = roads[canvas.ids[rows, cols]]
    image[:, rows[paved], cols[paved]] += 62.0


def stamp_trees(
    canvas: Canvas,
    rng: np.random.Generator,
    look: Look,
    image: FloatArray,
    heights: FloatArray,
    labels: Labels,
) -> None:
    """Draw the crowns into image, heights (metres) and labels, in place; roofs and water stay as they are."""
    trees = Trees(
        np.concatenate([t.points for t in canvas.trees]),
        np.concatenate([t.radii for t in canvas.trees]),
        np.concatenate([t.colors for t in canvas.trees]),
    )
    classes = np.round(trees.radii * 2.0).astype(np.intp)
    for size_class in np.unique(classes):
        chosen = classes == size_class
        _stamp(
            rng, look, image, heights, labels, (trees.points[chosen], trees.colors[chosen]), size_class / 2.0
        )


def _stamp(
    rng: np.random.Generator,
    look: Look,
    image: FloatArray,
    heights: FloatArray,
    labels: Labels,
    crowns: tuple[npt.NDArray[np.float64], FloatArray],
    radius: float,
) -> None:
    """Crowns of one radius (pixels): ragged domes, lit on the side of the sun."""
    points, colors = crowns
    size = labels.shape[0]
    reach = math.ceil(radius)
    dy, dx = (d.ravel() for d in np.mgrid[-reach : reach + 1, -reach : reach + 1])
    distance = np.hypot(dx, dy) / max(radius, 0.5)
    near = distance < 1.15
    dy, dx, distance = dy[near], dx[near], distance[near]
    cols = points[:, :1].astype(np.intp) + dx
    rows = points[:, 1:].astype(np.intp) + dy
    keep = (rows >= 0) & (cols >= 0) & (rows < size) & (cols < size)
    keep &= rng.random(rows.shape, dtype=np.float32) > distance.astype(np.float32) ** 5 * 0.6
    which, part = np.nonzero(keep)
    rows, cols = rows[which, part], cols[which, part]
    open_sky = (labels[rows, cols] != BUILDING) & (labels[rows, cols] != WATER)
    rows, cols, which, part = rows[open_sky], cols[open_sky], which[open_sky], part[open_sky]
    sun_col, sun_row = look.sun_direction
    facing = (dx * sun_col + dy * sun_row) / max(radius, 0.5)
    light = 1.0 + 0.34 * facing[part] + rng.normal(0.0, 0.13, len(part))
    image[:, rows, cols] = (colors[which] * light[:, None]).T
    heights[rows, cols] = (1.5 * radius) * np.sqrt(np.maximum(1.2 - distance[part] ** 2, 0.0))
    if radius >= SHRUB_RADIUS:
        labels[rows, cols] = VEGETATION


def _raise(top: FloatArray, shift: tuple[int, int], drop: float) -> None:
    """Let ``top`` be at least itself moved by ``shift`` (cols, rows) less ``drop``, in place."""
    target: list[slice] = []
    source: list[slice] = []
    for move in (shift[1], shift[0]):
        target.append(slice(max(move, 0), min(move, 0) or None))
        source.append(slice(max(-move, 0), min(-move, 0) or None))
    rows, cols = target
    np.maximum(top[rows, cols], top[source[0], source[1]] - np.float32(drop), out=top[rows, cols])


def cast_shadows(look: Look, heights: FloatArray) -> FloatArray:
    """How deep each pixel lies in shadow (size, size), 0..1, from ``heights`` in metres.

    The height that shadow reaches is swept away from the sun in steps of 1, 2, 4 ... pixels.
    """
    fall = METRES_PER_PIXEL * math.tan(math.radians(look.sun_elevation))
    longest = float(heights.max()) / fall
    top = heights.copy()
    step = 1
    while step <= max(longest, 1.0):
        shift = (round(-look.sun_direction[0] * step), round(-look.sun_direction[1] * step))
        _raise(top, shift, fall * step)
        step *= 2
    top -= heights
    return np.asarray(np.clip((top - 0.2) / 0.6, 0.0, 1.0), np.float32)


def expose(
    rng: np.random.Generator, look: Look, image: FloatArray, shade: FloatArray
) -> npt.NDArray[np.uint8]:
    """Light, air, optics and sensor: from surface colours (3, size, size) to the 8-bit image."""
    size = shade.shape[0]
    ramp = np.linspace(-1.0, 1.0, size, dtype=np.float32)
    tilt = rng.normal(0.0, 0.018, 2)
    vignette = (
        1.0 - 0.025 * (ramp[:, None] ** 2 + ramp[None] ** 2) + tilt[0] * ramp[:, None] + tilt[1] * ramp[None]
    )
    balance = (1.0 + look.warmth, 1.0, 1.0 - look.warmth)
    air = (176.0, 184.0, 196.0)
    common = rng.standard_normal((size, size), dtype=np.float32)
    finished = np.empty((3, size, size), np.uint8)
    for band in range(3):
        plane = image[band] * (1.0 - np.float32(SHADOW_DEPTH[band]) * shade)
        plane *= vignette * np.float32(look.brightness * balance[band])
        plane += np.float32(look.haze) * (np.float32(air[band]) - plane)
        plane = ndimage.gaussian_filter(plane, PSF_SIGMA, truncate=3.0)
        plane += np.float32(SHARPENING) * (plane - ndimage.gaussian_filter(plane, 1.3, truncate=2.5))
        plane = (plane - 118.0) * np.float32(look.contrast) + 118.0
        own = rng.standard_normal((size, size), dtype=np.float32)
        plane += (0.8 * common + 0.6 * own) * (NOISE_LEVELS * (0.75 + plane / 230.0))
        finished[band] = np.clip(np.rint(plane), 1, 255).astype(np.uint8)
    return finished
