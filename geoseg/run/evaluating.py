"""`geoseg evaluate`: score a map against labels, and say so in files and in a table."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from geoseg.errors import SourceError, SpecError
from geoseg.grid.geogrid import GeoGrid
from geoseg.io.classmap import ClassMap
from geoseg.io.files import make_folder, publish_bytes, publish_json
from geoseg.io.labels import LabelOptions, open_labels
from geoseg.io.places import is_there, place_of
from geoseg.io.regions import NamedPolygon, read_polygons
from geoseg.pixels.bootstrap import MIN_CELLS, Range
from geoseg.run.errormap import write_errors
from geoseg.stages.evaluate import Sources, score_map
from geoseg.stages.protocols import Mapper
from geoseg.stages.scores import AreaScore, Scores, ScoreSettings
from geoseg.stages.structures import score_structures

METRICS_FILE = "metrics.json"
REGIONS_FILE = "regions.csv"
CONFIDENCE_FILE = "confidence.tif"
PIXELS, OBJECTS, ERRORS = "pixels", "objects and roads", "errors"
"""Stages that a timer is told of."""
MOST_NAMES = 12
"""Of regions, in a line."""
RESAMPLED = "The labels lie on another grid: they were brought onto the map's, nearest neighbor."


@dataclass(frozen=True)
class EvaluateOptions:
    """What may be chosen about an evaluation.

    confidence: a raster of whole percent on the map's grid; None for the one beside the map, if there is one.
    errors: whether to write errors.tif.
    """

    confidence: str | None = None
    labels: LabelOptions = field(default_factory=LabelOptions)
    scores: ScoreSettings = field(default_factory=ScoreSettings)
    errors: bool = False


DEFAULTS = EvaluateOptions()


def no_timer(stage: str, seconds: float) -> None:
    """Tells nobody."""


def evaluate_files(
    landcover: str,
    labels: str,
    regions: str | None,
    region_field: str,
    output: str | None,
    mapper: Mapper,
    options: EvaluateOptions = DEFAULTS,
    timer: Callable[[str, float], None] = no_timer,
) -> Scores:
    """Score a map that geoseg wrote against labels, overall and per region.

    labels: a raster, or polygons with a class field; on another grid they are brought onto the map's.
    output: a folder for metrics.json, where there are regions regions.csv, and errors.tif where options ask for it;
    made if missing. timer: is told how long each stage took, in seconds.
    Raises SourceError for a map without legend, labels that lie elsewhere, values outside the legend, or regions
    that cannot be used; SpecError for options that do not fit them; OutputError where the folder cannot be written.
    """
    if options.errors and output is None:
        raise SpecError("--errors writes errors.tif: name a folder for it with -o")
    grid = ClassMap.open(landcover).grid
    polygons = read_polygons(regions, grid, region_field) if regions else ()
    folder = None if output is None else Path(output)
    scores = score_files(landcover, labels, polygons, mapper, options, timer, folder)
    if folder is not None:
        write_score_files(scores, folder)
    return scores


def score_files(
    landcover: str,
    labels: str,
    regions: Sequence[NamedPolygon],
    mapper: Mapper,
    options: EvaluateOptions = DEFAULTS,
    timer: Callable[[str, float], None] = no_timer,
    folder: Path | None = None,
) -> Scores:
    """As `evaluate_files`, with regions in the map's CRS; writes nothing but errors.tif into `folder`, if asked."""
    mapped = ClassMap.open(landcover)
    if mapped.legend is None:
        reason = "has no legend tag: it is not a map that geoseg wrote, its classes are unknown"
        raise SourceError(reason, landcover)
    truth = open_labels(labels, mapped.grid, mapped.legend, options.labels)
    confidence = _confidence(landcover, mapped.grid, options.confidence)
    sources = Sources(mapped, truth, confidence)
    with _told(timer, PIXELS):
        scores = score_map(
            mapped, truth, mapped.legend, regions, mapper, confidence=confidence, settings=options.scores
        )
    if options.scores.objects:
        with _told(timer, OBJECTS):
            scores = score_structures(scores, sources, regions, mapper)
    if options.errors and folder is not None:
        with _told(timer, ERRORS):
            write_errors(folder, sources, mapped.legend, mapper)
    return replace(scores, remarks=(RESAMPLED,) if truth.resampled else ())


@contextmanager
def _told(timer: Callable[[str, float], None], stage: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    timer(stage, time.perf_counter() - started)


def _confidence(landcover: str, grid: GeoGrid, path: str | None) -> ClassMap | None:
    """The confidence raster that was named, or the one beside the map where it fits."""
    beside = place_of(landcover).with_name(CONFIDENCE_FILE)
    if path is None and not is_there(str(beside)):
        return None
    found = ClassMap.open(path or str(beside))
    if found.grid.same_place(grid):
        return found
    if path is None:
        return None
    raise SourceError(f"does not lie on the grid of {landcover}; give the confidence of that map", path)


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
    """The scores for a terminal, in percent with 95 % intervals; '-' if undefined.

    IoU by region, the whole map last; then the scores of each class, objects and roads of the whole map, and a
    line of overall scores. The strict mean IoU, which counts unmapped pixels as misses, is shown where it
    differs from the plain one.
    """
    tables = [_region_table(scores), _class_table(scores), *_structure_tables(scores)]
    return "\n\n".join(tables) + "\n\n" + "\n".join([_overall_line(scores), *_remarks(scores)])


def _region_table(scores: Scores) -> str:
    areas = [*scores.regions, scores.whole]
    strict = any(area.matrix.strict_miou != area.matrix.miou for area in areas)
    header = ["region", *scores.legend.names, "mIoU", "95 %", *["strict mIoU"] * strict, "pixels", "unmapped"]
    return _align([header, *(_region_cells(area, strict) for area in areas)])


def _region_cells(area: AreaScore, strict: bool) -> list[str]:
    matrix = area.matrix
    return [
        " ".join(area.name.split()),
        *map(_percent, matrix.iou),
        _percent(matrix.miou),
        _range(area.intervals.over_all["miou"]),
        *[_percent(matrix.strict_miou)] * strict,
        f"{matrix.pixels:,}",
        f"{matrix.unmapped:,}",
    ]


def _class_table(scores: Scores) -> str:
    area, matrix = scores.whole, scores.overall
    reach = "" if scores.tolerance_m is None else f" ({scores.tolerance_m:.3g} m)"
    header = [
        "class", "IoU", "95 %", "F1", "95 %", "precision", "95 %", "recall", "95 %",
        f"boundary F1 at {scores.settings.tolerance_px} px{reach}", "95 %", "labelled",
    ]  # fmt: skip
    rows = []
    for n, name in enumerate(scores.legend.names):
        few = 0 < matrix.support[n] < scores.settings.min_support
        cells = [name]
        for figure in ("iou", "dice", "precision", "recall"):
            cells += [
                _percent(matrix.per_class(figure)[n]),
                _range(area.intervals.per_class[figure][n]),
            ]
        cells += [_percent(area.boundary.f1[n]), _range(area.boundary_intervals.f1[n])]
        rows.append([*cells, f"{matrix.support[n]:,}{' (few)' * few}"])
    return _align([header, *rows])


OBJECT_COLUMNS = {
    "precision": "precision", "recall": "recall", "F1": "f1", "AP50": "ap50", "AP75": "ap75",
    "PQ": "panoptic_quality",
}  # fmt: skip
LINE_COLUMNS = {"completeness": "completeness", "correctness": "correctness", "quality": "quality"}


def _structure_tables(scores: Scores) -> list[str]:
    """Buildings and roads of the whole map, where they were asked for and there are such classes."""
    tables = []
    kinds = (
        ("objects", OBJECT_COLUMNS, "", scores.whole.objects or ()),
        ("lines", LINE_COLUMNS, "_px", scores.whole.roads or ()),
    )
    for title, columns, unit, found in kinds:
        header = [title, *columns, f"labelled{unit.replace('_', ' ')}", f"mapped{unit.replace('_', ' ')}"]
        rows = [header]
        for name, score in found:
            values = score.to_dict()
            sizes = (f"{values[side + unit]:,.0f}" for side in ("truth", "mapped"))
            rows.append([name, *(_percent(values[key]) for key in columns.values()), *sizes])
        if found:
            tables.append(_align(rows))
    return tables


def _overall_line(scores: Scores) -> str:
    matrix, found = scores.overall, scores.whole.intervals.over_all
    named = {
        "pixel accuracy": "accuracy",
        "mean accuracy": "mean_accuracy",
        "frequency-weighted IoU": "frequency_weighted_iou",
        "kappa": "kappa",
    }
    parts = []
    for title, name in named.items():
        spread = "" if found[name] is None else f" ({_range(found[name])})"
        parts.append(f"{title} {_percent(matrix.over_all(name))}{spread}")
    if scores.whole.calibration is not None:
        parts.append(f"expected calibration error {_percent(scores.whole.calibration.expected_error)}")
    return ", ".join(parts)


def _remarks(scores: Scores) -> list[str]:
    lines = list(scores.remarks)
    matrix, least = scores.overall, scores.settings.min_support
    supported = matrix.supported(least)
    few = [n for n, enough in zip(scores.legend.names, supported, strict=True) if not enough]
    few = [n for n in few if n not in matrix.absent]
    if few:
        mean = _percent(matrix.mean("iou", supported))
        lines.append(f"mIoU without classes of fewer than {least} labelled pixels ({', '.join(few)}): {mean}")
    if matrix.absent:
        lines.append(f"in neither labels nor map, so in no mean: {', '.join(matrix.absent)}")
    sparse = [area.name for area in (*scores.regions, scores.whole) if area.intervals.cells < MIN_CELLS]
    if sparse:
        some = ", ".join(sparse[:MOST_NAMES])
        more = f", and {len(sparse) - MOST_NAMES:,} more" if len(sparse) > MOST_NAMES else ""
        lines.append(f"no intervals, fewer than {MIN_CELLS} cells: {some}{more}")
    return lines


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def _range(pair: Range | None) -> str:
    return "-" if pair is None else f"{100 * pair[0]:.1f} to {100 * pair[1]:.1f}"


def _align(rows: Sequence[Sequence[str]]) -> str:
    """Columns padded to one width: the first to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join(cells))
    return "\n".join(lines)
