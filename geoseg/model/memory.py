"""Free memory, for a model that would not fit."""

from __future__ import annotations

from pathlib import Path

import psutil

from geoseg.errors import ModelError
from geoseg.model.bundle import Bundle

HELD_PER_STORED = 2
"""Weights are stored in half precision and held in full."""

CGROUP = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")
_LIMITS = {"": ("memory.max", "memory.current"), "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes")}
"""Limit and use of a control group, by the folder of its hierarchy: of version 2 and of version 1."""
_CACHES = {"inactive_file", "active_file", "total_inactive_file", "total_active_file"}
"""Pages of files, which the kernel gives back; version 1 has totals, which count the groups below as well."""


def available_bytes(root: Path = CGROUP, own: Path = OWN_GROUPS) -> int:
    """Memory that can still be taken on this machine, at most what its control groups leave.

    These are the ones that this process is in and all above them, as a container, systemd or Slurm sets them.
    root: where the control groups lie. own: the file that says which the process is in.
    """
    free: list[int] = [psutil.virtual_memory().available]
    for hierarchy, (limit, used) in _LIMITS.items():
        top = root / hierarchy
        group = _group(own, hierarchy)
        # a container may see its own group as the top, though its path is that of the machine
        for folder in [top, *(top / part for part in (group, *group.parents) if part.parts)]:
            try:
                most, now = int((folder / limit).read_text()), int((folder / used).read_text())
            except (OSError, ValueError):  # no such group, or "max": no limit
                continue
            free.append(max(0, most - max(0, now - _cached(folder))))
    return min(free)


def _group(own: Path, hierarchy: str) -> Path:
    """Path of the process's control group below the top of a hierarchy; "" is version 2."""
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:  # no Linux
        return Path()
    paths = [Path(path.lstrip("/")) for _, names, path in lines if hierarchy in names.split(",")]
    return paths[0] if paths and ".." not in paths[0].parts else Path()


def _cached(folder: Path) -> int:
    try:
        pairs = [line.split() for line in (folder / "memory.stat").read_text().splitlines()]
    except OSError:
        return 0
    sizes = {key: int(value) for key, value in pairs if key in _CACHES}
    totals = [value for key, value in sizes.items() if key.startswith("total_")]
    return sum(totals or sizes.values())


def check_memory(bundle: Bundle) -> None:
    """Raises ModelError for weights that do not fit into memory, before they are loaded."""
    needed, free = bundle.weights.stat().st_size * HELD_PER_STORED, available_bytes()
    if needed > free:
        raise ModelError(
            f"the weights take about {needed / 1e9:.3g} GB of memory, and {free / 1e9:.3g} GB are free; "
            "take a machine, or a container, with more",
            bundle.weights,
        )
