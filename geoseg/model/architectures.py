"""Architectures by name: all of segmentation-models-pytorch, FCN and HRNet. Nothing is downloaded."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from geoseg.errors import ModelError
from geoseg.model import _torchvision  # noqa: F401  must come before torchvision and segmentation_models_pytorch

import segmentation_models_pytorch as smp  # isort: skip
import timm  # isort: skip
from torchvision.models.segmentation.fcn import FCNHead  # isort: skip

_ENCODER = re.compile(r"^[A-Za-z0-9._-]+$")
"""A name, not a place: timm would follow hf-hub:... to the network and local-dir:... to any folder."""
_GIVEN = {"encoder_name", "encoder_weights", "in_channels", "classes", "activation", "aux_params", "kwargs"}
"""Arguments that the card tells otherwise, or that would download or change what comes out."""
_TIMM_OPTIONS = {"img_size"}
"""Passed on to the encoder; others of timm's would read files."""


class FCN(nn.Module):
    """Fully convolutional network (Long et al. 2015) with the head of torchvision, on any encoder.

    The encoder is dilated to a stride of 8, as torchvision's is, where it can be.
    """

    def __init__(self, encoder_name: str, in_channels: int, classes: int) -> None:
        super().__init__()
        try:
            self.encoder: Any = smp.encoders.get_encoder(encoder_name, in_channels, output_stride=8)
        except (ValueError, TypeError, NotImplementedError):
            self.encoder = smp.encoders.get_encoder(encoder_name, in_channels)
        self.head = FCNHead(self.encoder.out_channels[-1], classes)

    def forward(self, pixels: Tensor) -> Tensor:
        """(n, band, row, col) -> (n, class, row, col) logits."""
        logits: Tensor = self.head(self.encoder(pixels)[-1])
        return interpolate(logits, size=pixels.shape[-2:], mode="bilinear", align_corners=False)


class HRNet(nn.Module):
    """HRNetV2 (Wang et al. 2020): all four resolutions, side by side, into one head. Encoders: hrnet_* of timm."""

    def __init__(self, encoder_name: str, in_channels: int, classes: int) -> None:
        super().__init__()
        name = encoder_name.removeprefix("tu-")
        if not name.startswith("hrnet_"):
            raise ValueError(f"HRNet takes hrnet_* encoders, not {encoder_name}")
        encoder: Any = timm.create_model(
            name, features_only=True, feature_location="", out_indices=(1, 2, 3, 4), in_chans=in_channels
        )
        channels = sum(encoder.feature_info.channels())
        self.encoder = encoder
        self.head = nn.Sequential(
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, classes, 1),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """(n, band, row, col) -> (n, class, row, col) logits."""
        features: list[Tensor] = self.encoder(pixels)
        size = features[0].shape[-2:]
        raised = [interpolate(f, size=size, mode="bilinear", align_corners=False) for f in features]
        logits: Tensor = self.head(torch.cat(raised, 1))
        return interpolate(logits, size=pixels.shape[-2:], mode="bilinear", align_corners=False)


@dataclass(frozen=True)
class Architecture:
    """One way to build a network. encoder: the one that `geoseg models` counts parameters with."""

    name: str
    title: str
    encoder: str
    build: Any


ARCHITECTURES = {
    a.name.lower(): a
    for a in (
        Architecture("Unet", "U-Net (Ronneberger et al. 2015)", "resnet34", smp.Unet),
        Architecture("UnetPlusPlus", "U-Net++ (Zhou et al. 2018)", "resnet34", smp.UnetPlusPlus),
        Architecture("MAnet", "MA-Net (Fan et al. 2020)", "resnet34", smp.MAnet),
        Architecture("Linknet", "LinkNet (Chaurasia and Culurciello 2017)", "resnet34", smp.Linknet),
        Architecture("FPN", "Feature pyramid (Kirillov et al. 2019)", "resnet34", smp.FPN),
        Architecture("PSPNet", "Pyramid scene parsing (Zhao et al. 2017)", "resnet34", smp.PSPNet),
        Architecture("PAN", "Pyramid attention (Li et al. 2018)", "resnet34", smp.PAN),
        Architecture("DeepLabV3", "DeepLabV3 (Chen et al. 2017)", "resnet34", smp.DeepLabV3),
        Architecture("DeepLabV3Plus", "DeepLabV3+ (Chen et al. 2018)", "resnet34", smp.DeepLabV3Plus),
        Architecture("UPerNet", "Unified perceptual parsing (Xiao et al. 2018)", "resnet34", smp.UPerNet),
        Architecture("Segformer", "SegFormer (Xie et al. 2021)", "mit_b0", smp.Segformer),
        Architecture(
            "DPT", "Dense prediction transformer (Ranftl et al. 2021)", "tu-vit_base_patch16_224", smp.DPT
        ),
        Architecture("FCN", "Fully convolutional network (Long et al. 2015)", "resnet50", FCN),
        Architecture("HRNet", "High-resolution network (Wang et al. 2020)", "hrnet_w18", HRNet),
    )
}


def build_body(
    architecture: str, encoder: str, bands: int, classes: int, options: Mapping[str, Any] | None = None
) -> nn.Module:
    """An untrained network: (n, band, row, col) normalized -> (n, class, row, col) logits.

    options: further arguments of the architecture. Raises ModelError for names that do not go together.
    """
    options = dict(options or {})
    found = ARCHITECTURES.get(architecture.lower())
    try:
        if found is None:
            near = _near(architecture, [a.name for a in ARCHITECTURES.values()])
            raise ValueError(f"no such architecture; {near}geoseg models lists those there are")
        if not _is_encoder(encoder, found):
            near = _near(encoder, encoder_names())
            raise ValueError(f"no such encoder; {near}geoseg models --encoders lists those there are")
        allowed = allowed_options(found)
        unknown = sorted(set(options) - allowed)
        if unknown:
            raise ValueError(
                f"no option {', '.join(unknown)}; there are {', '.join(sorted(allowed)) or 'none'}"
            )
        if "encoder_weights" in inspect.signature(found.build).parameters:
            options["encoder_weights"] = None  # its default downloads
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # old names of encoders
            body: nn.Module = found.build(encoder_name=encoder, in_channels=bands, classes=classes, **options)
    except (KeyError, ValueError, RuntimeError, TypeError, AttributeError, IndexError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(
            f"no network {architecture!r} with encoder {encoder!r} ({_short(reason)})"
        ) from error
    return body


def _is_encoder(name: str, architecture: Architecture) -> bool:
    """One of segmentation-models-pytorch, old names too, or of timm: with tu-, for HRNet also without."""
    if not _ENCODER.match(name):
        return False
    of_timm = name.startswith("tu-") or architecture.build is HRNet
    return name in smp.encoders.encoders or (of_timm and timm.is_model(name.removeprefix("tu-")))


def _near(name: str, known: Iterable[str]) -> str:
    """A question for the known names that are written nearly so; nothing where there is none."""
    lower = {k.lower(): k for k in known}
    near = [lower[match] for match in get_close_matches(name.lower(), lower, n=3, cutoff=0.7)]
    return f"did you mean {' or '.join(near)}? " if near else ""


def allowed_options(architecture: Architecture) -> set[str]:
    """Arguments of an architecture that a card may set."""
    own = set(inspect.signature(architecture.build).parameters) - _GIVEN
    return (
        own | _TIMM_OPTIONS if "encoder_weights" in inspect.signature(architecture.build).parameters else own
    )


def parameters_of(architecture: Architecture) -> int:
    """Parameters with its default encoder, three bands and five classes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with torch.device("meta"):  # takes no memory
                body = build_body(architecture.name, architecture.encoder, 3, 5)
        except ModelError:  # a few compute while they are built
            body = build_body(architecture.name, architecture.encoder, 3, 5)
    return sum(p.numel() for p in body.parameters())


def encoder_names(text: str = "") -> list[str]:
    """Encoders whose name has the text: those of segmentation-models-pytorch, then timm's, which start with tu-."""
    own = [name for name in smp.encoders.get_encoder_names() if not name.startswith("timm-")]
    every = own + [f"tu-{name}" for name in timm.list_models()]
    return [name for name in every if text.lower() in name.lower()]


def _short(text: str, most: int = 300) -> str:
    return text if len(text) <= most else f"{text[:most]}..."
