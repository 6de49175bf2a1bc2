"""The layers that become of a class raster: which classes each holds, and what it says of each polygon."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import shapely

from geoseg.grid.geogrid import GeoGrid
from geoseg.legend import NODATA, ROLES, Legend
from geoseg.pixels.footprints import clip, geodesic_sizes_m
from geoseg.pixels.polygons import Bools, Geometries, Ints
from geoseg.stages.protocols import ClassSource

LAYER_OF_ROLE = {"building": "buildings", "road": "roads"}
RAW_LAYER = "polygons"
COVERAGE_LAYER = "landcover"
FIELDS = {
    "id": "sixteen hex digits that follow from its pixels' place and outline alone: the same footprint, the same id",
    "class_id": "class of the map",
    "class_name": "its name",
    "area_m2": "area on the ellipsoid, in square metres",
    "perimeter_m": "length of all rings on the ellipsoid, in metres",
    "squared": "whether its outline was straightened; else it runs along the sides of pixels",
    "confidence_mean": "mean confidence of its pixels, in percent",
    "confidence_p10": "the confidence that nine of ten pixels reach, in percent",
    "touches_edge": "whether it ends at the edge of the scene or at nodata, so that it may go on there",
    "clipped": "whether the area of interest has cut it",
}
"""What a described layer says of each polygon; the facts of its context follow."""


@dataclass(frozen=True)
class Layer:
    """A layer of the output.

    classes: ids with names, None where unknown.
    described: whether its polygons come with more than their class and area: see FIELDS.
    squared: whether walls are straightened and right angles made; see geoseg.pixels.squaring.
    coverage: whether outlines are simplified so that neighbors still fit together; for all classes of a raster.
    """

    name: str
    classes: tuple[tuple[int, str | None], ...]
    described: bool = True
    squared: bool = False
    coverage: bool = False

    @property
    def class_ids(self) -> tuple[int, ...]:
        return tuple(class_id for class_id, _ in self.classes)


def role_layers(legend: Legend) -> tuple[Layer, ...]:
    """One layer per role, for the classes that play it; a layer without classes stays empty. Buildings are squared."""
    return tuple(
        Layer(
            LAYER_OF_ROLE[role],
            tuple((c.id, c.name) for c in legend.of_role(role)),
            squared=role == "building",
        )
        for role in ROLES
    )


def coverage_layer(legend: Legend) -> Layer:
    """All classes, simplified, without gap or overlap."""
    return Layer(COVERAGE_LAYER, tuple((c.id, c.name) for c in legend.classes), coverage=True)


def raw_layers(legend: Legend | None, nodata: int | None) -> tuple[Layer, ...]:
    """One layer with all classes but nodata. Without a legend the names are null."""
    names: dict[int, str] = {c.id: c.name for c in legend.classes} if legend else {}
    classes = tuple((i, names.get(i)) for i in range(NODATA) if i != nodata)
    return (Layer(RAW_LAYER, classes, described=False),)


@dataclass(frozen=True)
class Context:
    """What is known of a raster besides its classes.

    confidence: percent per pixel on the same grid. aoi: (multi)polygon in the raster's CRS; what sticks out of it is
    cut off. facts: what is the same for all polygons, such as the scene's name; a field each.
    """

    confidence: ClassSource | None = None
    aoi: shapely.Geometry | None = None
    facts: tuple[tuple[str, str | None], ...] = ()


PLAIN = Context()


class Found(NamedTuple):
    """A closed polygon on its way to a layer. percents are NaN where the confidence is unknown.

    wkb: as traced. redrawn: what is written in its stead, if anything is.
    """

    class_id: int
    mean_percent: float
    low_percent: float
    at_edge: bool
    wkb: bytes
    redrawn: bytes | None = None


class Drawn(NamedTuple):
    """Polygons as they are written. source: (polygon,), which of the batch each comes from."""

    wkb: list[bytes]
    polygons: Geometries
    batch: list[Found]
    source: Ints
    clipped: Bools


def draw(batches: Iterable[list[Found]], grid: GeoGrid, context: Context) -> Iterator[Drawn]:
    """Polygons as they are written: redrawn where they were, and cut to the area of interest."""
    for batch in batches:
        wkb = [found.redrawn or found.wkb for found in batch]
        polygons: Geometries = shapely.from_wkb(wkb)
        source, clipped = np.arange(len(batch)), np.zeros(len(batch), np.bool_)
        if context.aoi is not None:
            polygons, source, clipped = clip(polygons, context.aoi, grid.transform)
            wkb = shapely.to_wkb(polygons).tolist()
        yield Drawn(wkb, polygons, batch, source, clipped)


def columns_of(
    layer: Layer, grid: GeoGrid, context: Context, drawn: Drawn
) -> dict[str, np.ndarray[Any, Any]]:
    """The fields of some polygons; FIELDS says what they mean."""
    _, polygons, batch, whole, clipped = drawn
    names = dict(layer.classes)
    class_ids = np.array([found.class_id for found in batch], np.int32)[whole]
    area, perimeter = geodesic_sizes_m(polygons, grid.crs, grid.transform)
    columns: dict[str, np.ndarray[Any, Any]] = {
        "class_id": class_ids,
        "class_name": np.array([names[i] for i in class_ids.tolist()], dtype=object),
        "area_m2": area,
    }
    if not layer.described:
        return columns
    return (
        {"id": _ids(batch, whole)}
        | columns
        | {
            "perimeter_m": perimeter,
            "squared": np.array([layer.squared and found.redrawn is not None for found in batch], np.bool_)[
                whole
            ],
            "confidence_mean": np.array([found.mean_percent for found in batch], np.float64)[whole],
            "confidence_p10": np.array([found.low_percent for found in batch], np.float64)[whole],
            "touches_edge": np.array([found.at_edge for found in batch], np.bool_)[whole],
            "clipped": clipped,
        }
        | {name: np.full(len(polygons), value, dtype=object) for name, value in context.facts}
    )


def _ids(batch: Sequence[Found], whole: Ints) -> np.ndarray[Any, Any]:
    """Names that follow from place and outline alone; the further parts of a polygon that was cut are numbered."""
    names = [hashlib.sha256(found.wkb).hexdigest()[:16] for found in batch]
    parts = np.arange(len(whole)) - np.searchsorted(whole, whole)
    found = [
        names[i] if not part else f"{names[i]}-{part}"
        for i, part in zip(whole.tolist(), parts.tolist(), strict=True)
    ]
    return np.array(found, dtype=object)
