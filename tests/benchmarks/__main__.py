"""make bench: speed, memory and quality on the real scenes, each as a table."""

from __future__ import annotations

import argparse
import sys

from tests.benchmarks import (
    accuracy,
    blends,
    footprints,
    memory,
    picture,
    polygons,
    roads,
    runtimes,
    scale,
    speed,
)
from tests.data import DATA

PARTS = {
    "speed": speed.main,
    "stages": speed.stages,
    "runtimes": runtimes.main,
    "memory": memory.main,
    "scale": scale.main,
    "blends": blends.main,
    "accuracy": accuracy.main,
    "polygons": polygons.main,
    "footprints": footprints.main,
    "roads": roads.main,
    "picture": picture.main,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"which of {', '.join(PARTS)}; all if none is named"
    )
    parser.add_argument("--pairs", type=int, default=8, help="interleaved repeats of each speed (8)")
    chosen = parser.parse_args()
    if not (DATA / "dubai").is_dir():
        sys.exit(f"no real imagery in {DATA}; set GEOSEG_DATA to its folder")
    unknown = set(chosen.parts) - set(PARTS)
    if unknown:
        parser.error(f"no part {', '.join(sorted(unknown))}")
    for name in chosen.parts or PARTS:
        print(f"\n## {name}", flush=True)
        PARTS[name](chosen.pairs)


if __name__ == "__main__":
    main()
