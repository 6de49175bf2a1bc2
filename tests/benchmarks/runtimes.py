"""Megapixels per second of every runtime and precision on a CPU, side by side, against torch eager at its best."""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from geoseg.errors import SpecError
from geoseg.model.bundle import Bundle
from geoseg.model.measure import WAYS, compare_ways
from geoseg.model.runtimes import RuntimeChoice, SegmenterRecipe
from geoseg.parallel import cores
from geoseg.run.models import example_patches
from geoseg.spec import SegmentSpec
from tests.benchmarks.scenes import DUBAI_7
from tests.benchmarks.speed import interval

TUNED = {
    "MALLOC_MMAP_THRESHOLD_": "2147483648",
    "MALLOC_TRIM_THRESHOLD_": "8589934592",
    "OMP_WAIT_POLICY": "passive",
}
"""Else torch loses half of its speed above a batch of 1 to giving memory back and taking it again."""
PATCHES = 16
BATCHES = (1, 4)
REFERENCE = "torch eager float32"


def main(pairs: int) -> None:
    """In a process of its own, because glibc reads its settings at the start."""
    command = [sys.executable, "-m", "tests.benchmarks.runtimes", str(pairs)]
    subprocess.run(command, env={**os.environ, **TUNED}, check=True)


def measure(pairs: int) -> None:
    """Interleaved repeats; every side maps the same patches of the bundled model's size, all cores at work."""
    bundle = Bundle.open()
    patches = list(example_patches(bundle.card, str(DUBAI_7)))
    sides = _eager(bundle, patches) | _ours(bundle, patches)
    times: dict[str, list[float]] = {side: [] for side in sides}
    for run in sides.values():
        run()
    for _ in range(pairs):
        for side in random.sample(list(sides), len(sides)):
            begin = time.perf_counter()
            sides[side]()
            times[side].append(time.perf_counter() - begin)
        print("  " + ", ".join(f"{side} {taken[-1]:.1f} s" for side, taken in times.items()), flush=True)
    _table(times, bundle, patches)


def _table(times: dict[str, list[float]], bundle: Bundle, patches: list[np.ndarray]) -> None:
    megapixels = PATCHES * bundle.card.patch_px**2 / 1e6
    baselines = [side for side in times if side.startswith(REFERENCE)]
    base = min(baselines, key=lambda side: statistics.median(times[side]))
    equality = compare_ways(bundle, patches)
    print(f"| side | Mpx/s (median) | times {base} (95 % interval) | equal labels | largest difference |")
    print("| --- | --- | --- | --- | --- |")
    for side, taken in times.items():
        ratios = [b / t for b, t in zip(times[base], taken, strict=True)]
        low, high = interval(ratios)
        found = equality.get(side)
        agrees = f"{found.labels:.4%} | {found.difference:.4f}" if found else "- | -"
        print(f"| {side} | {megapixels / statistics.median(taken):.2f} | "
              f"{statistics.median(ratios):.2f} ({low:.2f} to {high:.2f}) | {agrees} |")  # fmt: skip


def _eager(bundle: Bundle, patches: list[np.ndarray]) -> dict[str, Callable[[], None]]:
    """torch as one would write it, channels last, all cores on each batch."""
    import torch

    from geoseg.model.network import load_network

    network: Any = load_network(bundle)
    network.to(memory_format=torch.channels_last)

    def run(batch: int) -> None:
        torch.set_num_threads(cores())
        for start in range(0, PATCHES, batch):
            stack = np.stack([patches[(start + i) % len(patches)] for i in range(batch)])
            pixels = torch.from_numpy(stack).contiguous(memory_format=torch.channels_last)
            with torch.inference_mode():
                network(pixels).argmax(1)

    return {f"{REFERENCE}, batch {batch}": partial(run, batch) for batch in BATCHES}


def _ours(bundle: Bundle, patches: list[np.ndarray]) -> dict[str, Callable[[], None]]:
    """The segmenters of a run: as many lanes as cores, one thread each."""
    import torch

    sides: dict[str, Callable[[], None]] = {}
    for runtime, precision in WAYS:
        try:
            choice = replace(RuntimeChoice.decide(bundle.card, runtime, precision), device="cpu")
        except SpecError as reason:
            print(f"{runtime} {precision}: left out, {reason}", flush=True)
            continue
        spec = SegmentSpec(bundle.card.patch_px)
        segmenter = SegmenterRecipe.of(bundle, spec, choice).build(cores(), cores())

        def lane(number: int, segmenter: Any = segmenter) -> None:
            for index in range(number, PATCHES // segmenter.batch, cores()):
                segmenter.classify(np.stack([patches[index % len(patches)]] * segmenter.batch))

        def run(lane: Callable[[int], None] = lane) -> None:
            torch.set_num_threads(1)
            with ThreadPoolExecutor(cores()) as pool:
                list(pool.map(lane, range(cores())))

        sides[f"{runtime}-{precision}"] = run
    return sides


if __name__ == "__main__":
    measure(int(sys.argv[1]))
