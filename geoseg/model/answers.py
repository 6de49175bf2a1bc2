"""Whether a network of others answers what its card says: logits or probabilities."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from geoseg.errors import ModelError
from geoseg.model.bundle import Bundle
from geoseg.model.card import ModelCard
from geoseg.stages.segment import proof_patch

TOLERANCE = 1e-3
"""How far a sum of probabilities may be from 1, and one of them beyond 0 or 1."""
SEED = 5


def check_answers(bundle: Bundle) -> None:
    """Hold an ONNX network's own answers to fixed patches against the card.

    Declared probabilities must lie in 0..1 and sum to 1 over the classes, at every pixel; declared logits must not
    all do so; numbers of classes are neither. Raises ModelError that says what to write instead, and as `read_network`
    does. Any other network answers logits by its making.
    """
    if bundle.card.onnx is None:
        return
    from geoseg.model.openvino_network import onnx_answers

    found = np.stack(onnx_answers(bundle, list(_patches(bundle.card))))
    if not np.isfinite(found).all():
        raise ModelError("the network's answers are not numbers (NaN)", bundle.weights)
    problem = fault(found, bundle.card.onnx.output)
    if problem is not None:
        raise ModelError(problem, bundle.weights)


def fault(answers: np.ndarray, declared: str) -> str | None:
    """What speaks against answers (patch, output, row, col) as declared: "logits" or "probabilities"."""
    one = answers.shape[1] == 1
    low, high = float(answers.min()), float(answers.max())
    sums = answers.sum(1)
    inside = low >= -TOLERANCE and high <= 1 + TOLERANCE
    shares = inside and (one or bool(np.abs(sums - 1).max() <= TOLERANCE))
    if one and low < high and np.array_equal(answers, np.round(answers)):
        return "answers whole numbers, as of classes already chosen; logits or probabilities are needed"
    if declared == "logits" and shares:
        sum_up = "" if one else " and sum to 1 over the classes"
        return f"answers probabilities: they lie in 0..1{sum_up}; write onnx: {{output: probabilities}} in the card"
    if declared == "probabilities" and not inside:
        return (
            f"answers no probabilities: they run from {low:.3g} to {high:.3g}; "
            "write onnx: {output: logits} in the card, if that is what they are"
        )
    if declared == "probabilities" and not shares:
        return (
            f"answers no probabilities of classes that exclude each other: their sum over the classes runs from "
            f"{sums.min():.3g} to {sums.max():.3g}, not 1"
        )
    return None


def _patches(card: ModelCard) -> Iterator[np.ndarray]:
    """The fixed patch by which workers prove themselves, and noise over three deviations: (band, row, col) each."""
    yield proof_patch(card.input_spec, card.patch_px)
    rng = np.random.default_rng(SEED)
    mean, std = (np.array(v)[:, None, None] for v in zip(*((b.mean, b.std) for b in card.bands), strict=True))
    values = mean + std * rng.uniform(-3, 3, (len(card.bands), card.patch_px, card.patch_px))
    if card.onnx is not None and card.onnx.input == "raw" and (std == 1).all() and card.dtype == "uint8":
        values = rng.uniform(0, 255, values.shape)
    if card.dtype != "float32":
        limits = np.iinfo(card.dtype)
        values = np.clip(np.round(values), limits.min, limits.max)
    yield values.astype(card.dtype)
