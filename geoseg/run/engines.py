"""Which engine runs a job. One code path: both run the same stage functions."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

from geoseg.grid.lattice import Block
from geoseg.io.blockstore import BlockFile
from geoseg.model.runtimes import SegmenterRecipe, cuda_devices
from geoseg.run.events import Reporter
from geoseg.run.job import Job
from geoseg.run.work import BlockLoss, SceneWork

RAY_ON_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""At 0, and read when ray is imported, Ray's processes listen on loopback only, on every system."""

SCENES_AT_ONCE = 8

T = TypeVar("T")
R = TypeVar("R")


class Engine(Protocol):
    """Maps blocks with a network, and functions over items; holds neither pixels nor polygons itself."""

    @property
    def lanes(self) -> int:
        """Blocks mapped at once."""

    @property
    def limit(self) -> str:
        """What holds the mapping up now, "" before that is known; see run/pace.py."""

    def proof(self) -> str:
        """Digest of the network's answer to one fixed patch, the same from every worker."""

    def segment(self, work: SceneWork, blocks: Iterable[Block]) -> Iterator[BlockFile | BlockLoss]:
        """Map blocks and publish their files; yields each as it is done, or as it is lost."""

    def map(self, function: Callable[[T], R], items: Iterable[T], /) -> Iterator[R]:
        """Ordered map, a bounded number of items in flight."""

    def close(self) -> None: ...


def engine_name(job: Job) -> str:
    """ "auto" takes Ray where an address is given or several GPUs are there, else the local engine."""
    if job.engine != "auto":
        return job.engine
    return "ray" if job.address or (job.runtime != "openvino" and cuda_devices() > 1) else "local"


def scenes_at_once(job: Job) -> int:
    """On a cluster scenes share the workers; on one machine they would only share its memory."""
    return SCENES_AT_ONCE if engine_name(job) == "ray" else 1


def make_engine(job: Job, recipe: SegmenterRecipe, reporter: Reporter) -> Engine:
    """Start the engine that a job asks for. reporter: told of workers that come and go, and of retries."""
    if engine_name(job) == "ray":
        if job.address is None:
            os.environ.setdefault(RAY_ON_LOOPBACK, "0")
        from geoseg.run.on_ray import RayEngine

        return RayEngine(recipe, job.worker_range, job.address, job.config, job.worker_gpus, reporter)
    from geoseg.run.local import LocalEngine

    return LocalEngine(recipe, job.worker_range.most)
