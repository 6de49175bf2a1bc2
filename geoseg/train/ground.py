"""Whether scenes of different splits show the same ground: scores would then tell what was learned by heart."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import shapely
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError, ProjError
from shapely.geometry.base import BaseGeometry

from geoseg.errors import SpecError
from geoseg.grid.geogrid import GeoGrid
from geoseg.io.regions import NamedPolygon
from geoseg.pixels.burn import apply
from geoseg.train.config import Split

LOG = logging.getLogger(__name__)
LEAST_OVERLAP_PX = 0.5
"""Footprints that overlap by a narrower strip only touch: map coordinates are rounded."""
POINTS_PER_SIDE = 32
"""Of an outline that is brought into another CRS, where straight lines bend."""
WGS84 = CRS.from_epsg(4326)


@dataclass(frozen=True)
class Ground:
    """What a scene shows. held_out: its regions for validation, in its CRS."""

    path: str
    grid: GeoGrid
    split: Split
    held_out: tuple[NamedPolygon, ...] = ()


def check_ground(scenes: Sequence[Ground]) -> None:
    """SpecError where ground lies on both sides of a split, by the footprints of scenes.

    Scenes of two splits may not overlap, and no training scene may show a region that another one holds out
    (unless it holds it out itself). Only footprints are compared, through a tree; a scene whose CRS is missing
    or has no place on the earth is passed over with a warning.
    """
    boxes = [_lonlat_box(scene) for scene in scenes]
    placed = [(scene, box) for scene, box in zip(scenes, boxes, strict=True) if box is not None]
    near = np.array([box for _, box in placed], dtype=object)
    pairs = shapely.STRtree(near).query(near, predicate="intersects").T
    for first, second in sorted((int(a), int(b)) for a, b in pairs if a < b):
        (a, box_a), (b, box_b) = placed[first], placed[second]
        if a.split == b.split and not (a.held_out or b.held_out):
            continue
        _check_pair(a, b, a.grid if box_a.area >= box_b.area else b.grid)


def _check_pair(a: Ground, b: Ground, frame: GeoGrid) -> None:
    """frame: the grid in whose columns and rows both are compared."""
    outline_a, outline_b = (_brought(outline(s.grid), s.grid, frame) for s in (a, b))
    if a.split != b.split:
        shared = shapely.intersection(outline_a, outline_b)
        if _is_wide(shared):
            share = shared.area / min(outline_a.area, outline_b.area)
            raise SpecError(
                f"is in split {a.split} but shows ground of {b.path} (split {b.split}; {100 * share:.2g} % of the "
                "smaller one): scores would leak; put both in one split (what georeferencing does not tell, one group "
                "does), or say nominal: true of a scene whose georeferencing is not to be believed",
                a.path,
            )
        return
    for one, other, shown in ((a, b, outline_b), (b, a, outline_a)):
        kept = [_brought(p.geometry, other.grid, frame) for p in other.held_out]
        trained = shapely.difference(shown, shapely.union_all(kept))
        for region in one.held_out:
            if _is_wide(shapely.intersection(_brought(region.geometry, one.grid, frame), trained)):
                raise SpecError(
                    f"shows ground of {region.name!r}, a validation region of {one.path}, and is trained on: scores "
                    "would leak; choose another region, hold it out here, too, or say nominal: true of a scene "
                    "whose georeferencing is not to be believed",
                    other.path,
                )


def _is_wide(shared: BaseGeometry) -> bool:
    """Whether ground, in pixels, is more than a strip along an edge."""
    return not shapely.is_empty(shapely.buffer(shared, -LEAST_OVERLAP_PX / 2, join_style="mitre"))


def outline(grid: GeoGrid) -> BaseGeometry:
    """The footprint of a grid in its CRS, a polygon with points along its sides."""
    steps = np.linspace(0, 1, POINTS_PER_SIDE, endpoint=False)
    ends = np.array([(0, 0), (grid.width, 0), (grid.width, grid.height), (0, grid.height), (0, 0)], float)
    sides = [start + steps[:, None] * (end - start) for start, end in pairwise(ends)]
    return shapely.Polygon(apply(grid.transform, np.concatenate(sides)))


def _brought(geometry: BaseGeometry, grid: GeoGrid, frame: GeoGrid) -> BaseGeometry:
    """From the CRS of `grid` to columns and rows of `frame`; valid, and empty where it has no place there."""
    source, target = (CRS.from_wkt(g.crs or "") for g in (grid, frame))
    if not source.equals(target, ignore_axis_order=True):
        left, bottom, right, top = geometry.bounds
        geometry = shapely.segmentize(geometry, max(right - left, top - bottom) / POINTS_PER_SIDE)
        to_frame = Transformer.from_crs(source, target, always_xy=True)
        geometry = shapely.transform(geometry, lambda xy: np.column_stack(to_frame.transform(*xy.T)))
    inverse = ~frame.transform
    points = shapely.transform(geometry, lambda xy: apply(inverse, xy))
    if not np.isfinite(shapely.get_coordinates(points)).all():
        return shapely.Polygon()
    return shapely.make_valid(points)


def _lonlat_box(scene: Ground) -> BaseGeometry | None:
    """A box in degrees that holds the scene; None where it has no known place."""
    try:
        if scene.grid.crs is None:
            raise CRSError("it has none")
        to_lonlat = Transformer.from_crs(CRS.from_wkt(scene.grid.crs), WGS84, always_xy=True)
        left, bottom, right, top = to_lonlat.transform_bounds(*outline(scene.grid).bounds)
    except (CRSError, ProjError) as error:
        LOG.warning("%s: its CRS tells no place (%s): only its group keeps splits apart", scene.path, error)
        return None
    if not all(map(math.isfinite, (left, bottom, right, top))):
        LOG.warning("%s: its place cannot be told in degrees: only its group keeps splits apart", scene.path)
        return None
    if left > right:  # it crosses the date line
        left, right = -180.0, 180.0
    return shapely.box(left, bottom, right, top)
