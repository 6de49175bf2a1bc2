"""Changes to training patches, so that a map does not hang on the weather, the camera or the compass."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from geoseg.model import _torchvision  # noqa: F401  must come before torchvision
from geoseg.train.config import AugmentSettings
from geoseg.train.labels import IGNORED
from geoseg.train.sampling import Statistics

from torchvision import tv_tensors  # isort: skip
from torchvision.transforms import v2  # isort: skip
from torchvision.transforms.v2 import functional  # isort: skip

NOISE_SIGMA = (0.005, 0.03)
"""Of full scale (uint8)."""
JPEG_QUALITY = (30, 90)
HAZE_STRENGTH = (0.05, 0.4)
CUTOUT_SIDE = (0.1, 0.4)
BLUR_SIGMA = (0.3, 1.5)
BLUR_PX = 5
GAIN = 0.3
"""Bands are multiplied by 1 / (1 + GAIN) to 1 + GAIN about their mean; each by a third of that for itself."""
OFFSET = 0.3
"""Most that bands are moved, in their deviations; each by a third of that for itself."""
WHOLE = 0.999
"""Share of valid pixels in a resampled one that is valid, but for rounding."""
BAND_NOISE = (0.02, 0.15)
"""Of a band's deviation."""


def _uniform(low: float, high: float) -> float:
    return float(torch.empty(()).uniform_(low, high))


def _happens(chance: float) -> bool:
    return float(torch.rand(())) < chance


class RightAngle(v2.Transform):  # type: ignore[misc]
    """Turn image and mask by 0, 90, 180 or 270 degrees."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {"turns": int(torch.randint(4, ()))}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return tv_tensors.wrap(torch.rot90(inpt, params["turns"], (-2, -1)), like=inpt)


class Haze(v2.Transform):  # type: ignore[misc]
    """Mix the image with the light of the air: pixel * (1 - s) + air * s (Koschmieder's scattering model)."""

    _transformed_types = (tv_tensors.Image,)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {"strength": _uniform(*HAZE_STRENGTH), "air": 205 + 50 * torch.rand(3, 1, 1)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        s = params["strength"]
        hazy = (inpt * (1 - s) + params["air"][: inpt.shape[0]] * s).round().clamp(0, 255)
        return tv_tensors.wrap(hazy.to(inpt.dtype), like=inpt)


class Jpeg(v2.Transform):  # type: ignore[misc]
    """Compress and unpack the image as JPEG, by Pillow: torchvision's own needs its compiled extension."""

    _transformed_types = (tv_tensors.Image,)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {"quality": int(torch.randint(*JPEG_QUALITY, ()))}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        stream = io.BytesIO()
        Image.fromarray(inpt.permute(1, 2, 0).numpy()).save(stream, "JPEG", quality=params["quality"])
        unpacked = np.array(Image.open(stream))
        return tv_tensors.wrap(torch.from_numpy(unpacked).permute(2, 0, 1).contiguous(), like=inpt)


class SensorNoise(v2.Transform):  # type: ignore[misc]
    """Gaussian noise whose strength is drawn for each patch."""

    _transformed_types = (tv_tensors.Image,)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {"sigma": _uniform(*NOISE_SIGMA)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return functional.gaussian_noise(inpt, sigma=params["sigma"])


class Augmentation:
    """All changes, drawn from torch's generator.

    photometric: three bands of uint8, which get color, haze, blur, noise and JPEG; other pixels get a gain and an
    offset for each band, blur, and noise, in units of the band's deviation.
    """

    def __init__(self, settings: AugmentSettings, photometric: bool) -> None:
        self._settings = settings
        self._geometry = v2.Compose([v2.RandomHorizontalFlip(), v2.RandomVerticalFlip(), RightAngle()])
        jitter = v2.ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.02)
        chances: list[tuple[v2.Transform, float]] = [
            (jitter, settings.color),
            (Haze(), settings.haze),
            (v2.GaussianBlur(BLUR_PX, sigma=BLUR_SIGMA), settings.blur),
            (SensorNoise(), settings.noise),
            (Jpeg(), settings.jpeg),
        ]
        self._light = (
            v2.Compose([v2.RandomApply([change], p=p) for change, p in chances]) if photometric else None
        )

    def __call__(
        self, pixels: Tensor, targets: Tensor, valid: Tensor, statistics: Statistics
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Pixels (band, row, col) of any dtype, targets and validity (row, col); in and out alike."""
        dtype = pixels.dtype
        if self._light is None:
            pixels = pixels.float()  # torch cannot turn uint16
        masks = tv_tensors.Mask(torch.stack([targets, valid.to(torch.uint8)]))
        image, masks = self._geometry(tv_tensors.Image(pixels), masks)
        targets, valid = (part.clone() for part in masks.as_subclass(torch.Tensor).unbind())
        pixels, valid = image.as_subclass(torch.Tensor), valid.bool()
        if _happens(self._settings.rotate):
            pixels, targets, valid = _rotated(pixels, targets, valid)
        if self._light is not None:
            pixels = self._light(tv_tensors.Image(pixels)).as_subclass(torch.Tensor)
        else:
            pixels = _within(_of_any_bands(pixels, self._settings, statistics), dtype)
        if _happens(self._settings.cutout):
            _cut_out(targets, valid)
        return pixels, targets, valid


def _of_any_bands(pixels: Tensor, settings: AugmentSettings, statistics: Statistics) -> Tensor:
    """Change float32 pixels (band, row, col) as sun, air and sensor do."""
    bands = len(pixels)
    mean, std = (torch.tensor(values).reshape(-1, 1, 1) for values in (statistics.mean, statistics.std))
    if _happens(settings.color):
        each = 2 * torch.rand(2, bands, 1, 1) - 1
        common = 2 * torch.rand(2, 1, 1, 1) - 1
        gain, offset = (3 * common + each) / 4
        pixels = mean + (pixels - mean) * (1 + GAIN) ** gain + OFFSET * offset * std
    if _happens(settings.blur):
        pixels = functional.gaussian_blur(pixels, [BLUR_PX, BLUR_PX], [_uniform(*BLUR_SIGMA)] * 2)
    if _happens(settings.noise):
        pixels = pixels + _uniform(*BAND_NOISE) * std * torch.randn(pixels.shape)
    return pixels


def _within(pixels: Tensor, dtype: torch.dtype) -> Tensor:
    """Bring float32 pixels back to the scene's dtype, rounded and cut to its range."""
    if dtype.is_floating_point:
        return pixels
    limits = torch.iinfo(dtype)
    return pixels.round().clamp(limits.min, limits.max).to(dtype)


def _rotated(pixels: Tensor, targets: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Turn by any angle; pixels that are mixed with what is invalid, or lie beyond the edge, become invalid."""
    angle, bilinear = _uniform(0, 360), v2.InterpolationMode.BILINEAR
    image = functional.rotate_image(pixels, angle, interpolation=bilinear)
    whole = functional.rotate_image(valid[None].float(), angle, interpolation=bilinear)[0] > WHOLE
    classes = functional.rotate_image(targets[None], angle, interpolation=v2.InterpolationMode.NEAREST)[0]
    return image, torch.where(whole, classes, IGNORED).to(targets.dtype), whole


def _cut_out(targets: Tensor, valid: Tensor) -> None:
    """Make a random rectangle nodata, in place."""
    height, width = (max(1, round(_uniform(*CUTOUT_SIDE) * side)) for side in targets.shape)
    row = int(torch.randint(targets.shape[0] - height + 1, ()))
    col = int(torch.randint(targets.shape[1] - width + 1, ()))
    targets[row : row + height, col : col + width] = IGNORED
    valid[row : row + height, col : col + width] = False


def resized(
    pixels: np.ndarray, targets: np.ndarray, valid: np.ndarray, side: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Bring a square patch to another side: antialiased bilinear pixels, nearest targets.

    Pixels that are mixed with invalid ones become invalid.
    """
    image, classes, good = (torch.from_numpy(part) for part in (pixels, targets, valid))
    if pixels.shape[-1] == side:
        return image, classes, good
    image = functional.resize_image(image, [side, side], antialias=True)
    whole = functional.resize_image(good[None].float(), [side, side], antialias=True)[0] > WHOLE
    nearest = v2.InterpolationMode.NEAREST_EXACT
    classes = functional.resize_image(classes[None], [side, side], interpolation=nearest)[0]
    return image, torch.where(whole, classes, IGNORED).to(classes.dtype), whole
