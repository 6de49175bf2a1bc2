"""Polygons of a vector file, on a raster's grid: regions to score, areas of interest, masks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyogrio
import shapely
from affine import Affine
from pyproj import CRS, Transformer
from pyproj.enums import TransformDirection
from pyproj.exceptions import CRSError, ProjError
from shapely.errors import ShapelyError
from shapely.geometry.base import BaseGeometry

from geoseg.errors import SourceError
from geoseg.grid.geogrid import GeoGrid
from geoseg.io.places import fetched
from geoseg.io.rasters import check_there
from geoseg.pixels.burn import apply, edges_of

BEND_PX = 0.01
"""How far a straight edge of the file may lie from its place in the raster's CRS."""

POLYGONAL = (shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON)


@dataclass(frozen=True)
class NamedPolygon:
    """A named part of the ground. geometry: a valid polygon or multipolygon in the raster's CRS, or empty."""

    name: str
    geometry: BaseGeometry


def read_polygons(path: str, grid: GeoGrid, name_field: str | None) -> tuple[NamedPolygon, ...]:
    """The polygons of a vector file in the raster's CRS, in file order; other geometries are passed over.

    name_field: the field that names them; polygons of one name are united. Without it they are numbered by
    feature, from 1. Of several layers, the first that holds polygons (and the field) is read. Invalid
    polygons are repaired. Edges are split until they bend by at most BEND_PX when reprojected, so that
    straight edges of the file stay in place. A polygon that the raster's CRS cannot express is cut to the
    raster's surroundings.
    Raises SourceError: no such file or field, no polygons, missing names, a CRS on one side only, none
    overlaps.
    """
    check_there(path)
    try:
        with fetched(path) as opened:
            layer, meta, blobs, fields = _features(path, opened, name_field)
        geometries = shapely.from_wkb(blobs)
    except (OSError, ShapelyError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SourceError(f"cannot be read as a vector file ({reason})", path) from error

    polygonal = np.isin(shapely.get_type_id(geometries), POLYGONAL) & ~shapely.is_empty(geometries)
    if not polygonal.any():
        raise SourceError(f"holds no polygons ({len(geometries)} features in layer {layer!r})", path)
    numbers = np.flatnonzero(polygonal)
    names = [str(n + 1) for n in numbers]
    if name_field:
        names = _names(fields[0][numbers], numbers, name_field, path)
    parts: dict[str, list[BaseGeometry]] = {}
    for name, geometry in zip(names, _to_raster(geometries[numbers], meta["crs"], grid, path), strict=True):
        parts.setdefault(name, []).append(geometry)
    united = {name: shapely.union_all(g) if len(g) > 1 else g[0] for name, g in parts.items()}
    polygons = tuple(NamedPolygon(name, geometry) for name, geometry in united.items())
    _check_overlap(polygons, grid, path)
    return polygons


def _features(
    path: str, opened: str, name_field: str | None
) -> tuple[str, Any, np.ndarray, list[np.ndarray]]:
    """A layer's name, what the file says of it, geometries as WKB, and names. opened: where the file lies on disk."""
    try:
        layer = _choose_layer(path, opened, name_field)
        columns = [name_field] if name_field else []
        meta, _, blobs, fields = pyogrio.raw.read(opened, layer=layer, columns=columns, force_2d=True)
    except (RuntimeError, ValueError) as error:
        reason = str(error).split("; It might help")[0].replace(opened, "it").removeprefix("'it' ")
        raise SourceError(f"cannot be read as a vector file ({reason})", path) from error
    return layer, meta, blobs, fields


def _choose_layer(path: str, opened: str, name_field: str | None) -> str:
    """The first layer that may hold polygons and has the field."""
    layers = [(str(name), str(kind)) for name, kind in pyogrio.list_layers(opened)]
    with_polygons = [name for name, kind in layers if kind.endswith(("Polygon", "Unknown", "Collection"))]
    if not with_polygons:
        kinds = ", ".join(f"{name!r}: {kind}" for name, kind in layers)
        raise SourceError(f"holds no layer of polygons ({kinds or 'no layers'})", path)
    fields = {name: list(pyogrio.read_info(opened, layer=name)["fields"]) for name in with_polygons}
    for name in with_polygons:
        if name_field is None or name_field in fields[name]:
            return name
    there = sorted({field for names in fields.values() for field in names})
    raise SourceError(f"has no field {name_field!r}; its fields are: {', '.join(there) or 'none'}", path)


def _names(values: np.ndarray, numbers: np.ndarray, field: str, path: str) -> list[str]:
    """Values of the naming field as text; whole numbers without the '.0' that gaps in a column bring."""
    names = []
    for value in values.tolist():
        if isinstance(value, float):
            names.append("" if math.isnan(value) else f"{value:.15g}")
        else:
            names.append("" if value is None else str(value).strip())
    missing = [str(number + 1) for number, name in zip(numbers, names, strict=True) if not name]
    if missing:
        some = ", ".join(missing[:10])
        more = ", ..." if len(missing) > 10 else ""
        raise SourceError(
            f"field {field!r} is empty in {len(missing)} polygons (feature {some}{more}); fill it in, or name another "
            "field",
            path,
        )
    return names


def _to_raster(geometries: np.ndarray, crs: str | None, grid: GeoGrid, path: str) -> list[BaseGeometry]:
    """Valid polygons in the raster's CRS."""
    try:
        source = CRS.from_user_input(crs) if crs else None
        if source is not None and source.name.lower().startswith("undefined"):  # how GeoPackage says "none"
            source = None
        target = CRS.from_wkt(grid.crs) if grid.crs else None
        if source is None and target is not None:
            advice = "state it, as in 'ogr2ogr -a_srs EPSG:4326 with_crs.gpkg FILE'"
            raise SourceError(f"has no CRS, but the raster is in {target.name}; {advice}", path)
        if source is not None and target is None:
            advice = "state it, as in 'gdal_edit.py -a_srs EPSG:32640 RASTER'"
            raise SourceError(f"is in {source.name}, but the raster has no CRS; {advice}", path)
        valid = [_polygonal(g) for g in geometries]
        if source is None or target is None or source.equals(target, ignore_axis_order=True):
            return valid
        transformer = Transformer.from_crs(source, target, always_xy=True)
        return [_reproject(g, transformer, grid) for g in valid]
    except (CRSError, ProjError) as error:
        raise SourceError(f"cannot be brought into the raster's CRS ({error})", path) from error


def _polygonal(geometry: BaseGeometry) -> BaseGeometry:
    """The geometry if it is a valid polygon or multipolygon, else the polygons of its repair."""
    if shapely.is_valid(geometry) and shapely.get_type_id(geometry) in POLYGONAL:
        return geometry
    parts = shapely.get_parts(shapely.make_valid(geometry, method="structure", keep_collapsed=False))
    return shapely.union_all(parts[np.isin(shapely.get_type_id(parts), POLYGONAL)])


def _reproject(geometry: BaseGeometry, transformer: Transformer, grid: GeoGrid) -> BaseGeometry:
    points = shapely.get_coordinates(geometry)
    back = _project(_project(points, transformer), transformer, inverse=True)
    if not np.allclose(back, points, rtol=0, atol=1e-5 * np.abs(points).max()):
        geometry = _polygonal(shapely.intersection(geometry, _surroundings(grid, transformer)))
    left, bottom, right, top = geometry.bounds
    dense, length = geometry, math.hypot(right - left, top - bottom)
    for _ in range(16):
        if _bend_px(dense, transformer, grid) <= BEND_PX:
            break
        length /= 2
        dense = shapely.segmentize(geometry, length)
    projected = shapely.transform(dense, lambda xy: _project(xy, transformer))
    if not np.isfinite(shapely.get_coordinates(projected)).all():
        raise ProjError("a polygon has no place there")
    return _polygonal(projected)


def _project(points: np.ndarray, transformer: Transformer, inverse: bool = False) -> np.ndarray:
    direction = TransformDirection.INVERSE if inverse else TransformDirection.FORWARD
    return np.column_stack(transformer.transform(points[:, 0], points[:, 1], direction=direction))


def _surroundings(grid: GeoGrid, transformer: Transformer) -> BaseGeometry:
    """The raster's extent grown by its own size on each side, as a box in the polygons' CRS."""
    left, bottom, right, top = _footprint(grid).bounds
    wide, high = right - left, top - bottom
    grown = (left - wide, bottom - high, right + wide, top + high)
    box = transformer.transform_bounds(*grown, direction=TransformDirection.INVERSE)
    if not all(map(math.isfinite, box)) or box[0] > box[2]:
        raise ProjError("the surroundings of the raster have no simple place in the polygons' CRS")
    return shapely.box(*box)


def _bend_px(geometry: BaseGeometry, transformer: Transformer, grid: GeoGrid) -> float:
    """How far edges near the raster, when projected, lie from the straight line between their ends."""
    edges = edges_of(geometry, Affine.identity())
    a, b = edges[:2].T, edges[2:].T

    def pixels(points: np.ndarray) -> np.ndarray:
        return apply(~grid.transform, _project(points, transformer))

    start, end = pixels(a), pixels(b)
    bend = np.zeros(len(a))
    for t in (0.25, 0.5, 0.75):
        off = pixels(a + t * (b - a)) - (start + t * (end - start))
        bend = np.maximum(bend, np.hypot(*off.T))
    low, high = np.minimum(start, end) - 2 * bend[:, None], np.maximum(start, end) + 2 * bend[:, None]
    near = ((high >= 0) & (low <= (grid.width, grid.height))).all(axis=1)
    return float(bend[near].max(initial=0))


def _footprint(grid: GeoGrid) -> BaseGeometry:
    """The raster's outline in its CRS."""
    corners = [(0, 0), (grid.width, 0), (grid.width, grid.height), (0, grid.height)]
    return shapely.Polygon([grid.transform @ corner for corner in corners])


def _check_overlap(polygons: tuple[NamedPolygon, ...], grid: GeoGrid, path: str) -> None:
    outline = _footprint(grid)
    geometries = np.array([p.geometry for p in polygons])
    if (shapely.intersects(geometries, outline) & ~shapely.touches(geometries, outline)).any():
        return
    theirs, ours = (
        f"x {left:.8g} to {right:.8g}, y {bottom:.8g} to {top:.8g}"
        for left, bottom, right, top in (shapely.total_bounds(geometries), outline.bounds)
    )
    raise SourceError(
        f"none of its polygons overlaps the raster: they span {theirs}, the raster {ours}", path
    )
