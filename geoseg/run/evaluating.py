"""`geoseg evaluate`: score a map against labels, and say so in files and in a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from pyproj import CRS

from geoseg.errors import SourceError
from geoseg.grid.geogrid import GeoGrid
from geoseg.io.classmap import ClassMap
from geoseg.io.files import make_folder, publish_bytes, publish_json
from geoseg.io.regions import NamedPolygon, read_polygons
from geoseg.pixels.confusion import ConfusionMatrix
from geoseg.stages.evaluate import Scores, score_map
from geoseg.stages.protocols import Mapper

METRICS_FILE = "metrics.json"
REGIONS_FILE = "regions.csv"


def evaluate_files(
    landcover: str, labels: str, regions: str | None, region_field: str, output: str | None, mapper: Mapper
) -> Scores:
    """Score a map that geoseg wrote against labels on the same grid, overall and per region.

    output: a folder for metrics.json and, where there are regions, regions.csv; made if missing.
    Raises SourceError for a map without legend, labels on another grid, values outside the legend, or regions
    that cannot be used; OutputError where the folder cannot be written.
    """
    grid = ClassMap.open(landcover).grid
    polygons = read_polygons(regions, grid, region_field) if regions else ()
    scores = score_files(landcover, labels, polygons, mapper)
    if output is not None:
        write_score_files(scores, Path(output))
    return scores


def score_files(landcover: str, labels: str, regions: Sequence[NamedPolygon], mapper: Mapper) -> Scores:
    """As `evaluate_files`, with regions in the map's CRS, and without writing."""
    mapped, truth = ClassMap.open(landcover), ClassMap.open(labels)
    if mapped.legend is None:
        reason = "has no legend tag: it is not a map that geoseg wrote, its classes are unknown"
        raise SourceError(reason, landcover)
    if not mapped.grid.same_place(truth.grid):
        raise SourceError(
            f"the labels lie on another grid ({_describe(truth.grid)}) than the map {landcover} "
            f"({_describe(mapped.grid)}); warp them onto it, nearest neighbor",
            labels,
        )
    return score_map(mapped, truth, mapped.legend, regions, mapper)


def write_score_files(scores: Scores, folder: Path) -> None:
    """Write metrics.json and, where there are regions, regions.csv; each appears whole or not at all."""
    make_folder(folder)
    if scores.regions:
        publish_bytes(folder / REGIONS_FILE, format_csv(scores).encode())
    publish_json(folder / METRICS_FILE, scores.to_dict())


def format_csv(scores: Scores) -> str:
    """One row per region; scores with six decimals, empty where undefined."""
    text = io.StringIO()
    writer = csv.DictWriter(text, scores.columns(), lineterminator="\n")
    writer.writeheader()
    for row in scores.rows():
        writer.writerow({key: f"{v:.6f}" if isinstance(v, float) else v for key, v in row.items()})
    return text.getvalue()


def format_table(scores: Scores) -> str:
    """The scores for a terminal: IoU in percent, a row per region, one for the whole map; '-' if undefined.

    The strict mean IoU, which counts unmapped pixels as misses, is shown where it differs from the plain one.
    """
    rows = [(region.name, region.matrix) for region in scores.regions] + [("overall", scores.overall)]
    strict = any(matrix.strict_miou != matrix.miou for _, matrix in rows)
    header = ["region", *scores.legend.names, "mIoU", *["strict mIoU"] * strict, "pixels", "unmapped"]
    return _align([header, *([name, *_cells(matrix, strict)] for name, matrix in rows)])


def _cells(matrix: ConfusionMatrix, strict: bool) -> list[str]:
    shares = [*matrix.iou, matrix.miou, *[matrix.strict_miou] * strict]
    percent = ["-" if share is None else f"{100 * share:.1f}" for share in shares]
    return [*percent, f"{matrix.pixels:,}", f"{matrix.unmapped:,}"]


def _align(rows: Sequence[Sequence[str]]) -> str:
    """Columns padded to one width: the first to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join(cells))
    return "\n".join(lines)


def _describe(grid: GeoGrid) -> str:
    a, b, c, d, e, f = grid.transform[:6]
    pixel = f"{a:.10g}, {e:.10g}" if b == d == 0 else f"{a:.10g}, {b:.10g}, {d:.10g}, {e:.10g}"
    crs = CRS.from_wkt(grid.crs).name if grid.crs else "no CRS"
    return f"{grid.height} x {grid.width} px, origin {c:.12g}, {f:.12g}, pixel size {pixel}, {crs}"
