"""What a run has left in its folder, read with care: parts may be missing, or be of another version."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from geoseg.errors import SourceError
from geoseg.io.classmap import ClassMap
from geoseg.io.files import read_json
from geoseg.io.labels import LabelOptions
from geoseg.io.places import Place
from geoseg.legend import Legend

MADE = ".geoseg/{}/made.json"
"""Beside a scene's folder: how long its results took, whichever runs made them."""
RUN, LANDCOVER, CONFIDENCE, VECTORS = "run.json", "landcover.tif", "confidence.tif", "vectors.gpkg"
METRICS, AREAS, ITEM = "metrics.json", "areas.csv", "item.json"
REPORT, QUICKLOOK, INDEX = "report.html", "quicklook.png", "index.html"

Range = tuple[float, float]


def dig(value: Any, *keys: str | int) -> Any:
    """What lies under some keys of nested JSON; None where there is nothing of the kind."""
    for key in keys:
        if isinstance(value, dict) and isinstance(key, str):
            value = value.get(key)
        elif isinstance(value, list) and isinstance(key, int) and -len(value) <= key < len(value):
            value = value[key]
        else:
            return None
    return value


def number(value: Any) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def items(value: Any) -> list[dict[str, Any]]:
    """The objects in a list of JSON."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def text(value: Any) -> str:
    """What a page shows of a value; an empty string for None."""
    return "" if value is None else str(value)


def pair(value: Any) -> Range | None:
    """The two ends of an interval, or None."""
    low, high = number(dig(value, 0)), number(dig(value, 1))
    return None if low is None or high is None else (low, high)


@dataclass(frozen=True)
class AreaRow:
    """A row of areas.csv; None where a figure is unknown. share: 0..1."""

    hectares: float | None
    share: float | None
    adjusted_ha: float | None = None
    adjusted_ci95_ha: float | None = None


@dataclass(frozen=True)
class SceneFacts:
    """A scene's folder. run: all of run.json; row: what is told of this scene; entry: what the job said of it.

    run is empty where the last run did not make these results, metrics and item where they are not there. row holds
    the times and shares of the runs that made the results, where they are known. areas: by region and class id.
    """

    folder: Place
    landcover: ClassMap
    legend: Legend
    run: Mapping[str, Any]
    row: Mapping[str, Any]
    entry: Mapping[str, Any]
    metrics: Mapping[str, Any]
    item: Mapping[str, Any]
    areas: Mapping[tuple[str, int], AreaRow] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.folder.name

    @cached_property
    def confidence(self) -> ClassMap | None:
        """The raster of percent, where there is one."""
        path = self.folder / CONFIDENCE
        return ClassMap.open(str(path)) if path.is_file() else None

    @property
    def overall(self) -> Mapping[str, Any]:
        found = self.metrics.get("overall")
        return found if isinstance(found, dict) else {}

    @property
    def label_options(self) -> LabelOptions:
        """How the run read its labels."""
        found = dig(self.run, "job")
        job = found if isinstance(found, dict) else {}
        field_, background = job.get("class_field"), job.get("background")
        names, ignore = job.get("map_class"), job.get("ignore")
        drawn = isinstance(field_, str)
        return LabelOptions(
            field_ if drawn else None,
            {k: v for k, v in names.items() if isinstance(v, str)} if isinstance(names, dict) else {},
            tuple(v for v in ignore if v in range(256)) if isinstance(ignore, list) else (),
            background if drawn and isinstance(background, str) else None,
        )

    @classmethod
    def read(cls, folder: Place) -> SceneFacts:
        """Raises SourceError where the folder holds no map, or a file in it is damaged."""
        folder = folder.resolve()
        if not (folder / LANDCOVER).is_file():
            raise SourceError(
                f"holds no {LANDCOVER}, so there is no map to report on; run 'geoseg run' first", folder
            )
        landcover = ClassMap.open(str(folder / LANDCOVER))
        if landcover.legend is None:
            raise SourceError("has no legend tag: it is not a map that geoseg wrote", landcover.path)
        run = read_object(folder.parent / RUN)
        rows = [row for row in items(run.get("scenes")) if row.get("name") == folder.name]
        made_this = bool(rows) and rows[-1].get("status") in ("done", "partial", "unchanged")
        made = read_object(folder.parent / MADE.format(folder.name))
        kept: dict[str, Any] = {
            key: made[key] for key in ("seconds", "shares", "blocks_found") if key in made
        }
        entries = [
            e for e in items(dig(run, "job", "scenes")) if Path(text(e.get("path"))).stem == folder.name
        ]
        return cls(
            folder, landcover, landcover.legend, run if made_this else {},
            {**(rows[-1] if made_this else {}), **kept}, entries[-1] if entries else {},
            read_object(folder / METRICS), read_object(folder / ITEM), read_areas(folder / AREAS),
        )  # fmt: skip


def read_object(path: Place) -> dict[str, Any]:
    """A JSON object, empty where there is no file. Raises SourceError for anything else."""
    found = read_json(path)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise SourceError("holds no JSON object, as geoseg writes it; delete it to go on without", path)
    return found


def read_areas(path: Place) -> dict[tuple[str, int], AreaRow]:
    """The rows of areas.csv by region and class id; none where there is no file.

    Raises SourceError where it is no such table.
    """
    if not path.is_file():
        return {}
    found = {}
    try:
        for row in csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8"), newline="")):
            figures = [
                _cell(row.get(name)) for name in ("hectares", "share", "adjusted_ha", "adjusted_ci95_ha")
            ]
            found[row["region"], int(row["class_id"])] = AreaRow(*figures)
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise SourceError(
            f"is no table of areas ({type(error).__name__}: {error}); delete it to go on", path
        ) from error
    return found


def _cell(cell: str | None) -> float | None:
    return number(float(cell)) if cell else None


def scene_folders(output: Place) -> list[Place]:
    """The folders of an output folder that hold a map, by name."""
    found = (path.parent for path in output.glob(f"*/{LANDCOVER}") if not path.parent.name.startswith("."))
    return sorted(found, key=str)
