"""python -m tests.benchmarks.gpu [BUNDLE]: patches per second on a GPU, against the matrix rate that it reaches.

Each way to run the network (eager, channels last, torch.compile, CUDA graphs) at several batch sizes and in each
precision, with the labels that it shares with eager float32; then the segmenter of a run, copies included, and a whole
run on the 2 x 2 mosaic of dubai_7 where the imagery is there. float32 is computed as float32 throughout, never as TF32.
Needs a GPU that torch sees.
"""

from __future__ import annotations

import contextlib
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import rasterio
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from geoseg.grid.lattice import Lattice
from geoseg.model.bundle import Bundle
from geoseg.model.network import load_network
from geoseg.model.runtimes import RuntimeChoice, SegmenterRecipe
from geoseg.run.events import LineReporter
from geoseg.run.job import make_job
from geoseg.run.models import example_patches
from geoseg.run.pipeline import Run
from geoseg.spec import SegmentSpec
from tests.benchmarks.scenes import DUBAI_7, mosaic

T = TypeVar("T")

BATCHES = (1, 4, 16, 64)
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SECONDS = 2.0
ROUNDS = 5
"""In which these seconds are spent; the median counts."""
MATRIX = 8192
LANES = (1, 2, 4)


def main() -> None:
    if not torch.cuda.is_available():
        print("no GPU that torch sees; nothing is measured")
        return
    device = torch.device("cuda")
    name = torch.cuda.get_device_name()
    measure(Bundle.open(sys.argv[1] if len(sys.argv) > 1 else None), device, name)


def measure(
    bundle: Bundle, device: torch.device, name: str, batches: Sequence[int] = BATCHES, side: int = MATRIX,
    seconds: float = SECONDS,
) -> None:  # fmt: skip
    """Print the tables. side: of the matrices. seconds: for each figure."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    patches = np.stack(list(example_patches(bundle.card)))
    flops, truth = flops_of(bundle), labels_of(bundle, patches, device)
    print(f"{name}, torch {torch.__version__}, {bundle.card.name}: "
          f"{flops / 1e9:.1f} GFLOP a patch of {bundle.card.patch_px} px\n")  # fmt: skip
    print("| precision | way | batch | patches/s | share of the matrix rate | labels of eager float32 |")
    print("| --- | --- | --- | --- | --- | --- |")
    for precision, kind in PRECISIONS.items():
        rate = matrix_rate(kind, device, side, seconds)
        print(f"| {precision} | {side} x {side} matrices | | {rate / 1e12:.2f} TFLOP/s | 100 % | |")
        for way, prepare in WAYS.items():
            for batch in batches:
                case = Case(bundle, patches, batch, kind, device)
                found = attempt(partial(case.forward, prepare, truth, seconds))
                cells = f"{found} | | "
                if not isinstance(found, str):
                    speed, equal = found
                    cells = f"{speed:.1f} | {100 * speed * flops / rate:.1f} % | {100 * equal:.2f} %"
                print(f"| {precision} | {way} | {batch} | {cells} |", flush=True)
    print("\n| precision | with the copies of a run | patches/s |\n| --- | --- | --- |")
    for precision in PRECISIONS:
        sides: dict[str, Callable[[], float]] = {
            f"from and to the host, lanes: {lanes}": partial(end_to_end, bundle, patches, precision, lanes, seconds)
            for lanes in LANES
        }  # fmt: skip
        if DUBAI_7.is_file():
            sides["from file to blocks, a whole run"] = partial(whole_run, bundle, precision)
        for title, action in sides.items():
            rate_or_reason = attempt(action)
            told = rate_or_reason if isinstance(rate_or_reason, str) else f"{rate_or_reason:.1f}"
            print(f"| {precision} | {title} | {told} |", flush=True)


def attempt(action: Callable[[], T]) -> T | str:
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


def labels_of(bundle: Bundle, patches: np.ndarray, device: torch.device) -> Tensor:
    """What the network answers in float32, patch by patch: (patch, row, col) channels, on the device."""
    network = load_network(bundle).to(device)
    with torch.inference_mode():
        return torch.cat([network(torch.from_numpy(patch[None]).to(device)).argmax(1) for patch in patches])


def per_second(action: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Calls a second, warmed up: the median of rounds, after each of which the device is waited for."""

    def taken(calls: int) -> float:
        begin = time.perf_counter()
        for _ in range(calls):
            action()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begin

    taken(3)
    calls = max(1, round(seconds / ROUNDS / taken(1)))
    return statistics.median(calls / taken(calls) for _ in range(ROUNDS))


def matrix_rate(kind: torch.dtype, device: torch.device, side: int, seconds: float) -> float:
    """Floating-point operations a second of a large product of matrices."""
    left, right = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    return per_second(lambda: left @ right, device, seconds) * 2 * side**3


@dataclass(frozen=True)
class Case:
    """Patches (n, band, row, col) of raw values to map `batch` at a time, in `kind` of numbers."""

    bundle: Bundle
    patches: np.ndarray
    batch: int
    kind: torch.dtype
    device: torch.device

    def forward(
        self, prepare: Callable[[Any, Tensor], Callable[[], Tensor]], truth: Tensor, seconds: float
    ) -> tuple[float, float]:
        """Patches a second that lie on the device already, and the share of labels that are those of `truth`."""
        network = load_network(self.bundle).to(self.device)
        chosen = np.arange(self.batch) % len(self.patches)
        pixels = torch.from_numpy(self.patches[chosen]).to(self.device)
        lower = self.kind == torch.bfloat16
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=lower):
            run = prepare(network, pixels)
            speed = self.batch * per_second(run, self.device, seconds)
            labels = run().argmax(1)
            equal = (labels == truth[torch.from_numpy(chosen).to(self.device)]).float().mean()
        return speed, float(equal)


def _eager(network: Any, pixels: Tensor) -> Callable[[], Tensor]:
    return lambda: network(pixels)


def _channels_last(network: Any, pixels: Tensor) -> Callable[[], Tensor]:
    network.to(memory_format=torch.channels_last)
    held = pixels.contiguous(memory_format=torch.channels_last)
    return lambda: network(held)


def _compiled(network: Any, pixels: Tensor) -> Callable[[], Tensor]:
    """For this shape alone: what was compiled for others is forgotten, or sizes would count as variable."""
    torch.compiler.reset()
    network.to(memory_format=torch.channels_last)
    held = pixels.contiguous(memory_format=torch.channels_last)
    made: Any = torch.compile(network, dynamic=False)
    return lambda: made(held)


def _graph(network: Any, pixels: Tensor) -> Callable[[], Tensor]:
    """The kernels of one call, recorded once and sent again as a whole."""
    run = _channels_last(network, pixels)
    make_stream: Any = torch.cuda.Stream  # untyped in torch
    side = make_stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        answer = run()

    def replay(_held: object = run) -> Tensor:
        """`run` holds the pixels that the kernels read; they must live as long as the graph."""
        graph.replay()
        return answer

    return replay


WAYS = {
    "eager": _eager,
    "channels last": _channels_last,
    "torch.compile, channels last": _compiled,
    "CUDA graph, channels last": _graph,
}


def end_to_end(bundle: Bundle, patches: np.ndarray, precision: str, lanes: int, seconds: float) -> float:
    """Patches a second through the segmenter of a run: copied in, labelled, copied out, from several threads."""
    choice = RuntimeChoice.decide(bundle.card, "torch", precision)
    recipe = SegmenterRecipe.of(bundle, SegmentSpec(bundle.card.patch_px), choice)
    segmenter = recipe.build(lanes, lanes)
    stack = patches[np.arange(segmenter.batch) % len(patches)]

    def lane(end: float) -> int:
        done = 0
        while time.perf_counter() < end or not done:
            segmenter.classify(stack)
            done += segmenter.batch
        return done

    with ThreadPoolExecutor(lanes) as pool:
        list(
            pool.map(lane, [time.perf_counter() + seconds / ROUNDS] * lanes)
        )  # streams and buffers of each thread
        begin = time.perf_counter()
        return sum(pool.map(lane, [begin + seconds] * lanes)) / (time.perf_counter() - begin)


def whole_run(bundle: Bundle, precision: str, scene: Path | None = None) -> float:
    """Patches a second of the mapping stage of `geoseg run`: read, mapped, written as blocks."""
    said = io.StringIO()
    with tempfile.TemporaryDirectory() as name:
        path = scene or mosaic(Path(name))
        job = make_job({
            "scenes": (str(path),), "model": str(bundle.source), "output": str(Path(name) / "out"), "report": False,
            "runtime": "torch", "precision": precision,
        })  # fmt: skip
        with contextlib.redirect_stderr(said):
            code = Run(job, LineReporter()).go()
        if code:
            raise RuntimeError(said.getvalue().strip().splitlines()[-1])
        report = json.loads((Path(name) / "out" / "run.json").read_text())["scenes"][0]
        with rasterio.open(path) as source:
            lattice = Lattice(source.height, source.width, SegmentSpec(bundle.card.patch_px))
    return lattice.patch_count(lattice.window) / float(report["seconds"]["map"])


if __name__ == "__main__":
    main()
