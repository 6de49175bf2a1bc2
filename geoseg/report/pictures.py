"""Pictures that go into a page: small enough, and the same bytes for the same pixels."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from PIL import Image

from geoseg.legend import NODATA, Legend

Color = Sequence[int]
SIDES = (3072, 2048, 1600, 1280, 1024, 768, 512, 384, 256)
"""Longer sides to try, in pixels, until a picture fits."""
QUALITY = 80
CLEAR = 255
"""Index of the transparent entry of a palette."""


def data_uri(picture: bytes) -> str:
    """A PNG or WebP picture as text for an address."""
    kind = "png" if picture.startswith(b"\x89PNG") else "webp"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def photo(image: np.ndarray, valid: np.ndarray, quality: int = QUALITY) -> bytes:
    """WebP of an image (row, col, 3) uint8; invalid pixels (row, col) are transparent."""
    alpha = () if valid.all() else (np.where(valid, 255, 0).astype(np.uint8),)
    picture = Image.fromarray(np.dstack([image, *alpha]))
    return _encode(picture, "WEBP", quality=quality, method=4)


def flat(indices: np.ndarray, palette: Mapping[int, Color]) -> bytes:
    """PNG of indices (row, col) uint8 in the palette's colors; all other values are transparent."""
    lookup = np.full(256, CLEAR, np.uint8)
    colors = np.zeros((256, 3), np.uint8)
    for place, (value, color) in enumerate(sorted(palette.items())):
        lookup[value] = place
        colors[place] = tuple(color)
    picture = Image.frombytes("P", indices.shape[::-1], lookup[indices].tobytes())
    picture.putpalette(colors.tobytes())
    return _encode(picture, "PNG", compress_level=6, transparency=CLEAR)


def classes(labels: np.ndarray, legend: Legend) -> bytes:
    """PNG of class ids (row, col) in the legend's colors."""
    return flat(labels, {c.id: c.color for c in legend.classes})


def to_fit(budget: int, side: int, make: Callable[[int], bytes], sides: Sequence[int] = SIDES) -> bytes:
    """The largest picture, by its longer side, that has at most `budget` bytes; the smallest one if none has.

    side: of the original, which is tried first unless it is larger than the first of `sides`, falling. make: the
    picture of a given longer side.
    """
    picture = b""
    for wanted in [*([side] if side <= sides[0] else []), *(s for s in sides if s < side)]:
        picture = make(wanted)
        if len(picture) <= budget:
            break
    return picture


def side_of(picture: bytes) -> int:
    """Longer side of a PNG or WebP picture, in pixels."""
    with Image.open(io.BytesIO(picture)) as opened:
        return max(opened.size)


def thin_out(pixels: np.ndarray, side: int) -> np.ndarray:
    """Every n-th pixel of (row, col), so that the longer side is `side`; for classes, which have no mean."""
    height, width = pixels.shape
    scale = min(1.0, side / max(height, width))
    rows, cols = max(1, round(height * scale)), max(1, round(width * scale))
    thin: np.ndarray = pixels[np.arange(rows) * height // rows][:, np.arange(cols) * width // cols]
    return thin


def shrink_photo(image: np.ndarray, valid: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """The mean over pixels of an image (row, col, 3), so that the longer side is `side`."""
    height, width = valid.shape
    scale = min(1.0, side / max(height, width))
    if scale == 1:
        return image, valid
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = Image.fromarray(image).resize(size, Image.Resampling.BOX)
    return np.asarray(small), thin_out(valid, side)


def displayed(values: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a screen shows of raw values (band, row, col): (row, col, 3) uint8, and where it is valid.

    Bytes stay as they are; other types are stretched from the 2nd to the 98th percentile of each band. One band is
    shown grey, of two the first, of more the first three.
    """
    bands = values[:3] if len(values) >= 3 else values[[0, 0, 0]]
    if bands.dtype.kind == "f":
        valid = valid & np.isfinite(bands).all(axis=0)
    if bands.dtype != np.uint8:
        bands = np.stack([_stretch(band, valid) for band in bands])
    return np.where(valid[..., None], bands.transpose(1, 2, 0), 0).astype(np.uint8), valid


def _stretch(band: np.ndarray, valid: np.ndarray) -> np.ndarray:
    if not valid.any():
        return np.zeros(band.shape, np.uint8)
    low, high = np.percentile(band[valid].astype(np.float64), (2, 98))
    with np.errstate(invalid="ignore"):
        share = (np.where(valid, band, low).astype(np.float64) - low) / max(high - low, 1e-12)
    stretched: np.ndarray = np.round(np.clip(share, 0, 1) * 255).astype(np.uint8)
    return stretched


def percent_steps(percent: np.ndarray, ramp: Sequence[Color], step: int = 5) -> bytes:
    """PNG of percent (row, col) in steps, colored by a ramp from 0 to 100; 255 is transparent."""
    steps = np.where(percent > 100, NODATA, (np.minimum(percent, 100) + step // 2) // step).astype(np.uint8)
    return flat(steps, {i: ramp_color(ramp, i * step / 100) for i in range(100 // step + 1)})


def ramp_color(ramp: Sequence[Color], share: float) -> Color:
    """The color at a share of a ramp, 0..1, between its nearest two."""
    place = min(max(share, 0.0), 1.0) * (len(ramp) - 1)
    first = min(int(place), len(ramp) - 2)
    return tuple(
        round(a + (b - a) * (place - first)) for a, b in zip(ramp[first], ramp[first + 1], strict=True)
    )


def _encode(picture: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()
