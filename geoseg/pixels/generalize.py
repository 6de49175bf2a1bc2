"""Generalizing the polygons of a class map: a minimum mapping unit, and holes filled.

Both look at all polygons of a raster at once, since what becomes of a polygon depends on its neighbors, and theirs.
While they work they take about 150 bytes for each corner of the outlines (2.2 kB for a polygon of 15 corners),
however many pixels the raster has. They follow from the map alone: the polygons come out as if the class raster had
been changed by the same rules and then polygonized, whatever the order and the blocks of those that went in.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from geoseg.errors import SpecError
from geoseg.legend import NODATA
from geoseg.pixels.noding import NodedRings, noded
from geoseg.pixels.outlines import joined
from geoseg.pixels.polygons import Bools, Ints, Pieces, starts_of
from geoseg.pixels.rings import dissolve, double_areas

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class GeneralizeRules:
    """What is too small to stay, by class id 0..254; a class that is not named keeps everything.

    min_area_m2: a polygon of the class that is smaller goes to a neighbor.
    min_hole_m2: a hole that is smaller, in a polygon of the class, is filled.
    Raises SpecError for what is no class id, and for areas that are negative or not finite.
    """

    min_area_m2: Mapping[int, float] = field(default_factory=dict)
    min_hole_m2: Mapping[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("min_area_m2", "min_hole_m2"):
            limits = dict(getattr(self, name))
            for class_id, area in limits.items():
                if not 0 <= class_id < NODATA:
                    raise SpecError(f"{name}: class id must lie in 0..254, got {class_id}")
                if not (math.isfinite(area) and area >= 0):
                    raise SpecError(f"{name}: the area for class {class_id} must be 0 m2 or more, got {area}")
            object.__setattr__(self, name, limits)


def generalize(pieces: Pieces, areas: Floats, rules: GeneralizeRules) -> Pieces:
    """Fill small holes, merge small polygons, and fill the holes that merging has closed.

    pieces: all polygons of a raster, nodata left out; in any order. areas: (polygon,) in square metres.
    Returns whole polygons in scan order of their first pixels: confidences added up, `at_edge` where any of their
    parts was. Nothing that is too small remains but polygons without neighbors and holes with nodata in them, and
    doing it again changes nothing. Holes come first, so that a polygon is compared with the minimum as it will be.
    Raises SpecError for areas that are not known (a raster without CRS has none).
    """
    pieces, areas = fill_holes(pieces, areas, rules)
    pieces, areas = merge_small(pieces, areas, rules)
    return fill_holes(pieces, areas, rules)[0]


def merge_small(pieces: Pieces, areas: Floats, rules: GeneralizeRules) -> tuple[Pieces, Floats]:
    """Give polygons that are too small to neighbors, in rounds, until none that has a neighbor is left.

    In a round each polygon below the minimum of its class points to the neighbor with the longest shared border, in
    pixel sides (a corner is no border), and of equal ones to the one whose first pixel comes first in scan order. All
    that pointers connect becomes one polygon, of the class of the member that is large enough, of which there is one at
    most; else of its largest member, again the first of equal ones. Then neighbors of one class that now touch become
    one too. Areas add up.
    Takes and raises what `generalize` does; returns polygons and their areas in scan order.
    """
    pieces, areas = _in_scan_order(pieces, areas)
    if not len(pieces):
        return pieces, areas
    least = _by_class(rules.min_area_m2)
    neighbors, whole = Neighbors.of(pieces, areas), np.arange(len(pieces))
    while len((pointers := neighbors.pointers(small := neighbors.areas < least[neighbors.class_ids]))[0]):
        neighbors, part = neighbors.unite(*pointers, small)
        whole = part[whole]
        neighbors, part = neighbors.unite(
            *neighbors.of_one_class(), neighbors.areas < least[neighbors.class_ids]
        )
        whole = part[whole]
    return replace(dissolve(pieces, whole), class_ids=neighbors.class_ids), neighbors.areas


def fill_holes(pieces: Pieces, areas: Floats, rules: GeneralizeRules) -> tuple[Pieces, Floats]:
    """Give all that lies in a hole that is too small to the polygon around it.

    A hole is what a polygon encloses along pixel sides; two that touch at a corner are two. Of holes within holes the
    outermost that is too small decides. Nodata is never filled, and a hole in which some lies is left as it is,
    since neither what is there is known nor how large it is.
    Takes and raises what `generalize` does; returns polygons and their areas in scan order.
    """
    pieces, areas = _in_scan_order(pieces, areas)
    if not len(pieces):
        return pieces, areas
    double_px = double_areas(pieces.coords, np.diff(pieces.ring_starts))
    pixels = np.abs(np.add.reduceat(double_px, pieces.polygon_starts[:-1])) / 2
    rings = noded(pieces)
    around, owner = _holes_around(rings), rings.polygon_of_ring

    held_px, held_m2 = np.zeros((2, len(double_px)))
    for inside, hole in _outwards(around, owner):
        held_px += np.bincount(hole, pixels[inside], len(double_px))
        held_m2 += np.bincount(hole, areas[inside], len(double_px))
    full = held_px == np.abs(double_px) / 2
    fills = full & (held_m2 < _by_class(rules.min_hole_m2)[pieces.class_ids[owner]])

    whole = np.arange(len(pieces))
    for inside, hole in _outwards(around, owner):
        filled = fills[hole]
        whole[inside[filled]] = owner[hole[filled]]
    whole = np.unique(whole, return_inverse=True)[1]
    return dissolve(pieces, whole), _total(areas, whole)


class Neighbors(NamedTuple):
    """Polygons in scan order of their first pixels, and which of them share pixel sides.

    class_ids, areas: (polygon,). first, second: (border,) positions of two polygons, the lower first; no pair occurs
    twice. length: (border,) pixel sides.
    """

    class_ids: npt.NDArray[np.uint8]
    areas: Floats
    first: Ints
    second: Ints
    length: Ints

    @classmethod
    def of(cls, pieces: Pieces, areas: Floats) -> Neighbors:
        rings = noded(pieces)
        polygon = rings.polygon_of_ring[rings.ring_of_side]
        first, second = rings.twins()
        borders = _summed(polygon[first], polygon[second], rings.lengths(first))
        return cls(pieces.class_ids, areas, *borders)

    def pointers(self, small: Bools) -> tuple[Ints, Ints]:
        """Polygons of a mask that have neighbors, and the neighbor with the longest border of each."""
        source, target = np.concatenate([[self.first, self.second], [self.second, self.first]], axis=1)
        length = np.concatenate([self.length, self.length])
        source, target, length = source[small[source]], target[small[source]], length[small[source]]
        order = np.lexsort((target, -length, source))
        source, target = source[order], target[order]
        best = np.flatnonzero(np.diff(source, prepend=-1))
        return source[best], target[best]

    def of_one_class(self) -> tuple[Ints, Ints]:
        """Pairs of neighbors that have one class."""
        same = self.class_ids[self.first] == self.class_ids[self.second]
        return self.first[same], self.second[same]

    def unite(self, first: Ints, second: Ints, small: Bools) -> tuple[Neighbors, Ints]:
        """The polygons after some pairs were joined, and which of them each polygon is now part of: (polygon,).

        small: (polygon,), those that give their class only where all do.
        """
        part = joined(len(self.areas), first, second)
        _, leader, part = np.unique(part, return_index=True, return_inverse=True)
        part = np.argsort(np.argsort(leader))[part]
        by_size = np.lexsort((-self.areas, small, part))  # stable: equal ones stay in scan order
        largest = by_size[starts_of(np.bincount(part))[:-1]]
        borders = _summed(part[self.first], part[self.second], self.length)
        return Neighbors(self.class_ids[largest], _total(self.areas, part), *borders), part


def _total(areas: Floats, part: Ints) -> Floats:
    """Areas added up, in the order given: (part,). part: (polygon,) from 0 up."""
    return np.bincount(part, areas).astype(np.float64)


def _summed(first: Ints, second: Ints, length: Ints) -> tuple[Ints, Ints, Ints]:
    """Each pair of different things once, the lower first, with its lengths added up."""
    low, high = np.minimum(first, second), np.maximum(first, second)
    apart = low < high
    base = int(high.max(initial=0)) + 1
    pairs, place = np.unique(low[apart] * base + high[apart], return_inverse=True)
    total = np.bincount(place, length[apart], len(pairs)).astype(np.int64)
    return pairs // base, pairs % base, total


def _holes_around(rings: NodedRings) -> Ints:
    """The ring in whose hole each polygon lies, where one is known: (polygon,); -1 for none.

    Polygons that share a side of their exteriors lie in the same hole. One that only nodata divides from the polygon
    around it gets none: its hole is not filled anyway.
    """
    owner, ring = rings.polygon_of_ring, rings.ring_of_side
    is_exterior = np.zeros(len(owner), np.bool_)
    is_exterior[rings.polygon_starts[:-1]] = True
    first, second = (ring[sides] for sides in rings.twins())
    level = is_exterior[first] & is_exterior[second]
    cluster = joined(len(rings.polygon_starts) - 1, owner[first[level]], owner[second[level]])
    first, second = first[~level], second[~level]
    inside, hole = np.where(is_exterior[first], [first, second], [second, first])
    around = np.full(len(rings.polygon_starts) - 1, -1)
    around[cluster[owner[inside]]] = hole
    return around[cluster]


def _outwards(around: Ints, owner: Ints) -> Iterator[tuple[Ints, Ints]]:
    """Polygons and the hole that each lies in; then the holes around those holes, and so on, outwards.

    around: (polygon,) the ring of that hole, or -1. owner: (ring,) the polygon that a ring is of.
    """
    inside = np.flatnonzero(around >= 0)
    hole = around[inside]
    while len(inside):
        yield inside, hole
        hole = around[owner[hole]]
        inside, hole = inside[hole >= 0], hole[hole >= 0]


def _in_scan_order(pieces: Pieces, areas: Floats) -> tuple[Pieces, Floats]:
    areas = np.asarray(areas, np.float64)
    if areas.shape != (len(pieces),):
        raise SpecError(f"{len(pieces)} polygons need as many areas, got {areas.size}")
    if not (np.isfinite(areas) & (areas > 0)).all():
        raise SpecError(
            "polygons whose area in m2 is not known cannot be generalized; give the raster a projected or "
            "geographic CRS"
        )
    rows, cols = pieces.first_pixels()
    order = np.lexsort((cols, rows))
    return pieces.take(order), areas[order]


def _by_class(limits: Mapping[int, float]) -> Floats:
    """A limit for each class id: (256,); 0 where none is given."""
    found = np.zeros(256)
    found[list(limits)] = list(limits.values())
    return found
