"""OpenVINO on a CPU: normalization, the choice of the class and its confidence inside the graph."""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from geoseg.model.bundle import Bundle
from geoseg.model.card import ModelCard
from geoseg.model.openvino_network import core, read_network
from geoseg.spec import Precision, SegmentSpec

_HINT = {"float32": "f32", "bfloat16": "bf16"}


def native_bfloat16() -> bool:
    """True where this CPU computes in bfloat16 itself."""
    return "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class OpenVinoSegmenter:
    """A network of OpenVINO, for patches of one size.

    lanes: how many patches are mapped at once; each calling thread has an infer request of its own.
    """

    batch = 1

    def __init__(
        self, bundle: Bundle, spec: SegmentSpec, precision: Precision, lanes: int = 1, threads: int = 0
    ) -> None:
        model = read_network(bundle, spec.patch_px)
        model = _choosing(model, bundle.card, spec) if spec.labels_only else _scoring(model, bundle.card)
        config: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": _HINT[precision],
            "NUM_STREAMS": str(lanes),
            "INFERENCE_NUM_THREADS": threads or os.cpu_count() or 1,
            "ENABLE_CPU_PINNING": False,
        }
        self._compiled = core().compile_model(model, "CPU", config)
        self._thread = threading.local()

    def classify(self, patches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(1, band, row, col) -> class ids and percent of the patch's center, both (1, row, col) uint8."""
        request = self._run(patches)
        return request.get_output_tensor(0).data[:, 0].copy(), request.get_output_tensor(1).data[:, 0].copy()

    def probabilities(self, patches: np.ndarray) -> np.ndarray:
        """(1, band, row, col) -> (1, class, row, col) float32."""
        scores: np.ndarray = self._run(patches).get_output_tensor(0).data.copy()
        return scores

    def _run(self, patches: np.ndarray) -> ov.InferRequest:
        """The request's outputs are overwritten by this thread's next call: callers copy them."""
        request: ov.InferRequest | None = getattr(self._thread, "request", None)
        if request is None:
            request = self._thread.request = self._compiled.create_infer_request()
        request.infer({0: ov.Tensor(np.ascontiguousarray(patches), shared_memory=True)})
        return request


def _scoring(model: ov.Model, card: ModelCard) -> ov.Model:
    """Raw pixels in, probabilities out."""
    return _wrap(model, card, [ops.softmax(model.output(0).get_node().input_value(0), 1)])


def _choosing(model: ov.Model, card: ModelCard, spec: SegmentSpec) -> ov.Model:
    """Raw pixels in; class id and percent of the center out. Equal logits go to the first channel, as argmax does."""
    low, high = spec.margin_px, spec.patch_px - spec.margin_px
    logits = ops.slice(model.output(0).get_node().input_value(0), [low, low], [high, high], [1, 1], [2, 3])
    best = ops.reduce_max(logits, [1], True)
    classes = len(card.classes)
    channel = np.arange(classes, dtype=np.float32).reshape(1, classes, 1, 1)
    first = ops.reduce_min(ops.select(ops.equal(logits, best), channel, np.float32(classes)), [1], True)
    ids = np.array(card.legend.ids, np.uint8)
    label = ops.gather(ids, ops.convert(first, "i32"), np.int32(0))
    share = ops.divide(np.float32(1), ops.reduce_sum(ops.exp(ops.subtract(logits, best)), [1], True))
    percent = ops.floor(ops.add(ops.multiply(share, np.float32(100)), np.float32(0.5)))
    return _wrap(model, card, [label, ops.convert(percent, "u8")])


def _wrap(model: ov.Model, card: ModelCard, outputs: list[Any]) -> ov.Model:
    """Give the model these outputs, and inputs in the card's dtype."""
    wrapped = ov.Model([node.output(0) for node in outputs], model.get_parameters(), card.name)
    prepared = ov.preprocess.PrePostProcessor(wrapped)
    prepared.input(0).tensor().set_element_type(ov.Type(np.dtype(card.dtype)))
    return prepared.build()
