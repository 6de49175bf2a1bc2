"""What decides an output, and its digest."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal, get_args

from geoseg.errors import SpecError

FORMAT_VERSION = 1
"""Raised whenever the bytes of a result change for the same inputs, so that old and new results never mix."""

Blend = Literal["crop", "hann"]
Tta = Literal["none", "d4"]
Precision = Literal["float32", "bfloat16"]
Runtime = Literal["openvino", "torch"]


@dataclass(frozen=True)
class SegmentSpec:
    """How a network is led over a raster.

    patch_px: side of what the network sees. margin_px: what a patch gives up on each side (crop), or half of what
    neighboring patches share (hann); patches start every patch_px - 2 * margin_px pixels in both.
    tta "d4": probabilities are averaged over the eight symmetries of the square.
    """

    patch_px: int = 512
    margin_px: int = 64
    blend: Blend = "crop"
    tta: Tta = "none"

    def __post_init__(self) -> None:
        if self.patch_px < 32 or self.patch_px % 32:
            raise SpecError(f"patch size must be a multiple of 32 px, at least 32, got {self.patch_px}")
        if self.margin_px < 0 or self.stride_px < 1:
            raise SpecError(
                f"margin must lie in 0..{(self.patch_px - 1) // 2} px for a patch of {self.patch_px} px "
                f"so that patches leave no gap, got {self.margin_px}"
            )
        if self.blend not in get_args(Blend):
            raise SpecError(f"blend must be one of {', '.join(get_args(Blend))}, got {self.blend!r}")
        if self.tta not in get_args(Tta):
            raise SpecError(f"tta must be one of {', '.join(get_args(Tta))}, got {self.tta!r}")

    @property
    def stride_px(self) -> int:
        return self.patch_px - 2 * self.margin_px

    @property
    def labels_only(self) -> bool:
        """True where a patch's answer is final, so that only class ids and percent need to leave the device."""
        return self.blend == "crop" and self.tta == "none"


@dataclass(frozen=True)
class InputSpec:
    """What a network takes: band names in order, dtype, per band what stands in for missing pixels, and the ground
    sample distances, in metres, that it was trained for.
    """

    bands: tuple[str, ...]
    dtype: str
    fill: tuple[float | int, ...]
    gsd_m: tuple[float, float]


def digest_of(value: Any) -> str:
    """SHA-256, in hex, of a JSON value written in one canonical way."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
