"""`errors.tif`: where a map differs from its labels, with names and colors for QGIS beside it."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from geoseg import __version__
from geoseg.grid.lattice import Block
from geoseg.io.blockstore import BlockFile, BlockStore
from geoseg.io.cog import write_cog
from geoseg.io.files import make_folder, publish_bytes
from geoseg.io.qgis_styles import attribute_table, class_style
from geoseg.legend import NODATA, Legend
from geoseg.pixels.pixelblock import LabelBlock
from geoseg.stages.evaluate import Sources, windows
from geoseg.stages.mistakes import find_mistakes, missed_classes, mistake_legend, right_value
from geoseg.stages.protocols import Mapper

ERRORS_FILE = "errors.tif"
ERROR_FILES = (ERRORS_FILE, f"{ERRORS_FILE}.aux.xml", "errors.qml")
BLOCK_PX = 2048


def write_errors(
    folder: Path, sources: Sources, legend: Legend, mapper: Mapper, block_px: int = BLOCK_PX
) -> None:
    """Write errors.tif as a COG, block by block, and its styles; each file appears whole or not at all.

    uint8: the id of the true class where the map has another, 0 where it is right (see `right_value`), nodata 255
    where labels or map have no answer. block_px changes no byte. Raises SpecError where no value is left for right
    pixels, SourceError where a raster cannot be read, OutputError where the disk refuses.
    """
    make_folder(folder)
    grid, names = sources.landcover.grid, mistake_legend(legend)
    meaning = (
        f"{right_value(legend)}: right; {NODATA}: not compared; else the true class, where the map differs"
    )
    tags = {"GEOSEG_VERSION": __version__, "GEOSEG_ERRORS": meaning}
    blocks = [Block(w.row // block_px, w.col // block_px, w) for w in windows(grid, block_px)]
    with tempfile.TemporaryDirectory(prefix=f".{ERRORS_FILE}.", dir=folder) as scratch:
        store = BlockStore(Path(scratch), "errors")
        for _ in mapper(partial(_put_block, sources=sources, legend=legend, store=store), blocks):
            pass
        write_cog(folder / ERRORS_FILE, grid, store, blocks, 1, names, tags)
    publish_bytes(folder / f"{ERRORS_FILE}.aux.xml", attribute_table(names).encode())
    # QGIS leaves out values without an entry, so that right pixels show what lies below.
    publish_bytes(folder / "errors.qml", class_style(missed_classes(legend)).qml().encode())


def _put_block(block: Block, sources: Sources, legend: Legend, store: BlockStore) -> BlockFile:
    values = find_mistakes(block.core, sources, legend)
    return store.put(LabelBlock(block, values, np.full_like(values, NODATA)))
