"""Whether a training is over and its bundle written. No torch is imported, so that this is told at once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from geoseg.errors import GeosegError
from geoseg.io.files import publish_json, read_json
from geoseg.model.bundle import CARD, Bundle, sha256_of
from geoseg.spec import digest_of
from geoseg.train.config import TrainConfig

DONE, FACTS = "done.json", "training.json"
ALREADY = "%s is done; --fresh begins anew"


def training_folder(output: Path) -> Path:
    """Where a run keeps what is not the bundle."""
    return output.with_name(f"{output.name}.training")


def note_done(config: TrainConfig, output: Path) -> None:
    """Leave in the training folder what the bundle was made of. OutputError where the disk refuses."""
    publish_json(training_folder(output) / DONE, _made(config, output))


def is_done(config: TrainConfig, output: Path) -> bool:
    """Whether the bundle lies there, unaltered, and was made by this training file from these files.

    Files of scenes, labels and weights are known by name, size and time; where one was touched the answer is no,
    and a training that goes on compares what is in them.
    """
    try:
        folder = training_folder(output)
        if not (folder / FACTS).is_file() or read_json(folder / DONE) != _made(config, output):
            return False
        Bundle.open(output)
    except (GeosegError, OSError):
        return False
    return True


def _made(config: TrainConfig, output: Path) -> dict[str, Any]:
    files = {path.resolve(): path for entry in config.datasets for path in (entry.scene, entry.labels)}
    for entry in config.datasets:
        if entry.validation_regions is not None:
            files[entry.validation_regions.file.resolve()] = entry.validation_regions.file
    if config.start.encoder is not None:
        files[config.start.encoder.resolve()] = config.start.encoder
    if config.start.bundle is not None and (config.start.bundle / CARD).is_file():
        files[config.start.bundle.resolve() / CARD] = config.start.bundle / CARD
    return {
        "format": 1,
        "settings": digest_of(config.model_dump(mode="json")),
        "files": digest_of(sorted([str(path), *_size_and_time(path)] for path in files)),
        "card": sha256_of(output / CARD),
    }


def _size_and_time(path: Path) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns
