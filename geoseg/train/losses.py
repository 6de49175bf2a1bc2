"""What is minimized."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from geoseg.legend import Legend
from geoseg.model import _torchvision  # noqa: F401  must come before segmentation_models_pytorch
from geoseg.train.config import LossSettings
from geoseg.train.scenes import IGNORED

import segmentation_models_pytorch as smp  # isort: skip


class WeightedLoss(nn.Module):
    """Cross entropy with label smoothing (Szegedy et al. 2016) plus Dice (Milletari et al. 2016), weighted.

    forward: logits (n, channel, row, col) float32, targets (n, row, col) int64 -> a scalar. Pixels whose
    target is IGNORED count in neither; a batch of nothing else gives 0.
    """

    def __init__(self, settings: LossSettings, legend: Legend) -> None:
        super().__init__()
        weights = torch.tensor([settings.class_weights.get(name, 1.0) for name in legend.names])
        self._cross_entropy = nn.CrossEntropyLoss(
            weights, ignore_index=IGNORED, label_smoothing=settings.label_smoothing
        )
        self._dice = smp.losses.DiceLoss("multiclass", ignore_index=IGNORED)
        self._settings = settings

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        if not (targets != IGNORED).any():
            return logits.sum() * 0
        loss: Tensor = self._settings.cross_entropy * self._cross_entropy(logits, targets)
        loss = loss + self._settings.dice * self._dice(logits, targets)
        return loss
