"""Memory must not grow with the scene: proportional set size of the whole process tree."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

from tests.benchmarks.scenes import DUBAI_7, mosaic


def peak_mb(command: list[str]) -> float:
    """Run a command; the most that it and all its children hold at one time, in MB."""
    process = psutil.Popen(command, stderr=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        total = 0
        for member in [process, *process.children(recursive=True)]:
            with suppress(psutil.Error):
                total += member.memory_full_info().pss
        peak = max(peak, total)
        time.sleep(0.2)
    if process.returncode:
        sys.exit(f"{' '.join(command)} exited with {process.returncode}")
    return peak / 1e6


def main(_pairs: int) -> None:
    """dubai_7 alone against its 2 x 2 mosaic, on both engines."""
    geoseg = str(Path(sys.executable).parent / "geoseg")
    print("| engine | dubai_7 (34 Mpx) | 2 x 2 mosaic (135 Mpx) | ratio |\n| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as name:
        scenes = {"one": DUBAI_7, "four": mosaic(Path(name))}
        for engine in ("local", "ray"):
            found = {
                size: peak_mb(
                    [
                        geoseg,
                        "run",
                        str(scene),
                        "-o",
                        f"{name}/{engine}_{size}",
                        "--engine",
                        engine,
                        "--workers",
                        "2",
                    ]
                )
                for size, scene in scenes.items()
            }
            print(
                f"| {engine} | {found['one']:.0f} MB | {found['four']:.0f} MB | {found['four'] / found['one']:.3f} |",
                flush=True,
            )
