"""Writing bundles: weights, OpenVINO's intermediate representation, digests."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from geoseg.errors import OutputError
from geoseg.model.bundle import CARD, Bundle, sha256_of
from geoseg.model.card import IR_BIN, IR_XML, WEIGHTS, ModelCard
from geoseg.model.network import load_network

CONVERT_PX = 256
"""Side of the example that the network is traced with; the result takes any multiple of 32."""


def write_bundle(body: nn.Module, card: dict[str, Any], folder: Path, with_ir: bool = True) -> Bundle:
    """Write a trained network as a bundle: float16 weights, the card, and OpenVINO's representation of the same.

    card: the fields of ModelCard but `files`. The folder appears whole or not at all; one that is there is replaced.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        state = {
            name: (value.half() if value.is_floating_point() else value).cpu().contiguous()
            for name, value in body.state_dict().items()
        }
        save_file(state, staged / WEIGHTS)
        bundle = _write_card(staged, card)
        if with_ir:
            write_ir(bundle, staged)
            bundle = _write_card(staged, card)
        staged.chmod(0o755)
        (staged / WEIGHTS).chmod(0o644)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(staged, folder)
    except OSError as error:
        raise OutputError(f"the bundle could not be written ({error})", folder) from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return Bundle(folder, bundle.card)


def _write_card(folder: Path, card: dict[str, Any]) -> Bundle:
    files = {
        name: sha256_of(folder / name) for name in (WEIGHTS, IR_XML, IR_BIN) if (folder / name).is_file()
    }
    checked = ModelCard.model_validate({**card, "files": files})
    text = json.dumps(checked.model_dump(mode="json"), indent=2, ensure_ascii=False)
    (folder / CARD).write_text(text + "\n", encoding="utf-8")
    return Bundle(folder, checked)


def write_ir(bundle: Bundle, folder: Path) -> None:
    """Convert a bundle's network for OpenVINO, with float16 weights; each file appears whole, the .xml last."""
    import openvino as ov

    network = load_network(bundle)
    example = torch.zeros(1, len(bundle.card.bands), CONVERT_PX, CONVERT_PX)
    model = ov.convert_model(network, example_input=example)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".ir-", dir=folder) as staged:
        ov.save_model(model, Path(staged) / IR_XML, compress_to_fp16=True)
        for name in (IR_BIN, IR_XML):
            os.replace(Path(staged) / name, folder / name)
