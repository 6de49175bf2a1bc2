"""From a class raster to polygons of whole objects.

The raster is cut into strips (full-width rows of blocks). Strips are polygonized side by side, each into one
scratch file; then one task joins them from top to bottom and writes the layers. Nothing is simplified or
filtered before the join, so the polygons are those of the uncut raster, for any block size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import shapely

from geoseg.errors import SpecError
from geoseg.grid.geogrid import GeoGrid
from geoseg.grid.window import Window
from geoseg.legend import NODATA
from geoseg.parallel import threaded_map
from geoseg.pixels.generalize import GeneralizeRules
from geoseg.pixels.polygons import Pieces, describe, polygonize_block
from geoseg.pixels.seams import StripJoiner, join_blocks
from geoseg.stages.layers import PLAIN, Context, Drawn, Found, Layer, columns_of, draw
from geoseg.stages.protocols import ClassSource, Mapper
from geoseg.stages.square import Outlines, square
from geoseg.stages.whole import batches, coverage, generalized

BLOCK_PX = 2048
STRIP_AREA_PX = 8_000_000
LOW_PERCENT = 10


def strip_px(width: int) -> int:
    """Height of the strips of a raster, so that a strip of a very wide one still fits into memory."""
    return max(256, min(BLOCK_PX, STRIP_AREA_PX // width))


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
    (nothing,) = draw([[]], grid, replace(context, aoi=None))
    writer.append(layer.name, [], columns_of(layer, grid, context, nothing))
    redrawn: Iterable[Outlines] = ()
    if layer.squared:
        redrawn = square(spool.traced(layer.class_ids), grid, context.aoi)
    elif layer.coverage and whole is not None:
        redrawn = coverage(whole, grid)
    spool.redraw(redrawn)
    count = 0
    # One thread measures the polygons that come next while this one writes.
    drawn_batches = draw(spool.read(layer.class_ids), grid, context)
    measured = threaded_map(partial(_measured, layer, grid, context), drawn_batches, threads=1)
    for drawn, columns in measured:
        writer.append(layer.name, drawn, columns)
        count += len(drawn)
    return count


def _measured(
    layer: Layer, grid: GeoGrid, context: Context, drawn: Drawn
) -> tuple[list[bytes], dict[str, np.ndarray[Any, Any]]]:
    return drawn.wkb, columns_of(layer, grid, context, drawn)
