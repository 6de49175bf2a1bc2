"""`geoseg areas`: hectares of each class per region, in a file and in a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geoseg.errors import SourceError, SpecError
from geoseg.io.classmap import ClassMap
from geoseg.io.files import publish_bytes, read_json
from geoseg.io.regions import NamedPolygon, read_polygons
from geoseg.legend import Legend
from geoseg.pixels.confusion import ConfusionMatrix
from geoseg.run.evaluating import score_files
from geoseg.stages.areas import SAMPLE_NOTES, Areas, RegionAreas, add_estimates, measure_areas
from geoseg.stages.evaluate import Scores
from geoseg.stages.protocols import Mapper
from geoseg.stages.weighing import EVERYTHING

Samples = Mapping[str | None, ConfusionMatrix]
"""By the name of the region that they were taken in; of the whole map under None."""

AREAS_FILE = "areas.csv"
DECIMALS = {"pixels": 3}
"""Of numbers in the CSV; six where not given: a hundredth of a square metre."""


def areas_of_files(
    landcover: str, regions: str | None, region_field: str, mapper: Mapper,
    labels: str | None = None, metrics: str | None = None, output: str | None = None,
) -> Areas:  # fmt: skip
    """Measure a map that geoseg wrote, per region or, without regions, as a whole.

    labels: true classes on the map's grid, or metrics: the metrics.json made of them; either adds areas corrected for
    the map's errors, by the labels in each region. output: the CSV to write.
    Raises SourceError for a map without legend, and for regions, labels or metrics that cannot be used; SpecError
    where both labels and metrics are given; OutputError where the CSV cannot be written.
    """
    if labels and metrics:
        raise SpecError("give either labels or the metrics made of them, not both")
    mapped, legend = _open(landcover)
    polygons = read_polygons(regions, mapped.grid, region_field) if regions else ()
    samples: Samples = {}
    if labels:
        samples = _samples(score_files(landcover, labels, polygons, mapper))
    elif metrics:
        samples = read_samples(metrics, legend)
    measured = measure_areas(mapped, legend, polygons, mapper)
    if labels or metrics:
        measured = add_estimates(measured, _fitting(samples, polygons))
    if output is not None:
        publish_bytes(Path(output), format_csv(measured).encode())
    return measured


def write_areas(
    landcover: str, regions: Sequence[NamedPolygon], path: Path, mapper: Mapper, scores: Scores | None = None
) -> Areas:
    """Measure a map in regions that are in its CRS, and write areas.csv; it appears whole or not at all.

    scores: of the same map and regions, where there are labels: adds areas corrected for the map's errors.
    """
    mapped, legend = _open(landcover)
    measured = measure_areas(mapped, legend, regions, mapper)
    if scores is not None:
        measured = add_estimates(measured, _fitting(_samples(scores), regions))
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
    """One row per region and class; empty where unknown."""
    text = io.StringIO()
    writer = csv.DictWriter(text, areas.columns(), lineterminator="\n")
    writer.writeheader()
    for row in areas.rows():
        writer.writerow(
            {k: f"{v:.{DECIMALS.get(k, 6)}f}" if isinstance(v, float) else v for k, v in row.items()}
        )
    return text.getvalue()


def format_table(areas: Areas) -> str:
    """The areas for a terminal: a row per region and class, '-' where unknown; then what a person should know."""
    known = all(region.hectares is not None for region in areas.regions)
    header = ["region", "class", "ha" if known else "pixels", "share %"]
    header += ["adjusted ha", "95 % +-", "user's %", "producer's %"] * areas.has_estimates
    rows = [header]
    for region in areas.regions:
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


def _open(landcover: str) -> tuple[ClassMap, Legend]:
    mapped = ClassMap.open(landcover)
    if mapped.legend is None:
        raise SourceError(
            "has no legend tag: it is not a map that geoseg wrote, its classes are unknown", landcover
        )
    return mapped, mapped.legend


def _samples(scores: Scores) -> Samples:
    return {None: scores.overall, **{region.name: region.matrix for region in scores.regions}}


def _fitting(samples: Samples, regions: Sequence[NamedPolygon]) -> dict[str, ConfusionMatrix]:
    """The samples by the names that the areas have: the whole map's is used where there are no regions."""
    if not regions:
        return {EVERYTHING: samples[None]}
    return {name: matrix for name, matrix in samples.items() if name is not None}
