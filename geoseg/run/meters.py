"""What Prometheus can scrape from every node of a Ray cluster; see infra/README.md."""

from __future__ import annotations

import time

from ray.util.metrics import Counter, Gauge, Histogram

BOUNDS_S = [0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300]
METERS = {
    "geoseg_blocks": "blocks by outcome: mapped, or failed in reading or in the network",
    "geoseg_megapixels": "megapixels mapped",
    "geoseg_bytes_read": "bytes of pixels handed to the network",
    "geoseg_block_seconds": "seconds of a block by stage: read, wait (for the network), network, write",
    "geoseg_network_busy_share": "share of an actor's life in which its network ran, 0 to 1 per lane",
    "geoseg_workers_lost": "actors that ended or did not answer",
    "geoseg_retries": "blocks handed out again because their worker was lost",
}
"""Names, with what they count. Ray puts ray_ in front, and Prometheus _total behind a counter."""


class BlockMeters:
    """Those of an actor. lanes: blocks that its network maps at once."""

    def __init__(self, lanes: int) -> None:
        self._lanes, self._born, self._busy = lanes, time.monotonic(), 0.0
        self._blocks = _counter("geoseg_blocks", "outcome")
        self._megapixels = _counter("geoseg_megapixels")
        self._bytes = _counter("geoseg_bytes_read")
        name = "geoseg_block_seconds"
        self._seconds = Histogram(name, description=METERS[name], boundaries=BOUNDS_S, tag_keys=("stage",))
        name = "geoseg_network_busy_share"
        self._share = Gauge(name, description=METERS[name])

    def mapped(self, pixels: int, read_bytes: int, seconds: dict[str, float]) -> None:
        """Count a block with its pixels, and the seconds that each stage took."""
        self._blocks.inc(1, tags={"outcome": "mapped"})
        self._megapixels.inc(pixels / 1e6)
        self._bytes.inc(read_bytes)
        for stage, taken in seconds.items():
            self._seconds.observe(taken, tags={"stage": stage})
        self._busy += seconds.get("network", 0.0)
        self._share.set(self._busy / self._lanes / max(time.monotonic() - self._born, 1e-9))

    def failed(self) -> None:
        self._blocks.inc(1, tags={"outcome": "failed"})


class PoolMeters:
    """Those of the driver."""

    def __init__(self) -> None:
        self._lost, self._retries = _counter("geoseg_workers_lost"), _counter("geoseg_retries")

    def lost(self, retries: int) -> None:
        """Count a worker that is lost, and the blocks that others get for it."""
        self._lost.inc()
        if retries:
            self._retries.inc(retries)


def _counter(name: str, *tags: str) -> Counter:
    return Counter(name, description=METERS[name], tag_keys=tags)
