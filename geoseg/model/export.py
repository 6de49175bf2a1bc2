"""Writing bundles: weights, OpenVINO's representation, ONNX, STAC items, digests."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from geoseg.errors import GeosegError, ModelError, OutputError
from geoseg.io.files import free_bytes, publish_bytes, publish_json
from geoseg.model.bundle import CARD, Bundle, checked_card, sha256_of
from geoseg.model.card import FILES, IR_BIN, IR_XML, ONNX, WEIGHTS, ModelCard
from geoseg.model.mlm import ITEM, item_of
from geoseg.model.network import Network, load_network
from geoseg.stages.segment import proof_patch

ExportFormat = Literal["openvino", "onnx", "mlm"]
MIN_EQUAL_IN_HALF = 0.999
"""Share of labels from which float16 weights are good enough for OpenVINO's representation."""
OPSET = 17
"""Of ONNX: the newest that torch's exporter knows and that most runtimes of the last years read."""


def write_bundle(
    body: nn.Module, card: dict[str, Any], folder: Path, with_ir: bool = True, half: bool = True
) -> Bundle:
    """Write a trained network as a bundle: weights, the card, and OpenVINO's representation of the same.

    card: the fields of ModelCard but `files`. half: weights are rounded as `as_stored` does. The folder appears whole
    or not at all; a bundle that is there is replaced, anything else refused. Raises ModelError, OutputError.
    """
    with staged_bundle(folder) as staged:
        state = {
            name: (as_stored(value) if half else value).cpu().contiguous()
            for name, value in body.state_dict().items()
        }
        with _as_os_error(SafetensorError):
            save_file(state, staged / WEIGHTS)
        bundle = write_card(staged, card)
        if with_ir:
            _write_ir(bundle, staged, bundle.card.patch_px)
            write_card(staged, card)
    return Bundle.open(folder)


def as_stored(value: Tensor) -> Tensor:
    """A tensor as bundles hold it: fractions in float16, where that can hold them."""
    if not value.is_floating_point():
        return value
    half = value.half()
    return half if torch.isfinite(half).all() else value


@contextmanager
def _as_os_error(kind: type[Exception]) -> Iterator[None]:
    """What a library raises where it cannot write is a plain error of its own."""
    try:
        yield
    except kind as error:
        raise OSError(str(error)) from error


@contextmanager
def _refusals(folder: Path) -> Iterator[None]:
    """Raises OutputError where the disk refuses."""
    try:
        yield
    except OSError as error:
        room = f"{free_bytes(folder) / 1e6:.1f} MB are free there"
        raise OutputError(
            f"could not be written ({error.strerror or error}); {room}; make room and try again", folder
        ) from error


@contextmanager
def staged_bundle(folder: Path) -> Iterator[Path]:
    """A folder beside `folder` that takes its place at the end, and is gone where anything fails.

    Raises OutputError where the disk refuses, or where something else than a bundle lies there already.
    """
    if folder.exists() and not _is_replaceable(folder):
        raise OutputError("is there already and is no model bundle, so it is not replaced", folder)
    with _refusals(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            yield staged
            _publish(staged, folder)
        except GeosegError as error:  # named as the user knows it
            if error.path is not None and Path(error.path).is_relative_to(staged):
                error.path = str(folder / Path(error.path).relative_to(staged))
            raise
        finally:
            shutil.rmtree(staged, ignore_errors=True)


def _publish(staged: Path, folder: Path) -> None:
    """Let a folder take the place of another, once all that is in it has come to the disk."""
    staged.chmod(0o755)
    for path in staged.iterdir():
        path.chmod(0o644)
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
    if folder.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        os.replace(folder, old)
        os.replace(staged, folder)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.replace(staged, folder)


def _is_replaceable(folder: Path) -> bool:
    """An empty folder, or one with the files of a bundle and nothing else."""
    return folder.is_dir() and {path.name for path in folder.iterdir()} <= {CARD, ITEM, *FILES}


def write_card(folder: Path, card: dict[str, Any]) -> Bundle:
    """Write the card of the files that lie in the folder, with their digests; ModelError where it does not hold."""
    files = {name: sha256_of(folder / name) for name in FILES if (folder / name).is_file()}
    checked = checked_card({**card, "files": files}, folder / CARD)
    publish_bytes(folder / CARD, checked.to_json().encode())
    return Bundle(folder, checked)


def write_ir(bundle: Bundle, folder: Path, patch_px: int) -> None:
    """Convert a bundle's network for OpenVINO; each file appears whole, the .xml last.

    Weights are float16 where that changes next to no label of a fixed patch, else float32: folding a normalization
    into them can take them to the ends of what float16 holds. The result takes any patch that the network takes, but
    for transformers with a grid of positions: theirs is resampled to patch_px by torch, whose cubic filter OpenVINO
    does not have, and the shape is fixed. Raises ModelError, OutputError.
    """
    with _refusals(folder):
        _write_ir(bundle, folder, patch_px)


def _write_ir(bundle: Bundle, folder: Path, patch_px: int) -> None:
    """As write_ir; raises OSError where the disk refuses."""
    import openvino as ov

    from geoseg.model.openvino_network import core, read_network

    if bundle.card.is_onnx:
        model = read_network(bundle, patch_px)
    else:
        network = load_network(bundle)
        fixed = fix_positions(network, patch_px)
        example = torch.zeros(1, len(bundle.card.bands), patch_px, patch_px)
        model = _converted(lambda: ov.convert_model(network, example_input=example), bundle, "OpenVINO")
        if fixed:
            model.reshape(list(example.shape))
    _name_by_place(model, bundle.card.name)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".ir-", dir=folder) as staged:
        xml = Path(staged) / IR_XML
        with _as_os_error(RuntimeError):
            ov.save_model(model, xml, compress_to_fp16=True)
        if _equal_labels(model, core().read_model(xml), bundle.card, patch_px) < MIN_EQUAL_IN_HALF:
            with _as_os_error(RuntimeError):
                ov.save_model(model, xml, compress_to_fp16=False)
        for name in (IR_BIN, IR_XML):
            os.replace(Path(staged) / name, folder / name)


def _name_by_place(model: Any, name: str) -> None:
    """OpenVINO's own names count what the process has built before; with these the same network is the same bytes."""
    model.set_friendly_name(name)
    for number, node in enumerate(model.get_ordered_ops()):
        node.set_friendly_name(f"{node.get_type_name()}_{number}")


def _equal_labels(first: Any, second: Any, card: ModelCard, patch_px: int) -> float:
    """Share of pixels of a fixed patch that two models of OpenVINO give one label."""
    from geoseg.model.openvino_network import core

    patch = proof_patch(card.input_spec, patch_px).astype(np.float32)[None]
    labels = []
    for model in (first.clone(), second):
        model.reshape(list(patch.shape))
        compiled = core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        labels.append(compiled(patch)[0].argmax(1))
    return float(np.mean(labels[0] == labels[1]))


def fix_positions(network: Network, patch_px: int) -> bool:
    """Resample the positions that a transformer learned to the grid of a patch; True where there are any."""
    placed: list[Any] = [module for module in network.modules() if hasattr(module, "set_input_size")]
    for module in placed:
        module.set_input_size(img_size=(patch_px, patch_px))
    return bool(placed)


def write_onnx(bundle: Bundle, path: Path) -> None:
    """The network as ONNX: raw values (batch, band, row, col) float32 in, logits out, not yet divided by temperature.

    Batch and size are free, but for networks with a grid of positions. Raises ModelError where torch cannot.
    """
    network = load_network(bundle)
    network.temperature = 1.0
    side = bundle.card.patch_px
    free = {} if fix_positions(network, side) else {2: "row", 3: "col"}
    example = torch.zeros(1, len(bundle.card.bands), side, side)
    axes = {"pixels": {0: "batch", **free}, "logits": {0: "batch", **free}}

    def export() -> None:
        torch.onnx.export(
            network,
            (example,),
            path,
            input_names=["pixels"],
            output_names=["logits"],
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )

    _converted(export, bundle, "ONNX")


def _converted(convert: Callable[[], Any], bundle: Bundle, to: str) -> Any:
    """Raises ModelError, in one line, for what a converter does not do, or cannot do without a package."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tracing: what was traced is compared with the network
            return convert()
    except OSError:
        raise
    except Exception as error:  # torch, its exporter and OpenVINO have no common class of errors
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        if "onnx is not installed" in str(error) or isinstance(error, ModuleNotFoundError):
            raise ModelError("writing ONNX needs onnx: pip install 'geoseg[onnx]'") from error
        name = f"{bundle.card.architecture} with {bundle.card.encoder}"
        reason = lines[1] if len(lines) > 2 and lines[0].startswith("Couldn't get") else (lines or [""])[0]
        if reason == "Exception:" and len(lines) > 2:
            reason = lines[2]
        raise ModelError(
            f"{name} cannot be turned into {to} at {bundle.card.patch_px} px ({reason[:200]})", bundle.weights
        ) from error


def export_bundle(bundle: Bundle, output: Path, kind: ExportFormat) -> Bundle:
    """Write a bundle anew, as a folder that geoseg runs like the first.

    openvino: OpenVINO's representation is added. onnx: ONNX takes the place of the weights. mlm: a STAC item takes
    the place of the card. Raises ModelError, OutputError.
    """
    if kind == "onnx" and bundle.card.is_onnx:
        raise ModelError("is ONNX already", bundle.weights)
    card = bundle.card.to_dict()
    with staged_bundle(output) as staged:
        if kind == "onnx":
            write_onnx(bundle, staged / ONNX)
            here = {
                "onnx": {"input": "raw", "output": "logits"},
                "equal_labels": {},
                "largest_difference": {},
                "positive_class": None,  # what is exported answers both classes
            }
            write_card(staged, {**card, "options": {}, **here})
        else:
            for name in bundle.card.files:
                shutil.copyfile(bundle.path_of(name), staged / name)
            if kind == "openvino":
                write_ir(bundle, staged, bundle.card.patch_px)
                write_card(staged, card)
            else:
                sizes = {str(name): (staged / name).stat().st_size for name in bundle.card.files}
                publish_json(staged / ITEM, item_of(bundle.card, sizes))
    return Bundle.open(output)
