"""The layers of a GeoPackage in other vector formats: streamed in batches, each file whole or not at all."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import shapely
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError, ProjError
from shapely.errors import ShapelyError

from geoseg.errors import OutputError, SourceError, SpecError
from geoseg.io.files import staged
from geoseg.io.vectors import output_errors

FORMATS = ("gpkg", "parquet", "fgb", "geojson")

BATCH = 2_000
"""Features read at once; with 10,000 the peak was 90 MB higher and nothing was faster."""
ROW_GROUP = 20_000
"""Least number of rows that are held back for a row group of a Parquet file, the last one excepted."""

_DRIVERS: dict[str, tuple[str, dict[str, str]]] = {
    "gpkg": ("GPKG", {}),
    "fgb": ("FlatGeobuf", {"SPATIAL_INDEX": "YES"}),
    "geojson": ("GeoJSON", {"RFC7946": "YES"}),
}


@dataclass(frozen=True)
class _Layer:
    """What a layer says of itself. crs: None where it has none."""

    path: Path
    name: str
    geometry_type: str
    geometry_name: str
    count: int
    crs: CRS | None


def export_layers(gpkg: Path, folder: Path, formats: Sequence[str], crs: str | None = None) -> list[Path]:
    """Write each layer of a GeoPackage to `folder/<layer>.<format>`; tables without geometry are passed over.

    formats: any of FORMATS. crs: all but GeoJSON is reprojected to it, vertex by vertex, x before y whatever the CRS
    says of its axes; None keeps the layer's. GeoJSON is always RFC 7946: WGS 84, 7 decimals, split at the
    antimeridian. Order and attributes are the layer's, but FlatGeobuf's index puts features into Hilbert order; it is
    left out where a feature has no extent.
    Geometries must be two-dimensional. Returns what was written, layer by layer.
    Raises SpecError for an unknown format or CRS; SourceError where the GeoPackage cannot be read, a layer has no CRS
    but needs one, or a vertex has no place in `crs`; OutputError where the disk refuses.
    """
    wanted = list(dict.fromkeys(formats))
    unknown = [name for name in wanted if name not in FORMATS]
    if unknown:
        raise SpecError(f"unknown format {', '.join(map(repr, unknown))}; known are {', '.join(FORMATS)}")
    target = known_crs(crs)
    layers = _layers(gpkg)
    for layer in layers:
        if layer.crs is None and (target is not None or "geojson" in wanted):
            purpose = f"reprojected to {target.name}" if target else "written as GeoJSON, which is in WGS 84"
            raise SourceError(f"layer {layer.name!r} has no CRS, so it cannot be {purpose}", gpkg)
    jobs = [(layer, name, folder / f"{layer.name}.{name}") for layer in layers for name in wanted]
    for _, _, path in jobs:
        if path.resolve() == gpkg.resolve():
            raise SpecError("would be overwritten by its own copy; export to another folder", gpkg)
    for layer, name, path in jobs:
        _export(layer, path, name, target)
    return [path for _, _, path in jobs]


def known_crs(text: str | None) -> CRS | None:
    """A CRS by its code or WKT; None for None. Raises SpecError where there is no such CRS."""
    try:
        return CRS.from_user_input(text) if text else None
    except CRSError as error:
        raise SpecError(f"{text!r} is no coordinate reference system ({error})") from error


def _layers(gpkg: Path) -> list[_Layer]:
    """The layers that have geometries, in the file's order."""
    if not gpkg.is_file():
        raise SourceError("no such file", gpkg)
    try:
        names = [str(name) for name, kind in pyogrio.list_layers(gpkg) if kind is not None]
        infos = [pyogrio.read_info(gpkg, layer=name, force_feature_count=True) for name in names]
        crs = [_layer_crs(info["crs"]) for info in infos]
    except (RuntimeError, ValueError) as error:
        raise SourceError(f"cannot be read as a GeoPackage ({error})", gpkg) from error
    for name in names:
        if Path(name).name != name:
            raise SourceError(f"layer {name!r} cannot give a file its name", gpkg)
    return [
        _Layer(gpkg, name, info["geometry_type"], info["geometry_name"], info["features"], place)
        for name, info, place in zip(names, infos, crs, strict=True)
    ]


def _layer_crs(text: str | None) -> CRS | None:
    found = CRS.from_user_input(text) if text else None
    return None if found is None or found.name.lower().startswith("undefined") else found


def _export(layer: _Layer, path: Path, name: str, target: CRS | None) -> None:
    # GeoJSON's driver goes to WGS 84 itself, and cuts at the antimeridian on the way.
    features = _Features(layer, None if name == "geojson" else target)
    try:
        with output_errors(path), staged(path) as temporary, features.open() as reader:
            if name == "parquet":
                _write_parquet(temporary, features, reader)
            else:
                driver, options = _DRIVERS[name]
                if name == "fgb" and _has_blanks(layer):
                    options = {"SPATIAL_INDEX": "NO"}
                _write_ogr(temporary, features, reader, driver, options)
                _check_whole(temporary, name, layer.count)
    except (OutputError, RuntimeError) as error:
        if features.problem is not None:  # GDAL loses what went wrong in the stream that it was fed
            raise features.problem from None
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"cannot be written ({error})", path) from error


def _has_blanks(layer: _Layer) -> bool:
    """Whether a feature has no geometry or an empty one, as a region beside the raster: no index can hold it."""
    table, column = (name.replace('"', '""') for name in (layer.name, layer.geometry_name))
    query = f'SELECT 1 FROM "{table}" WHERE "{column}" IS NULL OR ST_IsEmpty("{column}") LIMIT 1'  # noqa: S608
    return len(pyogrio.raw.read(layer.path, sql=query, read_geometry=False)[3][0]) > 0


class _Features:
    """A stream of a layer's features, in batches and in order, in the CRS that was asked for."""

    def __init__(self, layer: _Layer, target: CRS | None) -> None:
        self.layer = layer
        self.crs = target or layer.crs
        self.problem: SourceError | None = None
        self._transformer: Transformer | None = None
        if target is not None and layer.crs is not None and not layer.crs.equals(target, True):
            self._transformer = Transformer.from_crs(layer.crs, target, always_xy=True)

    @contextmanager
    def open(self) -> Iterator[Any]:
        """A pyarrow RecordBatchReader: the fields, and WKB under the layer's geometry name."""
        import pyarrow as pa  # only where something is exported: it is large

        options = {"layer": self.layer.name, "batch_size": BATCH, "use_pyarrow": True}
        with pyogrio.raw.open_arrow(self.layer.path, **options) as (meta, reader):
            self.geometry_name = meta["geometry_name"] or "wkb_geometry"
            index = reader.schema.get_field_index(self.geometry_name)
            schema = reader.schema.set(index, pa.field(self.geometry_name, pa.binary()))
            yield pa.RecordBatchReader.from_batches(schema, self._batches(reader, schema, index))

    def _batches(self, reader: Any, schema: Any, index: int) -> Iterator[Any]:
        import pyarrow as pa

        try:
            for batch in reader:
                columns = batch.columns
                columns[index] = pa.array(self._placed(columns[index]), pa.binary())
                yield pa.RecordBatch.from_arrays(columns, schema=schema)
        except (pa.ArrowException, OSError, ShapelyError, ProjError) as error:
            self.problem = SourceError(f"layer {self.layer.name!r}: {error}", self.layer.path)
            raise self.problem from error

    def _placed(self, wkb: Any) -> Any:
        """WKB in the CRS that was asked for: (feature,) objects, None where there is no geometry."""
        blobs = wkb.to_numpy(zero_copy_only=False)
        if self._transformer is None:
            return blobs
        return shapely.to_wkb(shapely.transform(shapely.from_wkb(blobs), self._move))

    def _move(self, points: np.ndarray) -> np.ndarray:
        assert self._transformer is not None and self.crs is not None
        moved = np.column_stack(self._transformer.transform(points[:, 0], points[:, 1]))
        lost = ~np.isfinite(moved).all(axis=1)
        if lost.any():
            x, y = points[lost][0]
            raise ProjError(f"{lost.sum()} vertices, as {x:.8g}, {y:.8g}, have no place in {self.crs.name}")
        return moved


def _write_parquet(path: Path, features: _Features, reader: Any) -> None:
    """GeoParquet 1.1: WKB, a covering bbox column, zstd; the file's extent is told at its end."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    geo = _geo_metadata(features.crs)
    index = reader.schema.get_field_index(features.geometry_name)
    sides = [(name, pa.float64()) for name in ("xmin", "ymin", "xmax", "ymax")]
    covering = pa.field("bbox", pa.struct(sides))
    schema = reader.schema.set(index, pa.field("geometry", pa.binary())).append(covering).remove_metadata()
    kinds: set[str] = set()
    held: list[Any] = []
    low, high = np.full(2, np.inf), np.full(2, -np.inf)
    # With Arrow's own schema in the file, readers would look for what is told at the end in there.
    with pq.ParquetWriter(path, schema, compression="zstd", store_schema=False) as writer:
        for batch in reader:
            geometries = shapely.from_wkb(batch.column(index).to_numpy(zero_copy_only=False))
            kinds |= {geometry.geom_type for geometry in geometries if geometry is not None}
            bounds = shapely.bounds(geometries)  # NaN where there is none, which fmin and fmax pass over
            low = np.fmin(low, np.fmin.reduce(bounds[:, :2], initial=np.inf))
            high = np.fmax(high, np.fmax.reduce(bounds[:, 2:], initial=-np.inf))
            boxes = pa.StructArray.from_arrays(list(map(pa.array, bounds.T)), fields=list(covering.type))
            held.append(pa.RecordBatch.from_arrays([*batch.columns, boxes], schema=schema))
            if sum(map(len, held)) >= ROW_GROUP:
                writer.write_table(pa.Table.from_batches(held))
                held = []
        if held:
            writer.write_table(pa.Table.from_batches(held))
        column = geo["columns"]["geometry"]
        column["geometry_types"] = sorted(kinds)
        if np.isfinite(low).all():
            column["bbox"] = [*low.tolist(), *high.tolist()]
        writer.add_key_value_metadata({"geo": json.dumps(geo)})


def _geo_metadata(crs: CRS | None) -> dict[str, Any]:
    """What geopandas says of a file in this CRS, from an empty one that it writes."""
    import geopandas
    import pyarrow.parquet as pq

    content = io.BytesIO()
    empty = geopandas.GeoDataFrame(geometry=[], crs=crs)
    empty.to_parquet(content, index=False, schema_version="1.1.0", write_covering_bbox=True)
    geo: dict[str, Any] = json.loads(pq.read_schema(content).metadata[b"geo"])
    return geo


def _write_ogr(path: Path, features: _Features, reader: Any, driver: str, options: dict[str, str]) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'crs' was not provided")
        pyogrio.raw.write_arrow(
            reader,
            path,
            layer=features.layer.name,
            driver=driver,
            geometry_name=features.geometry_name,
            geometry_type=features.layer.geometry_type,
            crs=features.crs.to_wkt() if features.crs else None,
            layer_options=options,
        )


def _check_whole(path: Path, name: str, count: int) -> None:
    """GDAL may lose the end of a file on a full disk without a word."""
    if name == "geojson":
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - 16))
            if b"".join(stream.read().split()).endswith(b"]}"):
                return
        raise OSError("its end is missing")
    found = pyogrio.read_info(path, force_feature_count=True)["features"]
    if found != count:
        raise OSError(f"it holds {found} features instead of {count}")
