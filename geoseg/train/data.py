"""What the loaders feed: training patches by number, and the lattice's patches for scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from geoseg.grid.lattice import Lattice
from geoseg.grid.window import Window
from geoseg.spec import SegmentSpec
from geoseg.train.augment import Augmentation, resized
from geoseg.train.labels import IGNORED
from geoseg.train.sampling import PatchSampler
from geoseg.train.scenes import LabelledScene

Example = tuple[Tensor, Tensor]
"""Raw pixels (band, row, col) and targets (row, col) int64: channel, IGNORED, or a set (see SceneLabels.codes)."""


def _example(pixels: Tensor, targets: Tensor, valid: Tensor, fill: Tensor, codes: np.ndarray) -> Example:
    return torch.where(valid, pixels, fill), torch.from_numpy(codes)[targets.long()]


class TrainingPatches(Dataset[Example]):
    """Patch number i depends on the seed and i only, whatever worker reads it.

    Rasters are read by a thread of each process: open ones are kept per thread, and a loader's forked workers must
    not read through those of their parent, whose place in the file they would share.
    """

    def __init__(
        self,
        scenes: Sequence[LabelledScene],
        sampler: PatchSampler,
        augmentation: Augmentation,
        fill: Sequence[float | int],
        crop_px: int,
        count: int,
        seed: int,
    ) -> None:
        self._scenes, self._sampler, self._augmentation = scenes, sampler, augmentation
        self._fill, self._crop_px, self._count, self._seed = fill, crop_px, count, seed

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> Example:
        seeds = np.random.SeedSequence([self._seed, number])
        draw = self._sampler.draw(np.random.default_rng(seeds))
        scene, statistics = self._scenes[draw.scene], self._sampler.statistics
        patch = resized(*scene.read(draw.window), self._crop_px)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(seeds.generate_state(1, np.uint64)[0]))
            pixels, targets, valid = self._augmentation(*patch, statistics)
        return _example(pixels, targets, valid, fill_like(self._fill, pixels), scene.labels.codes)


def fill_like(fill: Sequence[float | int], pixels: Tensor) -> Tensor:
    """(band, 1, 1), in the dtype of the pixels."""
    return torch.tensor(fill, dtype=pixels.dtype).reshape(-1, 1, 1)


@dataclass(frozen=True)
class ScoredPatch:
    """What the network sees, and the center that it is scored on."""

    scene: int
    window: Window
    center: Window


class ScoredPatches(Dataset[Example]):
    """Patches of the inference lattice; each pixel to score has a target in exactly one of them.

    held_out_only: score the regions held out of a scene, instead of all of it.
    """

    def __init__(
        self,
        scenes: Sequence[LabelledScene],
        spec: SegmentSpec,
        fill: Sequence[float | int],
        held_out_only: bool,
    ) -> None:
        self._scenes, self._fill, self._held_out_only = scenes, fill, held_out_only
        self._patches = [
            ScoredPatch(number, window, lattice.center(window))
            for number, scene in enumerate(scenes)
            for lattice in [Lattice(scene.window.height, scene.window.width, spec)]
            for window in lattice.patches(scene.window)
            if not held_out_only or scene.touches_held_out(lattice.center(window))
        ]

    def __len__(self) -> int:
        return len(self._patches)

    def __getitem__(self, number: int) -> Example:
        patch = self._patches[number]
        scene = self._scenes[patch.scene]
        pixels, targets, valid = scene.read(patch.window)
        scored = np.full_like(targets, IGNORED)
        at = patch.center.within(patch.window)
        scored[at] = targets[at]
        if self._held_out_only:
            scored[at][~scene.in_held_out(patch.center)] = IGNORED
        image = torch.from_numpy(pixels)
        return _example(
            image,
            torch.from_numpy(scored),
            torch.from_numpy(valid),
            fill_like(self._fill, image),
            scene.labels.codes,
        )
