"""What several stages ask of the world: rasters to read, and a way to do many things at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

import numpy as np

from geoseg.grid.geogrid import GeoGrid
from geoseg.grid.window import Window

T = TypeVar("T")
R = TypeVar("R")


class Mapper(Protocol):
    """An ordered map with a bounded number of items in flight: threads, or tasks of a cluster.

    The function is a top-level one, or a partial of one, with arguments that can be pickled.
    """

    def __call__(self, function: Callable[[T], R], items: Iterable[T], /) -> Iterator[R]: ...


class ClassSource(Protocol):
    """A class raster that can be read by windows: (row, col) uint8."""

    @property
    def path(self) -> str: ...
    @property
    def grid(self) -> GeoGrid: ...
    @property
    def nodata(self) -> int | None: ...
    def read(self, window: Window) -> np.ndarray: ...
