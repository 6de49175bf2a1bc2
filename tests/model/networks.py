"""Small ONNX networks written by hand, and what numpy says they answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

COLORS = ([200, 60, 60], [90, 90, 90], [60, 150, 60], [60, 120, 220])


def card_of(means: Sequence[float], stds: Sequence[float], classes: int, **changes: Any) -> dict[str, Any]:
    """The fields of a card that a network of pixels needs."""
    bands = [{"name": f"b{i}", "mean": m, "std": s} for i, (m, s) in enumerate(zip(means, stds, strict=True))]
    return {
        "name": "pixelwise",
        "version": "1",
        "bands": bands,
        "dtype": "uint8",
        "gsd_m": {"min": 0.1, "max": 10},
        "classes": [{"id": i + 1, "name": f"c{i}", "color": COLORS[i]} for i in range(classes)],
        "patch_px": 64,
    } | changes


def write_onnx(
    path: Path,
    weights: np.ndarray,
    bias: np.ndarray,
    softmax: bool = False,
    shape: Sequence[int | str] = ("n", "bands", "h", "w"),
    last: tuple[str, dict[str, Any]] | None = None,
    opset: int = 17,
) -> Path:
    """A 1 x 1 convolution: weights (class, band), bias (class,). last: one more node, its name and attributes."""
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [helper.make_node("Conv", ["pixels", "weights", "bias"], ["logits"])]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["logits"], ["shares"], axis=1))
    if last is not None:
        nodes.append(helper.make_node(last[0], [nodes[-1].output[0]], ["last"], **last[1]))
    values = [
        onnx.numpy_helper.from_array(weights[:, :, None, None].astype(np.float32), "weights"),
        onnx.numpy_helper.from_array(bias.astype(np.float32), "bias"),
    ]
    entry = helper.make_tensor_value_info("pixels", kind, list(shape))
    answer = helper.make_tensor_value_info(nodes[-1].output[0], kind, None)
    graph = helper.make_graph(nodes, "pixelwise", [entry], [answer], values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    path.write_bytes(model.SerializeToString())
    return path


def shares_of(
    pixels: np.ndarray, weights: np.ndarray, bias: np.ndarray, card: dict[str, Any], normalized: bool
) -> np.ndarray:
    """Probabilities, (class, row, col) float64, of pixels (band, row, col), written out."""
    values = pixels.astype(np.float64)
    if normalized:
        mean, std = (np.array([b[key] for b in card["bands"]])[:, None, None] for key in ("mean", "std"))
        values = (values - mean) / std
    logits = np.einsum("kb,brc->krc", weights, values) + bias[:, None, None]
    odds = np.exp((logits - logits.max(0)) / card.get("temperature", 1.0))
    return odds / odds.sum(0)
