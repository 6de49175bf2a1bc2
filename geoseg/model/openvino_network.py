"""A bundle's network as OpenVINO holds it, wherever it comes from: raw values in, logits out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import openvino as ov
from openvino import frontend
from openvino import opset13 as ops

from geoseg.errors import ModelError
from geoseg.model.bundle import Bundle
from geoseg.model.card import ONE_OUTPUT, ModelCard

FAILURES = (
    RuntimeError,
    frontend.GeneralFailure,
    frontend.InitializationFailure,
    frontend.NotImplementedFailure,
    frontend.OpConversionFailure,
    frontend.OpValidationFailure,
)
"""What OpenVINO raises; its readers' classes have no common one."""
LEAST_PROBABILITY = 1e-30
"""Below it a probability counts as this much, so that its logarithm is a number."""


@cache
def core() -> ov.Core:
    """The only one of this process, which stays to its end.

    The CPU plugin of a Core gives its thread another stack for signals, and puts the former one back when it goes. Of
    two, the second may so put back the stack of the first when that is gone: the next signal that Python handles, as
    Ctrl-C, or the end of a child, then kills the process without a word.
    """
    return ov.Core()


def read_network(bundle: Bundle, patch_px: int) -> ov.Model:
    """(1, band, patch, patch) of raw values -> (1, class, patch, patch) logits, divided by the card's temperature.

    Raises ModelError, in one line, for a network that OpenVINO cannot read, or that does not fit card and patch.
    """
    if bundle.ir is None and bundle.card.is_onnx:
        return _onnx(bundle, patch_px)
    xml, binary = bundle.ir or converted_ir(bundle, patch_px)
    model = _read(xml, lambda: core().read_model(str(xml), str(binary)))
    if _side(model) not in (None, patch_px):  # its shape is fixed, to another patch than is asked for
        if bundle.card.is_onnx:
            return _onnx(bundle, patch_px)
        xml, binary = converted_ir(bundle, patch_px)
        model = _read(xml, lambda: core().read_model(str(xml), str(binary)))
    _fit(model, bundle.card, len(bundle.card.classes), patch_px, xml)
    return model


def converted_ir(bundle: Bundle, patch_px: int) -> tuple[Path, Path]:
    """The bundle's network as OpenVINO reads it, converted once for this patch into the user's cache."""
    from platformdirs import user_cache_path

    release = ov.__version__.split("-")[0]
    folder = user_cache_path("geoseg") / "openvino" / f"{bundle.card.digest[:16]}-{release}-{patch_px}"
    xml = folder / "openvino.xml"
    if not xml.is_file():
        from geoseg.model.export import write_ir

        write_ir(bundle, folder, patch_px)
    return xml, xml.with_suffix(".bin")


@dataclass(frozen=True)
class OnnxShape:
    """What an ONNX file tells of itself; None where it leaves it open. patch_px: rows of the only patch it takes."""

    bands: int | None
    outputs: int | None
    patch_px: int | None


def onnx_shape(path: Path) -> OnnxShape:
    """Raises ModelError, in one line, for a file that OpenVINO cannot read, or of several or other inputs."""
    model = _read_onnx(path)
    entry, answer = model.input(0).get_partial_shape(), model.output(0).get_partial_shape()
    channels = answer[1] if answer.rank.is_static and len(answer) == 4 else None
    outputs = channels.get_length() if channels is not None and channels.is_static else None
    return OnnxShape(entry[1].get_length() if entry[1].is_static else None, outputs, _side(model))


def onnx_answers(bundle: Bundle, patches: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What the ONNX file itself answers to patches (band, row, col) of raw values: (output, row, col) float32 each."""
    model = _met_onnx(bundle, bundle.card.patch_px)
    answer = ops.convert(model.output(0).get_node().input_value(0), "f32")
    model = _with_input(ov.Model([answer.output(0)], model.get_parameters(), "answers"), bundle.card)
    compiled = core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return [compiled(patch[None].astype(np.float32))[0][0] for patch in patches]


def _onnx(bundle: Bundle, patch_px: int) -> ov.Model:
    """An ONNX file, with what the card says of its input and output made part of the graph."""
    return _as_logits(_met_onnx(bundle, patch_px), bundle.card)


def _met_onnx(bundle: Bundle, patch_px: int) -> ov.Model:
    """An ONNX file for patches of one size; ModelError where it does not fit card and patch."""
    path, model = bundle.weights, _read_onnx(bundle.weights)
    side = _side(model)
    if side not in (None, patch_px):
        raise ModelError(
            f"takes patches of {side} px only; take --patch-px {side}, or set patch_px in the card", path
        )
    _fit(model, bundle.card, bundle.card.outputs, patch_px, path)
    return model


def _read_onnx(path: Path) -> ov.Model:
    # read_model would try other formats as well
    reader = frontend.FrontEndManager().load_by_framework("onnx")
    return _read(path, lambda: reader.convert(reader.load(str(path))))


def _read(path: Path, read: Callable[[], ov.Model]) -> ov.Model:
    """Raises ModelError for what takes no patch, and with the reason, out of the many lines that OpenVINO gives."""
    try:
        model: ov.Model = read()
    except FAILURES as error:
        raise ModelError(f"OpenVINO cannot read the network ({_reason(error)})", path) from error
    shape = model.input(0).get_partial_shape() if len(model.inputs) == 1 and model.outputs else None
    if shape is None or shape.rank.is_dynamic or len(shape) != 4:
        raise ModelError("must take one input, (batch, band, row, col), and answer it", path)
    return model


def _side(model: ov.Model) -> int | None:
    """Rows of the only patch that a network takes; None where it takes any."""
    rows = model.input(0).get_partial_shape()[2]
    return rows.get_length() if rows.is_static else None


def _fit(model: ov.Model, card: ModelCard, outputs: int, patch_px: int, path: Path) -> None:
    """Give the network its shape; ModelError where bands, outputs or patch do not agree with the card."""
    bands = model.input(0).get_partial_shape()[1]
    if card.is_onnx and bands.is_static and bands.get_length() != len(card.bands):
        raise ModelError(
            f"the network takes {bands.get_length()} bands, the card names {len(card.bands)}", path
        )
    try:
        model.reshape([1, len(card.bands), patch_px, patch_px])
        shape = [d.get_length() if d.is_static else -1 for d in model.output(0).get_partial_shape()]
    except FAILURES as error:
        raise ModelError(f"OpenVINO cannot read the network ({_reason(error)})", path) from error
    if len(shape) == 4 and shape[1] != outputs:
        if (shape[1], outputs) == (1, 2):
            raise ModelError(ONE_OUTPUT, path)
        if outputs == 1:
            raise ModelError(
                f"answers {shape[1]} classes; positive_class is for a network with one output", path
            )
        raise ModelError(f"the network answers {shape[1]} classes, the card names {outputs}", path)
    if shape != [1, outputs, patch_px, patch_px]:
        raise ModelError(
            f"answers {shape} to a patch of {patch_px} px; one value per class and pixel, "
            f"[1, {outputs}, {patch_px}, {patch_px}], is needed",
            path,
        )


def _as_logits(model: ov.Model, card: ModelCard) -> ov.Model:
    """Normalize what goes in, and bring what comes out to logits, as the card says."""
    assert card.onnx is not None
    answer = ops.convert(model.output(0).get_node().input_value(0), "f32")
    shares = card.onnx.output == "probabilities"
    if card.positive_channel is not None:
        # (1 - p, p), of which the logarithms are logits; for a logit z the other's is 0
        one = np.float32(1)
        rest = ops.subtract(one, answer) if shares else ops.broadcast(np.float32(0), ops.shape_of(answer))
        answer = ops.concat([rest, answer] if card.positive_channel else [answer, rest], 1)
    if shares:
        answer = ops.log(ops.maximum(answer, np.float32(LEAST_PROBABILITY)))
    if card.temperature != 1:
        answer = ops.divide(answer, np.float32(card.temperature))
    return _with_input(ov.Model([answer.output(0)], model.get_parameters(), card.name), card)


def _with_input(model: ov.Model, card: ModelCard) -> ov.Model:
    """Raw values in: normalized first, where the network takes them so."""
    assert card.onnx is not None
    prepared = ov.preprocess.PrePostProcessor(model)
    entry = prepared.input(0)
    entry.tensor().set_element_type(ov.Type.f32).set_layout(ov.Layout("NCHW"))
    entry.model().set_layout(ov.Layout("NCHW"))
    if card.onnx.input == "normalized":
        entry.preprocess().mean([b.mean for b in card.bands]).scale([b.std for b in card.bands])
    return prepared.build()


def _reason(error: Exception) -> str:
    """The line that tells most: a conversion's missing operations, else the last."""
    lines = [line.strip(" -") for line in str(error).strip().splitlines() if line.strip()]
    telling = [
        line
        for line in lines
        if line.startswith(("No conversion rule", "Unable to read", "Model can't be parsed"))
    ]
    return (telling or lines)[-1] if lines else "no reason given"
