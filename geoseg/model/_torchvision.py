"""Let torchvision be imported where its compiled operators cannot be loaded.

torchvision from a package index is built against CUDA; beside a CPU build of torch its extension does not load, and
since 0.17 its import then fails on the missing schemas of two detection operators. Neither geoseg nor the networks it
runs use them: declaring the schemas lets the import pass. Where the extension loads, nothing is declared.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


operators: Any = torch.ops  # untyped in torch
libraries: Any = torch.library


def _extension_loads() -> bool:
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return True
    for library in Path(spec.origin).parent.glob("_C*.so"):
        try:
            operators.load_library(str(library))
        except OSError:
            return False
    return True


if not _extension_loads():
    _library = libraries.Library("torchvision", "FRAGMENT")  # kept alive: its schemas go with it
    for _schema in _SCHEMAS:
        _library.define(_schema)
