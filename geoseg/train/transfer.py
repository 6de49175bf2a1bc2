"""Weights to begin with: those of a bundle, or of an encoder, as far as they fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from geoseg.errors import ModelError
from geoseg.model.bundle import Bundle, check_safetensors
from geoseg.model.network import build_body
from geoseg.model.unsafe import refuse_pickle
from geoseg.train.config import TrainConfig

PICTURE_BANDS = ("red", "green", "blue")
"""Bands of an encoder's file that names none and takes three."""


@dataclass(frozen=True)
class Names:
    """What the rows of a head and the columns of a first convolution belong to, in order."""

    classes: tuple[str, ...]
    bands: tuple[str, ...]


@dataclass(frozen=True)
class Kept:
    """What was taken over. whole, partly, left: names of the network's tensors; share: of its values, 0 to 1."""

    whole: tuple[str, ...]
    partly: tuple[str, ...]
    left: tuple[str, ...]
    share: float

    def told(self, source: str, theirs: Names, ours: Names) -> str:
        """In one line: what was kept, and what begins anew."""
        count = len(self.whole) + len(self.partly) + len(self.left)
        line = f"started from {source}: {len(self.whole)} of {count} tensors kept whole"
        if self.partly:
            line += f", {len(self.partly)} in part"
        line += f" ({100 * self.share:.1f} % of all values)"
        for kind, have, want in (
            ("classes", theirs.classes, ours.classes),
            ("bands", theirs.bands, ours.bands),
        ):
            new = [name for name in want if name not in have]
            if have and new:
                line += f"; new {kind}: {', '.join(new)}"
        if self.left:
            shown = sorted({name.split(".")[0] for name in self.left})
            line += f"; random: {len(self.left)} tensors of {', '.join(shown)}"
        return line


def start_body(config: TrainConfig) -> tuple[nn.Module, tuple[str, ...]]:
    """The network to train, with the weights that it begins with, and a line for each source of weights.

    Raises ModelError for names that do not go together, files that are not read, and weights of which nothing fits.
    """
    body = build_body(
        config.architecture, config.encoder, len(config.bands), len(config.classes), config.options
    )
    ours = Names(config.legend.names, config.bands)
    if config.start.bundle is not None:
        bundle = Bundle.open(config.start.bundle)
        if bundle.card.is_onnx:
            raise ModelError("is an ONNX network, whose weights cannot be taken over", bundle.weights)
        card = bundle.card
        theirs = Names(card.legend.names, tuple(band.name for band in card.bands))
        kept = take_over(body, _read(bundle.weights), theirs, ours, class_axes(config), band_axes(config))
        source = f"bundle {card.name} {card.version} ({card.digest[:12]})"
    elif config.start.encoder is not None:
        path = config.start.encoder
        refuse_pickle(path)
        state = _read(path)
        columns = {name.removeprefix("encoder."): axis for name, axis in band_axes(config).items()}
        theirs = Names((), _bands_of(state, columns, config.bands))
        kept = take_over(body.get_submodule("encoder"), state, theirs, ours, {}, columns)
        source = f"encoder {path.name}"
    else:
        return body, ()
    if not kept.whole and not kept.partly:
        raise ModelError(
            f"holds no tensor that fits {config.architecture} with {config.encoder}",
            config.start.bundle or config.start.encoder,
        )
    return body, (kept.told(source, theirs, ours),)


def take_over(
    network: nn.Module,
    state: Mapping[str, Tensor],
    theirs: Names,
    ours: Names,
    heads: Mapping[str, int],
    columns: Mapping[str, int],
) -> Kept:
    """Fill a network, in place, with each tensor of `state` that has its name and shape.

    heads, columns: tensors with an axis of classes or of bands. Of these, what belongs to the same name is copied,
    whatever its place; the rest keeps its value.
    """
    whole: list[str] = []
    partly: list[str] = []
    left: list[str] = []
    taken = every = 0
    for name, value in network.state_dict().items():
        every += value.numel()
        found = state.get(name)
        copied = 0
        if found is not None and name in heads:
            copied = _copy_slices(value, found, heads[name], theirs.classes, ours.classes)
        elif found is not None and name in columns:
            copied = _copy_slices(value, found, columns[name], theirs.bands, ours.bands)
        elif found is not None and found.shape == value.shape:
            value.copy_(found)
            copied = value.numel()
        taken += copied
        (whole if copied == value.numel() and found is not None else partly if copied else left).append(name)
    return Kept(tuple(whole), tuple(partly), tuple(left), taken / max(every, 1))


def _copy_slices(ours: Tensor, theirs: Tensor, axis: int, have: Sequence[str], want: Sequence[str]) -> int:
    """Copy the slices along an axis that have the same name; how many values these are."""
    shape = list(ours.shape)
    shape[axis] = len(have)
    if list(theirs.shape) != shape:
        return 0
    common = [(place, have.index(name)) for place, name in enumerate(want) if name in have]
    for to, at in common:
        ours.select(axis, to).copy_(theirs.select(axis, at))
    return len(common) * (ours.numel() // len(want))


def class_axes(config: TrainConfig) -> dict[str, int]:
    """Tensors of the network with one slice per class, and along which axis."""
    return _growing(config, more_bands=0, more_classes=1)


def band_axes(config: TrainConfig) -> dict[str, int]:
    """Tensors of the network with one slice per band, and along which axis."""
    return _growing(config, more_bands=1, more_classes=0)


def _growing(config: TrainConfig, more_bands: int, more_classes: int) -> dict[str, int]:
    """Axes that are longer by one in a network with one more band, or class."""
    bands, classes = len(config.bands), len(config.classes)
    small = _shapes(config, bands, classes)
    large = _shapes(config, bands + more_bands, classes + more_classes)
    count = classes if more_classes else bands
    found = {}
    for name, shape in small.items():
        grown = [
            axis
            for axis, (a, b) in enumerate(zip(shape, large[name], strict=True))
            if (a, b) == (count, count + 1)
        ]
        if grown and shape != large[name]:
            found[name] = grown[0]
    return found


def _shapes(config: TrainConfig, bands: int, classes: int) -> dict[str, torch.Size]:
    """Shapes of the tensors of a network; where it can be, without taking memory for them."""
    try:
        with torch.device("meta"):
            body = build_body(config.architecture, config.encoder, bands, classes, config.options)
    except ModelError:  # a few compute while they are built
        with torch.random.fork_rng(devices=[]):
            body = build_body(config.architecture, config.encoder, bands, classes, config.options)
    return {name: value.shape for name, value in body.state_dict().items()}


def _bands_of(
    state: Mapping[str, Tensor], columns: Mapping[str, int], ours: tuple[str, ...]
) -> tuple[str, ...]:
    """Bands of an encoder's file, which names none: ours where it takes as many, else red, green and blue."""
    for name, axis in columns.items():
        if name in state and state[name].ndim > axis:
            count = state[name].shape[axis]
            return ours if count == len(ours) else PICTURE_BANDS[:count]
    return ours


def _read(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file, in float32 where they are fractions."""
    check_safetensors(path)
    return {k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()}
