"""What a run will need, from sizes alone: blocks, patches, bytes, disk and memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from geoseg.grid.lattice import Block, Lattice
from geoseg.stages.vectorize import strip_px

MB = 1 << 20

PROCESS_BYTES = 250 * MB
"""A process with GDAL, numpy and a runtime loaded (measured: 100 to 140 MB before, 80 MB for the runtime)."""
WEIGHTS_IN_MEMORY = 6
"""A network in memory over its weights on disk: float16 becomes float32, and the runtime packs a copy."""
ACTIVATION_BYTES_PX = 250
"""Activations of a network, per pixel of a patch (measured: 95 in bfloat16, 170 in float32, for DeepLabV3+)."""
SCRATCH_BYTES_PX = 2.0
"""A block file, per pixel: class and confidence, not compressed."""
RESULT_BYTES_PX = 0.8
"""Both rasters with their overviews, and the vectors."""
STRIP_BYTES_PX = 12.0
"""Polygonizing a strip: labels, rings and their coordinates."""


@dataclass(frozen=True)
class Needs:
    """What mapping one scene takes. patches: computed, those that two blocks need twice; lattice_patches: once each.

    read_bytes: uncompressed, margins included. memory_bytes: peak of each stage over all processes on one machine.
    """

    blocks: int
    blocks_outside: int
    patches: int
    lattice_patches: int
    read_bytes: int
    disk_bytes: int
    memory_bytes: dict[str, int]


def count_needs(
    lattice: Lattice,
    blocks: Iterable[Block],
    all_blocks: int,
    block_px: int,
    lanes: int,
    bands: int,
    band_bytes: int,
    weights_bytes: int,
    cache_bytes: int,
    classes: int,
    processes: int = 1,
) -> Needs:
    """Add up what the blocks of a scene take. processes: workers beside this one that load the network."""
    count = patches = read_px = core_px = 0
    for block in blocks:
        count += 1
        patches += lattice.patch_count(block.core)
        read_px += lattice.read_window(block.core).overlap(lattice.window).area_px
        core_px += block.core.area_px
    read_bytes_px = bands * band_bytes + 2
    spec = lattice.spec
    seen_px = (min(block_px, max(lattice.window.shape)) + 2 * spec.patch_px) ** 2
    scores_px = 4 * classes * block_px**2 if (spec.blend, spec.tta) != ("crop", "none") else 0
    in_flight = 2 * lanes + 1
    network = WEIGHTS_IN_MEMORY * weights_bytes + lanes * ACTIVATION_BYTES_PX * spec.patch_px**2
    here = processes * (PROCESS_BYTES + cache_bytes)
    strip = int(STRIP_BYTES_PX * lattice.width * min(strip_px(lattice.width), lattice.height))
    return Needs(
        blocks=count,
        blocks_outside=all_blocks - count,
        patches=patches,
        lattice_patches=lattice.patch_count(lattice.window),
        read_bytes=read_px * bands * band_bytes,
        disk_bytes=int(core_px * (SCRATCH_BYTES_PX + RESULT_BYTES_PX)) + 8 * MB,
        memory_bytes={
            "map": here + processes * network + in_flight * read_bytes_px * seen_px + lanes * scores_px,
            "merge": here + processes * network + 2 * 64 * MB,
            "evaluate": here + processes * network + lanes * 16 * 2048**2,
            "vectorize": here + processes * network + (lanes + 1) * strip,
        },
    )
