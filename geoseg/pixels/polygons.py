"""Polygons of class rasters, exact, in pixel coordinates of the whole raster.

Two pixels belong to one polygon where they have the same class and share a side (4-connectivity); a shared
corner does not join them. Coordinates are (col, row) of pixel corners, whole numbers.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from rasterio.features import shapes
from scipy import ndimage

from geoseg.grid.window import Window
from geoseg.legend import NODATA
from geoseg.pixels.tally import NONE, Tally

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Geometries = npt.NDArray[np.object_]
Labels = npt.NDArray[np.uint8]

BATCH = 1_000
"""Polygons that are Python objects at one time: a kilobyte each, ten times what they take as arrays."""


@dataclass(frozen=True, eq=False)
class Pieces:
    """Polygons, or parts of polygons that a seam has cut, as ragged arrays; owns them.

    class_ids: (polygon,) uint8.
    coords: (vertex, 2) int32, (col, row) of pixel corners; rings are closed (the last vertex repeats the
    first) and have no vertex on a straight line.
    ring_starts: (ring + 1,) int64, where each ring starts in `coords`, and the end.
    polygon_starts: (polygon + 1,) int64, where each polygon starts in the rings; its exterior comes first.
    All exteriors run the same way around, and all holes run the other way.
    percents: how many pixels have each confidence, where that is known.
    at_edge: (polygon,), whether a pixel lies beside nodata or the raster's end.
    """

    class_ids: npt.NDArray[np.uint8]
    coords: npt.NDArray[np.int32]
    ring_starts: Ints
    polygon_starts: Ints
    percents: Tally
    at_edge: Bools

    @classmethod
    def of_counts(
        cls,
        class_ids: npt.ArrayLike,
        coords: npt.ArrayLike,
        vertices_per_ring: npt.ArrayLike,
        rings_per_polygon: npt.ArrayLike,
        percents: Tally = NONE,
        at_edge: Bools | None = None,
    ) -> Pieces:
        ids = np.asarray(class_ids, np.uint8)
        return cls(
            ids,
            np.asarray(coords, np.int32).reshape(-1, 2),
            starts_of(vertices_per_ring),
            starts_of(rings_per_polygon),
            percents,
            np.zeros(len(ids), np.bool_) if at_edge is None else at_edge,
        )

    @classmethod
    def concat(cls, parts: Iterable[Pieces]) -> Pieces:
        """All polygons of some pieces, in their order; empty without parts."""
        parts = [EMPTY, *parts]
        return cls.of_counts(
            np.concatenate([p.class_ids for p in parts]),
            np.concatenate([p.coords for p in parts]),
            np.concatenate([np.diff(p.ring_starts) for p in parts]),
            np.concatenate([np.diff(p.polygon_starts) for p in parts]),
            Tally.concat((p.percents, len(p)) for p in parts),
            np.concatenate([p.at_edge for p in parts]),
        )

    def __len__(self) -> int:
        return len(self.class_ids)

    def take(self, index: Ints | Bools) -> Pieces:
        """Copies of some polygons: by position, or by a mask."""
        polygons = np.flatnonzero(index) if index.dtype == np.bool_ else np.asarray(index, np.int64)
        ring_counts = np.diff(self.polygon_starts)[polygons]
        rings = spans(self.polygon_starts[polygons], ring_counts)
        vertex_counts = np.diff(self.ring_starts)[rings]
        coords = self.coords[spans(self.ring_starts[rings], vertex_counts)]
        return Pieces.of_counts(
            self.class_ids[polygons],
            coords,
            vertex_counts,
            ring_counts,
            self.percents.take(polygons),
            self.at_edge[polygons],
        )

    def first_pixels(self) -> tuple[Ints, Ints]:
        """Row and column of each polygon's first pixel in scan order: of its top row the leftmost pixel.

        No two polygons of a raster share it, so it names a polygon whatever the blocks were.
        """
        if not len(self):
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        # The exterior alone decides; its top left corner is a vertex.
        exteriors = self.polygon_starts[:-1]
        counts = np.diff(self.ring_starts)[exteriors]
        col, row = self.coords[spans(self.ring_starts[exteriors], counts)].T.astype(np.int64)
        starts = starts_of(counts)[:-1]
        top = np.minimum.reduceat(row, starts)
        on_top = np.where(row == np.repeat(top, counts), col, np.iinfo(np.int64).max)
        return top, np.minimum.reduceat(on_top, starts)

    def geometries(self, transform: Affine | None = None) -> Geometries:
        """The polygons as normalized shapely geometries: (polygon,), in pixel or in map coordinates."""
        points = self.coords.astype(np.float64)
        if transform is not None:
            points = apply(transform, points)
        offsets = (self.ring_starts, self.polygon_starts)
        polygons: Geometries = shapely.from_ragged_array(shapely.GeometryType.POLYGON, points, offsets)
        return np.asarray(shapely.normalize(polygons), dtype=object)

    def to_bytes(self) -> bytes:
        buffer = io.BytesIO()
        np.savez(
            buffer,
            class_ids=self.class_ids,
            coords=self.coords,
            ring_starts=self.ring_starts,
            polygon_starts=self.polygon_starts,
            percents=np.stack([self.percents.owner, self.percents.value, self.percents.count]),
            at_edge=self.at_edge,
        )
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Pieces:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            rings = arrays["class_ids"], arrays["coords"], arrays["ring_starts"], arrays["polygon_starts"]
            return cls(*rings, Tally(*arrays["percents"]), arrays["at_edge"])


def apply(transform: Affine, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(point, 2) moved by a transform, with the very bits of GDAL's polygonizer, which adds in this order."""
    x, y = points.T
    t = transform
    return np.column_stack([t.c + t.a * x + t.b * y, t.f + t.d * x + t.e * y])


def starts_of(counts: npt.ArrayLike) -> Ints:
    """Where each of some runs starts, and the end: (run + 1,)."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def spans(starts: Ints, counts: Ints) -> Ints:
    """starts[0], starts[0] + 1, ... counts[0] of them, then those of starts[1], and so on."""
    ends = np.cumsum(counts, dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(starts - (ends - counts), counts) + np.arange(total, dtype=np.int64)


EMPTY = Pieces.of_counts((), (), (), ())


def polygonize_block(labels: npt.NDArray[np.uint8], window: Window, class_ids: Sequence[int]) -> Pieces:
    """The polygons of some classes in one block, cut at the block's sides.

    labels: (row, col) uint8, what the raster holds in `window`. Other classes, and nodata, are left out.
    """
    wanted = np.zeros(256, np.uint8)
    wanted[list(class_ids)] = 1
    mask = wanted[labels]
    if not mask.any():
        return EMPTY
    # Shifted by a pixel and back: GDAL warns of rasters that have no geotransform.
    found = shapes(np.ascontiguousarray(labels), mask, connectivity=4, transform=Affine.translation(1, 1))
    parts = []
    while some := list(islice(found, BATCH)):
        polygons = [geometry["coordinates"] for geometry, _ in some]
        rings = list(chain.from_iterable(polygons))
        coords = np.fromiter(chain.from_iterable(chain.from_iterable(rings)), np.int32).reshape(-1, 2)
        coords += np.array([window.col - 1, window.row - 1], np.int32)
        ids = [value for _, value in some]
        parts.append(Pieces.of_counts(ids, coords, [len(r) for r in rings], [len(p) for p in polygons]))
    return Pieces.concat(parts)


def describe(pieces: Pieces, labels: Labels, percent: Labels | None, window: Window, scene: Window) -> Pieces:
    """The pieces of a block with what their pixels tell: confidence, and whether they end at an edge.

    pieces: as polygonize_block gives them for `window`. labels, percent: (row, col) uint8 of `window` and the pixels
    around it, as far as they lie in the raster `scene`; 255 is nodata in both.
    """
    if not len(pieces):
        return pieces
    around = window.grow(1).overlap(scene)
    core = window.within(around)
    owner = _owners(pieces, labels[core], window)
    inside = owner >= 0
    framed = np.pad(
        labels == NODATA, 1, constant_values=True
    )  # beyond what was read lies the end of the raster
    beside = framed[:-2, 1:-1] | framed[2:, 1:-1] | framed[1:-1, :-2] | framed[1:-1, 2:]
    at_edge = np.zeros(len(pieces), np.bool_)
    at_edge[owner[inside & beside[core]]] = True
    percents = NONE
    if percent is not None:
        known = inside & (percent[core] != NODATA)
        percents = Tally.of(owner[known], percent[core][known])
    return replace(pieces, percents=percents, at_edge=at_edge)


def _owners(pieces: Pieces, labels: Labels, window: Window) -> Ints:
    """Which piece each pixel belongs to: (row, col); -1 for none."""
    owner = np.full(labels.shape, -1, np.int64)
    rows, cols = pieces.first_pixels()
    first = rows - window.row, cols - window.col
    for class_id in np.unique(pieces.class_ids).tolist():
        parts, count = ndimage.label(labels == class_id)  # 4-connected, as the polygons are
        mine = np.flatnonzero(pieces.class_ids == class_id)
        number = np.full(count + 1, -1, np.int64)
        number[parts[first[0][mine], first[1][mine]]] = mine
        np.copyto(owner, number[parts], where=parts > 0)
    return owner
