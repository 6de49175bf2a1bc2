"""The Ray engine: the same stage functions as tasks and actors of a cluster. The only importer of ray."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from threading import Semaphore
from typing import Any, TypeVar

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from geoseg.errors import BlockError, GeosegError, SpecError
from geoseg.grid.lattice import Block
from geoseg.io.blockstore import BlockFile
from geoseg.io.rasters import configure_gdal, limit_cache, small_cache
from geoseg.model.runtimes import SegmenterRecipe
from geoseg.run.work import SceneWork

T = TypeVar("T")
R = TypeVar("R")

ACTOR_CPUS = 0.9
"""What an actor claims of a core. Every core keeps a tenth free, so that the tasks of the other stages, which claim
no more than that, find a place beside the actors on a cluster of any size."""
TASK_CPUS = 0.1
AHEAD = 2
"""Blocks handed to an actor beyond those it maps: it reads one and writes one while it maps another."""
ACTOR_CACHE_MB = 64
"""GDAL's block cache in an actor: neighboring blocks mostly go to others, so that less is read twice."""
ATTEMPTS = 3
RESTARTS = 8
START_TIMEOUT_S = 300.0
OTHER_ANSWER = (
    "a worker answers one fixed patch otherwise than the run's first one did (another CPU or GPU type), so its blocks "
    "must not join this map; use workers of one kind, or --precision float32"
)


class SegmentActor:
    """Loads the network once; each of its threads reads a block, waits for the network, and writes the answer."""

    def __init__(self, recipe: SegmenterRecipe, lanes: int, threads: int, config: dict[str, str]) -> None:
        configure_gdal(config)
        limit_cache(ACTOR_CACHE_MB)
        self._segmenter = recipe.build(lanes, threads)
        self._proof = recipe.prove(self._segmenter)
        self._free = Semaphore(lanes)

    def proof(self) -> str:
        return self._proof

    def run(self, work: SceneWork, block: Block) -> BlockFile:
        """A restarted actor may have come up on another kind of machine, so each asks before it writes."""
        if work.proof != self._proof:
            raise BlockError(OTHER_ANSWER, work.scene.path)
        pixels = work.read(block)
        with self._free:
            answer = work.segment(pixels, self._segmenter)
        return work.put(answer)


class RayEngine:
    """Actors on a cluster, or on a private instance of Ray on this machine where no address is given."""

    def __init__(
        self,
        recipe: SegmenterRecipe,
        workers: int | None = None,
        address: str | None = None,
        config: dict[str, str] | None = None,
    ) -> None:
        self.recipe = recipe
        self._config = dict(config or {})
        self._actors: list[Any] = []
        self._mine = not ray.is_initialized()
        if self._mine:
            _connect(address, self._config)
        per_worker = "GPU" if recipe.choice.device == "cuda" else "CPU"
        self._cores = max(1, int(ray.cluster_resources().get("CPU", 1)))
        self._workers = workers or max(1, int(ray.cluster_resources().get(per_worker, 1)))

    @property
    def lanes(self) -> int:
        return self._workers * self._lanes_each

    @property
    def _lanes_each(self) -> int:
        return 2 if self.recipe.choice.device == "cuda" else 1

    def proof(self) -> str:
        """The actors' answer to one fixed patch. Raises BlockError where they do not all give the same."""
        self._start()
        found = {_result(actor.proof.remote()) for actor in self._actors}
        if len(found) > 1:
            raise BlockError(OTHER_ANSWER)
        return str(found.pop())

    def segment(self, work: SceneWork, blocks: Iterable[Block]) -> Iterator[BlockFile]:
        """Map blocks; yields each as it is done. Lost blocks are submitted again, three times at most."""
        self._start()
        shared = ray.put(work)
        waiting = iter(blocks)
        again: deque[Block] = deque()
        attempts: dict[str, int] = {}
        flight: dict[Any, tuple[Block, Any]] = {}
        load = dict.fromkeys(self._actors, 0)

        def submit() -> bool:
            block = again.popleft() if again else next(waiting, None)
            if block is None:
                return False
            actor = min(load, key=load.__getitem__)
            attempts[block.name] = attempts.get(block.name, 0) + 1
            load[actor] += 1
            flight[actor.run.remote(shared, block)] = block, actor
            return True

        room = len(self._actors) * (self._lanes_each + AHEAD)
        while len(flight) < room and submit():
            pass
        while flight:
            (done,), _ = ray.wait(list(flight), num_returns=1)
            block, actor = flight.pop(done)
            load[actor] -= 1
            try:
                yield ray.get(done)
                attempts.pop(block.name)
            except RayError as error:
                if not isinstance(error, RayActorError) or attempts[block.name] >= ATTEMPTS:
                    raise _told(error, work, block, attempts[block.name]) from error
                again.append(block)
            while len(flight) < room and submit():
                pass

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Ordered map over tasks, as many in flight as the cluster has cores."""
        task = ray.remote(_configured).options(num_cpus=TASK_CPUS, max_retries=ATTEMPTS)
        flight: deque[Any] = deque()
        for item in items:
            flight.append(task.remote(function, item, self._config))
            if len(flight) > self._cores:
                yield _result(flight.popleft())
        while flight:
            yield _result(flight.popleft())

    def release(self) -> None:
        """Give the actors' cores back."""
        for actor in self._actors:
            with suppress(RayError):
                ray.kill(actor)
        self._actors = []

    def close(self) -> None:
        """Release the actors; leave, or end the private instance."""
        self.release()
        if self._mine:
            ray.shutdown()

    def _start(self) -> None:
        if self._actors:
            return
        gpu = self.recipe.choice.device == "cuda"
        cls = ray.remote(SegmentActor).options(
            num_cpus=ACTOR_CPUS,
            num_gpus=1 if gpu else 0,
            max_restarts=RESTARTS,
            max_task_retries=0,
            max_concurrency=self._lanes_each + AHEAD,
        )
        self._actors = [
            cls.remote(self.recipe, self._lanes_each, 1, self._config) for _ in range(self._workers)
        ]
        ready = [actor.__ray_ready__.remote() for actor in self._actors]
        done, late = ray.wait(ready, num_returns=len(ready), timeout=START_TIMEOUT_S)
        for one in done:
            _result(one)
        if late:
            self.release()
            raise SpecError(
                f"only {len(done)} of {len(ready)} workers found a place on the cluster within "
                f"{START_TIMEOUT_S:.0f} s; ask for fewer with --workers"
            )


def _connect(address: str | None, config: dict[str, str]) -> None:
    env = {**config, "OMP_WAIT_POLICY": "passive", "GDAL_VRT_ENABLE_PYTHON": "NO"}
    options: dict[str, Any] = {
        "log_to_driver": False,
        "runtime_env": {"env_vars": env},
        "logging_level": "ERROR",
    }
    if address is None:
        options |= {"include_dashboard": False}
    try:
        ray.init(address=address or "local", **options)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        where = f"the Ray cluster at {address}" if address else "a local Ray instance"
        raise SpecError(f"{where} cannot be reached ({error})") from error


def _configured(function: Callable[[T], R], item: T, config: dict[str, str]) -> R:
    configure_gdal(config)
    with small_cache():
        return function(item)


def _result(reference: Any) -> Any:
    try:
        return ray.get(reference)
    except RayTaskError as error:
        cause = error.cause
        raise (cause if isinstance(cause, GeosegError) else BlockError(f"a task failed ({cause})")) from error
    except RayError as error:
        raise BlockError(f"a worker was lost ({error})") from error


def _told(error: RayError, work: SceneWork, block: Block, attempts: int) -> GeosegError:
    cause = getattr(error, "cause", None)
    if isinstance(cause, GeosegError):
        return cause
    reason = cause or type(error).__name__
    return BlockError(
        f"block {block.name} failed {attempts} time{'s' * (attempts > 1)} ({reason})",
        work.scene.path,
        window=block.core,
    )
