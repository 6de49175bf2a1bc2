"""Area of each class per region, and what a sample of true classes says of it.

The raster is read by windows anchored to its first pixel; sums of windows are exact, so the figures are those of the
whole raster for any window size and order (see `weighing`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import shapely

from geoseg.errors import GridError
from geoseg.legend import NODATA, Legend
from geoseg.pixels.confusion import ConfusionMatrix
from geoseg.pixels.estimates import MIN_SAMPLE, AreaEstimates, adjusted_areas, map_by_reference, thin_strata
from geoseg.pixels.footprints import geodesic_sizes_m
from geoseg.pixels.ground import PixelAreas
from geoseg.pixels.shares import FULL
from geoseg.stages.evaluate import Region, WindowTask
from geoseg.stages.protocols import ClassSource, Mapper
from geoseg.stages.weighing import (
    HECTARE_M2,
    VALUES,
    WINDOW_PX,
    RegionSums,
    add_sums,
    and_whole,
    check_values,
    outline,
    region_tasks,
    remarks_on_names,
    unit_m2,
    weigh,
)

FORMAT = 2
STEP_M = 500.0
"""Edges beyond the raster, straight in its CRS, are followed on the ellipsoid in steps of about this length."""

NOTES = (
    "Areas are on the ellipsoid of the map's CRS. A pixel on a region's edge counts with the share of it inside.",
    "share is the class's part of the region's area that has an answer in the map.",
    "nodata_ha is the part of the region without an answer in the map; outside_ha lies beyond the map's edges.",
    "Overlapping regions each count their own area; overall covers the whole map, not regions only.",
)
SAMPLE_NOTES = (
    "adjusted_ha is the area corrected for the map's errors (stratified estimator, Olofsson et al. 2014), "
    "adjusted_ci95_ha half its 95 % confidence interval; each region is corrected by the labels inside it, and overall "
    "by all labels.",
    "The intervals take labelled pixels for a random sample of independent places. Pixels of hand-drawn labels are "
    "neither, so the intervals are too narrow.",
)


@dataclass(frozen=True)
class RegionAreas:
    """What lies in one region. pixels, hectares: (class,) in legend order, cut pixels by their share.

    Hectares are None where pixels have no known size. outside_ha is what lies beyond the raster; None, too, where
    the raster's CRS does not reach.
    """

    name: str
    pixels: tuple[float, ...]
    nodata_pixels: float
    hectares: tuple[float, ...] | None
    nodata_ha: float | None
    outside_ha: float | None
    estimates: AreaEstimates | None = None

    @property
    def mapped_ha(self) -> float | None:
        return None if self.hectares is None else math.fsum(self.hectares)

    @property
    def mapped_pixels(self) -> float:
        return math.fsum(self.pixels)

    @property
    def shares(self) -> tuple[float | None, ...]:
        """Part of each class in what is mapped: of the area or, where that is unknown, of the pixels."""
        parts = self.pixels if self.hectares is None else self.hectares
        whole = math.fsum(parts)
        return tuple(part / whole if whole else None for part in parts)

    @property
    def is_outside(self) -> bool:
        """True where no pixel of the raster lies in it."""
        return self.mapped_pixels == 0 and self.nodata_pixels == 0


@dataclass(frozen=True)
class Areas:
    """Areas of the whole map, and per region in file order; remarks on them for a person."""

    legend: Legend
    whole: RegionAreas
    regions: tuple[RegionAreas, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def every(self) -> tuple[RegionAreas, ...]:
        """The regions, then the whole map."""
        return (*self.regions, self.whole)

    @property
    def has_estimates(self) -> bool:
        return any(area.estimates is not None for area in self.every)

    def only(self, ids: Collection[int]) -> Areas:
        """With these of the classes alone, at least one; the others hold nothing."""
        kept = [i for i, c in enumerate(self.legend.classes) if c.id in ids]
        legend = Legend(tuple(self.legend.classes[i] for i in kept))
        whole, *regions = (_chosen(area, kept) for area in (self.whole, *self.regions))
        return replace(self, legend=legend, whole=whole, regions=tuple(regions))

    def rows(self) -> list[dict[str, str | float | int | None]]:
        """One record per region and class, in order, then one per class of the whole map, `overall`.

        The rows of areas.csv; None where a value is unknown. region, class_id, class_name; pixels (cut ones
        by their share), hectares, share (0..1 of what is mapped); adjusted_ha and adjusted_ci95_ha (area corrected for
        the map's errors, and half its 95 % interval), users_accuracy, producers_accuracy (0..1, weighted by area):
        where labels are known; then, of the region and so the same in all of its rows, nodata_ha and outside_ha.
        """
        return [row for area in self.every for row in _rows(area, self.legend)]

    def columns(self) -> list[str]:
        """The keys of each of `rows`."""
        return list(_ROW)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, None where a value is unknown."""
        notes = [*NOTES, *(SAMPLE_NOTES if self.has_estimates else ())]
        return {
            "format": FORMAT,
            "classes": [{"id": c.id, "name": c.name} for c in self.legend.classes],
            "overall": _area_dict(self.whole, self.legend),
            "regions": [{"region": area.name, **_area_dict(area, self.legend)} for area in self.regions],
            "remarks": list(self.remarks),
            "notes": notes,
        }


def measure_areas(
    landcover: ClassSource,
    legend: Legend,
    regions: Sequence[Region],
    mapper: Mapper,
    window_px: int = WINDOW_PX,
) -> Areas:
    """Measure the classes of a map as a whole, and in each region.

    regions: polygons in the map's CRS. Where pixels have no known size on the ground (no CRS), areas are None
    and shares are of pixels, and a remark says so. Regions without a pixel have zeros, and are remarked.
    Raises SourceError where the map holds values outside the legend, SpecError for windows above MAX_WINDOW_PX.
    """
    grid, remarks = landcover.grid, remarks_on_names(regions)
    places = and_whole(regions, grid)
    try:
        sizes: PixelAreas | None = PixelAreas.of(grid)
    except GridError as error:
        sizes = None
        remarks.append(f"{landcover.path} {error}: shares are of pixels, and there are no hectares")
    sums = partial(sum_window, landcover=landcover, legend=legend, sizes=sizes)
    totals = add_sums(mapper(sums, region_tasks(grid, places, window_px)), len(places), VALUES)
    *measured, whole = (
        _region_areas(place, totals[i], landcover, legend, sizes) for i, place in enumerate(places)
    )
    away = [region.name for region in measured if region.is_outside]
    if away:
        remarks.append(f"no pixel of the map lies in {len(away)} regions: {_some(away)}")
    return Areas(legend, whole, tuple(measured), tuple(remarks))


def sum_window(
    task: WindowTask, landcover: ClassSource, legend: Legend, sizes: PixelAreas | None
) -> tuple[RegionSums, ...]:
    """Pixels and area of each value in each region of one window; regions without a pixel in it are left out."""
    values = landcover.read(task.window)
    check_values(values, landcover, legend, task.window)
    return weigh(values, VALUES, task, landcover.grid, sizes)


def add_estimates(
    areas: Areas, samples: Mapping[str, ConfusionMatrix], of_all: ConfusionMatrix | None
) -> Areas:
    """Areas with those corrected by samples of true classes, by the name of the region that each was taken in.

    of_all: the sample of the whole map. The classes of the map are the strata. Regions without sample, or with a
    mapped class of too small a sample, stay as they are and are remarked; so do, without a word, those where nothing
    is mapped or hectares are unknown.
    """
    thin: list[str] = []
    whole = _adjusted(areas.whole, of_all, areas.legend, thin)
    regions = tuple(_adjusted(r, samples.get(r.name), areas.legend, thin) for r in areas.regions)
    missing = [r.name for r in areas.regions if r.mapped_ha and r.name not in samples]
    remarks = areas.remarks
    if missing:
        remarks += (
            f"no labels are known of {len(missing)} regions, so their areas are not adjusted: {_some(missing)}",
        )
    if thin:
        reason = f"fewer than {MIN_SAMPLE} labelled pixels where a class is mapped, so no area is adjusted"
        remarks += (f"{reason}: {_some(thin)}",)
    return replace(areas, whole=whole, regions=regions, remarks=remarks)


def _adjusted(
    area: RegionAreas, sample: ConfusionMatrix | None, legend: Legend, thin: list[str]
) -> RegionAreas:
    """An area with its estimates, where they can be made; thin: is told of a sample that is too small."""
    if sample is None or area.hectares is None or not area.mapped_ha:
        return area
    counts, mapped = map_by_reference(sample.counts), np.array(area.hectares)
    if short := thin_strata(counts, mapped):
        thin.append(f"{area.name} ({_some([legend.names[i] for i in short])})")
        return area
    return replace(area, estimates=adjusted_areas(counts, mapped))


def _chosen(area: RegionAreas, kept: Sequence[int]) -> RegionAreas:
    """An area of fewer classes, by their places in the legend."""
    hectares = None if area.hectares is None else tuple(area.hectares[i] for i in kept)
    return replace(area, pixels=tuple(area.pixels[i] for i in kept), hectares=hectares)


def _region_areas(
    place: Region, totals: np.ndarray, landcover: ClassSource, legend: Legend, sizes: PixelAreas | None
) -> RegionAreas:
    """totals: (2, 256) whole numbers: pixels and area of each value."""
    ids = list(legend.ids)
    none = sorted({NODATA, landcover.nodata if landcover.nodata is not None else NODATA} - set(ids))
    pixels, area = totals
    unit_ha = 0.0 if sizes is None else unit_m2(sizes) / HECTARE_M2
    return RegionAreas(
        place.name,
        tuple(int(n) / FULL for n in pixels[ids]),
        int(pixels[none].sum()) / FULL,
        None if sizes is None else tuple(int(n) * unit_ha for n in area[ids]),
        None if sizes is None else int(area[none].sum()) * unit_ha,
        None if sizes is None else _outside_ha(place.geometry, sizes),
    )


def _outside_ha(geometry: Any, sizes: PixelAreas) -> float | None:
    """The part of a region beyond the raster; None where the CRS does not reach."""
    grid = sizes.grid
    rest = shapely.get_parts(shapely.difference(geometry, outline(grid)))
    rest = rest[(shapely.get_type_id(rest) == shapely.GeometryType.POLYGON) & (shapely.area(rest) > 0)]
    step_px = STEP_M / math.sqrt(sizes.largest_m2)
    side = math.sqrt(abs(grid.transform.determinant))
    areas, _ = geodesic_sizes_m(shapely.segmentize(rest, step_px * side), grid.crs, grid.transform)
    hectares = math.fsum(areas.tolist()) / HECTARE_M2
    return hectares if math.isfinite(hectares) else None


def _some(names: Sequence[str], most: int = 10) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


_ROW = (
    "region", "class_id", "class_name", "pixels", "hectares", "share", "adjusted_ha", "adjusted_ci95_ha",
    "users_accuracy", "producers_accuracy", "nodata_ha", "outside_ha",
)  # fmt: skip


def _rows(region: RegionAreas, legend: Legend) -> Iterator[dict[str, str | float | int | None]]:
    none = (None,) * len(legend.classes)
    e = region.estimates
    columns = (
        region.pixels, region.hectares or none, region.shares,
        e.area if e else none, e.area_ci95 if e else none, e.users if e else none, e.producers if e else none,
    )  # fmt: skip
    for land, *values in zip(legend.classes, *columns, strict=True):
        row = (region.name, land.id, land.name, *values, region.nodata_ha, region.outside_ha)
        yield dict(zip(_ROW, row, strict=True))


def _area_dict(region: RegionAreas, legend: Legend) -> dict[str, Any]:
    e = region.estimates
    classes = []
    for i, row in enumerate(_rows(region, legend)):
        one = {key: row[key] for key in ("class_id", "class_name", "pixels", "hectares", "share")}
        if e is not None:
            keys = ("adjusted_ha", "adjusted_ci95_ha", "users_accuracy", "producers_accuracy")
            one |= {key: row[key] for key in keys}
            one |= {"users_accuracy_se": e.users_se[i], "producers_accuracy_se": e.producers_se[i]}
        classes.append(one)
    overall = {} if e is None else {"overall_accuracy": e.overall, "overall_accuracy_se": e.overall_se}
    return {
        "mapped_ha": region.mapped_ha,
        "nodata_ha": region.nodata_ha,
        "outside_ha": region.outside_ha,
        "mapped_pixels": region.mapped_pixels,
        "nodata_pixels": region.nodata_pixels,
        **overall,
        "classes": classes,
    }
