"""What a run leaves for its page: facts as JSON, and a few patches with their labels and answers."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from geoseg.io.files import publish_bytes, publish_json
from geoseg.legend import NODATA
from geoseg.train.config import TrainConfig
from geoseg.train.data import Example
from geoseg.train.done import FACTS
from geoseg.train.material import Material
from geoseg.train.scores import Outcome, calibration_error, iou_of, mean_iou, reliability

MOST_FILES = 12
"""Of a split, named on the card."""
EXAMPLES = "examples.npz"
MOST_EXAMPLES, CANDIDATES = 6, 36


def scored(outcome: Outcome, config: TrainConfig) -> dict[str, Any]:
    """Scores of one split as plain values.

    confusion: pixels by labelled class (rows) and mapped class; the last row holds those that are one of several
    classes, none of them the mapped one.
    """
    ious = iou_of(outcome.confusion).tolist()
    return {
        "miou": _number(mean_iou(outcome.confusion)),
        "iou": {name: _number(iou) for name, iou in zip(config.legend.names, ious, strict=True)},
        "confusion": outcome.confusion.tolist(),
    }


def calibrated(outcome: Outcome, temperature: float) -> dict[str, Any]:
    """The temperature, and how honest confidence is without it and with it."""
    return {
        "temperature": temperature,
        "error": {
            "before": calibration_error(outcome, 1.0),
            "after": calibration_error(outcome, temperature),
        },
        "curve": {"before": reliability(outcome, 1.0), "after": reliability(outcome, temperature)},
    }


def write_facts(folder: Path, config: TrainConfig, facts: dict[str, Any]) -> None:
    """`training.json`; OutputError where the disk refuses."""
    told = {
        "name", "version", "architecture", "encoder", "options", "bands", "classes", "steps", "batch", "accumulate",
        "crop_px", "loss", "seed", "learning_rate",
    }  # fmt: skip
    publish_json(folder / FACTS, {"format": 1, **config.model_dump(mode="json", include=told), **facts})


@dataclass(frozen=True)
class Fitted:
    """How a run went. steps: done; best_step: after which the weights were taken; seconds: over all sittings.

    day, software: when the last step was done, and with which versions; "" where that is not known.
    """

    steps: int
    best_step: int
    seconds: float
    day: str = ""
    software: str = ""


def data_of(material: Material) -> dict[str, list[str]]:
    """What each split is made of: file names of scenes without their folders, and regions held out."""
    names = {split: [Path(s.scene.path).name for s in scenes] for split, scenes in material.splits.items()}
    names["validation"] += [
        f"{region.name} of {Path(s.scene.path).name}" for s in material.train for region in s.held_out
    ]
    return {split: found for split, found in names.items() if found}


def run_notes(
    config: TrainConfig, material: Material, fitted: Fitted, scored_px: Mapping[str, int]
) -> list[str]:
    """What a card should tell of a run, from data and checkpoint alone: nothing of the moment when it is written.

    scored_px: labelled pixels that were scored, by split.
    """
    pixels = {"train": int(sum(index.counts.sum() for index in material.indexes)), **scored_px}
    data = []
    for split, names in data_of(material).items():
        more = f" and {len(names) - MOST_FILES} more" if len(names) > MOST_FILES else ""
        size = f"{pixels.get(split, 0) / 1e6:.3g} labelled megapixels"
        data.append(f"{split}: {len(names)}, {size} ({', '.join(names[:MOST_FILES])}{more})")
    done = f"trained for {fitted.steps} of {config.steps} steps in {fitted.seconds / 60:.1f} minutes"
    kept = (
        f"weights of step {fitted.best_step}"
        if fitted.best_step != fitted.steps
        else "weights of the last step"
    )
    rest = filter(None, [kept, f"seed {config.seed}", fitted.software, fitted.day])
    return [f"scenes for {'; for '.join(data)}", ", ".join([done, *rest])]


@torch.inference_mode()
def write_examples(folder: Path, config: TrainConfig, network: nn.Module, patches: Dataset[Example]) -> None:
    """`examples.npz`: image, labels and answer of a few validation patches, spread evenly.

    For each number n from 0: image_n (band, row, col) raw values of at most three bands, labels_n and answers_n
    (row, col) uint8 class ids, NODATA where nothing is labelled. OutputError where the disk refuses.
    """
    count, channels = len(patches), len(config.classes)  # type: ignore[arg-type]
    numbers = range(0, count, -(-count // CANDIDATES)) if count else range(0)
    by_size = sorted(numbers, key=lambda n: (-int((patches[n][1] < channels).sum()), n))
    lookup = np.full(256, NODATA, np.uint8)
    lookup[: len(config.classes)] = config.legend.ids
    arrays: dict[str, np.ndarray] = {}
    network.eval()
    for place, number in enumerate(sorted(by_size[:MOST_EXAMPLES])):
        pixels, targets = patches[number]
        rows, cols = (targets < channels).nonzero(as_tuple=True)
        if not len(rows):
            continue
        box = (slice(int(rows.min()), int(rows.max()) + 1), slice(int(cols.min()), int(cols.max()) + 1))
        answer = network(pixels[None])[0].argmax(0)
        arrays[f"image_{place}"] = pixels.numpy()[_shown(config.bands)][:, box[0], box[1]]
        arrays[f"labels_{place}"] = lookup[targets.numpy()[box].clip(0, NODATA)]
        arrays[f"answers_{place}"] = lookup[answer.numpy()[box]]
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
    publish_bytes(folder / EXAMPLES, stream.getvalue())


def _shown(bands: Sequence[str]) -> list[int]:
    """Bands that a picture is made of: red, green and blue, else the first ones."""
    wanted = ("red", "green", "blue")
    return (
        [bands.index(name) for name in wanted]
        if set(wanted) <= set(bands)
        else list(range(min(3, len(bands))))
    )


def _number(value: float) -> float | None:
    return value if value == value else None
