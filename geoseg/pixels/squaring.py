"""Building footprints with straight walls and right angles, from polygons traced along pixel sides.

Method: squaring along the dominant direction of a building, as map generalization does it: thin the outline (Douglas
and Peucker 1973), find the direction by a histogram of wall directions modulo 90 degrees, weighted by length
(statistical weighting of walls, Duchene et al. 2003), turn each wall into that direction or its normal about the mean
of the pixel sides it stands for, join walls that a short jog parts, and meet the others in corners. Walls move by
moving the points that polygons share, so that a wall between two houses stays one wall.
"""

from __future__ import annotations

import numpy as np

from geoseg.errors import SpecError
from geoseg.pixels.clashes import clashes_of, resolve
from geoseg.pixels.frames import Frame
from geoseg.pixels.ladder import GUARD_IOU, Rung, ladder_of
from geoseg.pixels.polygons import Bools, Geometries, Ints


def square_footprints(
    polygons: Geometries, pixel_m: float, guard_iou: float = GUARD_IOU
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
    ladder = ladder_of(polygons, Frame(1 / pixel_m, 0.0, 1 / pixel_m), guard_iou)
    clashes = clashes_of(polygons, ladder.group, ladder.rungs, pixel_m)
    return taken(polygons, ladder.group, ladder.rungs, resolve(ladder.group, ladder.rungs, clashes))


def taken(raw: Geometries, group: Ints, rungs: tuple[Rung, ...], chosen: Ints) -> tuple[Geometries, Bools]:
    """The polygons on the rung that each group has chosen, and which of them were changed.

    group: (polygon,). chosen: (group,), len(rungs) for raw polygons.
    """
    polygons, changed = raw.copy(), np.zeros(len(raw), np.bool_)
    for number, rung in enumerate(rungs):
        here = (chosen[group] == number) & rung.changed
        polygons[here] = rung.polygons[here]
        changed |= here
    return polygons, changed
