"""What limits the mapping now: reading, the network, writing, or workers that have not come yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

READ, WAIT, NETWORK, WRITE, WORKERS = "read", "wait", "network", "write", "workers"
"""What a block spends its seconds on (`wait`: for the network). WORKERS is none: more are wanted than are there."""
RECENT = 32
"""Blocks that say how it goes now."""

Lanes = Mapping[tuple[str, ...], int]
"""How many blocks can be in these stages at once; stages of one key share their lanes."""


def bottleneck(seconds: Mapping[str, float], lanes: Lanes) -> str:
    """The stage that holds the others up: that of the lanes which were busiest, and there the one that took longest.

    seconds: of each stage, over the same blocks; what has no lanes does not count. Returns "" where none were spent.
    Lanes that are always busy bound what a pipeline can do, and they are those with the most seconds each
    (Denning and Buzen, The operational analysis of queueing network models, 1978).
    """
    busiest = max(lanes, key=lambda stages: sum(seconds.get(stage, 0.0) for stage in stages) / lanes[stages])
    longest = max(busiest, key=lambda stage: seconds.get(stage, 0.0))
    return longest if seconds.get(longest, 0.0) > 0 else ""


class Pace:
    """What the last blocks spent their time on."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._last: deque[Mapping[str, float]] = deque(maxlen=RECENT)
        self.limit = ""

    def note(self, seconds: Mapping[str, float]) -> None:
        """Add a block with the seconds that each stage took. One thread at a time; `limit` may be read by any."""
        self._last.append(seconds)
        stages = [stage for shared in self._lanes for stage in shared]
        total = {stage: sum(block.get(stage, 0.0) for block in self._last) for stage in stages}
        self.limit = bottleneck(total, self._lanes)


def limit_text(limit: str) -> str:
    """A bottleneck in words."""
    return "waiting for workers" if limit == WORKERS else f"{limit}-bound"
