"""Networks by name, as torch modules: raw values in, logits out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from geoseg.errors import ModelError
from geoseg.model import _torchvision  # noqa: F401  must come before segmentation_models_pytorch
from geoseg.model.bundle import Bundle
from geoseg.model.card import Band, ModelCard

import segmentation_models_pytorch as smp  # isort: skip


class Network(nn.Module):
    """A segmentation network that normalizes its own input.

    forward: (n, band, row, col) of raw values in any real dtype -> (n, class, row, col) float32 logits, divided by
    the card's temperature.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, body: nn.Module, bands: tuple[Band, ...], temperature: float = 1.0) -> None:
        super().__init__()
        self.body = body
        self.temperature = temperature
        shape = (1, len(bands), 1, 1)
        self.register_buffer("mean", torch.tensor([b.mean for b in bands]).reshape(shape), persistent=False)
        self.register_buffer("std", torch.tensor([b.std for b in bands]).reshape(shape), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.body((pixels.float() - self.mean) / self.std)
        return logits.float() / self.temperature


def build_body(architecture: str, encoder: str, bands: int, classes: int) -> nn.Module:
    """An untrained network of segmentation-models-pytorch; ModelError for a name that it does not know."""
    try:
        body: nn.Module = smp.create_model(
            architecture, encoder_name=encoder, encoder_weights=None, in_channels=bands, classes=classes
        )
    except (KeyError, ValueError, RuntimeError) as error:
        raise ModelError(f"no network {architecture!r} with encoder {encoder!r} ({error})") from error
    return body


def build_network(card: ModelCard) -> Network:
    """The network of a card, with random weights."""
    body = build_body(card.architecture, card.encoder, len(card.bands), len(card.classes))
    return Network(body, card.bands, card.temperature)


def load_network(bundle: Bundle) -> Network:
    """The bundle's network with its weights, in float32, for inference."""
    network = build_network(bundle.card)
    try:
        state: Mapping[str, Any] = load_file(bundle.weights)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(
            f"is not a safetensors file ({error}); weights in other formats are not read", bundle.weights
        ) from error
    try:
        network.body.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    except RuntimeError as error:
        first = str(error).splitlines()[-1].strip()
        raise ModelError(
            f"does not fit {bundle.card.architecture} with {bundle.card.encoder}: {first}", bundle.weights
        ) from error
    return network.eval().requires_grad_(False)
