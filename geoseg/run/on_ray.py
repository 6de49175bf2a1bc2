"""The Ray engine: the same stage functions on a cluster, or on a private instance of Ray on this machine."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, redirect_stdout, suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import ray
from ray.exceptions import RayActorError, RayError

from geoseg.errors import BlockError, GeosegError, SpecError
from geoseg.grid.lattice import Block
from geoseg.io.blockstore import BlockFile
from geoseg.io.rasters import configure_gdal, small_cache
from geoseg.model.runtimes import SegmenterRecipe
from geoseg.run.events import Reporter
from geoseg.run.job import Workers
from geoseg.run.pool import ActorPool, reason
from geoseg.run.schedule import ATTEMPTS
from geoseg.run.work import BlockLoss, SceneWork

T = TypeVar("T")
R = TypeVar("R")

HELPER_CPUS = 0.1
TURN_S = 0.1
"""So long a stage waits for its own results before it looks for a free helper again."""


class Helper:
    """Runs the functions of the other stages. An actor and no task: if a node's link is cut, Ray says that its actors
    are lost, but was seen to leave its tasks waiting."""

    def __init__(self, config: Mapping[str, str]) -> None:
        configure_gdal(config)

    def call(self, function: Callable[[T], R], item: T) -> R:
        with small_cache():
            return function(item)


class RayEngine:
    """workers: actors that map. gpus: what each claims of them, where the network runs on GPUs. reporter: told of
    workers that come and go, and of blocks that are tried again."""

    def __init__(
        self,
        recipe: SegmenterRecipe,
        workers: Workers,
        address: str | None = None,
        config: Mapping[str, str] | None = None,
        gpus: float = 1.0,
        reporter: Reporter | None = None,
    ) -> None:
        self._config = dict(config or {})
        self._mine = not ray.is_initialized()
        if self._mine:
            _connect(address, self._config)
        self._aside = ExitStack()  # Ray prints what befalls its nodes; standard output is for events
        self._aside.enter_context(redirect_stdout(sys.stderr))
        gpus = gpus if recipe.choice.device == "cuda" else 0.0
        self._pool = ActorPool(recipe, workers.least, workers.most, gpus, self._config, reporter)
        self._helpers = _Helpers(self._config)

    @property
    def lanes(self) -> int:
        return self._pool.most * self._pool.lanes_each

    @property
    def limit(self) -> str:
        """What holds the mapping up now; see run/pace.py."""
        return self._pool.limit

    def proof(self) -> str:
        """The actors' answer to one fixed patch; one that answers otherwise may not join."""
        return self._pool.proof()

    def segment(self, work: SceneWork, blocks: Iterable[Block]) -> Iterator[BlockFile | BlockLoss]:
        """Map blocks beside those of other scenes; yields each as it is done."""
        return self._pool.segment(work, blocks)

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Ordered map over the cluster's helpers, which all scenes share."""
        return self._helpers.map(function, items)

    def close(self) -> None:
        """Release the actors; leave, or end the private instance."""
        self._pool.close()
        self._helpers.close()
        if self._mine:
            ray.shutdown()
        self._aside.close()


@dataclass(eq=False)
class _Call(Generic[T]):
    """An item on its way through a helper."""

    number: int
    item: T
    losses: int = 0


class _Helpers:
    """Actors that run one function at a time each; as many as the cluster has cores, started when they are needed."""

    def __init__(self, config: Mapping[str, str]) -> None:
        self._config = dict(config)
        self._free: list[Any] = []
        self._starting: dict[Any, Any] = {}
        self._all: set[Any] = set()
        self._lock = threading.Lock()

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Ordered, a bounded number ahead. What is lost with its helper goes to another one, three times at most."""
        calls = (_Call(number, item) for number, item in enumerate(items))
        again: list[_Call[T]] = []
        out: dict[Any, tuple[_Call[T], Any]] = {}
        done: dict[int, R] = {}
        told, more = 0, True
        try:
            while more or again or out or done:
                while (more or again) and len(out) + len(done) <= self._most() and (helper := self._take()):
                    call = again.pop() if again else next(calls, None)
                    if call is None:
                        more = False
                        self._give(helper)
                    else:
                        out[helper.call.remote(function, call.item)] = call, helper
                if out:
                    ready, _ = ray.wait(list(out), num_returns=1, timeout=TURN_S)
                else:
                    ready = []
                    time.sleep(TURN_S if more or again else 0)
                for reference in ready:
                    call, helper = out.pop(reference)
                    try:
                        done[call.number] = ray.get(reference)
                    except RayActorError as error:
                        self._forget(helper)
                        call.losses += 1
                        if call.losses >= ATTEMPTS:
                            raise BlockError(
                                f"a stage lost its worker {ATTEMPTS} times ({reason(error)})"
                            ) from error
                        again.append(call)
                    except RayError as error:
                        self._give(helper)
                        cause = getattr(error, "cause", None)
                        if isinstance(cause, GeosegError):
                            raise cause from error
                        raise BlockError(
                            f"a stage failed on the cluster ({reason(cause or error)})"
                        ) from error
                    else:
                        self._give(helper)
                while told in done:
                    yield done.pop(told)
                    told += 1
        finally:
            for _, helper in out.values():
                self._forget(helper)

    def close(self) -> None:
        for helper in list(self._all):
            self._forget(helper)

    def _most(self) -> int:
        return max(1, int(ray.cluster_resources().get("CPU", 1)))

    def _take(self) -> Any:
        """A helper that is there and idle, or None; then another one is on its way, if there may be one."""
        with self._lock:
            if self._starting and not self._free:
                ready, _ = ray.wait(list(self._starting), timeout=0)
                self._free += [self._starting.pop(reference) for reference in ready]
            if self._free:
                return self._free.pop()
            if not self._starting and len(self._all) < self._most():
                helper = ray.remote(Helper).options(num_cpus=HELPER_CPUS, max_restarts=0).remote(self._config)
                self._all.add(helper)
                self._starting[helper.__ray_ready__.remote()] = helper
            return None

    def _give(self, helper: Any) -> None:
        with self._lock:
            self._free.append(helper)

    def _forget(self, helper: Any) -> None:
        """One that is lost, or at work for nobody."""
        with self._lock:
            self._all.discard(helper)
        with suppress(RayError):
            ray.kill(helper)


def _connect(address: str | None, config: Mapping[str, str]) -> None:
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
