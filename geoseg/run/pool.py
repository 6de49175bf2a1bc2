"""Actors of a Ray cluster that map blocks for all scenes at once, as many as there is room and work for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError

from geoseg.errors import BlockError, GeosegError, ModelError, SpecError
from geoseg.grid.lattice import Block
from geoseg.io.blockstore import BlockFile
from geoseg.model.bundle import Bundle
from geoseg.model.parcel import pack
from geoseg.model.runtimes import SegmenterRecipe
from geoseg.run.actor import OTHER_ANSWER, SegmentActor
from geoseg.run.events import Quiet, Reporter
from geoseg.run.meters import PoolMeters
from geoseg.run.pace import NETWORK, READ, WORKERS, WRITE, Pace
from geoseg.run.schedule import ATTEMPTS, Feed, Schedule, Ticket
from geoseg.run.work import BlockLoss, MappedBlock, SceneWork

ACTOR_CPUS = 0.9
"""What an actor claims of a core. Every core keeps a tenth free, so that the helpers of the other stages, which claim
no more than that, find a place beside the actors on a cluster of any size."""
AHEAD = 2
"""Blocks handed to an actor beyond those it maps: it reads one and writes one while it maps another."""
START_TIMEOUT_S = 300.0
FAILED_STARTS = 8
"""So many actors in a row may end before they are ready."""
LOOK_EVERY_S = 1.0
RESIZE_EVERY_S = 2.0
IDLE_S = 30.0
"""Actors without work are given back after this long, down to the least number that was asked for."""


@dataclass(eq=False)
class _Scene:
    """A scene on its way through the pool."""

    work: SceneWork
    feed: Feed
    shared: Any
    results: SimpleQueue[BlockFile | BlockLoss | GeosegError] = field(default_factory=SimpleQueue)


class ActorPool:
    """least, most: actors; most None: as many as the cluster has room for. gpus: what an actor claims of them.
    limit: what holds the mapping up now; see run/pace.py. reporter: told of workers that come and go, and of retries.

    One thread hands blocks out, watches, and takes answers in; scenes wait for theirs, each in a thread of its own.
    """

    actor: type = SegmentActor

    def __init__(
        self, recipe: SegmenterRecipe, least: int, most: int | None, gpus: float, config: Mapping[str, str],
        reporter: Reporter | None = None,
    ) -> None:  # fmt: skip
        self._recipe, self._least, self._most, self._gpus = recipe, least, most, gpus
        self._config = dict(config)
        self._reporter = reporter or Quiet()
        self._meters = PoolMeters()
        self.lanes_each = 2 if gpus else 1
        # Of an actor's threads, as many as it maps blocks at once wait for the network; the others read and write.
        self._pace = Pace({(READ, WRITE): AHEAD, (NETWORK,): self.lanes_each})
        self._goal = 0
        self._schedule = Schedule(self.lanes_each + AHEAD)
        self._scenes: dict[Feed, _Scene] = {}
        self._out: dict[Any, tuple[Any, Ticket]] = {}
        self._starting: dict[Any, tuple[Any, float]] = {}
        self._idle_since: dict[Any, float] = {}
        self._failed_starts = 0
        self._waited_since = time.monotonic()
        self._files: Any = None
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()
        self._closing = False
        self._broken: GeosegError | None = None
        self._wanted = False
        self.proof_found: str | None = None

    def room(self) -> int:
        """Actors that the nodes of the cluster can hold."""
        each = {"GPU": self._gpus} if self._gpus else {"CPU": 1.0}
        total = 0
        for node in ray.nodes():
            if node["Alive"]:
                total += min(int(node["Resources"].get(kind, 0) / share) for kind, share in each.items())
        return total

    @property
    def most(self) -> int:
        return max(self._least, self._most or self.room())

    @property
    def limit(self) -> str:
        return WORKERS if len(self._idle_since) < self._goal else self._pace.limit

    def proof(self) -> str:
        """The first actor's answer to one fixed patch. Raises GeosegError where no actor can be had."""
        self._begin()
        with self._changed:
            self._wanted = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self.proof_found or self._broken)
            if self.proof_found is None:
                raise self._broken or BlockError("the workers are gone")
            return self.proof_found

    def segment(self, work: SceneWork, blocks: Iterable[Block]) -> Iterator[BlockFile | BlockLoss]:
        """Map blocks beside those of other scenes; yields each as it is done."""
        self._begin()
        scene = _Scene(work, Feed.of(blocks), ray.put(work))
        count = scene.feed.left
        with self._changed:
            if self._broken:
                raise self._broken
            self._scenes[scene.feed] = scene
            self._schedule.add(scene.feed)
            self._changed.notify_all()
        try:
            for _ in range(count):
                result = scene.results.get()
                if isinstance(result, GeosegError):
                    raise result
                yield result
        finally:
            with self._changed:
                del self._scenes[scene.feed]
                self._schedule.drop(scene.feed)

    def close(self) -> None:
        """Give the actors' cores back."""
        if self._thread is None:
            return
        self._break(BlockError("was stopped; what is mapped is kept for the next run"))
        self._thread.join()
        for actor in [*self._idle_since, *(actor for actor, _ in self._starting.values())]:
            _end(actor)

    def _begin(self) -> None:
        with self._changed:
            if self._thread is None:
                self._files = ray.put(pack(Bundle.open(self._recipe.bundle)))
                self._thread = threading.Thread(target=self._go, name="actor pool", daemon=True)
                self._thread.start()

    def _go(self) -> None:
        resized = 0.0
        while not self._closing:
            try:
                with self._changed:
                    now = time.monotonic()
                    if now - resized > RESIZE_EVERY_S:
                        resized = now
                        self._resize(now)
                    self._hand_out()
                    pending = [*self._out, *self._starting]
                    if not pending:
                        self._changed.wait(LOOK_EVERY_S)
                        resized = resized if self._wanted or self._scenes else 0.0
                        continue
                done, _ = ray.wait(pending, num_returns=1, timeout=LOOK_EVERY_S)
                with self._changed:
                    for reference in done:
                        self._take_in(reference)
                    for actor in self._schedule.late(time.monotonic()):
                        self._lose(actor, "gave no answer in time")
            except GeosegError as error:
                self._break(error)
            except Exception as error:  # a defect here must not leave scenes waiting forever
                self._break(BlockError(f"the pool of workers failed ({type(error).__name__}: {error})"))

    def _resize(self, now: float) -> None:
        demand = self._schedule.demand
        if not (demand or self._wanted):
            self._waited_since = now
        have = len(self._idle_since) + len(self._starting)
        wanted = max(min(demand, self.most), self._least if demand or self._wanted else 0)
        for _ in range(wanted - have):
            self._start(now)
        self._goal = wanted
        for actor, since in list(self._idle_since.items()):
            if not self._schedule.idle(actor):
                self._idle_since[actor] = now
            elif now - since > IDLE_S and len(self._idle_since) > max(self._least, demand):
                self._schedule.leave(actor)
                del self._idle_since[actor]
                _end(actor)
        if self._idle_since:
            self._waited_since = now
        elif wanted and now - self._waited_since > START_TIMEOUT_S:
            raise SpecError(
                f"no worker found a place on the cluster within {START_TIMEOUT_S:.0f} s; is it busy, or does none of "
                "its nodes have what a worker needs?"
            )

    def _start(self, now: float) -> None:
        actor = (
            ray.remote(self.actor)
            .options(
                num_cpus=ACTOR_CPUS, num_gpus=self._gpus, max_restarts=0, max_task_retries=0,
                max_concurrency=self.lanes_each + AHEAD,
            )
            .remote(self.lanes_each, self._config)
        )  # fmt: skip
        self._starting[actor.start.remote(self._recipe, self._files)] = actor, now

    def _hand_out(self) -> None:
        while (given := self._schedule.next(time.monotonic())) is not None:
            actor, ticket = given
            shared = self._scenes[ticket.feed].shared
            self._out[actor.run.remote(shared, ticket.block)] = actor, ticket  # type: ignore[attr-defined]

    def _take_in(self, reference: Any) -> None:
        if reference in self._starting:
            self._welcome(reference)
            return
        if reference not in self._out:  # of an actor that was lost in the same round
            return
        actor, ticket = self._out[reference]
        try:
            result = ray.get(reference)
        except RayActorError as error:
            self._lose(actor, reason(error))
            return
        except RayError as error:
            cause = getattr(error, "cause", None)
            unexpected = BlockError(
                f"block {ticket.block.name} could not be mapped ({reason(cause or error)})"
            )
            result = cause if isinstance(cause, GeosegError) else BlockLoss(ticket.block.name, unexpected)
        del self._out[reference]
        self._schedule.done(actor, ticket, time.monotonic())
        if isinstance(result, MappedBlock):
            self._pace.note(result.seconds)
        self._tell(ticket, result)

    def _welcome(self, reference: Any) -> None:
        actor, _ = self._starting.pop(reference)
        try:
            proof = ray.get(reference)
        except RayError as error:
            _end(actor)
            cause = getattr(error, "cause", None)
            if isinstance(cause, GeosegError):
                raise cause from error
            self._failed_starts += 1
            if self._failed_starts >= FAILED_STARTS:
                raise BlockError(
                    f"{FAILED_STARTS} workers in a row ended before they were ready ({reason(cause or error)})"
                ) from error
            return
        self._failed_starts = 0
        if self.proof_found not in (None, proof):
            _end(actor)
            raise ModelError(OTHER_ANSWER)
        self.proof_found = proof
        self._wanted = False
        self._idle_since[actor] = time.monotonic()
        self._schedule.join(actor)
        self._reporter.fact("worker_joined", worker=_name(actor), workers=len(self._idle_since))
        self._changed.notify_all()

    def _lose(self, actor: Any, why: str) -> None:
        """An actor is gone, or as good as gone: its blocks go to others, and what it may yet answer counts no more."""
        if self._idle_since.pop(actor, None) is None:
            return
        self._out = {ref: (who, ticket) for ref, (who, ticket) in self._out.items() if who is not actor}
        held = self._schedule.held(actor)
        given_up = self._schedule.leave(actor)
        again = [ticket for ticket in held if ticket not in given_up]
        self._meters.lost(len(again))
        self._reporter.fact("worker_lost", worker=_name(actor), why=why, workers=len(self._idle_since))
        for ticket in again:
            self._tell_retry(ticket, actor, why)
        for ticket in given_up:
            message = f"block {ticket.block.name} was lost with its worker {ATTEMPTS} times ({why})"
            self._tell(ticket, BlockLoss(ticket.block.name, BlockError(message)))
        _end(actor)
        self._resize(time.monotonic())

    def _tell_retry(self, ticket: Ticket, actor: Any, why: str) -> None:
        name, block = self._scenes[ticket.feed].work.name, ticket.block.name
        self._reporter.say(
            "retry", f"{name}: block {block} is tried again: its worker was lost ({why})",
            scene=name, block=block, worker=_name(actor), why=why, losses=ticket.losses,
        )  # fmt: skip

    def _tell(self, ticket: Ticket, result: BlockFile | BlockLoss | GeosegError) -> None:
        scene = self._scenes.get(ticket.feed)
        if scene is not None:
            scene.results.put(result)

    def _break(self, error: GeosegError) -> None:
        with self._changed:
            self._broken, self._closing = error, True
            for scene in self._scenes.values():
                scene.results.put(error)
            self._changed.notify_all()


def _name(actor: Any) -> str:
    return str(actor._actor_id.hex())


def _end(actor: Any) -> None:
    with suppress(RayError):
        ray.kill(actor)


def reason(error: BaseException) -> str:
    """The first line that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
