"""Labels as targets: which channel each pixel teaches, one of several, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import shapely
from affine import Affine
from pyproj import CRS

from geoseg.errors import SourceError, SpecError
from geoseg.grid.geogrid import GeoGrid
from geoseg.grid.window import Window
from geoseg.io.classmap import ClassMap
from geoseg.io.labels import BurntPolygons, check_class_names
from geoseg.io.regions import read_polygons
from geoseg.legend import NODATA, Legend
from geoseg.train.config import SceneEntry
from geoseg.train.ground import outline
from geoseg.train.meanings import Meaning, possible_classes

IGNORED = 255
"""Target of pixels that neither teach nor score."""

SET = 256
"""Targets from here on are sets: SET + a bit for each channel that the pixel may be."""

MOST_IN_SETS = 48
"""Classes of a run in which pixels may be one of several, so that a set fits into 64 bits."""

UNKNOWN = -1
COVERED = NODATA - 1
"""Value of polygons that teach nothing: they cover what lies below them."""


@dataclass(frozen=True)
class SceneLabels:
    """The labels of a scene on its grid, readable by windows in any thread or process.

    pixels: values as the file has them; of polygons, their targets. teaches: (256,), the target of each value as
    a byte, or UNKNOWN: a channel, IGNORED, or the number of channels + the place of a set in `sets`. sets: 64 bits
    each, one for each channel that the pixel may be. found: what the file calls its classes. zero: why 0 in a raster
    teaches nothing, where the training file does not say so: "unmapped", "nodata", or "".
    """

    path: str
    pixels: ClassMap | BurntPolygons
    teaches: tuple[int, ...]
    sets: tuple[int, ...]
    found: frozenset[str]
    legend: Legend
    zero: Literal["", "unmapped", "nodata"] = ""

    def read(self, window: Window) -> np.ndarray:
        """Targets of a window inside the raster, as bytes: (row, col) uint8. SourceError for values of no class."""
        values = self.pixels.read(window)
        targets = np.asarray(self.teaches, np.int16)[values]
        if (targets == UNKNOWN).any():
            unknown = np.unique(values[targets == UNKNOWN])[:5].tolist()
            raise SourceError(
                f"holds label values that are no class: {', '.join(map(str, unknown))}; ids are "
                f"{', '.join(map(str, self.legend.ids))} (say what a value is with map_class: {{{unknown[0]}: "
                f"{self.legend.names[0]}}}, or leave it out with ignore: [{unknown[0]}])",
                self.path,
                window=window,
            )
        as_bytes: np.ndarray = targets.astype(np.uint8)
        return as_bytes

    @cached_property
    def codes(self) -> np.ndarray:
        """What the loss is told for each byte: (256,) int64, a channel, IGNORED, or SET + bits."""
        codes = np.full(256, IGNORED, np.int64)
        channels = len(self.legend.ids)
        codes[:channels] = np.arange(channels)
        codes[channels : channels + len(self.sets)] = [SET + bits for bits in self.sets]
        return codes


def open_scene_labels(entry: SceneEntry, grid: GeoGrid, legend: Legend) -> SceneLabels:
    """Labels of a scene on `grid`, by the rules of geoseg.io.labels.

    Polygons are burnt by the centers of pixels; of overlapping ones of several classes that of the class that
    comes later in the file wins. Where a raster names its classes (geoseg's tag), names decide, else ids do.
    Raises SourceError for labels that cannot be used, SpecError for an entry that does not fit them.
    """
    return _polygons(entry, grid, legend) if entry.has_polygons else _raster(entry, grid, legend)


class _Targets:
    """Bytes for what labels mean."""

    def __init__(self, legend: Legend, path: str) -> None:
        self._legend, self._path = legend, path
        self.sets: list[int] = []

    def of(self, meaning: Meaning) -> int:
        names = self._legend.names
        channels = [names.index(name) for name in possible_classes(meaning, self._legend)]
        if len(channels) < 2:
            return channels[0] if channels else IGNORED
        bits = sum(1 << channel for channel in channels)
        if bits not in self.sets:
            self.sets.append(bits)
        number = len(names) + self.sets.index(bits)
        if len(names) > MOST_IN_SETS or number >= COVERED:
            raise SpecError(
                f"pixels may be one of several classes (lists, not: [...]) in runs of at most {MOST_IN_SETS} classes "
                f"and {COVERED - len(names)} such sets a scene",
                self._path,
            )
        return number


def _raster(entry: SceneEntry, grid: GeoGrid, legend: Legend) -> SceneLabels:
    try:
        own = ClassMap.open(str(entry.labels))
    except SourceError as error:
        if "cannot be opened" not in str(error):
            raise
        raise SourceError(
            f"{error.args[0]}; if it holds polygons, name their class_field, or say what every_polygon is",
            entry.labels,
        ) from error
    if not own.grid.same_place(grid):
        remedy = (
            f"bring them onto it: rio warp LABELS.tif NEW.tif --like {entry.scene.name} --resampling nearest"
        )
        if own.grid.crs is None and grid.crs is not None:
            remedy = "state it: gdal_edit.py -a_srs CRS LABELS.tif"
        raise SourceError(
            f"labels and scene must share one grid: {_difference(own.grid, grid)}; {remedy}", entry.labels
        )
    targets = _Targets(legend, own.path)
    teaches = _value_table(own, entry, targets, legend)
    names = () if own.legend is None else own.legend.names
    found = frozenset({*map(str, range(256)), *names})
    return SceneLabels(
        own.path, own, teaches, tuple(targets.sets), found, legend, _zero(own, entry, teaches[0])
    )


def _zero(own: ClassMap, entry: SceneEntry, taught: int) -> Literal["", "unmapped", "nodata"]:
    if taught != IGNORED or 0 in entry.ignore or "0" in entry.map_class:
        return ""
    return "nodata" if own.nodata == 0 else "unmapped"


def _difference(own: GeoGrid, grid: GeoGrid) -> str:
    """In which respect labels lie on another grid than their scene."""
    names = [CRS.from_wkt(g.crs).name if g.crs else "no CRS" for g in (own, grid)]
    if not GeoGrid(1, 1, grid.transform, own.crs).same_place(GeoGrid(1, 1, grid.transform, grid.crs)):
        return f"theirs has {names[0]}, the scene's {names[1]}"
    if (own.height, own.width) != (grid.height, grid.width):
        return f"theirs is {own.width} x {own.height} px, the scene's {grid.width} x {grid.height} px"
    to_scene = ~grid.transform @ own.transform
    (col, row), (last_col, last_row) = (to_scene @ corner for corner in ((0, 0), (own.width, own.height)))
    return (
        f"their corners lie at column {col:.6g}, row {row:.6g} and column {last_col:.6g}, row {last_row:.6g} of the "
        f"scene, whose own are 0, 0 and {grid.width}, {grid.height}"
    )


def _value_table(own: ClassMap, entry: SceneEntry, targets: _Targets, legend: Legend) -> tuple[int, ...]:
    names = {} if own.legend is None else {c.id: c.name for c in own.legend.classes}
    table = []
    for value in range(256):
        name = names.get(value)
        key = next((key for key in (str(value), name) if key in entry.map_class), None)
        mapped = None if key is None else targets.of(entry.map_class[key])
        if value in (own.nodata, NODATA):
            if mapped not in (None, IGNORED):
                raise SpecError(
                    f"map_class gives a meaning to {key}, which is nodata in the labels: take it out of map_class, "
                    "or undeclare it (gdal_edit.py -unsetnodata)",
                    own.path,
                )
            table.append(IGNORED)
        elif value in entry.ignore:
            table.append(IGNORED)
        elif mapped is not None:
            table.append(mapped)
        elif name is not None:
            table.append(legend.names.index(name) if name in legend.names else UNKNOWN)
        elif value in legend.ids and not names:
            table.append(legend.ids.index(value))
        else:
            table.append(IGNORED if value == 0 else UNKNOWN)
    return tuple(table)


def _polygons(entry: SceneEntry, grid: GeoGrid, legend: Legend) -> SceneLabels:
    path = str(entry.labels)
    groups = read_polygons(path, grid, entry.class_field)
    targets = _Targets(legend, path)
    grown = GeoGrid(grid.height + 2, grid.width + 2, grid.transform @ Affine.translation(-1, -1), grid.crs)
    around = outline(grown)
    layers = []
    if entry.class_field is None:
        values = [(targets.of(entry.every_polygon), [group.geometry for group in groups])]
        found: frozenset[str] = frozenset()
    else:
        meaning_of = _meanings([group.name for group in groups], entry, legend)
        values = [(targets.of(meaning_of(group.name)), [group.geometry]) for group in groups]
        found = frozenset(group.name for group in groups)
    for value, geometries in values:
        parts = shapely.get_parts(np.array(geometries))
        near = parts[shapely.intersects(shapely.envelope(parts), around)]  # the file may hold a country
        layers.append((COVERED if value == IGNORED else value, near))
    teaches = list(range(256))
    teaches[COVERED], teaches[NODATA] = IGNORED, targets.of(entry.background)
    return SceneLabels(
        path, BurntPolygons(grid, tuple(layers)), tuple(teaches), tuple(targets.sets), found, legend
    )


def _meanings(found: list[str], entry: SceneEntry, legend: Legend) -> Callable[[str], Meaning]:
    """What each class of the field means; SourceError where that is not known."""
    known: Mapping[str, Meaning] = {
        **{str(c.id): c.name for c in legend.classes},
        **{c.name: c.name for c in legend.classes},
        **entry.map_class,
    }
    check_class_names(
        found, known, entry.class_field, legend, str(entry.labels), "the training file",
        lambda name, meaning: f"map_class: {{{name}: {meaning or repr(meaning)}}}",
    )  # fmt: skip
    return lambda name: known[name]
