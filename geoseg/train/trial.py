"""Whether a network takes the patches of a run, found out before anything is read."""

from __future__ import annotations

import torch
from torch import nn

from geoseg.errors import SpecError
from geoseg.train.config import TrainConfig


@torch.no_grad()
def try_sizes(body: nn.Module, config: TrainConfig) -> None:
    """SpecError where the network does not give each pixel of a patch of crop_px or patch_px its logits.

    The network stays as it is.
    """
    body.eval()
    name = f"{config.architecture} with {config.encoder}"
    for key, side in (("crop_px", config.crop_px), ("patch_px", config.patch_px)):
        try:
            shape = tuple(body(torch.zeros(1, len(config.bands), side, side)).shape)
        except Exception as error:  # each library has classes of its own for a size that it does not take
            reason = " ".join(str(error).split())[:200]
            raise SpecError(
                f"{name} does not take patches of {key}: {side} ({reason}); try a larger multiple of 32, or the "
                "size that the encoder names"
            ) from error
        if shape != (1, len(config.classes), side, side):
            raise SpecError(
                f"{name} answers {shape[-2]} x {shape[-1]} px to patches of {key}: {side}; "
                "every pixel needs an answer: change options (upsampling, where it is there)"
            )
    body.train()
