"""What a run learns from and is scored on: scenes, counted and measured, and the loaders over them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Sampler

from geoseg.legend import role_remarks
from geoseg.spec import InputSpec, SegmentSpec
from geoseg.train.augment import Augmentation
from geoseg.train.checks import check_classes, scale_remark
from geoseg.train.config import TrainConfig
from geoseg.train.data import Example, ScoredPatches, TrainingPatches
from geoseg.train.demos import write_demos
from geoseg.train.sampling import LabelIndex, PatchSampler, Statistics, index_labels
from geoseg.train.scenes import LabelledScene, open_scenes

LOG = logging.getLogger(__name__)
SCORE_BATCH = 4


@dataclass(frozen=True)
class Material:
    """What a run learns from and is scored on.

    statistics: of the pixels that are trained on. remarks: what a person should know of them before and after.
    """

    train: tuple[LabelledScene, ...]
    validation: tuple[LabelledScene, ...]
    test: tuple[LabelledScene, ...]
    indexes: tuple[LabelIndex, ...]
    statistics: Statistics
    remarks: tuple[str, ...] = ()

    @property
    def splits(self) -> dict[str, tuple[LabelledScene, ...]]:
        """The scenes by split."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @property
    def digest(self) -> str:
        """Of what was counted and measured: other scenes, labels or regions have another."""
        found = hashlib.sha256()
        for index in self.indexes:
            for values in (index.counts, index.total, index.squares):
                found.update(np.ascontiguousarray(values).tobytes())
        return found.hexdigest()

    @property
    def fill(self) -> tuple[float | int, ...]:
        """What stands in for pixels without data, as on the card: the mean, rounded for whole numbers."""
        whole = self.train[0].scene.dtype != "float32"
        return tuple(round(mean) if whole else mean for mean in self.statistics.mean)


def wants_of(config: TrainConfig) -> InputSpec:
    """What scenes must offer; what stands in for missing pixels is measured later."""
    nothing = (0,) * len(config.bands)
    return InputSpec(config.bands, config.dtype, nothing, (config.gsd_m.min, config.gsd_m.max))


def gather(config: TrainConfig, folder: Path) -> Material:
    """Open and check all scenes, render the demo ones, count labels and measure bands.

    A training scene that teaches nothing is warned of; SpecError where all do, or where a class has no pixel.
    """
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
    statistics = Statistics.of(indexes)
    for scene, index in zip(train_scenes, indexes, strict=True):
        if not index.counts.any():
            LOG.warning("%s: no pixel to train on is labelled: the scene teaches nothing", scene.labels.path)
    validation, test = by_split["validation"], by_split["test"]
    check_classes(train_scenes, indexes, validation + test)
    remarks = tuple(filter(None, [*role_remarks(config.legend), scale_remark(config, train_scenes)]))
    for remark in remarks:
        LOG.warning(remark)
    return Material(train_scenes, validation, test, tuple(indexes), statistics, remarks)


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


class FromStep(Sampler[int]):
    """Numbers of patches in their order, from one on; its length is that of the whole run."""

    def __init__(self, first: int, count: int) -> None:
        self._first, self._count = first, count

    def __iter__(self) -> Iterator[int]:
        return iter(range(self._first, self._count))

    def __len__(self) -> int:
        return self._count


def training_loader(config: TrainConfig, material: Material, first_step: int) -> DataLoader[Example]:
    """All patches of the run, from a step on."""
    sampler = PatchSampler(
        material.train, material.indexes, config.crop_px, config.augment.zoom, config.class_balance
    )
    augmentation = Augmentation(
        config.augment, photometric=len(config.bands) == 3 and config.dtype == "uint8"
    )
    per_step = config.batch * config.accumulate
    patches = TrainingPatches(
        material.train,
        sampler,
        augmentation,
        material.fill,
        config.crop_px,
        config.steps * per_step,
        config.seed,
    )
    order = FromStep(first_step * per_step, config.steps * per_step)
    return _loader(patches, config.batch, config.workers, order)


def _loader(
    patches: Dataset[Example], batch: int, workers: int, order: Sampler[int] | None = None
) -> DataLoader[Example]:
    method = "fork" if workers else None
    return DataLoader(
        patches, batch, sampler=order, num_workers=workers, multiprocessing_context=method, in_order=True
    )


def held_out_loader(config: TrainConfig, material: Material, margin_px: int) -> DataLoader[Example] | None:
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


def scene_loader(
    config: TrainConfig, material: Material, scene: LabelledScene, margin_px: int
) -> DataLoader[Example]:
    """All of a test scene."""
    spec = SegmentSpec(config.patch_px, margin_px)
    return _loader(ScoredPatches([scene], spec, material.fill, held_out_only=False), SCORE_BATCH, 0)
