"""The scenes that are measured."""

from __future__ import annotations

from pathlib import Path

import rasterio

from tests.data import DATA

DUBAI_7 = DATA / "dubai" / "dubai_7.tif"


def mosaic(folder: Path, repeat: int = 2) -> Path:
    """A VRT that shows dubai_7 repeat x repeat times."""
    with rasterio.open(DUBAI_7) as source:
        height, width, t, wkt = source.height, source.width, source.transform, source.crs.to_wkt()
    bands = []
    for band in (1, 2, 3):
        parts = "".join(
            f'<SimpleSource><SourceFilename relativeToVRT="0">{DUBAI_7.resolve()}</SourceFilename>'
            f'<SourceBand>{band}</SourceBand><SrcRect xOff="0" yOff="0" xSize="{width}" ySize="{height}"/>'
            f'<DstRect xOff="{c * width}" yOff="{r * height}" xSize="{width}" ySize="{height}"/></SimpleSource>'
            for r in range(repeat)
            for c in range(repeat)
        )
        bands.append(f'<VRTRasterBand dataType="Byte" band="{band}">{parts}</VRTRasterBand>')
    path = folder / "mosaic.vrt"
    path.write_text(
        f'<VRTDataset rasterXSize="{repeat * width}" rasterYSize="{repeat * height}"><SRS>{wkt}</SRS>'
        f"<GeoTransform>{t.c}, {t.a}, {t.b}, {t.f}, {t.d}, {t.e}</GeoTransform>{''.join(bands)}</VRTDataset>"
    )
    return path
