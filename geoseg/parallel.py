"""Threads of this process: how many are worth it, and an ordered map that never runs far ahead."""

from __future__ import annotations

import ctypes
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

M_ARENA_MAX = -8
"""From glibc's malloc.h."""


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def limit_arenas(arenas: int = 2) -> None:
    """Let glibc's threads share a few heaps. It makes one for each of many threads, and what a thread has given back
    stays in its own: a merge held a third more memory for it. Elsewhere this does nothing."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(M_ARENA_MAX, arenas)


def threaded_map(function: Callable[[T], R], items: Iterable[T], threads: int | None = None) -> Iterator[R]:
    """Ordered map over threads, a bounded number ahead of the one that takes the results."""
    threads = threads or cores()
    pool = ThreadPoolExecutor(threads)
    try:
        yield from pooled_map(pool, threads, function, items)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def pooled_map(
    pool: ThreadPoolExecutor, ahead: int, function: Callable[[T], R], items: Iterable[T]
) -> Iterator[R]:
    """The same over threads that are there already, which several callers may share."""
    flight: deque[Future[R]] = deque()
    for item in items:
        flight.append(pool.submit(function, item))
        if len(flight) > ahead:
            yield flight.popleft().result()
    while flight:
        yield flight.popleft().result()
