"""From a training file to a bundle."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from geoseg.errors import GeosegError, ModelError, OutputError, SpecError
from geoseg.io.files import make_folder
from geoseg.io.rasters import configure_gdal
from geoseg.model.bundle import CARD
from geoseg.model.card import Band
from geoseg.model.export import as_stored, write_bundle
from geoseg.model.measure import note_equal_labels
from geoseg.model.network import Network
from geoseg.spec import SegmentSpec
from geoseg.train.checkpoints import (
    FOLDER,
    LAST,
    OURS,
    clear_away,
    found_checkpoint,
    read_checkpoint,
    settings_of,
)
from geoseg.train.config import TrainConfig
from geoseg.train.data import Example
from geoseg.train.done import ALREADY, is_done, note_done, training_folder
from geoseg.train.lock import alone_in
from geoseg.train.loop import SegmentationTask, build_trainer, listed_ious, quiet_lightning
from geoseg.train.losses import WeightedLoss
from geoseg.train.material import Material, gather, held_out_loader, scene_loader, training_loader, wants_of
from geoseg.train.reading import load_config
from geoseg.train.record import Fitted, calibrated, data_of, run_notes, scored, write_examples, write_facts
from geoseg.train.scores import Outcome, find_temperature, iou_of, mean_iou, sample_step, score
from geoseg.train.stopping import Stop
from geoseg.train.transfer import start_body
from geoseg.train.trial import try_sizes

import lightning  # isort: skip

__all__ = [
    "Fitted", "Learned", "Material", "finish", "fit", "gather", "learn", "new_network", "train", "train_config",
    "training_folder", "wants_of",
]  # fmt: skip

LOG = logging.getLogger(__name__)
EQUAL_LABEL_PATCHES = 12
"""Patches on which runtimes and precisions are compared with the reference."""


def train(config_path: Path, output: Path, progress_bar: bool | None = None, fresh: bool = False) -> Path:
    """Train what the file says and write the bundle to `output`; the folder is returned.

    The checkpoint (plain state: it loads with weights_only), logs for people and for TensorBoard, what the page
    shows and rendered demo scenes are left beside it, in `<output>.training`. A run of the same training file that
    was stopped or killed goes on from its checkpoint, unless `fresh`, and ends with the same weights as if it had
    not been. Raises SpecError for a file that cannot be followed, SourceError or ModelError for data that does not
    fit, OutputError where the disk refuses or another process trains there already.
    """
    config = load_config(config_path, os.environ)
    try:
        return train_config(config, output, progress_bar, fresh)
    except (SpecError, ModelError) as error:
        if error.path is not None:
            raise
        raise type(error)(str(error), config_path) from error  # what fits no data or network is said there


def train_config(
    config: TrainConfig, output: Path, progress_bar: bool | None = None, fresh: bool = False
) -> Path:
    """Train what was read from a file, as `train` does. One that is done is left as it is, unless `fresh`."""
    if output.exists() and not (output / CARD).is_file() and (output.is_file() or any(output.iterdir())):
        raise OutputError("is there already and is no model bundle, so it is not replaced", output)
    configure_gdal()
    show = sys.stderr.isatty() if progress_bar is None else progress_bar
    folder = training_folder(output)
    with alone_in(folder):
        if not fresh and is_done(config, output):
            LOG.info(ALREADY, output)
            return output
        finish(learn(config, folder, show, fresh), config, output)
        note_done(config, output)
        return output


@dataclass(frozen=True)
class Learned:
    """A trained network, what it learned from, how that went, and what it started from, in words."""

    network: Network
    material: Material
    fitted: Fitted
    begun: tuple[str, ...]


def learn(config: TrainConfig, folder: Path, progress_bar: bool, fresh: bool = False) -> Learned:
    """Train a network, or go on from the checkpoint in `folder`. Raises as `train` does."""
    state = found_checkpoint(folder, config, fresh)
    lightning.seed_everything(config.seed, verbose=False)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    body, begun = start_body(config)
    try_sizes(body, config)
    make_folder(folder)
    for line in begun:
        LOG.info(line)
    material = gather(config, folder)
    network = new_network(config, material, body)
    if state is None:  # not before all of the new run is known to be sound
        clear_away(folder)
    return Learned(network, material, fit(network, config, material, folder, progress_bar, state), begun)


def new_network(config: TrainConfig, material: Material, body: nn.Module | None = None) -> Network:
    """The network to train, with the normalization that was measured. body: of start_body, else built anew."""
    if body is None:
        body, _ = start_body(config)
    return Network(body, _bands(config, material))


def _bands(config: TrainConfig, material: Material) -> tuple[Band, ...]:
    measured = zip(config.bands, material.statistics.mean, material.statistics.std, strict=True)
    return tuple(Band(name=name, mean=mean, std=std) for name, mean, std in measured)


def fit(
    network: Network,
    config: TrainConfig,
    material: Material,
    folder: Path,
    progress_bar: bool,
    state: dict[str, Any] | None = None,
) -> Fitted:
    """Train in place, to the averaged weights that validated best, or to the last without validation.

    state: the checkpoint in `folder` to go on from. Raises SpecError where its data was other data, OutputError
    where the disk refuses, KeyboardInterrupt where the run is stopped by a signal.
    """
    held_out = held_out_loader(config, material, margin_px=0)
    path = folder / FOLDER / LAST
    if state is not None and state[OURS]["data"] != material.digest:
        raise SpecError("is of other scenes or labels than those there are now; --fresh starts anew", path)
    if state is None or not state[OURS]["over"]:
        _sit(network, config, material, folder, progress_bar, held_out, state)
        state = read_checkpoint(path)
    best = state[OURS]["best"]
    if held_out is None:
        LOG.info("no validation pixels: the last averaged weights are kept")
        weights = {
            k.removeprefix("network."): v for k, v in state["state_dict"].items() if k.startswith("network.")
        }
        network.load_state_dict(weights)
    else:
        LOG.info("kept the weights of step %d, validation mIoU %.3f", best["step"], best["score"])
        network.load_state_dict(best["weights"])
    steps = int(state["global_step"])
    ours = state[OURS]
    best_step = steps if held_out is None else best["step"]
    return Fitted(steps, best_step, ours["seconds"], ours.get("day", ""), ours.get("software", ""))


def _sit(
    network: Network,
    config: TrainConfig,
    material: Material,
    folder: Path,
    progress_bar: bool,
    held_out: DataLoader[Example] | None,
    state: dict[str, Any] | None,
) -> None:
    """Train until the run is over; its checkpoint is left in `folder`."""
    known = {"settings": settings_of(config), "data": material.digest}
    task = SegmentationTask(network, WeightedLoss(config.loss, config.legend), config, known)
    first = int(state["global_step"]) if state is not None else 0
    if first:
        LOG.info("goes on after step %d of %d, from %s", first, config.steps, folder / FOLDER / LAST)
    path = folder / FOLDER / LAST if state is not None else None
    stop = Stop()
    try:
        with quiet_lightning(), stop.restored(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning|torch\.utils\.data")
            trainer = build_trainer(config, folder, held_out is not None, progress_bar, first, stop)
            loader = training_loader(config, material, first)
            trainer.fit(task, loader, held_out, ckpt_path=path, weights_only=True)
    except SystemExit:  # Lightning's way to end after a signal
        raise KeyboardInterrupt from None
    except GeosegError as error:
        raise _as_raised(error) from error
    except torch.OutOfMemoryError as error:
        raise SpecError(
            f"the GPU's memory does not hold batch: {config.batch} at crop_px: {config.crop_px}; lower batch, and "
            "raise accumulate by as much"
        ) from error
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise SpecError(
            f"a process that reads patches has died ({' '.join(str(error).split())[:200]}); lower workers, or give "
            "it more memory (/dev/shm, too)"
        ) from error
    except OSError as error:
        raise OutputError(f"cannot be written to ({error.strerror or error})", folder) from error


def _as_raised(error: GeosegError) -> GeosegError:
    """An error of a loader's process as it was raised there: torch leads it with the traceback, as text."""
    text = str(error.args[0])
    if not text.startswith("Caught "):
        return error
    return type(error)(text.strip().splitlines()[-1].partition(": ")[2])


def finish(learned: Learned, config: TrainConfig, output: Path) -> Path:
    """Score the network as it will be stored, set its temperature, and write the bundle with both.

    What the page shows is left in the training folder. The same checkpoint gives the same card.
    """
    network, material, begun = learned.network, learned.material, learned.begun
    _round_as_stored(network.body)
    channels, folder = len(config.classes), training_folder(output)
    margin = SegmentSpec().margin_px if config.patch_px > 2 * SegmentSpec().margin_px else 0
    scored_px: dict[str, int] = {}
    scores: dict[str, float] = {}
    facts: dict[str, Any] = {
        "done": asdict(learned.fitted), "start": list(begun),
        "parameters": sum(p.numel() for p in network.parameters()),
        "learned_px": np.sum([i.counts.sum(axis=(0, 1)) for i in material.indexes], axis=0).tolist(), "tests": {},
        "data": data_of(material),
    }  # fmt: skip
    temperature = 1.0
    held_out = held_out_loader(config, material, margin)
    if held_out is not None:
        LOG.info("scoring the validation pixels ...")
        every = sample_step(len(held_out.dataset) * config.patch_px**2)  # type: ignore[arg-type]
        outcome = score(network, held_out, channels, every)
        temperature = find_temperature(outcome)
        scored_px["validation"] = int(outcome.confusion.sum())
        scores = _named(outcome, config, "validation")
        facts["validation"] = scored(outcome, config)
        facts["calibration"] = calibrated(outcome, temperature)
        scores["ece_validation_uncalibrated"] = facts["calibration"]["error"]["before"]
        scores["ece_validation"] = facts["calibration"]["error"]["after"]
    for scene in material.test:
        LOG.info("scoring %s ...", scene.scene.name)
        outcome = score(network, scene_loader(config, material, scene, margin), channels, None)
        scored_px["test"] = scored_px.get("test", 0) + int(outcome.confusion.sum())
        scores |= _named(outcome, config, scene.scene.name)
        facts["tests"][scene.scene.name] = scored(outcome, config)
    card = _card(config, material, [*begun, *run_notes(config, material, learned.fitted, scored_px)])
    card["temperature"] = temperature
    card["scores"] = {name: round(value, 4) for name, value in scores.items()}
    if held_out is not None:
        write_examples(folder, config, network, held_out.dataset)
    write_facts(folder, config, facts)
    LOG.info("writing the bundle, for PyTorch and OpenVINO ...")
    bundle = write_bundle(network.body, card, output)
    if held_out is not None:
        LOG.info("comparing the ways to run it ...")
        note_equal_labels(bundle, _spread(held_out.dataset, config.dtype))
    for remark in material.remarks:
        LOG.warning(remark)
    return output


def _spread(examples: Dataset[Example], dtype: str) -> list[np.ndarray]:
    """Raw pixels of a few patches, spread evenly over all."""
    count = len(examples)  # type: ignore[arg-type]
    step = -(-count // EQUAL_LABEL_PATCHES)
    return [examples[number][0].numpy().astype(dtype) for number in range(0, count, step)]


def _round_as_stored(body: nn.Module) -> None:
    """Round weights as bundles hold them, so that scores are those of the bundle."""
    with torch.no_grad():
        for value in body.state_dict().values():
            value.copy_(as_stored(value))


def _named(outcome: Outcome, config: TrainConfig, where: str) -> dict[str, float]:
    """Scores as the card names them; classes that occur nowhere have none."""
    ious = dict(zip(config.legend.names, iou_of(outcome.confusion).tolist(), strict=True))
    listed = listed_ious(config.legend.names, iou_of(outcome.confusion))
    LOG.info("%s: mIoU %.4f (%s)", where, mean_iou(outcome.confusion), listed)
    named = {f"iou_{name}_{where}": iou for name, iou in ious.items() if iou == iou}
    return {f"miou_{where}": mean_iou(outcome.confusion), **named}


def _card(config: TrainConfig, material: Material, known: Sequence[str]) -> dict[str, Any]:
    """The card's fields but files, scores and temperature. known: what is known of the run, for the notes."""
    fields = {
        "name", "version", "description", "license", "architecture", "encoder", "options", "dtype", "gsd_m", "classes",
        "patch_px", "training_data", "notes",
    }  # fmt: skip
    card = config.model_dump(mode="json", include=fields)
    card["notes"] += [f"{line[0].upper()}{line[1:]}." for line in known]
    card["bands"] = [band.model_dump() for band in _bands(config, material)]
    return card
