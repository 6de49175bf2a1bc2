"""What is never read: formats that can run code when they are loaded, and weights that no digest covers."""

from __future__ import annotations

import mmap
from pathlib import Path

from geoseg.errors import ModelError

PICKLES = (".pt", ".pth", ".pt2", ".ckpt", ".bin", ".pkl", ".pickle")
_SAVE = "safetensors.torch.save_file({}, 'model.safetensors'), then geoseg model import"
CONVERT = "where you trust it, convert it: " + _SAVE.format("torch.load(FILE, weights_only=True)")
_CONVERT_PROGRAM = (
    "where you trust it, convert it (onnxscript is needed): "
    "torch.onnx.export(torch.export.load(FILE), (), 'model.onnx', dynamo=True, external_data=False), "
    "then geoseg model import"
)
_CONVERT_PICKLE = (
    "where you trust it, convert it in the program that wrote it: its tensors, by name, as "
    + _SAVE.format("TENSORS")
    + "; what torch.save wrote is read by torch.load(FILE, weights_only=True)"
)
_CONVERSIONS = {".pt2": _CONVERT_PROGRAM, ".pkl": _CONVERT_PICKLE, ".pickle": _CONVERT_PICKLE}
_LOCATION = b"\x0a\x08location"
"""How a tensor of an ONNX file says that its values lie in another file: the key of a string pair, in protobuf."""


def conversion(path: Path) -> str:
    """How a file of one of PICKLES becomes one that is read."""
    return _CONVERSIONS.get(path.suffix.lower(), CONVERT)


def refuse_pickle(path: Path) -> None:
    """Raises ModelError for a file whose format unpickles, whatever is in it."""
    if path.suffix.lower() in PICKLES and not path.is_dir():
        raise ModelError(
            f"{path.suffix} files can run code when they are read, so they are not; {conversion(path)}", path
        )


def refuse_outside_weights(path: Path) -> None:
    """Raises ModelError for an ONNX file with weights in other files, which its own digest would not cover."""
    with path.open("rb") as stream:
        if path.stat().st_size == 0:
            raise ModelError("is empty", path)
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if content.find(_LOCATION) >= 0:
                raise ModelError(
                    "keeps weights in other files; save it in one: "
                    "onnx.save(onnx.load(FILE), 'one.onnx', save_as_external_data=False)",
                    path,
                )
