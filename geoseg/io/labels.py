"""What is true on the ground, on the grid of a map: rasters of classes, and polygons with a class field."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyogrio
import shapely
from pyproj import CRS
from rasterio._err import CPLE_BaseError
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.warp import transform_bounds
from shapely.errors import ShapelyError

from geoseg.errors import SourceError, SpecError
from geoseg.grid.geogrid import GeoGrid
from geoseg.grid.window import Window
from geoseg.io.classmap import ClassMap
from geoseg.io.places import fetched
from geoseg.io.rasters import READ_ERRORS, read_again, read_error, read_tiles, warped_handle
from geoseg.io.regions import read_polygons
from geoseg.legend import NODATA, Legend
from geoseg.pixels.burn import burn

UNKNOWN = -1


@dataclass(frozen=True)
class LabelOptions:
    """How labels are to be read.

    class_field: the field that tells the class of polygons; None for a raster. class_names: what the labels call
    a class (a name, or a number as text), and what the map calls it; "" where it is not scored. ignore: values of
    the raster that are not scored. background: class of the pixels in no polygon, which are not scored without.
    """

    class_field: str | None = None
    class_names: Mapping[str, str] = field(default_factory=dict)
    ignore: tuple[int, ...] = ()
    background: str | None = None

    def __post_init__(self) -> None:
        for value in self.ignore:
            if not 0 <= value <= 255:
                raise SpecError(f"label values to ignore lie in 0..255, got {value}")
        if self.background is not None and self.class_field is None:
            raise SpecError("a background class is for labels that are polygons; name their class field, too")


@dataclass(frozen=True)
class Labels:
    """True classes on a map's grid, readable by windows in any thread or process; 255 where not scored.

    table: (256,), the class id of each value of the pixels, 255 where not scored, UNKNOWN where it is no class.
    kind: "raster" or "polygons". resampled: whether a raster came from another grid.
    """

    path: str
    grid: GeoGrid
    pixels: ClassMap | WarpedRaster | BurntPolygons
    table: tuple[int, ...]
    legend: Legend
    kind: str
    resampled: bool = False

    @property
    def nodata(self) -> int:
        return NODATA

    def read(self, window: Window) -> np.ndarray:
        """Class ids of a window inside the grid: (row, col) uint8. Raises SourceError for values of no class."""
        values = self.pixels.read(window)
        classes: np.ndarray = np.asarray(self.table, np.int16)[values]
        if (classes == UNKNOWN).any():
            unknown = ", ".join(map(str, np.unique(values[classes == UNKNOWN]).tolist()))
            raise SourceError(
                f"labels hold values that are no class: {unknown}; the legend's ids are "
                f"{', '.join(map(str, self.legend.ids))}: say what they are with --map-class VALUE=CLASS, or leave "
                "them out with --ignore",
                self.path,
                window=window,
            )
        ids: np.ndarray = classes.astype(np.uint8)
        return ids

    def on(self, grid: GeoGrid) -> Labels:
        """The same labels on another grid, such as a small one to look at: that of each pixel's center."""
        if isinstance(self.pixels, BurntPolygons):
            return replace(self, grid=grid, pixels=replace(self.pixels, grid=grid))
        nodata = self.pixels.nodata
        return replace(self, grid=grid, pixels=WarpedRaster(self.path, grid, nodata), resampled=True)


def open_labels(path: str, grid: GeoGrid, legend: Legend, options: LabelOptions | None = None) -> Labels:
    """Labels for a map on `grid` with classes `legend`.

    A raster on another grid is brought onto the map's: each pixel gets the label that lies at its center. Where a
    raster names its classes (geoseg's tag), names decide, else ids do. Of overlapping polygons of several classes
    the one of the class that comes later in the file wins.
    Raises SourceError for labels that cannot be used or that lie elsewhere, SpecError for options that do not fit.
    """
    options = options or LabelOptions()
    for target in (*options.class_names.values(), *((options.background,) * bool(options.background))):
        if target and target not in legend.names:
            raise SpecError(f"the map has no class {target!r}; its classes are {', '.join(legend.names)}")
    if options.class_field is not None:
        return _polygons(path, grid, legend, options)
    return _raster(path, grid, legend, options)


@dataclass(frozen=True)
class WarpedRaster:
    """A raster on another grid, nearest neighbor. outside: the value beyond its end."""

    path: str
    grid: GeoGrid
    nodata: int | None

    @read_again
    def read(self, window: Window) -> np.ndarray:
        """(row, col) uint8; 255 beyond the raster's end, where that cannot be told from a value."""
        try:
            if self.nodata is not None:
                view = warped_handle(self.path, self.grid, Resampling.nearest, False)
                band: np.ndarray = read_tiles(view, [1], window)[0]
                return band
            view = warped_handle(self.path, self.grid, Resampling.nearest, True)
            values, alpha = read_tiles(view, [1, view.count], window)
            covered: np.ndarray = np.where(alpha == 0, np.uint8(NODATA), values)
            return covered
        except READ_ERRORS as error:
            raise read_error(self.path, window, error) from error


@dataclass(frozen=True)
class BurntPolygons:
    """Polygons of some classes, the later over the earlier. layers: value and (polygon,) geometries of each."""

    grid: GeoGrid
    layers: tuple[tuple[int, np.ndarray], ...]

    def read(self, window: Window) -> np.ndarray:
        """(row, col) uint8: 255 in no polygon."""
        values = np.full(window.shape, NODATA, np.uint8)
        for value, polygons in self.layers:
            values[burn(polygons, window, self.grid)] = value
        return values


def _raster(path: str, grid: GeoGrid, legend: Legend, options: LabelOptions) -> Labels:
    try:
        own = ClassMap.open(path)
    except SourceError as error:
        if "cannot be opened" in str(error) and _is_vector(path):
            raise SourceError(
                "is a vector file: name the field that holds the class with --class-field", path
            ) from error
        raise
    table = _raster_table(own, legend, options)
    if own.grid.same_place(grid):
        return Labels(path, grid, own, table, legend, "raster")
    _check_overlap(own.grid, grid, path)
    return Labels(path, grid, WarpedRaster(path, grid, own.nodata), table, legend, "raster", True)


def _raster_table(own: ClassMap, legend: Legend, options: LabelOptions) -> tuple[int, ...]:
    names = {} if own.legend is None else {c.id: c.name for c in own.legend.classes}
    ids = {c.name: c.id for c in legend.classes}
    for known in options.class_names:
        if known not in names.values() and not known.isdecimal():
            raise SpecError(
                f"the labels name no class {known!r}; "
                + (
                    f"theirs are {', '.join(names.values())}"
                    if names
                    else "use their values, as in 7=building"
                ),
                own.path,
            )
    table = []
    for value in range(256):
        name = names.get(value)
        target = options.class_names.get(str(value), options.class_names.get(name) if name else None)
        if value in options.ignore or value in (own.nodata, NODATA):
            table.append(NODATA)
        elif target is not None:
            table.append(ids[target] if target else NODATA)
        elif name is not None:
            table.append(ids.get(name, UNKNOWN))
        elif value in legend.ids and not names:
            table.append(value)
        else:
            table.append(NODATA if value == 0 else UNKNOWN)
    return tuple(table)


def _polygons(path: str, grid: GeoGrid, legend: Legend, options: LabelOptions) -> Labels:
    if options.ignore:
        raise SpecError(
            "--ignore is for values of a raster; leave a class of polygons out with --map-class NAME="
        )
    groups = read_polygons(path, grid, options.class_field)
    ids = {c.name: c.id for c in legend.classes} | {str(c.id): c.id for c in legend.classes}
    named = [group.name for group in groups]
    check_class_names(
        named, {*ids, *options.class_names}, options.class_field, legend, path, "the map",
        lambda name, meaning: f"--map-class '{name}={meaning}'",
    )  # fmt: skip
    missing = [name for name in options.class_names if name not in named]
    if missing:
        raise SpecError(
            f"field {options.class_field!r} holds no class {missing[0]!r}; it holds {', '.join(named)}", path
        )
    free = next((v for v in range(NODATA) if v not in legend.ids), NODATA)
    layers = []
    for group in groups:
        target = options.class_names.get(group.name, group.name)
        # Not scored is a value of its own, so that it covers what lies below it.
        layers.append((ids[target] if target else free, shapely.get_parts(np.array([group.geometry]))))
    table = [value if value in legend.ids else NODATA for value in range(256)]
    if options.background is not None:
        table[NODATA] = ids[options.background]
    return Labels(path, grid, BurntPolygons(grid, tuple(layers)), tuple(table), legend, "polygons")


def check_class_names(
    found: Sequence[str],
    known: Collection[str],
    class_field: str | None,
    legend: Legend,
    path: str,
    who: str,
    mapping: Callable[[str, str], str],
) -> None:
    """Raises SourceError for names in the class field of polygons that are not known.

    who: it is that does not know them. mapping: how a user says what a name means; "" leaves it out.
    """
    unknown = [name for name in found if name not in known]
    if unknown:
        some = ", ".join(unknown[:10]) + (", ..." if len(unknown) > 10 else "")
        raise SourceError(
            f"field {class_field!r} holds classes that {who} does not know: {some}; its classes are "
            f"{', '.join(legend.names)} (say which is which: {mapping(unknown[0], legend.names[0])}, "
            f"or leave it out: {mapping(unknown[0], '')})",
            path,
        )


def _is_vector(path: str) -> bool:
    try:
        with fetched(path) as opened:
            return len(pyogrio.list_layers(opened)) > 0
    except (OSError, RuntimeError, ValueError, ShapelyError):
        return False


def _check_overlap(own: GeoGrid, grid: GeoGrid, path: str) -> None:
    """Raises SourceError where labels lie elsewhere, or where that cannot be known."""
    if (own.crs is None) != (grid.crs is None):
        which = "the labels have" if own.crs is None else "the map has"
        raise SourceError(
            f"lies on another grid than the map, and {which} no CRS: state it with gdal_edit.py -a_srs", path
        )
    mine, theirs = _bounds(grid), _bounds(own)
    try:
        if own.crs and grid.crs and not CRS.from_wkt(own.crs).equals(CRS.from_wkt(grid.crs), True):
            mine = transform_bounds(grid.crs, own.crs, *mine)
    except (RasterioError, CPLE_BaseError) as error:
        raise SourceError(f"cannot be brought onto the map's grid ({error})", path) from error
    if mine[0] >= theirs[2] or mine[2] <= theirs[0] or mine[1] >= theirs[3] or mine[3] <= theirs[1]:
        spans = (
            f"x {left:.8g} to {right:.8g}, y {bottom:.8g} to {top:.8g}"
            for left, bottom, right, top in (theirs, mine)
        )
        raise SourceError("the labels do not overlap the map: they span {}, the map {}".format(*spans), path)


def _bounds(grid: GeoGrid) -> tuple[float, float, float, float]:
    corners: list[Any] = [(0, 0), (grid.width, 0), (0, grid.height), (grid.width, grid.height)]
    xs, ys = zip(*(grid.transform @ corner for corner in corners), strict=True)
    return min(xs), min(ys), max(xs), max(ys)
