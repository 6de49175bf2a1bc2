"""Vector layers: written to a GeoPackage in batches, in a given order, whole or not at all."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import shapely
from pyogrio import errors as pyogrio_errors

from geoseg.errors import OutputError
from geoseg.io.files import remove_folder, staged
from geoseg.stages.layers import Found
from geoseg.stages.square import Outlines

REGIONS_LAYER = "regions"
BATCH = 1_000
"""Features held in memory at once; with 20,000 the peak was twice as high and nothing was faster."""

_FAILURES = (
    OSError,
    sqlite3.Error,
    pyogrio_errors.DataSourceError,
    pyogrio_errors.DataLayerError,
    pyogrio_errors.CRSError,
    pyogrio_errors.FieldError,
    pyogrio_errors.FeatureError,
    pyogrio_errors.GeometryError,
)


@dataclass(frozen=True)
class GeoPackageStore:
    """A GeoPackage to be written, and a scratch folder beside it that all workers see. Holds no handles."""

    path: str
    folder: str

    @classmethod
    @contextmanager
    def beside(cls, path: str | Path) -> Iterator[GeoPackageStore]:
        """A store whose scratch folder is removed at the end. Raises OutputError where none can be made."""
        target = Path(path)
        with output_errors(target):
            if target.is_dir():
                raise IsADirectoryError("is a folder")
            target.parent.mkdir(parents=True, exist_ok=True)
            folder = tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
        try:
            yield cls(str(target), folder)
        finally:
            remove_folder(Path(folder))

    def put(self, name: str, content: bytes) -> None:
        """Keep a scratch file; it need not survive a power cut."""
        try:
            with staged(Path(self.folder, name)) as temporary:
                temporary.write_bytes(content)
        except OutputError as error:
            raise OutputError(error.args[0], self.path) from error

    def get(self, name: str) -> bytes:
        with output_errors(self.path):
            return Path(self.folder, name).read_bytes()

    @contextmanager
    def spool(self) -> Iterator[Spool]:
        """An empty spool on disk."""
        name = Path(self.folder, "spool.sqlite")
        with output_errors(self.path):
            name.unlink(missing_ok=True)
            with closing(sqlite3.connect(name)) as database:
                yield Spool(database, self.path)

    @contextmanager
    def writer(self, crs: str | None) -> Iterator[GeoPackageWriter]:
        """Writes layers; the file appears under its name when the block ends well. crs: WKT, or None."""
        with output_errors(self.path):
            temporary = Path(self.folder, "layers.gpkg")
            temporary.unlink(missing_ok=True)
            writer = GeoPackageWriter(temporary, crs)
            with _unsynced():
                yield writer
            writer.check()
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, self.path)


@contextmanager
def _unsynced() -> Iterator[None]:
    """GDAL's SQLite does not wait for the disk after each batch: most of the time that writing took was that."""
    pyogrio.set_gdal_config_options({"OGR_SQLITE_SYNCHRONOUS": "OFF"})
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options({"OGR_SQLITE_SYNCHRONOUS": None})


class Spool:
    """Polygons that arrive in any order and leave in scan order, kept on disk."""

    def __init__(self, database: sqlite3.Connection, path: str) -> None:
        self._database = database
        self._path = path
        database.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA temp_store = MEMORY;"
        )
        # An integer primary key is the order in the file: reading back needs no sort.
        database.execute(
            "CREATE TABLE polygon (place INTEGER PRIMARY KEY, class_id INTEGER, mean REAL, low REAL, "
            "at_edge INTEGER, wkb BLOB)"
        )
        database.execute("CREATE TABLE redrawn (place INTEGER PRIMARY KEY, wkb BLOB)")

    def add(self, rows: Sequence[int], cols: Sequence[int], found: Sequence[Found]) -> None:
        """rows, cols: first pixel of each polygon, which no two share."""
        places = ((row << 32) + col for row, col in zip(rows, cols, strict=True))
        with output_errors(self._path), self._database:
            values = ((place, *one[:-1]) for place, one in zip(places, found, strict=True))
            self._database.executemany("INSERT INTO polygon VALUES (?, ?, ?, ?, ?, ?)", values)

    def traced(self, class_ids: Sequence[int]) -> Iterator[Outlines]:
        """Places (row << 32) + col and polygons of some classes, in scan order, in batches."""
        for rows in self._select("place, polygon.wkb", class_ids):
            yield [place for place, _ in rows], [wkb for _, wkb in rows]

    def redraw(self, batches: Iterable[Outlines]) -> None:
        """What to write for the polygons at some places; forgets what was said before."""
        with output_errors(self._path):
            self._database.execute("DELETE FROM redrawn")
        for places, wkb in batches:
            with output_errors(self._path), self._database:
                values = zip(places, wkb, strict=True)
                self._database.executemany("INSERT INTO redrawn VALUES (?, ?)", values)

    def read(self, class_ids: Sequence[int]) -> Iterator[list[Found]]:
        """The polygons of some classes, in scan order, in batches."""
        columns = "class_id, mean, low, at_edge, polygon.wkb, redrawn.wkb"
        for rows in self._select(columns, class_ids):
            yield [_unpack(*row) for row in rows]

    def _select(self, columns: str, class_ids: Sequence[int]) -> Iterator[list[Any]]:
        wanted = ", ".join(str(int(i)) for i in class_ids)
        query = (
            f"SELECT {columns} FROM polygon LEFT JOIN redrawn USING (place) "  # noqa: S608
            f"WHERE class_id IN ({wanted}) ORDER BY place"
        )
        with closing(self._database.execute(query)) as cursor:
            while rows := cursor.fetchmany(BATCH):
                yield rows


def _unpack(
    class_id: int, mean: float | None, low: float | None, at_edge: int, wkb: bytes, redrawn: bytes | None
) -> Found:
    """SQLite keeps NaN as null."""
    return Found(class_id, _float(mean), _float(low), bool(at_edge), wkb, redrawn)


def _float(value: float | None) -> float:
    return float("nan") if value is None else value


class GeoPackageWriter:
    """Appends features to layers of one file."""

    def __init__(self, path: Path, crs: str | None) -> None:
        self._path = path
        self._crs = crs
        self._counts: dict[str, int] = {}

    def append(self, layer: str, wkb: Sequence[bytes], columns: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Write polygons behind those that the layer has; the first call, even with none, makes the layer.

        columns: one array per field; NaN and None are written as null. Feature ids count from 1.
        """
        geometry = np.empty(len(wkb), dtype=object)
        geometry[:] = wkb
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "'crs' was not provided")
            pyogrio.raw.write(
                self._path,
                geometry,
                list(columns.values()),
                list(columns),
                layer=layer,
                driver="GPKG",
                geometry_type="Polygon",
                crs=self._crs,
                append=layer in self._counts,
            )
        self._counts[layer] = self._counts.get(layer, 0) + len(wkb)

    def check(self) -> None:
        """GDAL may lose the last pages of a file on a full disk without a word: count what is there."""
        for layer, count in self._counts.items():
            found = pyogrio.read_info(self._path, layer=layer, force_feature_count=True)["features"]
            if found != count:
                raise OSError(f"layer {layer} has {found} features instead of {count}")
        with closing(sqlite3.connect(self._path)) as database:
            answer = database.execute("PRAGMA quick_check(1)").fetchone()[0]
        if answer != "ok":
            raise OSError(f"the file is damaged: {answer}")


def add_region_layer(
    path: Path, geometries: Sequence[Any], rows: Sequence[Mapping[str, Any]], crs: str | None
) -> None:
    """Add a layer `regions` to a GeoPackage. rows: the attributes of each region, None where undefined."""
    import geopandas  # only where there are regions: it brings pandas, which takes half a second
    import pandas

    table = pandas.DataFrame(rows)
    scores = table.columns[1:]
    table[scores] = table[scores].apply(pandas.to_numeric)
    whole = shapely.multipolygons([shapely.get_parts(geometry) for geometry in geometries])
    frame = geopandas.GeoDataFrame(table, geometry=whole, crs=crs)
    with output_errors(path), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'crs' was not provided")
        frame.to_file(
            path, layer=REGIONS_LAYER, driver="GPKG", engine="pyogrio", geometry_type="MultiPolygon"
        )


@contextmanager
def output_errors(path: str | Path) -> Iterator[None]:
    """Turn what disk, GDAL and SQLite raise into an OutputError."""
    try:
        yield
    except _FAILURES as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise OutputError(f"cannot be written ({reason})", path) from error
