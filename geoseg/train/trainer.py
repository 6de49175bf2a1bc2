"""From a training file to a bundle."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset

from geoseg.io.rasters import configure_gdal
from geoseg.model.card import Band
from geoseg.model.export import write_bundle
from geoseg.model.measure import note_equal_labels
from geoseg.model.network import Network, build_body
from geoseg.spec import InputSpec, SegmentSpec
from geoseg.train.augment import Augmentation
from geoseg.train.config import TrainConfig, load_config
from geoseg.train.data import Example, ScoredPatches, TrainingPatches
from geoseg.train.demos import write_demos
from geoseg.train.loop import SegmentationTask, build_trainer
from geoseg.train.losses import WeightedLoss
from geoseg.train.sampling import LabelIndex, PatchSampler, Statistics, index_labels
from geoseg.train.scenes import LabelledScene, open_scenes
from geoseg.train.scores import Outcome, calibration_error, find_temperature, iou_of, mean_iou, score

import lightning  # isort: skip

LOG = logging.getLogger(__name__)
SCORE_BATCH = 4
EQUAL_LABEL_PATCHES = 12
"""Patches on which runtimes and precisions are compared with the reference."""


@dataclass(frozen=True)
class Material:
    """What a run learns from and is scored on. statistics: of the pixels that are trained on."""

    train: tuple[LabelledScene, ...]
    validation: tuple[LabelledScene, ...]
    test: tuple[LabelledScene, ...]
    indexes: tuple[LabelIndex, ...]
    statistics: Statistics

    @property
    def fill(self) -> tuple[float | int, ...]:
        """What stands in for pixels without data, as on the card: the mean, rounded for whole numbers."""
        whole = self.train[0].scene.dtype != "float32"
        return tuple(round(mean) if whole else mean for mean in self.statistics.mean)


def train(config_path: Path, output: Path, progress_bar: bool | None = None) -> Path:
    """Train what the file says and write the bundle to `output`; the folder is returned.

    Checkpoints (plain state: they load with weights_only), the log of losses and scores, and rendered demo
    scenes are left beside it, in `<output>.training`. Raises SpecError for a file that cannot be followed,
    SourceError or ModelError for data that does not fit, OutputError where the bundle cannot be written.
    """
    config = load_config(config_path, os.environ)
    configure_gdal()
    folder = output.with_name(f"{output.name}.training")
    lightning.seed_everything(config.seed, verbose=False)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    material = gather(config, folder)
    network = new_network(config, material)
    show = sys.stderr.isatty() if progress_bar is None else progress_bar
    fit(network, config, material, folder, show)
    return finish(network, config, material, output)


def wants_of(config: TrainConfig) -> InputSpec:
    """What scenes must offer; what stands in for missing pixels is measured later."""
    nothing = (0,) * len(config.bands)
    return InputSpec(config.bands, config.dtype, nothing, (config.gsd_m.min, config.gsd_m.max))


def gather(config: TrainConfig, folder: Path) -> Material:
    """Open and check all scenes, render the demo ones, count labels and measure bands."""
    wants = wants_of(config)
    scenes = open_scenes(config, config.datasets, wants)
    by_split = {
        split: tuple(s for s in scenes if s.split == split) for split in ("train", "validation", "test")
    }
    train_scenes = by_split["train"]
    indexes = [index_labels(scene, len(config.classes)) for scene in train_scenes]
    for scene in by_split["validation"] + by_split["test"]:
        index_labels(scene, len(config.classes))
    if config.demo is not None:
        demos = open_scenes(config, write_demos(config.demo, folder / "demo"), wants)
        counted = [index_labels(scene, len(config.classes)) for scene in demos]
        train_scenes += _with_share(demos, counted, train_scenes, indexes, config.demo.share)
        indexes += counted
    return Material(
        train_scenes, by_split["validation"], by_split["test"], tuple(indexes), Statistics.of(indexes)
    )


def _with_share(
    demos: Sequence[LabelledScene],
    counted: Sequence[LabelIndex],
    others: Sequence[LabelledScene],
    indexes: Sequence[LabelIndex],
    share: float,
) -> tuple[LabelledScene, ...]:
    """The demo scenes, weighted to be `share` of what is drawn (all, where there is nothing else)."""
    real = float(sum(scene.weight * index.counts.sum() for scene, index in zip(others, indexes, strict=True)))
    made = float(sum(index.counts.sum() for index in counted))
    weight = share / max(1 - share, 1e-6) * real / made if real and made else 1.0
    return tuple(replace(scene, weight=weight) for scene in demos)


def new_network(config: TrainConfig, material: Material) -> Network:
    """The untrained network, with the normalization that was measured."""
    bands = tuple(
        Band(name=name, mean=mean, std=std)
        for name, mean, std in zip(
            config.bands, material.statistics.mean, material.statistics.std, strict=True
        )
    )
    return Network(build_body(config.architecture, config.encoder, len(bands), len(config.classes)), bands)


def fit(network: Network, config: TrainConfig, material: Material, folder: Path, progress_bar: bool) -> None:
    """Train in place, to the averaged weights that validated best, or to the last without validation."""
    task = SegmentationTask(network, WeightedLoss(config.loss, config.legend), config)
    held_out = _held_out(config, material, margin_px=0)
    trainer, best = build_trainer(config, folder, held_out is not None, progress_bar)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning|torch\.utils\.data")
        trainer.fit(task, _training_loader(config, material), held_out)
    if held_out is None:
        LOG.info("no validation pixels: the last averaged weights are kept")
        return
    state = torch.load(best.best_model_path, weights_only=True, map_location="cpu")["state_dict"]
    task.load_state_dict(state)
    LOG.info("kept %s", best.best_model_path)


def _training_loader(config: TrainConfig, material: Material) -> DataLoader[Example]:
    sampler = PatchSampler(
        material.train, material.indexes, config.crop_px, config.augment.zoom, config.class_balance
    )
    augmentation = Augmentation(
        config.augment, photometric=len(config.bands) == 3 and config.dtype == "uint8"
    )
    patches = TrainingPatches(
        material.train,
        sampler,
        augmentation,
        material.fill,
        config.crop_px,
        config.steps * config.batch,
        config.seed,
    )
    return _loader(patches, config.batch, config.workers)


def _loader(patches: Dataset[Example], batch: int, workers: int) -> DataLoader[Example]:
    method = "fork" if workers else None
    return DataLoader(patches, batch, num_workers=workers, multiprocessing_context=method, in_order=True)


def _held_out(config: TrainConfig, material: Material, margin_px: int) -> DataLoader[Example] | None:
    """All that choices are made on, held-out regions and validation scenes; None where there is neither."""
    spec = SegmentSpec(config.patch_px, margin_px)
    with_regions = [scene for scene in material.train if scene.held_out]
    parts: ConcatDataset[Example] = ConcatDataset(
        [
            ScoredPatches(with_regions, spec, material.fill, held_out_only=True),
            ScoredPatches(material.validation, spec, material.fill, held_out_only=False),
        ]
    )
    return _loader(parts, SCORE_BATCH, 0) if len(parts) else None


def finish(network: Network, config: TrainConfig, material: Material, output: Path) -> Path:
    """Score the network as it will be stored, set its temperature, and write the bundle with both."""
    _round_as_stored(network.body)
    channels = len(config.classes)
    margin = SegmentSpec().margin_px if config.patch_px > 2 * SegmentSpec().margin_px else 0
    card = _card(config, network)
    scores: dict[str, float] = {}
    held_out = _held_out(config, material, margin)
    if held_out is not None:
        outcome = score(network, held_out, channels)
        card["temperature"] = find_temperature(outcome)
        scores = _named(outcome, config, "validation")
        scores["ece_validation_uncalibrated"] = calibration_error(outcome, 1.0)
        scores["ece_validation"] = calibration_error(outcome, card["temperature"])
    for scene in material.test:
        patches = ScoredPatches(
            [scene], SegmentSpec(config.patch_px, margin), material.fill, held_out_only=False
        )
        outcome = score(network, _loader(patches, SCORE_BATCH, 0), channels)
        scores |= _named(outcome, config, scene.scene.name)
    card["scores"] = {name: round(value, 4) for name, value in scores.items()}
    bundle = write_bundle(network.body, card, output)
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
    LOG.info("%s: mIoU %.4f, %s", where, mean_iou(outcome.confusion), ious)
    named = {f"iou_{name}_{where}": iou for name, iou in ious.items() if iou == iou}
    return {f"miou_{where}": mean_iou(outcome.confusion), **named}


def _card(config: TrainConfig, network: Network) -> dict[str, Any]:
    """The card's fields but files, scores and temperature."""
    fields = {
        "name", "version", "description", "license", "architecture", "encoder", "dtype", "gsd_m", "classes",
        "patch_px", "training_data", "notes",
    }  # fmt: skip
    card = config.model_dump(mode="json", include=fields)
    card["bands"] = [
        {"name": name, "mean": round(float(mean), 3), "std": round(float(std), 3)}
        for name, mean, std in zip(config.bands, network.mean.flatten(), network.std.flatten(), strict=True)
    ]
    return card
