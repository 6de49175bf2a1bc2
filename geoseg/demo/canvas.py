"""The canvas: polygons with a material each, burnt into one map of surface numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from rasterio.features import rasterize
from shapely.geometry.base import BaseGeometry

from .look import Color
from .noise import BoolArray, FloatArray

NO_DATA, BUILDING, ROAD, LAND, VEGETATION, WATER = range(6)

Points = npt.NDArray[np.float64]
"""(n, 2) positions in pixels: column, row; pixel (0, 0) covers 0..1 both ways."""


@dataclass(frozen=True)
class Material:
    """How a painted surface looks and counts."""

    color: Color
    label: int
    height: float = 0.0  # metres above the ground
    grain: float = 0.05  # relative amplitude of the fine texture
    row_wave: tuple[float, float] = (0.0, 0.0)  # radians per column and per row, of crop rows or roof ribs
    row_depth: float = 0.0  # relative amplitude of those rows


GROUND_ID, WATER_ID, GRASS_ID, SCRUB_ID = range(4)
"""Surfaces whose colour comes from a field instead of one material."""

_FIELD_MATERIALS = (
    Material((0, 0, 0), LAND, grain=0.07),
    Material((0, 0, 0), WATER, grain=0.0),
    Material((0, 0, 0), VEGETATION, grain=0.10),
    Material((0, 0, 0), VEGETATION, grain=0.22),
)


@dataclass(frozen=True)
class Trees:
    """Tree crowns: positions (n, 2) in pixels, radii (n,) in pixels, colours (n, 3)."""

    points: Points
    radii: FloatArray
    colors: FloatArray


@dataclass
class Canvas:
    """Collects polygons and trees; ``burn`` writes the waiting polygons, later ones on top."""

    size: int
    ids: npt.NDArray[np.int32] = field(init=False)
    materials: list[Material] = field(default_factory=lambda: list(_FIELD_MATERIALS))
    trees: list[Trees] = field(default_factory=list)
    marks: list[Points] = field(default_factory=list)  # pixels of painted lane lines
    _waiting: list[tuple[object, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ids = np.zeros((self.size, self.size), np.int32)

    def add(self, outline: Points | BaseGeometry, material: Material) -> None:
        """Queue one polygon, a (n, 2) ring or a shapely geometry."""
        if isinstance(outline, BaseGeometry):
            if outline.is_empty:
                return
            shape: object = outline
        else:
            ring = outline.tolist()
            shape = {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}
        self._waiting.append((shape, len(self.materials)))
        self.materials.append(material)

    def burn(self) -> None:
        """Write the queued polygons into ``ids``."""
        if self._waiting:
            rasterize(self._waiting, out=self.ids)
            self._waiting.clear()

    def fill(self, mask: BoolArray, surface: int) -> None:
        """Give the masked pixels a field surface (GROUND_ID .. SCRUB_ID)."""
        self.ids[mask] = surface

    def fill_material(self, mask: BoolArray, material: Material) -> None:
        """Give the masked pixels a material of their own."""
        self.ids[mask] = len(self.materials)
        self.materials.append(material)

    def lookup(self, values: Sequence[float]) -> FloatArray:
        """Spread one value per material over the (size, size) pixels."""
        return np.asarray(np.take(np.asarray(values, np.float32), self.ids), np.float32)

    def labels(self) -> npt.NDArray[np.uint8]:
        """The class of each pixel, trees not included."""
        table = np.array([material.label for material in self.materials], np.uint8)
        return np.asarray(np.take(table, self.ids), np.uint8)
