"""What many tests share: a small network whose answers vary, as a bundle."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault(
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0"
)  # for Ray in processes of its own: on loopback only
# A shell that starts the tests in the background makes them, and all that they start, deaf to Ctrl-C.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Machines are shared: time decides no test. Nor does chance: the same commit tries the same cases; make soak looks for
# others.
settings.register_profile("geoseg", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None)
settings.load_profile("geoseg")

CLASSES = (
    ("building", (200, 60, 60)),
    ("road", (90, 90, 90)),
    ("land", (220, 200, 150)),
    ("vegetation", (60, 150, 60)),
    ("water", (60, 120, 220)),
)
BANDS = (("red", 120.2), ("green", 110.7), ("blue", 100.0))


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory) -> Path:
    """DeepLabV3+ with random weights for patches of 256 px; each class is the answer for some pixels."""
    from geoseg.model.export import write_bundle

    card = {
        "name": "tiny",
        "version": "0",
        "architecture": "DeepLabV3Plus",
        "encoder": "mobilenet_v2",
        "bands": [{"name": name, "mean": mean, "std": 50.0} for name, mean in BANDS],
        "dtype": "uint8",
        "gsd_m": {"min": 0.5, "max": 1.25},
        "classes": [
            {"id": i, "name": name, "color": color, "role": name if name in ("building", "road") else None}
            for i, (name, color) in enumerate(CLASSES, 1)
        ],
        "patch_px": 256,
    }
    return write_bundle(_varied_network(), card, tmp_path_factory.mktemp("models") / "tiny").folder


def _varied_network():
    """Random weights whose activations and logits are spread as a trained network's are.

    Batch statistics of textures take the place of training; then the last layer is centered and scaled per class.
    """
    import torch
    from torch.nn.functional import interpolate

    from geoseg.model.network import build_body

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        body = build_body("DeepLabV3Plus", "mobilenet_v2", len(BANDS), len(CLASSES))
        noise = [torch.randn(1, len(BANDS), 256 // px, 256 // px) for px in (4, 16, 64)]
        textures = torch.cat([interpolate(part, size=256) for part in noise])
        for module in body.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None  # the mean over all that was seen
        body.train()(textures)
        logits = body.eval()(textures)
        last, spread = body.segmentation_head[0], 4 / logits.std((0, 2, 3))
        last.bias.copy_((last.bias - logits.mean((0, 2, 3))) * spread)
        last.weight.mul_(spread[:, None, None, None])
    return body


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A folder on a disk of so many KiB; asked again, the same disk in another size."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def resize(kib: int) -> Path:
        options = f"size={kib}k" + (",remount" if folder.is_mount() else "")
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True
        )
        if made.returncode:
            pytest.skip(f"no small disk can be mounted here: {made.stderr.strip()}")
        return folder

    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("a small disk is mounted by root only")
    yield resize
    if folder.is_mount():
        subprocess.run(["umount", "-l", folder], check=True)
