"""`geoseg compare`: what changed between two class rasters, as tables, a raster, a picture, a layer of buildings."""

from __future__ import annotations

import csv
import io
import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import shapely

from geoseg import __version__
from geoseg.errors import GridError, SourceError, SpecError
from geoseg.grid.lattice import Block
from geoseg.io.blockstore import BlockFile, BlockStore
from geoseg.io.classmap import AnyClassRaster
from geoseg.io.cog import write_cog
from geoseg.io.files import make_folder, publish_bytes
from geoseg.io.footprint_layers import BuildingLayer
from geoseg.io.legends import find_classes
from geoseg.io.places import gdal_name, is_there, place_of
from geoseg.io.qgis import store_styles
from geoseg.io.qgis_styles import attribute_table, changed_style, class_style
from geoseg.io.regions import read_polygons
from geoseg.io.vectors import GeoPackageStore, GeoPackageWriter, output_errors
from geoseg.legend import NODATA, Legend
from geoseg.pixels.pixelblock import LabelBlock
from geoseg.report.changes import change_picture
from geoseg.stages.compare import (
    NO_ANSWER,
    NOTE,
    UNCHANGED,
    Changes,
    Pair,
    RegionChange,
    change_legend,
    change_values,
    measure_changes,
    occurring,
    pair_up,
)
from geoseg.stages.evaluate import windows
from geoseg.stages.protocols import Mapper
from geoseg.stages.turnover import OVERLAP, Footprints, Missing, find_missing

LANDCOVER, VECTORS = "landcover.tif", "vectors.gpkg"
BUILDINGS = "buildings"
TRANSITIONS_FILE = "transitions.csv"
CHANGE_FILE, PICTURE_FILE = "change.tif", "changes.png"
CHANGED_BUILDINGS_FILE, CHANGED_BUILDINGS = "changed_buildings.gpkg", "changed_buildings"
BLOCK_PX = 2048


@dataclass(frozen=True)
class Turnover:
    """How many buildings are gone and new, of how many that were looked for."""

    gone: int
    before: int
    new: int
    after: int


@dataclass(frozen=True)
class Comparison:
    """What was found. turnover: None where one side has no layer of buildings."""

    changes: Changes
    turnover: Turnover | None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class CompareOptions:
    """What `geoseg compare` can be told besides the two maps and the folder.

    regions: polygons, named by region_field. overlap: a building is gone, or new, where less than this share of it is
    covered by the other side's. legend: a file that names the classes of both maps. band: of both, counted from 1.
    """

    regions: str | None = None
    region_field: str = "region"
    overlap: float = OVERLAP
    legend: str | None = None
    band: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.overlap <= 1:
            raise SpecError(f"overlap is a share above 0, up to 1, got {self.overlap:g}")


PLAIN = CompareOptions()


@dataclass(frozen=True)
class _Side:
    landcover: AnyClassRaster
    legend: Legend
    origin: str
    buildings: BuildingLayer | None


def compare_runs(
    before: str, after: str, output: str, mapper: Mapper, options: CompareOptions = PLAIN
) -> Comparison:
    """Compare an earlier and a later map, each a class raster or a scene's folder of results.

    Writes to the folder `output`: transitions.csv, change.tif with its names and colors beside it, changes.png and,
    where both sides have buildings (folders have), changed_buildings.gpkg. Each file appears whole or not at all.
    Classes are told by their names, and remarks say where these come from.
    Raises SourceError for rasters that cannot be used or lie on different grids, and for regions that cannot be used;
    SpecError for too many classes; OutputError where the folder cannot be written.
    """
    old, new = (_open(path, options, mapper) for path in (before, after))
    try:
        pair = pair_up(old.landcover, new.landcover, old.legend, new.legend)
    except GridError as error:
        advice = f"warp it onto that of {old.landcover.path}, nearest neighbor"
        raise SourceError(f"{error}; {advice}", new.landcover.path) from error
    polygons = read_polygons(options.regions, pair.grid, options.region_field) if options.regions else ()
    legend = change_legend(pair)
    changes = measure_changes(pair, polygons, mapper)
    folder = Path(output)
    make_folder(folder)
    publish_bytes(folder / TRANSITIONS_FILE, format_csv(changes).encode())
    write_change(pair, legend, folder / CHANGE_FILE, mapper)
    publish_bytes(folder / PICTURE_FILE, change_picture(pair, folder / CHANGE_FILE, legend))
    remarks = [f"{side.landcover.path}: names of classes: {side.origin}" for side in (old, new)]
    remarks += changes.remarks
    turnover = None
    if old.buildings is not None and new.buildings is not None:
        turnover = write_changed_buildings(
            pair, old.buildings, new.buildings, folder / CHANGED_BUILDINGS_FILE, options.overlap
        )
    else:
        (folder / CHANGED_BUILDINGS_FILE).unlink(missing_ok=True)
        remarks.append(f"buildings are compared where both sides are folders with a {VECTORS}")
    return Comparison(changes, turnover, tuple(remarks))


def write_change(pair: Pair, legend: Legend, path: Path, mapper: Mapper) -> None:
    """Write the raster of changes as a COG, block by block, and beside it the names and colors of those that occur."""
    make_folder(path.parent)
    blocks = [Block(w.row // BLOCK_PX, w.col // BLOCK_PX, w) for w in windows(pair.grid, BLOCK_PX)]
    tags = {
        "GEOSEG_VERSION": __version__,
        "GEOSEG_BEFORE": pair.before.path,
        "GEOSEG_AFTER": pair.after.path,
    }
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as scratch:
        store = BlockStore(Path(scratch), "change")
        for _ in mapper(partial(_put_block, pair=pair, store=store), blocks):
            pass
        counts = write_cog(path, pair.grid, store, blocks, 1, legend, tags)
    found = Legend(tuple(c for c in legend.classes if c.id == UNCHANGED.id or counts.get(c.id)))
    publish_bytes(path.with_suffix(".qml"), class_style(found).qml().encode())
    publish_bytes(path.with_name(f"{path.name}.aux.xml"), attribute_table(found).encode())


def _put_block(block: Block, pair: Pair, store: BlockStore) -> BlockFile:
    values = change_values(pair, block.core)
    return store.put(LabelBlock(block, values, np.full_like(values, NODATA)))


def write_changed_buildings(
    pair: Pair, before: BuildingLayer, after: BuildingLayer, path: Path, overlap: float = OVERLAP
) -> Turnover:
    """Write the buildings that are gone, then those that are new, as one layer with its QGIS style.

    Fields: change ("gone" or "new"), covered (share covered by the other side's buildings), and of the building's
    own: id, area_m2, confidence_mean.
    """
    with GeoPackageStore.beside(path) as outer:
        store = replace(outer, path=str(Path(outer.folder, path.name)))
        with store.writer(pair.grid.crs) as writer:
            gone, old = _append(writer, "gone", before, after, pair, overlap)
            new, now = _append(writer, "new", after, before, pair, overlap)
        store_styles(Path(store.path), {CHANGED_BUILDINGS: changed_style().qml()})
        with output_errors(path):
            os.replace(store.path, path)
    return Turnover(gone, old, new, now)


def _append(
    writer: GeoPackageWriter,
    change: str,
    own: BuildingLayer,
    other: BuildingLayer,
    pair: Pair,
    overlap: float,
) -> tuple[int, int]:
    """How many were written, of how many that were looked for."""
    other_map = pair.after if change == "gone" else pair.before
    none = np.empty(0, object)
    missing, judged = 0, 0
    nothing = Missing(Footprints(none, none, np.empty(0), np.empty(0)), np.empty(0), 0)
    for found in chain([nothing], find_missing(own, other, other_map, overlap)):
        buildings = found.buildings
        columns = {
            "change": np.full(len(buildings.ids), change, object),
            "covered": found.covered.round(3),
            "id": buildings.ids,
            "area_m2": buildings.area_m2,
            "confidence_mean": buildings.confidence_mean,
        }
        writer.append(CHANGED_BUILDINGS, shapely.to_wkb(buildings.geometries).tolist(), columns)
        missing, judged = missing + len(buildings.ids), judged + found.judged
    return missing, judged


def format_csv(changes: Changes) -> str:
    """One row per region and pair of classes; empty where unknown."""
    text = io.StringIO()
    rows = changes.rows()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        decimals = {"pixels": 3}
        writer.writerow(
            {k: f"{v:.{decimals.get(k, 6)}f}" if isinstance(v, float) else v for k, v in row.items()}
        )
    return text.getvalue()


def format_tables(found: Comparison) -> str:
    """For a terminal: per region, hectares from each class (rows) to each (columns); buildings; remarks."""
    parts = [_matrix_table(region, found.changes) for region in found.changes.every]
    if found.turnover is not None:
        t = found.turnover
        parts.append(f"buildings: {t.gone:,} of {t.before:,} gone, {t.new:,} of {t.after:,} new")
    return "\n\n".join([*parts, "\n".join(f"note: {note}" for note in (*found.remarks, NOTE))])


def _matrix_table(region: RegionChange, changes: Changes) -> str:
    amounts = region.hectares or region.pixels
    unit = "pixels" if region.hectares is None else "ha"
    rows = [[f"{region.name} ({unit}), from", *(f"to {name}" for name in (*changes.new.names, NO_ANSWER))]]
    for name, row in zip((*changes.old.names, NO_ANSWER), amounts, strict=True):
        rows.append([name, *(f"{amount:,.2f}" for amount in row)])
    known = [row[:-1] for row in amounts[:-1]]
    total = math.fsum(amount for row in known for amount in row)
    kept = math.fsum(
        known[i][j]
        for i, a in enumerate(changes.old.names)
        for j, b in enumerate(changes.new.names)
        if a == b
    )
    share = f" ({100 * (total - kept) / total:.1f} % of what both maps know)" if total else ""
    return f"{_align(rows)}\nchanged: {total - kept:,.2f} {unit}{share}"


def _align(rows: Sequence[Sequence[str]]) -> str:
    """Columns padded to one width: the first to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    )


def _open(path: str, options: CompareOptions, mapper: Mapper) -> _Side:
    """A class raster, or the landcover.tif in a scene's folder with its buildings."""
    folder = place_of(path)
    landcover, buildings = path, None
    if not is_there(path) and folder.is_dir():
        landcover = str(folder / LANDCOVER)
        if not (folder / LANDCOVER).is_file():
            raise SourceError(
                f"holds no {LANDCOVER}; name a scene's folder of results, or a class raster", path
            )
        if (folder / VECTORS).is_file():
            buildings = BuildingLayer.open(gdal_name(folder / VECTORS), BUILDINGS)
    source = AnyClassRaster.open(landcover, options.band)
    known = find_classes(source, options.legend)
    if known.complete:
        return _Side(source, known.possible, known.origin, buildings)
    ids = occurring(source, mapper)
    if not ids:
        raise SourceError("holds no class, all its pixels are nodata", landcover)
    return _Side(source, known.of(ids), known.origin, buildings)
