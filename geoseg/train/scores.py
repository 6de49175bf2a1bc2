"""Scores of a network on labelled patches, and the temperature that makes its confidence honest."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from geoseg.model import _torchvision  # noqa: F401  must come before torchmetrics, which imports torchvision
from geoseg.train.data import Example
from geoseg.train.labels import SET

from torchmetrics.functional.classification import multiclass_calibration_error  # isort: skip

BINS = 15
CALIBRATION_STEP = 7
"""Every how many pixels, along rows and columns, one is used to find the temperature, at least."""
MOST_SAMPLED = 2_000_000
"""Pixels that are used, about, so that memory does not grow with the scenes."""
TEMPERATURES = (0.05, 20.0)


def confusion_of(chosen: Tensor, targets: Tensor, channels: int) -> Tensor:
    """(channel + 1, channel) int64: pixels by target (rows) and chosen channel (columns); none IGNORED.

    The last row counts the pixels of which only a set of classes is known, and the chosen one is not in it: wrong
    for certain. Where it is in the set, nobody knows, and the pixel is left out.
    """
    known = targets < channels
    wrong = (targets >= SET) & ((targets - SET).bitwise_right_shift(chosen) & 1 == 0)
    pairs = torch.cat([targets[known] * channels + chosen[known], channels**2 + chosen[wrong]])
    return torch.bincount(pairs, minlength=(channels + 1) * channels).reshape(channels + 1, channels)


def iou_of(confusion: Tensor) -> Tensor:
    """Intersection over union per class; NaN for a class that no label has, mapped or not.

    confusion: as confusion_of gives it; its last row are false positives of the class that was chosen.
    """
    hit = confusion.diagonal().double()
    truth = confusion[: len(hit)].sum(1)
    return torch.where(truth > 0, hit / (confusion.sum(0) + truth - hit), torch.nan)


def mean_iou(confusion: Tensor) -> float:
    """Over the classes that are labelled: the same ones at each validation, whatever is mapped."""
    return float(iou_of(confusion).nanmean())


@dataclass(frozen=True)
class Outcome:
    """How a network did.

    confusion: (channel + 1, channel) int64. logits (pixel, channel), targets (pixel,): a sample, for calibration.
    """

    confusion: Tensor
    logits: Tensor
    targets: Tensor


def sample_step(pixels: int) -> int:
    """Every how many of so many pixels, along rows and columns, one is sampled."""
    return max(CALIBRATION_STEP, math.ceil(math.sqrt(pixels / MOST_SAMPLED)))


@torch.inference_mode()
def score(
    network: nn.Module, batches: Iterable[Example], channels: int, every: int | None = CALIBRATION_STEP
) -> Outcome:
    """Map labelled batches with a network. every: of sample_step; None samples nothing."""
    network.eval()
    device = next(network.parameters()).device
    confusion = torch.zeros(channels + 1, channels, dtype=torch.int64)
    logits, targets = [torch.zeros(0, channels)], [torch.zeros(0, dtype=torch.int64)]
    for pixels, truth in batches:
        answer: Tensor = network(pixels.to(device)).float().cpu()
        confusion += confusion_of(answer.argmax(1), truth, channels)
        if every is None:
            continue
        thin = (..., slice(None, None, every), slice(None, None, every))
        scored = truth[thin] < channels
        logits.append(answer[thin].movedim(1, -1)[scored])
        targets.append(truth[thin][scored])
    return Outcome(confusion, torch.cat(logits), torch.cat(targets))


def find_temperature(outcome: Outcome) -> float:
    """The divisor of the logits, of TEMPERATURES, with the least negative log likelihood (Guo et al. 2017)."""
    logits, targets = outcome.logits.double(), outcome.targets
    if not len(targets):
        return 1.0

    def loss(log_t: float) -> float:
        return float(nn.functional.cross_entropy(logits / math.exp(log_t), targets))

    bounds = [math.log(t) for t in TEMPERATURES]
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    return round(math.exp(found.x), 4)


def calibration_error(outcome: Outcome, temperature: float) -> float:
    """Expected calibration error over 15 bins."""
    if not len(outcome.targets):
        return 0.0
    probabilities = (outcome.logits / temperature).softmax(1)
    return float(multiclass_calibration_error(probabilities, outcome.targets, probabilities.shape[1], BINS))


def reliability(outcome: Outcome, temperature: float) -> list[tuple[float, float, int]]:
    """The reliability curve: (mean confidence, share that is right, pixels) of each bin that has pixels.

    The bins are those of `calibration_error`, the mean over pixels of how far the two shares lie apart.
    """
    confidence, chosen = (outcome.logits / temperature).softmax(1).double().max(1)
    right = (chosen == outcome.targets).double()
    bins = (confidence * BINS).long().clamp(max=BINS - 1)
    pixels = torch.bincount(bins, minlength=BINS)
    sure, hit = (torch.bincount(bins, weights=values, minlength=BINS) for values in (confidence, right))
    return [
        (float(sure[i] / pixels[i]), float(hit[i] / pixels[i]), int(pixels[i]))
        for i in range(BINS)
        if pixels[i]
    ]
