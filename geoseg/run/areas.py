"""`geoseg areas`: hectares of each class of any class raster, per region, in a file and in a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from geoseg.errors import SourceError, SpecError
from geoseg.io.classmap import AnyClassRaster
from geoseg.io.files import publish_bytes, read_json
from geoseg.io.labels import open_labels
from geoseg.io.legends import KnownClasses, find_classes
from geoseg.io.regions import NamedPolygon, read_polygons
from geoseg.legend import Legend
from geoseg.pixels.confusion import ConfusionMatrix
from geoseg.run.evaluating import RESAMPLED
from geoseg.stages.areas import SAMPLE_NOTES, Areas, RegionAreas, add_estimates, measure_areas
from geoseg.stages.evaluate import Scores, score_map
from geoseg.stages.protocols import Mapper

Samples = Mapping[str | None, ConfusionMatrix]
"""By the name of the region that they were taken in; of the whole map under None."""

AREAS_FILE = "areas.csv"
DECIMALS = {"pixels": 3}
"""Of numbers in the CSV; six where not given: a hundredth of a square metre."""


@dataclass(frozen=True)
class AreasOptions:
    """What `geoseg areas` can be told besides the raster.

    regions: polygons, named by region_field. labels: true classes, or metrics: the metrics.json made of them; either
    adds areas corrected for the map's errors, by the labels in each region. legend: a file that names the classes.
    band: counted from 1.
    """

    regions: str | None = None
    region_field: str = "region"
    labels: str | None = None
    metrics: str | None = None
    legend: str | None = None
    band: int | None = None

    def __post_init__(self) -> None:
        if self.labels and self.metrics:
            raise SpecError("give either labels or the metrics made of them, not both")


PLAIN = AreasOptions()


def areas_of_files(
    landcover: str, mapper: Mapper, options: AreasOptions = PLAIN, output: str | None = None
) -> Areas:
    """Measure a class raster as a whole and per region; write the figures to a CSV, `output`, if it is given.

    The classes are all that geoseg's tag or a legend file names; of those named otherwise, or not at all, the ones
    that occur. A remark says where names come from.
    Raises SourceError for a raster, regions, labels or metrics that cannot be used, SpecError for what cannot be asked
    for, OutputError where the CSV cannot be written.
    """
    source = AnyClassRaster.open(landcover, options.band)
    known = find_classes(source, options.legend)
    polygons = read_polygons(options.regions, source.grid, options.region_field) if options.regions else ()
    measured = measure_areas(source, known.possible, polygons, mapper)
    measured = measured.only(_shown(measured, known, options.legend is not None, landcover))
    remarks = [f"names of classes: {known.origin}"]
    if unnamed := known.unnamed(measured.legend.ids):
        remarks.append(f"classes without a name: {', '.join(map(str, unnamed))}")
    if options.labels:
        truth = open_labels(options.labels, source.grid, measured.legend)
        remarks += [RESAMPLED] * truth.resampled
        scores = score_map(source, truth, measured.legend, polygons, mapper)
        measured = _with_estimates(measured, _samples(scores))
    elif options.metrics:
        measured = _with_estimates(measured, read_samples(options.metrics, measured.legend))
    measured = replace(measured, remarks=(*remarks, *measured.remarks))
    if output is not None:
        publish_bytes(Path(output), format_csv(measured).encode())
    return measured


def _shown(measured: Areas, known: KnownClasses, from_file: bool, landcover: str) -> set[int]:
    """The classes to tell of. Raises SourceError where there is none."""
    pixels = zip(measured.legend.ids, measured.whole.pixels, strict=True)
    ids = {class_id for class_id, count in pixels if count}
    if known.legend is not None and (known.complete or from_file):
        ids |= set(known.legend.ids)
    if not ids:
        raise SourceError("holds no class, all its pixels are nodata", landcover)
    return ids


def write_areas(
    landcover: str, regions: Sequence[NamedPolygon], path: Path, mapper: Mapper, scores: Scores | None = None
) -> Areas:
    """Measure a map that geoseg wrote in regions that are in its CRS, and write areas.csv, whole or not at all.

    scores: of the same map and regions, where there are labels: adds areas corrected for the map's errors.
    """
    source = AnyClassRaster.open(landcover)
    measured = measure_areas(source, find_classes(source).possible, regions, mapper)
    if scores is not None:
        measured = _with_estimates(measured, _samples(scores))
    publish_bytes(path, format_csv(measured).encode())
    return measured


def read_samples(path: str, legend: Legend) -> Samples:
    """The confusion counts in a metrics.json by the name of the region, and of the whole map under None.

    Raises SourceError where it is not such a file, or its classes are not those of the legend.
    """
    if not Path(path).exists():
        raise SourceError("no such file", path)
    try:
        content: dict[str, Any] = read_json(Path(path))
        classes = [(int(c["id"]), str(c["name"])) for c in content["classes"]]
        if classes != [(c.id, c.name) for c in legend.classes]:
            theirs = ", ".join(f"{number} {name}" for number, name in classes)
            ours = ", ".join(f"{c.id} {c.name}" for c in legend.classes)
            raise SourceError(f"scores other classes ({theirs}) than the map has ({ours})", path)
        named = [(None, content["overall"]), *((str(r["region"]), r) for r in content["regions"])]
        return {name: ConfusionMatrix(legend, np.array(entry["confusion"])) for name, entry in named}
    except (KeyError, TypeError, ValueError, SpecError) as error:
        raise SourceError(
            f"is not a metrics.json that 'geoseg evaluate' wrote ({type(error).__name__}: {error})", path
        ) from error


def format_csv(areas: Areas) -> str:
    """One row per region and class, the whole map last; empty where unknown."""
    text = io.StringIO()
    writer = csv.DictWriter(text, areas.columns(), lineterminator="\n")
    writer.writeheader()
    for row in areas.rows():
        writer.writerow(
            {k: f"{v:.{DECIMALS.get(k, 6)}f}" if isinstance(v, float) else v for k, v in row.items()}
        )
    return text.getvalue()


def format_table(areas: Areas) -> str:
    """The areas for a terminal: a row per region and class, the whole map last; then what a person should know.

    '-' stands for what is unknown.
    """
    known = areas.whole.hectares is not None
    header = ["region", "class", "ha" if known else "pixels", "share %"]
    header += ["adjusted ha", "95 % +-", "user's %", "producer's %"] * areas.has_estimates
    rows = [header]
    for region in areas.every:
        lines = _lines(region, areas.legend, areas.has_estimates)
        rows += [[region.name if i == 0 else "", *line] for i, line in enumerate(lines)]
    notes = [*areas.remarks, *(SAMPLE_NOTES if areas.has_estimates else ())]
    return "\n".join([_align(rows), *(f"note: {note}" for note in notes)])


def _lines(region: RegionAreas, legend: Legend, with_estimates: bool) -> list[list[str]]:
    """Class, area, share and estimates of each class, then what has no class, where there is any."""
    sizes = region.pixels if region.hectares is None else region.hectares
    e, blank = region.estimates, ["-"] * 4
    lines = []
    for i, name in enumerate(legend.names):
        cells = blank
        if e is not None:
            cells = [
                f"{e.area[i]:,.2f}",
                f"{e.area_ci95[i]:,.2f}",
                _percent(e.users[i]),
                _percent(e.producers[i]),
            ]
        lines.append([name, f"{sizes[i]:,.2f}", _percent(region.shares[i]), *cells[: 4 * with_estimates]])
    nodata = region.nodata_pixels if region.nodata_ha is None else region.nodata_ha
    rest = [("(no answer)", nodata), ("(outside the map)", region.outside_ha or 0.0)]
    blank = ["", *[""] * (4 * with_estimates)]
    return lines + [[name, f"{size:,.2f}", *blank] for name, size in rest if round(size, 2)]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def _align(rows: Sequence[Sequence[str]]) -> str:
    """Columns padded to one width: names to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _samples(scores: Scores) -> Samples:
    return {None: scores.overall, **{region.name: region.matrix for region in scores.regions}}


def _with_estimates(areas: Areas, samples: Samples) -> Areas:
    named = {name: matrix for name, matrix in samples.items() if name is not None}
    return add_estimates(areas, named, samples.get(None))
