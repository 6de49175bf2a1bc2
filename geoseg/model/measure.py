"""How well each runtime and precision agrees with the reference, torch in float32, on patches."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from geoseg.errors import ModelError, SpecError
from geoseg.io.files import publish_bytes
from geoseg.model.bundle import CARD, Bundle
from geoseg.model.card import ModelCard
from geoseg.model.runtimes import RuntimeChoice, SegmenterRecipe
from geoseg.spec import SegmentSpec
from geoseg.stages.segment import Segmenter

WAYS = (("torch", "float32"), ("openvino", "float32"), ("openvino", "bfloat16"), ("torch", "bfloat16"))


@dataclass(frozen=True)
class Equality:
    """How one way agrees with the reference. labels: share of equal labels. difference: largest, of a probability."""

    labels: float
    difference: float


def compare_ways(
    bundle: Bundle, patches: Iterable[np.ndarray], reference: Bundle | None = None
) -> dict[str, Equality]:
    """Each way to run a bundle against the first one, by "runtime-precision"; what this machine lacks is left out.

    The first is torch in float32, of another bundle where a reference is given; of an ONNX network without one it
    is OpenVINO in float32. patches: raw pixels, each (band, row, col) of the card's patch size, taken one by one.
    An answer that is no number differs as much as a probability can. Raises ModelError where the first answers so.
    """
    built = {f"{r}-{p}": s for r, p in WAYS if (s := _built(bundle, r, p)) is not None}
    own = built.pop(next(iter(built))) if reference is None else None
    first = own if reference is None else _built(reference, "torch", "float32")
    assert first is not None
    equal, largest, count = dict.fromkeys(built, 0.0), dict.fromkeys(built, 0.0), 0
    for patch in patches:
        count += 1
        expected = first.probabilities(patch[None])[0]
        if not np.isfinite(expected).all():
            raise ModelError(
                "the network's answers are not numbers (NaN): its training has diverged, or its weights are spoilt",
                bundle.weights,
            )
        labels = expected.argmax(0)
        for way, segmenter in built.items():
            found = segmenter.probabilities(patch[None])[0]
            equal[way] += float(np.mean(found.argmax(0) == labels))
            largest[way] = max(largest[way], float(np.nan_to_num(np.abs(found - expected), nan=1.0).max()))
    return (
        {way: Equality(round(equal[way] / count, 6), round(largest[way], 6)) for way in built}
        if count
        else {}
    )


def _built(bundle: Bundle, runtime: str, precision: str) -> Segmenter | None:
    """None where the machine does not compute so, or the network does not run there."""
    try:
        choice = replace(RuntimeChoice.decide(bundle.card, runtime, precision), device="cpu")
    except SpecError:
        return None
    spec = SegmentSpec(bundle.card.patch_px, margin_px=0, blend="hann")
    return SegmenterRecipe.of(bundle, spec, choice).build(lanes=1, threads=1)


def with_equality(card: ModelCard, found: dict[str, Equality]) -> ModelCard:
    """The card with what was measured; its digest stays."""
    return card.model_copy(
        update={
            "equal_labels": {way: equality.labels for way, equality in found.items()},
            "largest_difference": {way: equality.difference for way, equality in found.items()},
        }
    )


def note_equal_labels(
    bundle: Bundle, patches: Iterable[np.ndarray], reference: Bundle | None = None
) -> Bundle:
    """Measure, and write what was found onto the bundle's card; the digest of the model stays."""
    card = with_equality(bundle.card, compare_ways(bundle, patches, reference))
    publish_bytes(bundle.folder / CARD, card.to_json().encode())
    return Bundle(bundle.folder, card)
