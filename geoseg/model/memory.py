"""Free memory, for a model that would not fit."""

from __future__ import annotations

from pathlib import Path

import psutil

from geoseg.errors import ModelError
from geoseg.model.bundle import Bundle

HELD_PER_STORED = 2
"""Weights are stored in half precision and held in full."""

CGROUP = Path("/sys/fs/cgroup")
_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")
"""What a container may use, in version 2 of control groups and in version 1."""


def available_bytes() -> int:
    """Memory that can still be taken on this machine, at most what its container may have."""
    free: list[int] = [psutil.virtual_memory().available]
    for name in _LIMITS:
        try:
            free.append(int((CGROUP / name).read_text()))
        except (OSError, ValueError):  # no such version, or "max": no limit
            continue
    return min(free)


def check_memory(bundle: Bundle) -> None:
    """Raises ModelError for weights that do not fit into memory, before they are loaded."""
    needed, free = bundle.weights.stat().st_size * HELD_PER_STORED, available_bytes()
    if needed > free:
        raise ModelError(
            f"the weights take about {needed / 1e9:.3g} GB of memory, and {free / 1e9:.3g} GB are free; "
            "take a machine, or a container, with more",
            bundle.weights,
        )
