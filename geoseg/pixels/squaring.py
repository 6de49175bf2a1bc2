"""Building footprints with straight walls and right angles, from polygons traced along pixel sides.

Method: squaring along the dominant direction of a building, as map generalization does it: thin the outline (Douglas
and Peucker 1973), find the direction by a histogram of wall directions modulo 90 degrees, weighted by length
(statistical weighting of walls, Duchene et al. 2003), turn each wall into that direction or its normal about the mean
of the pixel sides it stands for, join walls that a short jog parts, and meet the others in corners. Walls move by
moving the points that polygons share, so that a wall between two houses stays one wall.
"""

from __future__ import annotations

import numpy as np
import shapely

from geoseg.errors import SpecError
from geoseg.pixels.outlines import trace
from geoseg.pixels.polygons import Bools, Geometries, Ints
from geoseg.pixels.snapping import squared
from geoseg.pixels.thinning import thin

TOLERANCE_PX = 1.25
"""A traced straight wall strays from its line by up to a pixel; more than that is shape."""
OVERLAP_M2 = 1e-7
SAME_PX = 1e-6


def square_footprints(
    polygons: Geometries, pixel_m: float, guard_iou: float = 0.85
) -> tuple[Geometries, Bools]:
    """Building footprints squared to their dominant directions, and which of them were changed.

    polygons: (polygon,) valid shapely Polygons in metres, traced along pixel sides; they may touch, not overlap.
    pixel_m: the pixel side in metres. guard_iou: the least IoU of a changed polygon with its raw one.
    Returns one valid Polygon for each, in their order, with as many holes, and a (polygon,) mask.
    Houses that share walls have one direction and go together: all squared, or all only thinned, or all left
    raw, whichever comes first that is valid, keeps the guard for each of them, and overlaps no neighbor. Of
    two groups that would overlap both step back, so that the order of the polygons decides nothing.
    Raises SpecError for a pixel side that is not above 0, or a guard outside 0..1.
    """
    if not (np.isfinite(pixel_m) and pixel_m > 0):
        raise SpecError(f"pixel side must be above 0 m, got {pixel_m}")
    if not 0 <= guard_iou <= 1:
        raise SpecError(f"guard IoU must lie in 0..1, got {guard_iou}")
    if not len(polygons):
        return polygons.copy(), np.zeros(0, np.bool_)
    order = _scan_order(polygons)
    raw = polygons[order]
    outlines = trace(raw, pixel_m)
    thinned = outlines.keep(thin(outlines, TOLERANCE_PX)[outlines.walk])
    moved, places = squared(outlines, thinned)
    rungs = [moved.polygons(places, pixel_m), thinned.polygons(thinned.points, pixel_m), raw]
    chosen = _first_that_fits(rungs, outlines.group, guard_iou)
    same = shapely.get_num_coordinates(chosen) == shapely.get_num_coordinates(raw)
    same[same] = shapely.hausdorff_distance(chosen[same], raw[same]) < SAME_PX * pixel_m
    results, changed = np.empty_like(polygons), np.empty(len(polygons), np.bool_)
    results[order] = np.where(same, raw, chosen)
    changed[order] = ~same
    return results, changed


def _scan_order(polygons: Geometries) -> Ints:
    """From left to right by the leftmost, lowest corner, which no two polygons share, so that sums round alike."""
    x, y = shapely.get_coordinates(
        shapely.get_point(shapely.get_exterior_ring(shapely.normalize(polygons)), 0)
    ).T
    return np.lexsort((y, x))


def _keeps(raw: Geometries, changed: Geometries, guard_iou: float) -> Bools:
    """Which changed polygons are valid and near enough to the raw ones: (polygon,)."""
    fits: Bools = shapely.is_valid(changed)
    both = shapely.area(shapely.intersection(raw[fits], changed[fits]))
    either = shapely.area(raw[fits]) + shapely.area(changed[fits]) - both
    fits[fits] = both >= guard_iou * either
    return fits


def _first_that_fits(rungs: list[Geometries], group: Ints, guard_iou: float) -> Geometries:
    """The polygons of each group from the first rung that fits all of them and overlaps no other group.

    rungs: (polygon,) each, from the most wanted to the raw polygons, which need not fit. group: (polygon,).
    """
    last = len(rungs) - 1
    rung = np.zeros(int(group.max()) + 1, np.int64)
    chosen, moved = rungs[0].copy(), np.arange(len(group))
    while len(moved):
        stepping = moved
        while len(stepping):
            bad = group[stepping[~_keeps(rungs[last][stepping], chosen[stepping], guard_iou)]]
            stepping = _step(rungs, rung, chosen, group, bad)
        moved = _step(rungs, rung, chosen, group, group[_overlapping(chosen, moved)])
    return chosen


def _step(rungs: list[Geometries], rung: Ints, chosen: Geometries, group: Ints, bad: Ints) -> Ints:
    """Move bad groups to their next rung, but those on the last: changes `rung` and `chosen`, returns who moved."""
    steps = np.zeros(len(rung), np.bool_)
    steps[bad] = True
    steps &= rung < len(rungs) - 1
    rung[steps] += 1
    moved = np.flatnonzero(steps[group])
    for number, polygons in enumerate(rungs):
        here = moved[rung[group[moved]] == number]
        chosen[here] = polygons[here]
    return moved


def _overlapping(polygons: Geometries, moved: Ints) -> Ints:
    """Positions of polygons that overlap another one, if one of the two was moved."""
    first, second = shapely.STRtree(polygons).query(polygons[moved], predicate="intersects")
    first = moved[first]
    first, second = first[first != second], second[first != second]
    deep = shapely.area(shapely.intersection(polygons[first], polygons[second])) > OVERLAP_M2
    return np.concatenate([first[deep], second[deep]])
