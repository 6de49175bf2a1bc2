"""Networks by name, as torch modules: raw values in, logits out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from geoseg.errors import ModelError
from geoseg.model.architectures import build_body
from geoseg.model.bundle import Bundle
from geoseg.model.card import ONE_OUTPUT, Band, ModelCard
from geoseg.model.memory import check_memory

__all__ = ["Network", "build_body", "build_network", "load_network", "load_state"]


class Network(nn.Module):
    """A segmentation network that normalizes its own input.

    forward: (n, band, row, col) of raw values in any real dtype -> (n, class, row, col) float32 logits, divided by
    the card's temperature.
    positive: place, among two classes, of the one that a body's only output stands for. That is its logit, and 0 the
    other's, so that their softmax is the sigmoid and the rest.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        body: nn.Module,
        bands: tuple[Band, ...],
        temperature: float = 1.0,
        positive: int | None = None,
    ) -> None:
        super().__init__()
        self.body = body
        self.positive = positive
        self.temperature = temperature
        shape = (1, len(bands), 1, 1)
        self.register_buffer("mean", torch.tensor([b.mean for b in bands]).reshape(shape), persistent=False)
        self.register_buffer("std", torch.tensor([b.std for b in bands]).reshape(shape), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.body((pixels.float() - self.mean) / self.std)
        scaled = logits.float() / self.temperature
        if self.positive is None:
            return scaled
        rest = torch.zeros_like(scaled)
        return torch.cat((rest, scaled) if self.positive else (scaled, rest), 1)


def build_network(card: ModelCard) -> Network:
    """The network of a card, with random weights."""
    body = build_body(card.architecture, card.encoder, len(card.bands), card.outputs, card.options)
    return Network(body, card.bands, card.temperature, card.positive_channel)


def load_network(bundle: Bundle) -> Network:
    """The bundle's network with its weights, in float32, for inference.

    Raises ModelError where the weights do not fit the card, or the memory, or torch.
    """
    if bundle.card.is_onnx:
        raise ModelError(
            "is an ONNX network, which torch does not run; take --runtime openvino", bundle.weights
        )
    check_memory(bundle)
    network = build_network(bundle.card)
    load_state(network.body, bundle.weights, f"{bundle.card.architecture} with {bundle.card.encoder}")
    return network.eval().requires_grad_(False)


def load_state(body: nn.Module, path: Path, what: str, leave_out: tuple[str, ...] = ()) -> None:
    """Fill a network with the weights of a safetensors file, in float32; ModelError where they do not fit `what`.

    leave_out: beginnings of names in the file that the network need not have.
    """
    try:
        state: Mapping[str, Any] = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(
            f"is not a safetensors file ({error}); weights in other formats are not read", path
        ) from error
    kept = {k: v for k, v in state.items() if not k.startswith(leave_out)} if leave_out else state
    try:
        body.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in kept.items()})
    except RuntimeError as error:
        first = str(error).splitlines()[-1].strip()
        if _has_one_output(kept, body):
            first = ONE_OUTPUT
        raise ModelError(f"does not fit {what}: {first}", path) from error


def _has_one_output(state: Mapping[str, Any], body: nn.Module) -> bool:
    """All that differs is that the weights have one output where the network has two."""
    shapes = {name: tuple(value.shape) for name, value in body.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in state.items()}
    differing = {name for name, shape in shapes.items() if given.get(name) != shape}
    return (
        given.keys() == shapes.keys()
        and bool(differing)
        and all(shapes[name][:1] == (2,) and given[name] == (1, *shapes[name][1:]) for name in differing)
    )
