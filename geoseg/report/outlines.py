"""Vector layers as SVG paths in the units of a page's map: simplified, in whole numbers, of bounded length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from affine import Affine

from geoseg.grid.geogrid import GeoGrid
from geoseg.io.glimpse import read_layer
from geoseg.io.places import Place
from geoseg.pixels.burn import apply

LONG_SIDE = 8000
"""Longer side of a map in its own units; vertices lie on whole units."""
TOLERANCE, TOLERANCE_PX = 2.0, 0.75
"""How far a simplified outline may leave the true one: the larger of so many units and so many pixels of the raster."""
COARSER = (1, 2, 4)
"""Factors of the tolerance that are tried in turn, until outlines are short enough."""
MOST_REGIONS = 300
MOST_NAME = 60
"""Characters of a name that a page shows."""


@dataclass(frozen=True)
class MapFrame:
    """A map's units: the raster's pixels, scaled so that the longer side is LONG_SIDE. to_units: from the CRS."""

    width: int
    height: int
    to_units: Affine
    units_per_px: float

    @classmethod
    def of(cls, grid: GeoGrid) -> MapFrame:
        scale = LONG_SIDE / max(grid.width, grid.height)
        to_units = Affine.scale(scale) @ ~grid.transform
        width, height = (max(1, round(side * scale)) for side in (grid.width, grid.height))
        return cls(width, height, to_units, scale)

    @property
    def tolerance(self) -> float:
        """How far an outline may be moved, in units."""
        return max(TOLERANCE, TOLERANCE_PX * self.units_per_px)


@dataclass(frozen=True)
class DrawnRegion:
    """A named region: its place in the file, its outline as the content of a path, and a box (x, y, width, height)."""

    index: int
    name: str
    path: str
    box: tuple[int, int, int, int]
    geometry: shapely.Geometry


def draw_layer(gpkg: Place, layer: str, frame: MapFrame, budget: int) -> str | None:
    """All features of a layer as the content of one path, as fine as `budget` characters allow; None where even coarse
    outlines are longer.

    Polygons that vanish at the map's scale are left out. Raises SourceError where the file cannot be read.
    """
    every = (_draw_layer(gpkg, layer, frame, budget, factor * frame.tolerance) for factor in COARSER)
    return next((path for path in every if path is not None), None)


def _draw_layer(gpkg: Place, layer: str, frame: MapFrame, budget: int, tolerance: float) -> str | None:
    parts: list[str] = []
    length = 0
    for geometries, _ in read_layer(gpkg, layer):
        for geometry in _simplified(geometries, frame, tolerance):
            text = path_of(geometry)
            length += len(text)
            parts.append(text)
        if length > budget:
            return None
    return "".join(parts)


def draw_regions(gpkg: Place, layer: str, frame: MapFrame, budget: int) -> tuple[list[DrawnRegion], int]:
    """The regions of a layer, the MOST_REGIONS largest of them in file order, and how many there are.

    Outlines are made coarser until all of them have at most `budget` characters; in the end they are boxes.
    Raises SourceError where the file cannot be read.
    """
    kept: list[tuple[float, int, str, shapely.Geometry]] = []
    count = 0
    for geometries, names in read_layer(gpkg, layer, "region"):
        for geometry, name in zip(_in_units(geometries, frame), names, strict=True):
            kept.append((-float(shapely.area(geometry)), count, name, geometry))
            count += 1
        kept = sorted(kept, key=lambda one: one[:2])[:MOST_REGIONS]
    kept.sort(key=lambda one: one[1])
    shapes = [geometry for *_, geometry in kept]
    paths = _paths_within(shapes, budget, frame.tolerance)
    drawn = [
        DrawnRegion(index, name, path, _box(geometry), geometry)
        for (_, index, name, geometry), path in zip(kept, paths, strict=True)
    ]
    return drawn, count


def _paths_within(shapes: Sequence[shapely.Geometry], budget: int, tolerance: float) -> list[str]:
    for factor in (1, 4, 16, 64):
        simple = shapely.simplify(np.array(shapes, object), factor * tolerance)
        paths = [path_of(g) for g in simple] if shapes else []
        if sum(map(len, paths)) <= budget:
            return paths
    return [path_of(shapely.envelope(shape)) for shape in shapes]


def _box(geometry: shapely.Geometry) -> tuple[int, int, int, int]:
    if geometry is None or geometry.is_empty:
        return 0, 0, 0, 0
    left, top, right, bottom = (round(side) for side in geometry.bounds)
    return left, top, max(1, right - left), max(1, bottom - top)


def _in_units(geometries: np.ndarray, frame: MapFrame) -> np.ndarray:
    missing = shapely.is_missing(geometries)
    there = np.where(missing, shapely.Polygon(), geometries)
    moved: np.ndarray = shapely.transform(shapely.force_2d(there), lambda xy: apply(frame.to_units, xy))
    return moved


def _simplified(geometries: np.ndarray, frame: MapFrame, tolerance: float) -> np.ndarray:
    moved = _in_units(geometries, frame)
    simple: np.ndarray = shapely.simplify(moved, tolerance, preserve_topology=False)
    kept: np.ndarray = simple[~shapely.is_empty(simple)]
    return kept


def path_of(geometry: shapely.Geometry) -> str:
    """Polygons and lines as the content of an SVG path, each vertex relative to the one before."""
    text = []
    for part in shapely.get_parts(geometry):
        closed = part.geom_type == "Polygon"
        for ring in shapely.get_rings(part) if closed else [part]:
            points = np.round(shapely.get_coordinates(ring)).astype(np.int64)
            steps = np.diff(points, axis=0)
            steps = steps[(steps != 0).any(axis=1)]
            if closed:
                steps = steps[:-1]
            if len(steps) < 1 + closed:
                continue
            x, y = points[0].tolist()
            moves = " ".join(f"{dx} {dy}" for dx, dy in steps.tolist()).replace(" -", "-")
            text.append(f"M{x} {y}l{moves}" + "z" * closed)
    return "".join(text)


def short(name: str) -> str:
    """A name as a page shows it."""
    return name if len(name) <= MOST_NAME else name[: MOST_NAME - 1] + "…"
