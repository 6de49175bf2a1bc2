"""From a training file to a bundle."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import nn
from torch.utils.data import DataLoader, Dataset

from geoseg.errors import GeosegError, OutputError, SpecError
from geoseg.io.files import make_folder
from geoseg.io.rasters import configure_gdal
from geoseg.model.bundle import CARD
from geoseg.model.card import Band
from geoseg.model.export import write_bundle
from geoseg.model.measure import note_equal_labels
from geoseg.model.network import Network
from geoseg.spec import SegmentSpec
from geoseg.train.checkpoints import FOLDER, LAST, OURS, found_checkpoint, read_checkpoint, settings_of
from geoseg.train.config import TrainConfig, load_config
from geoseg.train.data import Example
from geoseg.train.loop import SegmentationTask, build_trainer, quiet_lightning
from geoseg.train.losses import WeightedLoss
from geoseg.train.material import Material, gather, held_out_loader, scene_loader, training_loader, wants_of
from geoseg.train.record import calibrated, scored, write_examples, write_facts
from geoseg.train.scores import Outcome, find_temperature, iou_of, mean_iou, score
from geoseg.train.transfer import start_body

import lightning  # isort: skip

__all__ = [
    "Fitted", "Learned", "Material", "finish", "fit", "gather", "learn", "new_network", "train", "training_folder",
    "wants_of",
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
    fit, OutputError where the disk refuses.
    """
    config = load_config(config_path, os.environ)
    if output.exists() and not (output / CARD).is_file() and (output.is_file() or any(output.iterdir())):
        raise OutputError("is there already and is no model bundle, so it is not replaced", output)
    configure_gdal()
    show = sys.stderr.isatty() if progress_bar is None else progress_bar
    return finish(learn(config, training_folder(output), show, fresh), config, output)


@dataclass(frozen=True)
class Fitted:
    """How a run went. steps: done; best_step: after which the weights were taken; seconds: over all sittings."""

    steps: int
    best_step: int
    seconds: float


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
    make_folder(folder)
    for line in begun:
        LOG.info(line)
    material = gather(config, folder)
    network = new_network(config, material, body)
    return Learned(network, material, fit(network, config, material, folder, progress_bar, state), begun)


def training_folder(output: Path) -> Path:
    """Where a run keeps what is not the bundle."""
    return output.with_name(f"{output.name}.training")


def new_network(config: TrainConfig, material: Material, body: nn.Module | None = None) -> Network:
    """The network to train, with the normalization that was measured. body: of start_body, else built anew."""
    if body is None:
        body, _ = start_body(config)
    bands = tuple(
        Band(name=name, mean=mean, std=std)
        for name, mean, std in zip(
            config.bands, material.statistics.mean, material.statistics.std, strict=True
        )
    )
    return Network(body, bands)


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
    if config.patience is not None and held_out is None:
        raise SpecError("patience counts validations, but no scene and no region is for validation")
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
    return Fitted(steps, steps if held_out is None else best["step"], state[OURS]["seconds"])


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
    try:
        with quiet_lightning(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning|torch\.utils\.data")
            trainer = build_trainer(config, folder, held_out is not None, progress_bar, first)
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

    What the page shows is left in the training folder.
    """
    network, material, begun = learned.network, learned.material, learned.begun
    _round_as_stored(network.body)
    channels, folder = len(config.classes), training_folder(output)
    margin = SegmentSpec().margin_px if config.patch_px > 2 * SegmentSpec().margin_px else 0
    card = _card(config, network, begun)
    scores: dict[str, float] = {}
    facts: dict[str, Any] = {
        "done": asdict(learned.fitted), "start": list(begun),
        "parameters": sum(p.numel() for p in network.parameters()),
        "learned_px": np.sum([i.counts.sum(axis=(0, 1)) for i in material.indexes], axis=0).tolist(), "tests": {},
    }  # fmt: skip
    held_out = held_out_loader(config, material, margin)
    if held_out is not None:
        outcome = score(network, held_out, channels)
        card["temperature"] = find_temperature(outcome)
        scores = _named(outcome, config, "validation")
        facts["validation"] = scored(outcome, config)
        facts["calibration"] = calibrated(outcome, card["temperature"])
        scores["ece_validation_uncalibrated"] = facts["calibration"]["error"]["before"]
        scores["ece_validation"] = facts["calibration"]["error"]["after"]
    for scene in material.test:
        outcome = score(network, scene_loader(config, material, scene, margin), channels)
        scores |= _named(outcome, config, scene.scene.name)
        facts["tests"][scene.scene.name] = scored(outcome, config)
    card["scores"] = {name: round(value, 4) for name, value in scores.items()}
    if held_out is not None:
        write_examples(folder, config, network, held_out.dataset)
    write_facts(folder, config, facts)
    try:
        bundle = write_bundle(network.body, card, output)
    except SafetensorError as error:  # what a full disk is called there
        raise OutputError(f"the bundle could not be written ({error})", output) from error
    if held_out is not None:
        note_equal_labels(bundle, _spread(held_out.dataset, config.dtype))
    return output


def _spread(examples: Dataset[Example], dtype: str) -> list[np.ndarray]:
    """Raw pixels of a few patches, spread evenly over all."""
    count = len(examples)  # type: ignore[arg-type]
    step = -(-count // EQUAL_LABEL_PATCHES)
    return [examples[number][0].numpy().astype(dtype) for number in range(0, count, step)]


def _round_as_stored(body: nn.Module) -> None:
    """Round weights to float16, as bundles hold them, so that scores are those of the bundle."""
    with torch.no_grad():
        for value in body.state_dict().values():
            if value.is_floating_point():
                value.copy_(value.half())


def _named(outcome: Outcome, config: TrainConfig, where: str) -> dict[str, float]:
    """Scores as the card names them; classes that occur nowhere have none."""
    ious = dict(zip(config.legend.names, iou_of(outcome.confusion).tolist(), strict=True))
    listed = ", ".join(f"{name} {iou:.3f}" for name, iou in ious.items())
    LOG.info("%s: mIoU %.4f (%s)", where, mean_iou(outcome.confusion), listed)
    named = {f"iou_{name}_{where}": iou for name, iou in ious.items() if iou == iou}
    return {f"miou_{where}": mean_iou(outcome.confusion), **named}


def _card(config: TrainConfig, network: Network, begun: tuple[str, ...]) -> dict[str, Any]:
    """The card's fields but files, scores and temperature. begun: what the run started from, for the notes."""
    fields = {
        "name", "version", "description", "license", "architecture", "encoder", "options", "dtype", "gsd_m", "classes",
        "patch_px", "training_data", "notes",
    }  # fmt: skip
    card = config.model_dump(mode="json", include=fields)
    card["notes"] += [f"{line[0].upper()}{line[1:]}." for line in begun]
    card["bands"] = [
        {"name": name, "mean": round(float(mean), 3), "std": round(float(std), 3)}
        for name, mean, std in zip(config.bands, network.mean.flatten(), network.std.flatten(), strict=True)
    ]
    return card
