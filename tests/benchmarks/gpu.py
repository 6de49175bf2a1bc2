"""python -m tests.benchmarks.gpu [BUNDLE]: patches per second on a GPU, against the matrix rate that it reaches.

Each way to run the network (eager, channels last, torch.compile, CUDA graphs) at several batch sizes and in each
precision, without and with the copies of a run. Needs a GPU that torch sees.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from geoseg.model.bundle import Bundle
from geoseg.model.network import load_network
from geoseg.model.runtimes import RuntimeChoice, SegmenterRecipe
from geoseg.run.models import example_patches
from geoseg.spec import SegmentSpec

BATCHES = (1, 4, 16, 64)
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SECONDS = 2.0
MATRIX = 8192
LANES = (1, 2, 4)


def main() -> None:
    if not torch.cuda.is_available():
        print("no GPU that torch sees; nothing is measured")
        return
    bundle = Bundle.open(sys.argv[1] if len(sys.argv) > 1 else None)
    patches = np.stack(list(example_patches(bundle.card)))
    device = torch.device("cuda")
    flops = flops_of(bundle)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {bundle.card.name}: "
          f"{flops / 1e9:.1f} GFLOP a patch of {bundle.card.patch_px} px")  # fmt: skip
    rates = {name: matrix_rate(kind, device, MATRIX) for name, kind in PRECISIONS.items()}
    print(
        "| precision | way | batch | patches/s | share of the matrix rate |\n| --- | --- | --- | --- | --- |"
    )
    for precision, kind in PRECISIONS.items():
        print(f"| {precision} | {MATRIX} x {MATRIX} matrices | | | {rates[precision] / 1e12:.1f} TFLOP/s |")
        for way, prepare in WAYS.items():
            for batch in BATCHES:
                speed = attempt(lambda p=prepare, b=batch, k=kind: forward(p, bundle, patches, b, k, device))
                share = "-" if isinstance(speed, str) else f"{speed * flops / rates[precision]:.1%}"
                shown = speed if isinstance(speed, str) else f"{speed:.1f}"
                print(f"| {precision} | {way} | {batch} | {shown} | {share} |", flush=True)
        for lanes in LANES:
            speed = attempt(lambda n=lanes, p=precision: end_to_end(bundle, patches, p, n))
            shown = speed if isinstance(speed, str) else f"{speed:.1f}"
            print(f"| {precision} | from and to the host, {lanes} lanes | | {shown} | |", flush=True)


def attempt(action: Callable[[], float]) -> float | str:
    """What does not fit or does not compile is named in the table, and the others go on."""
    try:
        return action()
    except Exception as error:  # compilers raise classes of their own
        return f"{type(error).__name__}: {str(error).splitlines()[0][:60] if str(error) else ''}"
    finally:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def flops_of(bundle: Bundle) -> int:
    """Floating-point operations for one patch, as torch counts them: two for a multiplication and its sum."""
    side = bundle.card.patch_px
    with FlopCounterMode(display=False) as counter:
        load_network(bundle)(torch.zeros(1, len(bundle.card.bands), side, side))
    return int(counter.get_total_flops())


def per_second(action: Callable[[], object], device: torch.device, seconds: float = SECONDS) -> float:
    """Calls a second, warmed up; the device is waited for."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    for _ in range(3):
        action()
    wait()
    begin, count = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        for _ in range(4):
            action()
        wait()
        count += 4
    return count / (time.perf_counter() - begin)


def matrix_rate(kind: torch.dtype, device: torch.device, side: int, seconds: float = SECONDS) -> float:
    """Floating-point operations a second of a large product of matrices."""
    left, right = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    return per_second(lambda: left @ right, device, seconds) * 2 * side**3


def forward(
    prepare: Callable[[Any, Tensor], Callable[[], object]], bundle: Bundle, patches: np.ndarray, batch: int,
    kind: torch.dtype, device: torch.device, seconds: float = SECONDS,
) -> float:  # fmt: skip
    """Patches a second that lie on the device already."""
    network = load_network(bundle).to(device)
    pixels = torch.from_numpy(np.stack([patches[i % len(patches)] for i in range(batch)])).to(device)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=kind == torch.bfloat16):
        return batch * per_second(prepare(network, pixels), device, seconds)


def _eager(network: Any, pixels: Tensor) -> Callable[[], object]:
    return lambda: network(pixels)


def _channels_last(network: Any, pixels: Tensor) -> Callable[[], object]:
    network.to(memory_format=torch.channels_last)
    held = pixels.contiguous(memory_format=torch.channels_last)
    return lambda: network(held)


def _compiled(network: Any, pixels: Tensor) -> Callable[[], object]:
    network.to(memory_format=torch.channels_last)
    held = pixels.contiguous(memory_format=torch.channels_last)
    made = torch.compile(network)
    return lambda: made(held)


def _graph(network: Any, pixels: Tensor) -> Callable[[], object]:
    """The kernels of one call, recorded once and sent again as a whole."""
    run = _channels_last(network, pixels)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


WAYS = {
    "eager": _eager,
    "channels last": _channels_last,
    "torch.compile, channels last": _compiled,
    "CUDA graph, channels last": _graph,
}


def end_to_end(
    bundle: Bundle, patches: np.ndarray, precision: str, lanes: int, seconds: float = SECONDS
) -> float:
    """Patches a second through the segmenter of a run: copied in, labelled, copied out, from several threads."""
    choice = RuntimeChoice.decide(bundle.card, "torch", precision)
    recipe = SegmenterRecipe.of(bundle, SegmentSpec(bundle.card.patch_px), choice)
    segmenter = recipe.build(lanes, lanes)
    stack = np.stack([patches[i % len(patches)] for i in range(segmenter.batch)])
    segmenter.classify(stack)
    end = time.perf_counter() + seconds

    def lane(_: int) -> int:
        done = 0
        while time.perf_counter() < end:
            segmenter.classify(stack)
            done += segmenter.batch
        return done

    begin = time.perf_counter()
    with ThreadPoolExecutor(lanes) as pool:
        return sum(pool.map(lane, range(lanes))) / (time.perf_counter() - begin)


if __name__ == "__main__":
    main()
