"""From block files to Cloud Optimized GeoTIFFs, streaming: a VRT over the blocks, copied by GDAL's COG driver."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import numpy as np
import rasterio
import rasterio.shutil

from geoseg.errors import OutputError, SourceError
from geoseg.grid.geogrid import GeoGrid
from geoseg.grid.lattice import Block
from geoseg.grid.window import Window
from geoseg.io.blockstore import STRIP_PX, BlockStore
from geoseg.io.classmap import TAG_LEGEND
from geoseg.io.files import staged
from geoseg.io.rasters import READ_ERRORS, handle, open_raster, rio_window, small_cache
from geoseg.legend import NODATA, Legend
from geoseg.parallel import threaded_map
from geoseg.pixels.labels import count_values
from geoseg.pixels.shrink import shrink_classes, shrink_percent

TILE_PX = 512
ZSTD_LEVEL = 1
"""Level 9 made a class map 19 % smaller and took 2.4 times as long."""


def write_cog(
    path: Path,
    grid: GeoGrid,
    store: BlockStore,
    blocks: Iterable[Block],
    band: int,
    legend: Legend | None,
    tags: dict[str, str],
) -> dict[int, int]:
    """Write band 1 (class) or 2 (confidence) of all blocks as one COG; pixels of no block are nodata.

    legend: colors and the legend tag, for the class raster; None for confidence. Overviews take the commonest class,
    or the mean. The finished file is read back whole: returns the number of pixels of each value.
    Raises OutputError where the disk refuses or what was written cannot be read.
    """
    if legend is not None:
        tags = {**tags, TAG_LEGEND: json.dumps(legend.to_list())}
    with (
        small_cache(),
        staged(path) as temporary,
        tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as scratch,
    ):
        vrt = Path(scratch) / "blocks.vrt"
        body = _vrt(grid, store, blocks, band, legend, tags)
        try:
            vrt.write_text(body.format(overviews=""), encoding="utf-8")
            halves = _overviews(vrt, Path(scratch), band)
            vrt.write_text(body.format(overviews="".join(map(_overview_of, halves))), encoding="utf-8")
            rasterio.shutil.copy(
                str(vrt), str(temporary), driver="COG",
                COMPRESS="ZSTD", LEVEL=str(ZSTD_LEVEL), BLOCKSIZE=str(_tile_px(grid.width)), BIGTIFF="IF_SAFER",
                NUM_THREADS="ALL_CPUS",
            )  # fmt: skip
            return value_counts(temporary)
        except (
            *READ_ERRORS,
            SourceError,
            SystemError,
        ) as error:  # SystemError: one that rasterio cannot name
            raise OutputError(
                f"cannot be written ({error.__cause__ or error}); is the disk full?", path
            ) from error


def _tile_px(width: int) -> int:
    """512, unless a level is just as wide: validators take a tile of an image's width for a strip."""
    widths = {-(-width // 2**level) for level in range(width.bit_length())}
    return next(tile for tile in (TILE_PX, 384, 320) if tile not in widths)


def _overviews(full: Path, folder: Path, band: int) -> list[Path]:
    """Half, quarter, ... of a raster, down to one tile. (With GDAL's MODE the whole merge took 2.6 times as long.)"""
    shrink = shrink_classes if band == 1 else partial(shrink_percent, nodata=NODATA)
    levels: list[Path] = []
    with open_raster(full) as dataset:
        height, width = dataset.shape
    while max(height, width) > TILE_PX:
        height, width = -(-height // 2), -(-width // 2)
        finer = levels[-1] if levels else full
        levels.append(folder / f"{len(levels) + 1}.tif")
        profile = {
            "driver": "GTiff", "height": height, "width": width, "count": 1, "dtype": "uint8", "nodata": NODATA,
            "tiled": True, "blockxsize": TILE_PX, "blockysize": TILE_PX, "compress": "zstd", "zstd_level": 1,
        }  # fmt: skip
        windows = list(_windows(height, width))
        with rasterio.open(levels[-1], "w", **profile) as target:
            for window, half in zip(
                windows, threaded_map(partial(_half, finer, shrink), windows), strict=True
            ):
                target.write(half, 1, window=rio_window(window))
    return levels


def _overview_of(path: Path) -> str:
    return (
        f'<Overview><SourceFilename relativeToVRT="0">{escape(str(path.resolve()))}</SourceFilename>'
        "<SourceBand>1</SourceBand></Overview>"
    )


def _half(finer: Path, shrink: Callable[[np.ndarray], np.ndarray], window: Window) -> np.ndarray:
    """A window of an overview, from the finer level."""
    source = handle(finer)
    above = Window(2 * window.row, 2 * window.col, 2 * window.height, 2 * window.width)
    return shrink(source.read(1, window=rio_window(above.overlap(Window(0, 0, source.height, source.width)))))


def _windows(height: int, width: int) -> Iterator[Window]:
    """Pieces of whole tiles, of one size however wide the raster is."""
    for row in range(0, height, TILE_PX):
        for col in range(0, width, 4 * TILE_PX):
            yield Window(row, col, min(TILE_PX, height - row), min(4 * TILE_PX, width - col))


def value_counts(path: Path) -> dict[int, int]:
    """How many pixels of a uint8 raster have each value."""
    with open_raster(path) as dataset:
        height, width = dataset.shape
    counts = np.zeros(256, np.int64)
    for part in threaded_map(partial(_count, path), _windows(height, width)):
        counts += part
    return {value: int(n) for value, n in enumerate(counts) if n}


def _count(path: Path, window: Window) -> np.ndarray:
    return count_values(handle(path).read(1, window=rio_window(window)))


def _vrt(
    grid: GeoGrid,
    store: BlockStore,
    blocks: Iterable[Block],
    band: int,
    legend: Legend | None,
    tags: dict[str, str],
) -> str:
    """A VRT over the blocks, with a place for overviews.

    repr() of a float reads back to the same bits, so the geotransform is the source's.
    """
    t = grid.transform
    parts = [f'<VRTDataset rasterXSize="{grid.width}" rasterYSize="{grid.height}">']
    if grid.crs is not None:
        parts.append(f"<SRS>{escape(grid.crs)}</SRS>")
    if grid.georeferenced:
        parts.append(f"<GeoTransform>{', '.join(map(repr, (t.c, t.a, t.b, t.f, t.d, t.e)))}</GeoTransform>")
    parts.append("<Metadata>")
    parts += [f"<MDI key={quoteattr(key)}>{escape(value)}</MDI>" for key, value in sorted(tags.items())]
    parts.append("</Metadata>")
    parts.append('<VRTRasterBand dataType="Byte" band="1">')
    parts.append(f"<NoDataValue>{NODATA}</NoDataValue>")
    if legend is not None:
        parts += ["<ColorInterp>Palette</ColorInterp>", "<ColorTable>", *_colors(legend), "</ColorTable>"]
    for block in blocks:
        core = block.core
        size = f'xSize="{core.width}" ySize="{core.height}"'
        parts.append(
            f'<SimpleSource><SourceFilename relativeToVRT="0">{escape(str(store.path(block).resolve()))}'
            f"</SourceFilename><SourceBand>{band}</SourceBand>"
            f'<SourceProperties RasterXSize="{core.width}" RasterYSize="{core.height}" DataType="Byte" '
            f'BlockXSize="{core.width}" BlockYSize="{min(STRIP_PX, core.height)}"/>'
            f'<SrcRect xOff="0" yOff="0" {size}/><DstRect xOff="{core.col}" yOff="{core.row}" {size}/></SimpleSource>'
        )
    body = "\n".join(parts).replace("{", "{{").replace("}", "}}")
    return body + "{overviews}</VRTRasterBand></VRTDataset>"


def _colors(legend: Legend) -> list[str]:
    colors = {c.id: c.color for c in legend.classes}
    return [
        '<Entry c1="{}" c2="{}" c3="{}" c4="{}"/>'.format(
            *colors.get(i, (0, 0, 0)), 255 if i in colors else 0
        )
        for i in range(256)
    ]
