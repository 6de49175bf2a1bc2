"""The demo scene: a made-up Gulf town from above, at 0.8 m per pixel, with its labels and districts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .camera import cast_shadows, expose, paint, stamp_trees
from .canvas import GROUND_ID, NO_DATA, ROAD, WATER_ID, Canvas, Material
from .houses import Brush
from .layout import Layout, draw_layout
from .look import Look, draw_look
from .nature import draw_fields, draw_park, draw_tracks, draw_wild_growth
from .roads import COAST_ROAD, draw_coast_road, draw_main_roads
from .town import draw_lots, draw_piers, draw_streets

MIN_SIZE, MAX_SIZE = 256, 4096
"""Side of a scene in pixels."""


@dataclass(frozen=True)
class DemoScene:
    """A rendered place.

    image: (3, size, size) uint8 RGB, 0 in the invalid collar and 1..255 elsewhere.
    labels: (size, size) uint8: 0 no data, 1 building, 2 road, 3 land, 4 vegetation, 5 water.
    valid: (size, size) bool, False in the collar.
    regions: named district outlines, (col, row) pixel corners, the first not repeated.
    """

    image: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]
    valid: npt.NDArray[np.bool_]
    regions: tuple[tuple[str, tuple[tuple[float, float], ...]], ...]


def _draw_place(canvas: Canvas, streams: list[np.random.Generator], look: Look, layout: Layout) -> None:
    """Draw everything that has a surface of its own, bottom to top."""
    town, roads, nature = streams
    brush = Brush(canvas, town, look)
    draw_tracks(canvas, nature, look, layout)
    for quarter in layout.quarters:
        if quarter.kind == "fields":
            draw_fields(canvas, nature, look, layout, quarter)
    canvas.burn()
    parks = np.array([False] + [quarter.kind == "park" for quarter in layout.quarters])
    if parks.any():
        draw_park(canvas, nature, look, layout, parks[layout.zones])
    plans = [draw_streets(brush, layout, number) for number in range(len(layout.quarters))]
    canvas.burn()
    canvas.fill(layout.coast < COAST_ROAD[0], GROUND_ID)
    draw_coast_road(canvas, roads, look, layout)
    decks = draw_main_roads(canvas, roads, look, layout)
    canvas.burn()
    labels = canvas.labels()
    for number, plan in enumerate(plans):
        if plan is not None:
            draw_lots(brush, layout, number, plan, labels)
    canvas.burn()
    draw_wild_growth(canvas, nature, look, layout)
    canvas.fill(layout.shore < 0.0, WATER_ID)
    for number, quarter in enumerate(layout.quarters):
        if quarter.kind == "harbour":
            draw_piers(brush, layout, number)
    for deck in decks:
        canvas.add(deck, Material(look.asphalt, ROAD, height=3.0))
    canvas.burn()


def _regions(layout: Layout) -> tuple[tuple[str, tuple[tuple[float, float], ...]], ...]:
    """The district outlines as plain tuples, rounded to tenths of a pixel."""
    return tuple(
        (d.name, tuple((round(x, 1), round(y, 1)) for x, y in d.outline.exterior.coords[:-1]))
        for d in layout.districts
    )


def render_demo(seed: int = 0, size: int = 4096) -> DemoScene:
    """Render the place that belongs to ``seed``, ``size`` pixels (256..4096) a side.

    The same seed and size give the same scene; a smaller size is a smaller place, not a coarser one.
    """
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise ValueError(f"size must lie in {MIN_SIZE}..{MAX_SIZE} pixels, got {size}")
    seeds = np.random.SeedSequence(seed).spawn(7)
    looks, plans, town, roads, nature, surfaces, sensor = (np.random.default_rng(s) for s in seeds)
    look = draw_look(looks)
    layout = draw_layout(plans, size)
    canvas = Canvas(size)
    _draw_place(canvas, [town, roads, nature], look, layout)
    image = paint(canvas, surfaces, look, layout)
    labels = canvas.labels()
    heights = canvas.lookup([material.height for material in canvas.materials])
    stamp_trees(canvas, surfaces, look, image, heights, labels)
    finished = expose(sensor, look, image, cast_shadows(look, heights))
    finished[:, ~layout.valid] = 0
    labels[~layout.valid] = NO_DATA
    return DemoScene(finished, labels, layout.valid, _regions(layout))
