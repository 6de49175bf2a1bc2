"""Where a map is wrong, and what is true there: a class raster in which right pixels have a value of their own."""

from __future__ import annotations

import numpy as np

from geoseg.errors import SpecError
from geoseg.grid.window import Window
from geoseg.legend import NODATA, LandClass, Legend
from geoseg.pixels.confusion import channels
from geoseg.stages.evaluate import Sources, read_map

WHITE = (255, 255, 255)


def right_value(legend: Legend) -> int:
    """The value of right pixels: 0 or, where a class has that id, the lowest that is none.

    Raises SpecError where every value is a class.
    """
    free = next((value for value in range(NODATA) if value not in legend.ids), None)
    if free is None:
        raise SpecError("all values from 0 to 254 are classes, so none is left to say that a pixel is right")
    return free


def missed_classes(legend: Legend) -> Legend:
    """The values of wrong pixels: id and color of the true class, which the map has missed."""
    return Legend(tuple(LandClass(c.id, f"missed {c.name}", c.color) for c in legend.classes))


def mistake_legend(legend: Legend) -> Legend:
    """All values: those of wrong pixels, and the one of right pixels. Raises what `right_value` does."""
    right = LandClass(right_value(legend), "right", WHITE)
    return Legend(tuple(sorted((right, *missed_classes(legend).classes), key=lambda c: c.id)))


def find_mistakes(window: Window, sources: Sources, legend: Legend) -> np.ndarray:
    """The values of `mistake_legend` in a window: (row, col) uint8, 255 where labels or map have no answer.

    Raises SourceError where pixels cannot be read.
    """
    truth, mapped = sources.labels.read(window), read_map(sources.landcover, window)
    ignore = () if sources.labels.nodata is None else (sources.labels.nodata,)
    compared = (channels(legend, ignore)[truth] != NODATA) & (channels(legend)[mapped] != NODATA)
    found: np.ndarray = np.where(truth == mapped, np.uint8(right_value(legend)), truth)
    return np.where(compared, found, np.uint8(NODATA))
