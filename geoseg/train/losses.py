"""What is minimized."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from geoseg.legend import Legend
from geoseg.model import _torchvision  # noqa: F401  must come before segmentation_models_pytorch
from geoseg.train.config import LossSettings
from geoseg.train.labels import IGNORED, SET

import segmentation_models_pytorch as smp  # isort: skip

LOG_OF_ZERO = -4.0
"""What stands for log 0 in the reverse cross entropy, as in its paper."""


class WeightedLoss(nn.Module):
    """A weighted sum of losses, by their names in the settings.

    cross_entropy: with label smoothing (Szegedy et al. 2016). dice (Milletari et al. 2016), tversky (Salehi et al.
    2017), lovasz (Lovasz-softmax, Berman et al. 2018) and focal (Lin et al. 2017, each class against the rest) are
    those of segmentation-models-pytorch. reverse_cross_entropy: Wang et al. 2019; bounded, so that wrong labels
    pull less.

    forward: logits (n, channel, row, col), targets (n, row, col) int64 -> a scalar float32. Pixels whose target is
    IGNORED count in none; a batch of nothing else gives 0. Of pixels whose target is a set of channels, p in both
    cross entropies is the sum of probabilities over the set (Cermelli et al. 2020): they learn that the class is
    one of these, and nothing about which; so they are not smoothed, and the other losses leave them out. Their
    class weight is the mean over the set.
    """

    def __init__(self, settings: LossSettings, legend: Legend) -> None:
        super().__init__()
        weights = torch.tensor([settings.class_weights.get(name, 1.0) for name in legend.names])
        self.register_buffer("_class_weights", weights, persistent=False)
        self._settings = settings
        kinds: dict[str, Callable[[], nn.Module]] = {
            "dice": lambda: smp.losses.DiceLoss("multiclass", ignore_index=IGNORED),
            "tversky": lambda: smp.losses.TverskyLoss(
                "multiclass",
                ignore_index=IGNORED,
                alpha=settings.tversky_alpha,
                beta=1 - settings.tversky_alpha,
            ),
            "lovasz": lambda: smp.losses.LovaszLoss("multiclass", ignore_index=IGNORED),
            "focal": lambda: smp.losses.FocalLoss(
                "multiclass", gamma=settings.focal_gamma, ignore_index=IGNORED
            ),
        }
        self._others = nn.ModuleDict(
            {name: build() for name, build in kinds.items() if getattr(settings, name)}
        )

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        logits = logits.float()
        exact = torch.where(targets < SET, targets, IGNORED)
        total = logits.sum() * 0
        if self._settings.learns_from_sets and (targets != IGNORED).any():
            total = total + self._of_probabilities(logits, exact, targets)
        if self._others and (exact != IGNORED).any():
            for name, loss in self._others.items():
                total = total + getattr(self._settings, name) * loss(logits, exact)
        return total

    def _of_probabilities(self, logits: Tensor, exact: Tensor, targets: Tensor) -> Tensor:
        """Both cross entropies, each a mean over all pixels that teach."""
        settings, weights = self._settings, self._class_weights
        assert isinstance(weights, Tensor)
        is_exact, is_set = exact != IGNORED, targets >= SET
        rows = logits.movedim(1, -1)
        possible = (targets[is_set] - SET)[:, None] >> torch.arange(len(weights), device=targets.device) & 1
        in_set = rows[is_set].masked_fill(possible == 0, -torch.inf)
        log_share = in_set.logsumexp(1) - rows[is_set].logsumexp(1)
        total = logits.sum() * 0
        if settings.cross_entropy:
            set_weights = (possible * weights).sum(1) / possible.sum(1)
            summed = nn.functional.cross_entropy(
                logits,
                exact,
                weights,
                ignore_index=IGNORED,
                reduction="sum",
                label_smoothing=settings.label_smoothing,
            )
            mass = weights[exact[is_exact]].sum() + set_weights.sum()
            total = total + settings.cross_entropy * (summed - (set_weights * log_share).sum()) / mass
        if settings.reverse_cross_entropy:
            chance = rows[is_exact].softmax(1).gather(1, exact[is_exact][:, None])[:, 0]
            missed = torch.cat([1 - chance, 1 - log_share.exp()])
            total = total - settings.reverse_cross_entropy * LOG_OF_ZERO * missed.mean()
        return total
