"""How well each runtime and precision agrees with the reference, torch in float32, on real patches."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from geoseg.errors import SpecError
from geoseg.io.files import publish_bytes
from geoseg.model.bundle import CARD, Bundle
from geoseg.model.runtimes import RuntimeChoice, SegmenterRecipe
from geoseg.spec import SegmentSpec

WAYS = (("openvino", "float32"), ("openvino", "bfloat16"), ("torch", "bfloat16"))


def equal_labels(bundle: Bundle, patches: Sequence[np.ndarray]) -> dict[str, float]:
    """Share of pixels whose class is the reference's, by "runtime-precision"; what this machine lacks is left out.

    patches: raw pixels, each (band, row, col) of the card's patch size.
    """
    spec = SegmentSpec(bundle.card.patch_px, margin_px=0)

    def answers(runtime: str, precision: str) -> list[np.ndarray]:
        choice = replace(RuntimeChoice.decide(bundle.card, runtime, precision), device="cpu")
        segmenter = SegmenterRecipe.of(bundle, spec, choice).build(lanes=1, threads=1)
        return [np.array(segmenter.classify(patch[None])[0]) for patch in patches]

    reference = answers("torch", "float32")
    shares = {}
    for runtime, precision in WAYS:
        try:
            found = answers(runtime, precision)
        except SpecError:
            continue
        equal = [np.mean(a == b) for a, b in zip(found, reference, strict=True)]
        shares[f"{runtime}-{precision}"] = round(float(np.mean(equal)), 6)
    return shares


def note_equal_labels(bundle: Bundle, patches: Sequence[np.ndarray]) -> Bundle:
    """Measure, and write the shares onto the bundle's card; the digest of the model stays."""
    card = bundle.card.model_copy(update={"equal_labels": equal_labels(bundle, patches)})
    text = json.dumps(card.model_dump(mode="json"), indent=2, ensure_ascii=False)
    publish_bytes(bundle.folder / CARD, (text + "\n").encode())
    return Bundle(bundle.folder, card)
