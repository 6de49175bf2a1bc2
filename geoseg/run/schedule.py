"""Which worker maps which block next, and what becomes of blocks whose worker is late or lost.

Scenes take turns, so that a small one is not stuck behind a large one. Plain values: no clock, no cluster.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field

from geoseg.grid.lattice import Block

ATTEMPTS = 3
"""So often a block may lose its worker until it counts as lost itself."""
FIRST_LIMIT_S = 600.0
LEAST_LIMIT_S = 60.0
SLOWER = 10.0
"""A block is late after this many times what the slowest of the last ones took; there is no telling for the first."""
REMEMBERED = 256


@dataclass(eq=False)
class Feed:
    """The blocks of one scene that wait for a worker, and how many are out."""

    waiting: Iterator[Block]
    left: int
    out: int = 0

    @classmethod
    def of(cls, blocks: Iterable[Block]) -> Feed:
        blocks = list(blocks)
        return cls(iter(blocks), len(blocks))


@dataclass(eq=False)
class Ticket:
    """A block on its way. losses: workers that it was with when they were lost. since: when it was last handed out."""

    feed: Feed
    block: Block
    losses: int = 0
    since: float = 0.0


@dataclass(eq=False)
class _Seat:
    """A worker's tickets; those of an `alone` worker are one that is suspected of ending workers, or none."""

    tickets: list[Ticket] = field(default_factory=list)
    alone: bool = False


class Schedule:
    """depth: blocks handed to a worker at once."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self._seats: dict[Hashable, _Seat] = {}
        self._feeds: deque[Feed] = deque()
        self._again: deque[Ticket] = deque()
        self._suspects: deque[Ticket] = deque()
        self._took: deque[float] = deque(maxlen=REMEMBERED)

    @property
    def demand(self) -> int:
        """Blocks that wait or are out."""
        return sum(feed.left + feed.out for feed in self._feeds)

    def idle(self, worker: Hashable) -> bool:
        return not self._seats[worker].tickets

    def held(self, worker: Hashable) -> list[Ticket]:
        """The blocks that a worker has, of scenes that still want them."""
        return [ticket for ticket in self._seats[worker].tickets if ticket.feed in self._feeds]

    def add(self, feed: Feed) -> None:
        self._feeds.append(feed)

    def drop(self, feed: Feed) -> None:
        """Forget a scene; what is out of it is done for nothing."""
        self._feeds.remove(feed)
        self._again = deque(t for t in self._again if t.feed is not feed)
        self._suspects = deque(t for t in self._suspects if t.feed is not feed)

    def join(self, worker: Hashable) -> None:
        self._seats[worker] = _Seat()

    def leave(self, worker: Hashable) -> list[Ticket]:
        """Take a lost worker's blocks back. Returns those that were lost too often, which are not tried again.

        A block that was there twice when a worker was lost goes to a worker of its own: if that one is lost too, it was
        no other block's fault.
        """
        lost = []
        for ticket in self._seats.pop(worker).tickets:
            ticket.losses += 1
            if ticket.feed not in self._feeds:
                continue
            if ticket.losses >= ATTEMPTS:
                self._end(ticket)
                lost.append(ticket)
            else:
                (self._again if ticket.losses < ATTEMPTS - 1 else self._suspects).append(ticket)
        return lost

    def next(self, now: float) -> tuple[Hashable, Ticket] | None:
        """Hand out a block, or None where no worker has room or nothing waits."""
        if self._suspects and not any(seat.alone for seat in self._seats.values()) and self._seats:
            min(self._seats.values(), key=lambda seat: len(seat.tickets)).alone = True
        for worker, seat in self._seats.items():
            if seat.alone and not seat.tickets and self._suspects:
                return self._give(worker, self._suspects.popleft(), now)
        free = [w for w, s in self._seats.items() if not s.alone and len(s.tickets) < self.depth]
        if not free:
            return None
        worker = min(free, key=lambda w: len(self._seats[w].tickets))
        if self._again:
            return self._give(worker, self._again.popleft(), now)
        for _ in range(len(self._feeds)):
            feed = self._feeds[0]
            self._feeds.rotate(-1)
            block = next(feed.waiting, None)
            if block is not None:
                feed.left -= 1
                feed.out += 1
                return self._give(worker, Ticket(feed, block), now)
        return None

    def done(self, worker: Hashable, ticket: Ticket, now: float) -> None:
        """A worker has answered."""
        seat = self._seats[worker]
        seat.tickets.remove(ticket)
        if not self._suspects:
            seat.alone = False
        self._took.append(now - ticket.since)
        self._end(ticket)

    def late(self, now: float) -> list[Hashable]:
        """Workers with a block that should have come back by now."""
        limit = max(LEAST_LIMIT_S, SLOWER * max(self._took)) if self._took else FIRST_LIMIT_S
        return [
            worker
            for worker, seat in self._seats.items()
            if any(now - ticket.since > limit * 2**ticket.losses for ticket in seat.tickets)
        ]

    def _give(self, worker: Hashable, ticket: Ticket, now: float) -> tuple[Hashable, Ticket]:
        ticket.since = now
        self._seats[worker].tickets.append(ticket)
        return worker, ticket

    def _end(self, ticket: Ticket) -> None:
        ticket.feed.out -= 1
