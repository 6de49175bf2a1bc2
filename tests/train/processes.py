"""Processes of their own, to be killed or to run out of disk, without the threads of the process that tests."""

from __future__ import annotations

import multiprocessing
import resource
import signal
from collections.abc import Callable
from typing import Any

SPAWN = multiprocessing.get_context("forkserver")
SPAWN.set_forkserver_preload(["geoseg.train.trainer"])


def apart(target: Callable[..., Any], *arguments: Any) -> int | None:
    """Call a function in a process of its own; its exit code, negative for a signal."""
    process = SPAWN.Process(target=target, args=arguments)
    process.start()
    process.join(120)
    return process.exitcode


def fill_disk(limit: int) -> None:
    """From now on, no file of this process gets longer than so many bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
