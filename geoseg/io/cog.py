"""From block files to Cloud Optimized GeoTIFFs, streaming: a VRT over the blocks, copied by GDAL's COG driver."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import numpy as np
import rasterio.shutil

from geoseg.errors import OutputError, SourceError
from geoseg.grid.geogrid import GeoGrid
from geoseg.grid.lattice import Block
from geoseg.grid.window import Window
from geoseg.io.blockstore import BlockStore
from geoseg.io.classmap import TAG_LEGEND
from geoseg.io.files import staged
from geoseg.io.rasters import READ_ERRORS, open_raster, rio_window
from geoseg.legend import NODATA, Legend

TILE_PX = 512


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
    with staged(path) as temporary:
        vrt = temporary.with_suffix(".vrt")
        try:
            vrt.write_text(_vrt(grid, store, blocks, band, legend, tags), encoding="utf-8")
            rasterio.shutil.copy(
                str(vrt), str(temporary), driver="COG",
                COMPRESS="ZSTD", BLOCKSIZE=str(TILE_PX), BIGTIFF="IF_SAFER", NUM_THREADS="ALL_CPUS",
                OVERVIEW_RESAMPLING="MODE" if legend is not None else "AVERAGE",
            )  # fmt: skip
            return value_counts(temporary)
        except (
            *READ_ERRORS,
            SourceError,
            SystemError,
        ) as error:  # SystemError: an error that rasterio cannot name
            raise OutputError(f"cannot be written ({error}); is the disk full?", path) from error
        finally:
            vrt.unlink(missing_ok=True)


def value_counts(path: Path) -> dict[int, int]:
    """How many pixels of a uint8 raster have each value."""
    counts = np.zeros(256, np.int64)
    with open_raster(path) as dataset:
        for row in range(0, dataset.height, TILE_PX):
            height = min(TILE_PX, dataset.height - row)
            for col in range(0, dataset.width, 8 * TILE_PX):
                window = Window(row, col, height, min(8 * TILE_PX, dataset.width - col))
                counts += np.bincount(dataset.read(1, window=rio_window(window)).ravel(), minlength=256)
    return {value: int(n) for value, n in enumerate(counts) if n}


def _vrt(
    grid: GeoGrid,
    store: BlockStore,
    blocks: Iterable[Block],
    band: int,
    legend: Legend | None,
    tags: dict[str, str],
) -> str:
    """repr() of a float reads back to the same bits, so the geotransform is the source's."""
    t = grid.transform
    parts = [f'<VRTDataset rasterXSize="{grid.width}" rasterYSize="{grid.height}">']
    if grid.crs is not None:
        parts.append(f"<SRS>{escape(grid.crs)}</SRS>")
    if not t.is_identity or grid.crs is not None:
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
            f'BlockXSize="256" BlockYSize="256"/>'
            f'<SrcRect xOff="0" yOff="0" {size}/><DstRect xOff="{core.col}" yOff="{core.row}" {size}/></SimpleSource>'
        )
    return "\n".join([*parts, "</VRTRasterBand>", "</VRTDataset>"])


def _colors(legend: Legend) -> list[str]:
    colors = {c.id: c.color for c in legend.classes}
    return [
        '<Entry c1="{}" c2="{}" c3="{}" c4="{}"/>'.format(
            *colors.get(i, (0, 0, 0)), 255 if i in colors else 0
        )
        for i in range(256)
    ]
