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
from geoseg.train.scenes import IGNORED

from torchvision import tv_tensors  # isort: skip
from torchvision.transforms import v2  # isort: skip
from torchvision.transforms.v2 import functional  # isort: skip

NOISE_SIGMA = (0.005, 0.03)
JPEG_QUALITY = (30, 90)
HAZE_STRENGTH = (0.05, 0.4)
CUTOUT_SIDE = (0.1, 0.4)


def _uniform(low: float, high: float) -> float:
    return float(torch.empty(()).uniform_(low, high))


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

    Photometric changes are for three bands of uint8; other pixels are turned and flipped only.
    """

    def __init__(self, settings: AugmentSettings, photometric: bool) -> None:
        self._geometry = v2.Compose([v2.RandomHorizontalFlip(), v2.RandomVerticalFlip(), RightAngle()])
        jitter = v2.ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.02)
        chances: list[tuple[v2.Transform, float]] = [
            (jitter, settings.color),
            (Haze(), settings.haze),
            (v2.GaussianBlur(5, sigma=(0.3, 1.5)), settings.blur),
            (SensorNoise(), settings.noise),
            (Jpeg(), settings.jpeg),
        ]
        self._light = (
            v2.Compose([v2.RandomApply([change], p=p) for change, p in chances]) if photometric else None
        )
        self._cutout = settings.cutout

    def __call__(self, pixels: Tensor, targets: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pixels (band, row, col), targets and validity (row, col); in and out alike."""
        masks = tv_tensors.Mask(torch.stack([targets, valid.to(torch.uint8)]))
        image, masks = self._geometry(tv_tensors.Image(pixels), masks)
        if self._light is not None:
            image = self._light(image)
        targets, valid = masks.as_subclass(torch.Tensor).unbind()
        targets, valid = targets.clone(), valid.bool()
        if float(torch.rand(())) < self._cutout:
            _cut_out(targets, valid)
        return image.as_subclass(torch.Tensor), targets, valid


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
    """Bring a square patch to another side: antialiased bilinear pixels, nearest targets and validity."""
    image, classes = torch.from_numpy(pixels), torch.from_numpy(targets)
    good = torch.from_numpy(valid.astype(np.uint8))
    if pixels.shape[-1] == side:
        return image, classes, good.bool()
    nearest = v2.InterpolationMode.NEAREST_EXACT
    image = functional.resize_image(image, [side, side], antialias=True)
    masks = functional.resize_image(torch.stack([classes, good]), [side, side], interpolation=nearest)
    return image, masks[0], masks[1].bool()
