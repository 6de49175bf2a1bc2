"""Polygons of a 10,000 x 10,000 class map: block by block and streamed, against one call on the whole raster.

Both sides trace all pixels but nodata (4-connected), and write one layer of a GeoPackage with its spatial index.
whole: the raster in one array, `rasterio.features.shapes` over it, shapely geometries of all, one call of pyogrio; one
field, the class. blocks: what `geoseg vectorize --raw` does: windows are read and traced in threads, joined, brought
into scan order, given areas on the ellipsoid, written in batches, checked and styled; class, its name and the area.
Each waits for the disk once, at its end. Imports are left out of the time, but not of the memory.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyogrio
import rasterio
import rasterio.features
import shapely
from shapely.geometry import shape

from geoseg.io.rasters import configure_gdal
from geoseg.parallel import threaded_map
from geoseg.run.vectorizing import vectorize_file
from geoseg.stages.layers import RAW_LAYER
from tests.benchmarks.memory import peak_mb
from tests.benchmarks.speed import interval
from tests.data import DATA

SIDE_PX = 10_000
LABELS = DATA / "dubai" / "dubai_7_labels.tif"


def main(pairs: int) -> None:
    """Interleaved pairs of processes; seconds by the clock, and of all cores together (CPU)."""
    with tempfile.TemporaryDirectory() as name:
        raster = class_map(Path(name))
        times: dict[str, list[tuple[float, float]]] = {"whole": [], "blocks": []}
        for number in range(pairs):
            for side in sorted(times, reverse=bool(number % 2)):
                wall, cpu = _run(side, raster, Path(name, f"{side}.gpkg")).stdout.split()
                times[side].append((float(wall), float(cpu)))
            last = {side: taken[-1] for side, taken in times.items()}
            print(
                "  " + ", ".join(f"{side} {w:.1f} s ({c:.1f} CPU)" for side, (w, c) in last.items()),
                flush=True,
            )
        counts = {
            side: pyogrio.read_info(Path(name, f"{side}.gpkg"), layer=RAW_LAYER)["features"] for side in times
        }
        if len(set(counts.values())) > 1:
            sys.exit(f"the sides do not find the same polygons: {counts}")
        peaks = {side: peak_mb(_command(side, raster, Path(name, f"{side}.gpkg"))) for side in times}
    print("| side | polygons | s (median) | CPU s (median) | peak MB |\n| --- | --- | --- | --- | --- |")
    for side, taken in times.items():
        wall, cpu = (statistics.median(seconds) for seconds in zip(*taken, strict=True))
        print(f"| {side} | {counts[side]} | {wall:.1f} | {cpu:.1f} | {peaks[side]:.0f} |")
    print()
    for number, name in enumerate(("speed", "speed by CPU")):
        shares = [w[number] / b[number] for w, b in zip(times["whole"], times["blocks"], strict=True)]
        low, high = interval(shares)
        print(
            f"{name} against the whole: {statistics.median(shares):.2f} (95 % interval {low:.2f} to {high:.2f})"
        )
    print(f"memory against the whole: {peaks['blocks'] / peaks['whole']:.2f}")


def class_map(folder: Path) -> Path:
    """The labels of dubai_7, repeated to 10,000 x 10,000."""
    with rasterio.open(LABELS) as source:
        labels, profile = source.read(1), source.profile
    repeats = [-(-SIDE_PX // side) for side in labels.shape]
    path = folder / "classes.tif"
    profile.update(height=SIDE_PX, width=SIDE_PX, tiled=True, blockxsize=512, blockysize=512, compress="zstd")
    with rasterio.open(path, "w", **profile) as target:
        target.write(np.tile(labels, repeats)[:SIDE_PX, :SIDE_PX], 1)
    return path


def _command(side: str, raster: Path, output: Path) -> list[str]:
    return [sys.executable, "-m", "tests.benchmarks.polygons", side, str(raster), str(output)]


def _run(side: str, raster: Path, output: Path) -> subprocess.CompletedProcess[str]:
    output.unlink(missing_ok=True)
    return subprocess.run(_command(side, raster, output), capture_output=True, text=True, check=True)


def _whole(raster: str, output: str) -> None:
    with rasterio.open(raster) as source:
        labels = source.read(1)
        found = list(
            rasterio.features.shapes(
                labels, labels != source.nodata, connectivity=4, transform=source.transform
            )
        )
        polygons = [shape(geometry) for geometry, _ in found]
        class_ids = np.array([value for _, value in found], np.int32)
        pyogrio.raw.write(
            output, shapely.to_wkb(polygons), [class_ids], ["class_id"], layer=RAW_LAYER, driver="GPKG",
            geometry_type="Polygon", crs=source.crs.to_wkt(),
        )  # fmt: skip


def _blocks(raster: str, output: str) -> None:
    configure_gdal()
    vectorize_file(raster, output, raw=True, block_px=None, mapper=threaded_map)


if __name__ == "__main__":
    begin, begin_cpu = time.perf_counter(), time.process_time()
    {"whole": _whole, "blocks": _blocks}[sys.argv[1]](*sys.argv[2:])
    print(time.perf_counter() - begin, time.process_time() - begin_cpu)
