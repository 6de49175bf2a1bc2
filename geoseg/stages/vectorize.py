"""From a class raster to polygons of whole objects.

The raster is cut into strips (full-width rows of blocks). Strips are polygonized side by side, each into one
scratch file; then one task joins them from top to bottom and writes the layers. Nothing is simplified or
filtered before the join, so the polygons are those of the uncut raster, for any block size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import shapely

from geoseg.errors import SpecError
from geoseg.grid.geogrid import GeoGrid
from geoseg.grid.window import Window
from geoseg.legend import NODATA, ROLES, Legend
from geoseg.pixels.footprints import clip, geodesic_areas_m2
from geoseg.pixels.polygons import Geometries, Pieces, polygonize_block
from geoseg.pixels.seams import StripJoiner, join_blocks
from geoseg.stages.protocols import ClassSource, Mapper

BLOCK_PX = 2048
STRIP_AREA_PX = 8_000_000
LAYER_OF_ROLE = {"building": "buildings", "road": "roads"}
RAW_LAYER = "polygons"


def strip_px(width: int) -> int:
    """Height of the strips of a raster, so that a strip of a very wide one still fits into memory."""
    return max(256, min(BLOCK_PX, STRIP_AREA_PX // width))


@dataclass(frozen=True)
class Layer:
    """A layer of the output.

    classes: ids with names, None where unknown.
    tells_clipped: whether it says which polygons an area of interest has cut.
    """

    name: str
    classes: tuple[tuple[int, str | None], ...]
    tells_clipped: bool = True

    @property
    def class_ids(self) -> tuple[int, ...]:
        return tuple(class_id for class_id, _ in self.classes)


@dataclass(frozen=True)
class StripFile:
    """Name of a scratch file with the polygons of one strip, the strip's place, and what is in it."""

    name: str
    window: Window
    polygons: int
    vertices: int


class Spool(Protocol):
    """Brings polygons into scan order."""

    def add(
        self, rows: Sequence[int], cols: Sequence[int], class_ids: Sequence[int], wkb: Sequence[bytes], /
    ) -> None: ...
    def read(self, class_ids: Sequence[int], /) -> Iterator[tuple[list[int], list[bytes]]]: ...


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
    """One layer per role, for the classes that play it; a layer without classes stays empty."""
    return tuple(
        Layer(LAYER_OF_ROLE[role], tuple((c.id, c.name) for c in legend.of_role(role))) for role in ROLES
    )


def raw_layers(legend: Legend | None, nodata: int | None) -> tuple[Layer, ...]:
    """One layer with all classes but nodata. Without a legend the names are null."""
    names: dict[int, str] = {c.id: c.name for c in legend.classes} if legend else {}
    classes = tuple((i, names.get(i)) for i in range(NODATA) if i != nodata)
    return (Layer(RAW_LAYER, classes, tells_clipped=False),)


def vectorize(
    source: ClassSource,
    layers: Sequence[Layer],
    store: VectorStore,
    mapper: Mapper,
    block_px: int = BLOCK_PX,
    aoi: shapely.Geometry | None = None,
) -> dict[str, int]:
    """Write the polygons of some classes; returns how many each layer has.

    block_px: side of the windows that are read; decides memory, not the result.
    aoi: (multi)polygon in the raster's CRS; what sticks out of it is cut off.
    Raises SpecError for a block size below 1 px, SourceError where pixels cannot be read, OutputError where
    the output cannot be written.
    """
    if block_px < 1:
        raise SpecError(f"block size must be at least 1 px, got {block_px}")
    class_ids = tuple(sorted({i for layer in layers for i in layer.class_ids}))
    scene = source.grid.window
    strips = [
        Window(row, 0, block_px, scene.width).overlap(scene) for row in range(0, scene.height, block_px)
    ]
    task = partial(polygonize_strip, source, class_ids, block_px, store)
    files = tuple(mapper(task, strips))
    (counts,) = mapper(partial(join_strips, source.grid, tuple(layers), aoi, store), [files])
    return counts


def polygonize_strip(
    source: ClassSource, class_ids: Sequence[int], block_px: int, store: VectorStore, strip: Window
) -> StripFile:
    """Polygonize one strip block by block, join its blocks, and keep the pieces in a scratch file."""
    cuts = range(strip.col, strip.col_end, block_px)
    blocks = [Window(strip.row, col, strip.height, block_px).overlap(strip) for col in cuts]
    pieces = join_blocks([polygonize_block(source.read(b), b, class_ids) for b in blocks], cuts[1:])
    name = f"strip_{strip.row:09d}.npz"
    store.put(name, pieces.to_bytes())
    return StripFile(name, strip, len(pieces), len(pieces.coords))


def join_strips(
    grid: GeoGrid,
    layers: Sequence[Layer],
    aoi: shapely.Geometry | None,
    store: VectorStore,
    strips: Sequence[StripFile],
) -> dict[str, int]:
    """Join strips, which come from top to bottom, and write the layers in scan order."""
    joiner = StripJoiner(grid.window)
    with store.spool() as spool, store.writer(grid.crs) as writer:
        for strip in strips:
            closed = joiner.add(Pieces.from_bytes(store.get(strip.name)), strip.window)
            rows, cols = closed.first_pixels()
            wkb = shapely.to_wkb(closed.geometries(grid.transform))
            spool.add(rows.tolist(), cols.tolist(), closed.class_ids.tolist(), wkb.tolist())
        if aoi is not None:
            aoi = shapely.make_valid(aoi, method="structure", keep_collapsed=False)
        return {layer.name: _write_layer(layer, grid, aoi, spool, writer) for layer in layers}


def _write_layer(
    layer: Layer, grid: GeoGrid, aoi: shapely.Geometry | None, spool: Spool, writer: LayerWriter
) -> int:
    columns_of: Callable[..., dict[str, np.ndarray[Any, Any]]] = partial(_columns, layer, grid)
    nothing = np.zeros(0, dtype=object)
    writer.append(layer.name, [], columns_of(nothing, np.zeros(0, np.int32), np.zeros(0, np.bool_)))
    count = 0
    for ids, wkb in spool.read(layer.class_ids):
        polygons: Geometries = shapely.from_wkb(np.array(wkb, dtype=object))
        class_ids = np.array(ids, np.int32)
        clipped = np.zeros(len(polygons), np.bool_)
        if aoi is not None:
            polygons, whole, clipped = clip(polygons, aoi, grid.transform)
            class_ids = class_ids[whole]
        writer.append(layer.name, shapely.to_wkb(polygons).tolist(), columns_of(polygons, class_ids, clipped))
        count += len(polygons)
    return count


def _columns(
    layer: Layer,
    grid: GeoGrid,
    polygons: Geometries,
    class_ids: np.ndarray[Any, Any],
    clipped: np.ndarray[Any, Any],
) -> dict[str, np.ndarray[Any, Any]]:
    names = dict(layer.classes)
    columns = {
        "class_id": class_ids,
        "class_name": np.array([names[i] for i in class_ids.tolist()], dtype=object),
        "area_m2": geodesic_areas_m2(polygons, grid.crs, grid.transform),
    }
    return columns | {"clipped": clipped} if layer.tells_clipped else columns
