"""How well will a model do at a place that it never saw? Train without each place in turn, and score its map.

python workflows/leave_one_out.py workflows/train_buildings_drone.yaml banepa zanzibar kavre catanduanes -o places
"""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from geoseg.errors import GeosegError, OutputError, SpecError
from geoseg.io.files import publish_bytes
from geoseg.pixels.confusion import ConfusionMatrix
from geoseg.report.training import write_training
from geoseg.run.evaluating import METRICS_FILE
from geoseg.run.events import make_reporter
from geoseg.run.job import Job, make_job
from geoseg.run.pipeline import Run
from geoseg.train.config import SceneEntry, TrainConfig
from geoseg.train.done import training_folder
from geoseg.train.reading import load_config
from geoseg.train.terminal import progress_told
from geoseg.train.trainer import train_config

FAILED, INTERRUPTED = 2, 130
TABLE, MAPS = "places.csv", "maps"


def by_place(config: TrainConfig, places: Sequence[str]) -> dict[str, tuple[SceneEntry, ...]]:
    """The data sets of each place: those whose scene's file name begins with its name.

    Raises SpecError where a data set belongs to no place or to several, or a place has none.
    """
    found: dict[str, list[SceneEntry]] = {place: [] for place in places}
    for entry in config.datasets:
        names = [place for place in places if entry.scene.name.startswith(place)]
        if len(names) != 1:
            raise SpecError(
                f"belongs to {' and '.join(names) or 'no place'}: file names begin with a place's",
                entry.scene,
            )
        found[names[0]].append(entry)
    empty = [place for place, entries in found.items() if not entries]
    if empty:
        raise SpecError(f"no data set's scene has a name that begins with {empty[0]!r}")
    return {place: tuple(entries) for place, entries in found.items()}


def without(config: TrainConfig, place: str, entries: Sequence[SceneEntry]) -> TrainConfig:
    """The same training, of all but one place."""
    tested = {"split": "test", "validation_regions": None}
    datasets = tuple(e.model_copy(update=tested) if e in entries else e for e in config.datasets)
    return config.model_copy(update={"name": f"{config.name}-without-{place}", "datasets": datasets})


def scoring_job(entry: SceneEntry, bundle: Path, output: Path) -> Job:
    """Maps the scene and scores it against the labels that it would have been trained on.

    Raises SpecError where these say more than one class for a pixel, which no map can be scored against.
    """
    meanings = {name: meaning for name, meaning in entry.meanings.items() if meaning is not None}
    vague = [name for name, meaning in meanings.items() if not isinstance(meaning, str)]
    if vague or entry.every_polygon:
        raise SpecError(
            f"{(vague or ['every_polygon'])[0]}: a map is scored against one class for each label",
            entry.labels,
        )
    fields: dict[str, Any] = {
        "output": str(output),
        "model": str(bundle),
        "scenes": [{"path": str(entry.scene), "labels": str(entry.labels)}],
        "bands": entry.bands,
        "class_field": entry.class_field,
        "map_class": {str(name): meaning for name, meaning in entry.map_class.items()},
        "background": entry.background,
        "ignore": entry.ignore,
        "objects": True,
    }
    return make_job(fields, None)


def scores_of(config: TrainConfig, metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Scores of one place from those of its scenes: pixels and objects are added up before any ratio is taken."""
    counts = sum(np.array(one["overall"]["confusion"], np.int64) for one in metrics)
    matrix = ConfusionMatrix(config.legend, np.asarray(counts))
    row: dict[str, Any] = {"pixels": matrix.pixels, "miou": matrix.miou}
    for name, value in zip(config.legend.names, matrix.iou, strict=True):
        row[f"iou_{name}"] = value
    for one in config.legend.of_role("building"):
        objects = [m["overall"]["objects"][one.name] for m in metrics]
        truth, mapped, matched = (sum(o[key] for o in objects) for key in ("truth", "mapped", "matched"))
        row |= {
            f"{one.name}_objects": truth,
            f"{one.name}_f1": 2 * matched / (truth + mapped) if truth + mapped else None,
        }
    return row


def leave_out(config: TrainConfig, place: str, entries: Sequence[SceneEntry], output: Path) -> dict[str, Any]:
    """Train without a place, map it, score it. A step that is done is not done again.

    Raises GeosegError where a training cannot be followed, or a scene cannot be mapped.
    """
    bundle = output / place
    config = without(config, place, entries)
    train_config(config, bundle)
    write_training(training_folder(bundle))
    metrics = []
    for entry in entries:
        run = Run(scoring_job(entry, bundle, output / MAPS), make_reporter(False))
        if run.go() != 0:
            raise OutputError("was not mapped", entry.scene)
        metrics.append(json.loads((output / MAPS / entry.scene.stem / METRICS_FILE).read_text()))
    return {"place": place, **scores_of(config, metrics)}


def write_table(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """As CSV, whole or not at all."""
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(
        {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
        for row in rows
    )
    publish_bytes(path, text.getvalue().encode())


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("training", metavar="TRAIN.yaml", type=click.Path())
@click.argument("places", metavar="PLACE...", nargs=-1, required=True)
@click.option("-o", "--output", required=True, type=click.Path(), metavar="OUT", help="Folder for all of it.")
def main(training: str, places: tuple[str, ...], output: str) -> None:
    """Say how well a model does at places that it never saw.

    For each PLACE a model is trained as TRAIN.yaml says, but without the scenes whose file names begin with PLACE;
    then these are mapped and scored. OUT/PLACE is the model, OUT/PLACE.training/training.html tells how it went,
    OUT/maps/SCENE holds the map with its report, and OUT/places.csv all scores: IoU of each class, and for
    buildings F1 of objects (pixels that share sides) matched at an IoU above 0.5.

    It takes as many trainings as there are places. Stopped, the same command goes on.
    """
    try:
        config = load_config(Path(training), os.environ)
        found, rows = by_place(config, places), []
        for entry in config.datasets:
            scoring_job(
                entry, Path(output), Path(output)
            )  # what cannot be scored is told before any training
        for place, entries in found.items():
            click.echo(f"without {place}", err=True)
            with progress_told():
                rows.append(leave_out(config, place, entries, Path(output)))
            write_table(rows, Path(output) / TABLE)
        for row in rows:
            figures = (f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items())
            click.echo("  ".join(figures))
        click.echo(Path(output) / TABLE)
    except GeosegError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(FAILED)
    except KeyboardInterrupt:
        click.echo("\nstopped; the same command goes on from here", err=True)
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
