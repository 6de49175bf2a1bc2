"""From a class raster to polygons of whole objects.

The raster is cut into strips (full-width rows of blocks). Strips are polygonized side by side, each into one
scratch file; then one task joins them from top to bottom and writes the layers. Nothing is simplified or
filtered before the join, so the polygons are those of the uncut raster, for any block size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import shapely

from geoseg.errors import SpecError
from geoseg.grid.geogrid import GeoGrid
from geoseg.grid.window import Window
from geoseg.legend import NODATA, ROLES, Legend
from geoseg.parallel import threaded_map
from geoseg.pixels.footprints import clip, geodesic_sizes_m
from geoseg.pixels.generalize import GeneralizeRules
from geoseg.pixels.polygons import Bools, Geometries, Ints, Pieces, describe, polygonize_block
from geoseg.pixels.seams import StripJoiner, join_blocks
from geoseg.stages.protocols import ClassSource, Mapper
from geoseg.stages.square import Outlines, square
from geoseg.stages.whole import batches, coverage, generalized

BLOCK_PX = 2048
STRIP_AREA_PX = 8_000_000
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
LOW_PERCENT = 10


def strip_px(width: int) -> int:
    """Height of the strips of a raster, so that a strip of a very wide one still fits into memory."""
    return max(256, min(BLOCK_PX, STRIP_AREA_PX // width))


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


@dataclass(frozen=True)
class StripFile:
    """Name of a scratch file with the polygons of one strip, the strip's place, and what is in it."""

    name: str
    window: Window
    polygons: int
    vertices: int


class Spool(Protocol):
    """Brings polygons into scan order. A place is that of a first pixel, (row << 32) + col."""

    def add(self, rows: Sequence[int], cols: Sequence[int], found: Sequence[Found], /) -> None: ...
    def traced(self, class_ids: Sequence[int], /) -> Iterator[Outlines]:
        """Places and polygons as they were traced, in batches."""

    def redraw(self, batches: Iterable[Outlines], /) -> None:
        """What to write for the polygons at some places; forgets what was said before."""

    def read(self, class_ids: Sequence[int], /) -> Iterator[list[Found]]: ...


class LayerWriter(Protocol):
    """Appends features to layers; an empty batch makes an empty layer."""

    def append(
        self, layer: str, wkb: Sequence[bytes], columns: Mapping[str, np.ndarray[Any, Any]], /
    ) -> None: ...


class VectorStore(Protocol):
    """Scratch files that all workers see, and the output. Can be pickled."""

    def put(self, name: str, content: bytes, /) -> None: ...
    def get(self, name: str, /) -> bytes: ...
    def spool(self) -> AbstractContextManager[Spool]: ...
    def writer(self, crs: str | None, /) -> AbstractContextManager[LayerWriter]: ...


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


def vectorize(
    source: ClassSource,
    layers: Sequence[Layer],
    store: VectorStore,
    mapper: Mapper,
    block_px: int = BLOCK_PX,
    context: Context = PLAIN,
    rules: GeneralizeRules | None = None,
) -> dict[str, int]:
    """Write the polygons of some classes; returns how many each layer has.

    block_px: most rows and columns of the windows that are read; decides memory, not the result. Rasters that are very
    wide are read in flatter ones. rules: what is too small to stay.
    With rules, or a layer that is a coverage, memory grows with the polygons of the raster.
    Raises SpecError for a block size below 1 px, SourceError where pixels cannot be read, OutputError where
    the output cannot be written.
    """
    if block_px < 1:
        raise SpecError(f"block size must be at least 1 px, got {block_px}")
    class_ids = tuple(sorted({i for layer in layers for i in layer.class_ids}))
    if rules is not None:  # a neighbor may be of any class
        class_ids = tuple(i for i in range(NODATA) if i != source.nodata)
    scene = source.grid.window
    rows = min(block_px, strip_px(scene.width))
    strips = [Window(row, 0, rows, scene.width).overlap(scene) for row in range(0, scene.height, rows)]
    described = any(layer.described for layer in layers)
    cut = partial(_described_block, source, context.confidence) if described else partial(_block, source)
    files = tuple(mapper(partial(polygonize_strip, cut, class_ids, block_px, store), strips))
    (counts,) = mapper(partial(join_strips, source.grid, tuple(layers), context, rules, store), [files])
    return counts


def polygonize_strip(
    cut: Callable[[Sequence[int], Window], Pieces],
    class_ids: Sequence[int],
    block_px: int,
    store: VectorStore,
    strip: Window,
) -> StripFile:
    """Polygonize one strip block by block, join its blocks, and keep the pieces in a scratch file."""
    cuts = range(strip.col, strip.col_end, block_px)
    blocks = [Window(strip.row, col, strip.height, block_px).overlap(strip) for col in cuts]
    pieces = join_blocks([cut(class_ids, block) for block in blocks], cuts[1:])
    name = f"strip_{strip.row:09d}.npz"
    store.put(name, pieces.to_bytes())
    return StripFile(name, strip, len(pieces), len(pieces.coords))


def _block(source: ClassSource, class_ids: Sequence[int], window: Window) -> Pieces:
    return polygonize_block(source.read(window), window, class_ids)


def _described_block(
    source: ClassSource, confidence: ClassSource | None, class_ids: Sequence[int], window: Window
) -> Pieces:
    scene = source.grid.window
    around = window.grow(1).overlap(scene)
    labels = source.read(around)
    if source.nodata is not None:
        labels = np.where(labels == source.nodata, np.uint8(NODATA), labels)
    pieces = polygonize_block(labels[window.within(around)], window, class_ids)
    percent = None if confidence is None else confidence.read(around)
    return describe(pieces, labels, percent, window, scene)


def join_strips(
    grid: GeoGrid,
    layers: Sequence[Layer],
    context: Context,
    rules: GeneralizeRules | None,
    store: VectorStore,
    strips: Sequence[StripFile],
) -> dict[str, int]:
    """Join strips, which come from top to bottom, and write the layers in scan order."""
    with store.spool() as spool, store.writer(grid.crs) as writer:
        closed, whole = _closed(grid, store, strips), None
        if rules is not None or any(layer.coverage for layer in layers):
            whole = generalized(tuple(closed), grid, rules)
            closed = batches(whole)
        for pieces in closed:
            rows, cols = pieces.first_pixels()
            spool.add(rows.tolist(), cols.tolist(), _found(pieces, grid))
        if context.aoi is not None:
            area = shapely.make_valid(context.aoi, method="structure", keep_collapsed=False)
            context = replace(context, aoi=area)
        return {layer.name: _write_layer(layer, grid, context, whole, spool, writer) for layer in layers}


def _closed(grid: GeoGrid, store: VectorStore, strips: Sequence[StripFile]) -> Iterator[Pieces]:
    """Polygons as no later strip can reach them any more."""
    joiner = StripJoiner(grid.window)
    for strip in strips:
        yield joiner.add(Pieces.from_bytes(store.get(strip.name)), strip.window)


def _found(closed: Pieces, grid: GeoGrid) -> list[Found]:
    columns = (
        closed.class_ids,
        closed.percents.means(len(closed)),
        closed.percents.percentiles(len(closed), LOW_PERCENT),
        closed.at_edge,
        shapely.to_wkb(closed.geometries(grid.transform)),
    )
    return [Found(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def _write_layer(
    layer: Layer, grid: GeoGrid, context: Context, whole: Pieces | None, spool: Spool, writer: LayerWriter
) -> int:
    (nothing,) = _drawn([[]], grid, replace(context, aoi=None))
    writer.append(layer.name, [], _columns(layer, grid, context, nothing))
    redrawn: Iterable[Outlines] = ()
    if layer.squared:
        redrawn = square(spool.traced(layer.class_ids), grid, context.aoi)
    elif layer.coverage and whole is not None:
        redrawn = coverage(whole, grid)
    spool.redraw(redrawn)
    count = 0
    # One thread measures the polygons that come next while this one writes.
    drawn_batches = _drawn(spool.read(layer.class_ids), grid, context)
    measured = threaded_map(partial(_measured, layer, grid, context), drawn_batches, threads=1)
    for drawn, columns in measured:
        writer.append(layer.name, drawn, columns)
        count += len(drawn)
    return count


class Drawn(NamedTuple):
    """Polygons as they are written. source: (polygon,), which of the batch each comes from."""

    wkb: list[bytes]
    polygons: Geometries
    batch: list[Found]
    source: Ints
    clipped: Bools


def _drawn(batches: Iterable[list[Found]], grid: GeoGrid, context: Context) -> Iterator[Drawn]:
    for batch in batches:
        wkb = [found.redrawn or found.wkb for found in batch]
        polygons: Geometries = shapely.from_wkb(wkb)
        source, clipped = np.arange(len(batch)), np.zeros(len(batch), np.bool_)
        if context.aoi is not None:
            polygons, source, clipped = clip(polygons, context.aoi, grid.transform)
            wkb = shapely.to_wkb(polygons).tolist()
        yield Drawn(wkb, polygons, batch, source, clipped)


def _measured(
    layer: Layer, grid: GeoGrid, context: Context, drawn: Drawn
) -> tuple[list[bytes], dict[str, np.ndarray[Any, Any]]]:
    return drawn.wkb, _columns(layer, grid, context, drawn)


def _columns(layer: Layer, grid: GeoGrid, context: Context, drawn: Drawn) -> dict[str, np.ndarray[Any, Any]]:
    """The fields of some polygons."""
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
