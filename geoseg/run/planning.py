"""`geoseg plan`: what a job will take, without writing anything; and the refusal of what cannot fit."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import psutil

from geoseg.errors import GeosegError, SpecError
from geoseg.grid.lattice import Block, Blocks
from geoseg.io.files import free_bytes
from geoseg.io.places import place_of
from geoseg.io.rasters import CACHE_MB, configure_gdal
from geoseg.model.bundle import Bundle
from geoseg.model.runtimes import RuntimeChoice, SegmenterRecipe
from geoseg.run.engines import engine_name
from geoseg.run.job import Job
from geoseg.run.local import LocalEngine
from geoseg.run.prepare import Prepared, prepare
from geoseg.stages.plan import MB, RESULT_BYTES_PX, SCRATCH_BYTES_PX, Needs, count_needs

SAMPLE_BLOCKS = 16
WARM_UP_PATCHES = 6
EMPTY_BYTES_PX = 8e-4
"""Both rasters, per pixel that no block covers (measured)."""
OTHER_STAGES = 0.15
"""Time of merging and vectorizing over that of reading and mapping (measured on the real scenes)."""


@dataclass(frozen=True)
class ScenePlan:
    """What one scene will take. empty_blocks: those without a valid pixel, counted in a sample and scaled up where
    there are more blocks than the sample holds (sampled is then below blocks). seconds: estimated.
    """

    name: str
    height: int
    width: int
    block_px: int
    needs: Needs
    empty_blocks: int
    sampled: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class JobPlan:
    """Plans by scene, refused scenes with the reason, and what is free on this machine."""

    scenes: tuple[ScenePlan, ...]
    refused: dict[str, str]
    engine: str
    lanes: int
    runtime: dict[str, str]
    seconds_per_patch: float
    free_disk_bytes: int
    free_memory_bytes: int

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "scenes": [scene.to_dict() for scene in self.scenes]}


def plan_job(job: Job) -> JobPlan:
    """Plan every scene; maps a few patches to see how fast this machine is. Raises GeosegError as a run would."""
    configure_gdal(job.config)
    bundle = Bundle.open(job.model)
    spec = job.segment_spec(bundle.card.patch_px)
    choice = RuntimeChoice.decide(bundle.card, job.runtime, job.precision)
    ready, refused = prepare(job, bundle, spec)
    if not ready:
        raise next(iter(refused.values()))
    engine = LocalEngine(SegmenterRecipe.of(bundle, spec, choice), job.worker_range.most)
    per_patch = _seconds_per_patch(engine, len(bundle.card.bands), bundle.card.dtype)
    plans = []
    for scene in ready:
        try:
            plans.append(_plan_scene(scene, job, bundle, engine.lanes, per_patch))
        except GeosegError as error:
            refused[scene.name] = error
    return JobPlan(
        tuple(plans),
        {name: str(error) for name, error in refused.items()},
        engine_name(job),
        engine.lanes,
        choice.to_dict(),
        per_patch,
        free_bytes(place_of(job.output)),
        psutil.virtual_memory().available,
    )


def check_room(ready: Prepared, job: Job, bundle: Bundle, lanes: int, block_px: int) -> None:
    """Refuse what cannot fit on this machine's disk or memory, before anything is computed. Raises SpecError."""
    area = ready.scene.grid.window.area_px
    disk = (
        area * (SCRATCH_BYTES_PX + RESULT_BYTES_PX / 4) if ready.scene.aoi is None else area * EMPTY_BYTES_PX
    )
    free = free_bytes(ready.output)
    if disk > free:
        smaller = (
            "give an --aoi" if ready.scene.aoi is None else "cut the scene, for example with gdal_translate"
        )
        raise SpecError(
            f"is {ready.scene.grid.width} x {ready.scene.grid.height} px; its results take about {_size(disk)} even "
            f"if they compress well, and {ready.output} has {_size(free)} free; {smaller}, or take another folder",
            ready.scene.path,
        )
    needs = _needs(ready, bundle, lanes, block_px, iter([Blocks.of(ready.lattice, block_px).at(0, 0)]), job)
    stage, most = max(needs.memory_bytes.items(), key=lambda item: item[1])
    available = psutil.virtual_memory().available
    if most > available:
        raise SpecError(
            f"stage {stage} takes about {_size(most)} of memory and {_size(available)} are free; "
            f"take {'' if stage == 'vectorize' else 'a smaller --block-px or --patch-px, or '}fewer --workers",
            ready.scene.path,
        )


def format_plan(plan: JobPlan) -> str:
    """The plan as a person reads it."""
    lines = [f"{plan.engine} engine, {plan.lanes} at once, {plan.runtime['runtime']} {plan.runtime['precision']}, "
             f"{1 / plan.seconds_per_patch:.1f} patches/s measured"]  # fmt: skip
    for s in plan.scenes:
        n = s.needs
        about = "" if s.sampled >= n.blocks else "about "
        lines += [
            f"{s.name}: {s.width} x {s.height} px, {s.width * s.height / 1e6:.1f} Mpx",
            f"  blocks    {n.blocks} of {s.block_px} px; {about}{s.empty_blocks} empty and skipped, "
            f"{n.blocks_outside} outside the area of interest",
            f"  patches   {n.patches} ({n.patches / max(1, n.lattice_patches) - 1:+.0%} over each once)",
            f"  reads     {_size(n.read_bytes)} of pixels",
            f"  disk      {_size(n.disk_bytes)}; {_size(plan.free_disk_bytes)} free",
            "  memory    " + ", ".join(f"{stage} {_size(b)}" for stage, b in n.memory_bytes.items())
            + f"; {_size(plan.free_memory_bytes)} free",
            f"  time      about {_duration(s.seconds)}",
        ]  # fmt: skip
    lines += [f"refused: {reason}" for reason in plan.refused.values()]
    return "\n".join(lines)


def _plan_scene(ready: Prepared, job: Job, bundle: Bundle, lanes: int, per_patch: float) -> ScenePlan:
    block_px = Blocks.of(ready.lattice, job.block_px or ready.auto_block_px(lanes)).block_px
    check_room(ready, job, bundle, lanes, block_px)
    needs = _needs(ready, bundle, lanes, block_px, ready.blocks(block_px), job)
    sample = list(_sample(ready, block_px, needs.blocks))
    begin = time.perf_counter()
    empty = sum(not ready.scene.read(block, ready.lattice).keep.any() for block in sample)
    reading = (time.perf_counter() - begin) / max(1, len(sample)) * needs.blocks
    share = empty / max(1, len(sample))
    mapping = needs.patches * (1 - share) * per_patch * (8 if job.tta == "d4" else 1)
    seconds = (mapping + reading / lanes) * (1 + OTHER_STAGES)
    grid = ready.scene.grid
    return ScenePlan(
        ready.name,
        grid.height,
        grid.width,
        block_px,
        needs,
        round(share * needs.blocks),
        len(sample),
        seconds,
    )


def _needs(
    ready: Prepared, bundle: Bundle, lanes: int, block_px: int, blocks: Iterator[Block], job: Job
) -> Needs:
    processes = lanes if engine_name(job) == "ray" else 1
    return count_needs(
        ready.lattice,
        blocks,
        len(Blocks.of(ready.lattice, block_px)),
        block_px,
        lanes,
        len(ready.scene.bands),
        np.dtype(ready.scene.dtype).itemsize,
        bundle.weights.stat().st_size,
        CACHE_MB * MB,
        len(bundle.card.classes),
        processes,
    )


def _sample(ready: Prepared, block_px: int, count: int) -> Iterator[Block]:
    """Up to SAMPLE_BLOCKS blocks, spread evenly over all."""
    step = max(1, math.ceil(count / SAMPLE_BLOCKS))
    return (block for i, block in enumerate(ready.blocks(block_px)) if i % step == 0)


def _seconds_per_patch(engine: LocalEngine, bands: int, dtype: str) -> float:
    """Warm up, then time a few patches through all lanes."""
    side, segmenter = engine.recipe.spec.patch_px, engine.segmenter
    patches = np.zeros((segmenter.batch, bands, side, side), dtype)
    run = segmenter.classify if engine.recipe.spec.labels_only else segmenter.probabilities
    rounds = WARM_UP_PATCHES * engine.lanes
    list(engine.map(run, [patches] * engine.lanes))
    begin = time.perf_counter()
    list(engine.map(run, [patches] * rounds))
    return (time.perf_counter() - begin) / (rounds * segmenter.batch)


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} PB"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
