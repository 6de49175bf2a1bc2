"""`geoseg vectorize`: polygons of any class raster, in a GeoPackage and, where wanted, in copies of its layers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import psutil
from pyproj import CRS

from geoseg.errors import OutputError, SourceError, SpecError
from geoseg.io.classmap import AnyClassRaster
from geoseg.io.formats import export_layers, known_crs
from geoseg.io.legends import KnownClasses, classes_in, find_classes
from geoseg.io.networks import add_road_network
from geoseg.io.qgis import store_styles
from geoseg.io.qgis_styles import vector_style
from geoseg.io.rasters import doubt_of_place, small_cache
from geoseg.io.sources import acquired
from geoseg.io.vectors import GeoPackageStore
from geoseg.legend import NODATA
from geoseg.run.events import Quiet, Reporter
from geoseg.run.job import generalize_rules
from geoseg.stages.layers import (
    COVERAGE_LAYER,
    RAW_LAYER,
    Context,
    Layer,
    coverage_layer,
    raw_layers,
    role_layers,
)
from geoseg.stages.protocols import Mapper
from geoseg.stages.roads import LINES_LAYER, NODES_LAYER
from geoseg.stages.vectorize import BLOCK_PX, StripFile, vectorize

SUFFIX = ".gpkg"
LARGEST_PX = 10**12
"""More would take days and one GeoPackage of billions of polygons; a header that says so is broken more likely."""
BYTES_PER_COLUMN = 64
"""What joining strips holds for each column of a raster."""

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class VectorizeOptions:
    """What `geoseg vectorize` can be told besides the raster and the GeoPackage; see `vectorize_file`."""

    legend: str | None = None
    band: int | None = None
    confidence: str | None = None
    formats: tuple[str, ...] = ()
    crs: str | None = None
    min_area: Mapping[str, float] = field(default_factory=dict)
    min_hole: Mapping[str, float] = field(default_factory=dict)
    coverage: bool = False
    centerlines: bool = False


PLAIN = VectorizeOptions()


@dataclass(frozen=True)
class Vectorized:
    """What was written: the GeoPackage, how many features each of its layers has, copies of these, and the CRS."""

    output: str
    layers: Mapping[str, int]
    copies: tuple[str, ...]
    crs: str | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON; a CRS by its code, or as WKT where it has none."""
        crs = None if self.crs is None else CRS.from_wkt(self.crs).to_string()
        return {"output": self.output, "layers": dict(self.layers), "copies": list(self.copies), "crs": crs}


def vectorize_file(
    landcover: str, output: str, raw: bool, block_px: int | None, mapper: Mapper, options: VectorizeOptions = PLAIN,
    reporter: Reporter | None = None,
) -> Vectorized:  # fmt: skip
    """Write the polygons of a class raster to a GeoPackage.

    Layers `buildings` and `roads` where classes have these roles, else `polygons` with all classes; raw: `polygons`,
    with classes and areas only. block_px: see `vectorize`; its own choice if None.
    legend: a file that names the classes. band: counted from 1. confidence: a raster of percent on the same grid.
    formats, crs: of copies OUTPUT_<layer>.<format>, as `export_layers` writes them. min_area, min_hole: square metres
    by class, see `generalize_rules`. coverage: a layer `landcover`, all classes without gap or overlap. centerlines:
    layers `road_centerlines` and `road_nodes`, see `trace_roads`.

    All files appear at the end, or none. Raises SourceError for a raster that cannot be used, SpecError for what cannot
    be asked for, OutputError where the output cannot be written.
    """
    tell, target, name = reporter or Quiet(), Path(output), Path(landcover).stem
    most_px = BLOCK_PX if block_px is None else block_px
    source = _checked_source(landcover, target, options, tell)
    known = find_classes(source, options.legend)
    layers = _layers(known, raw)
    roads = _road_ids(known, raw, landcover) if options.centerlines else ()
    every = known.of(range(NODATA))
    if options.coverage:
        layers += (coverage_layer(every),)
    rules = generalize_rules(options.min_area, options.min_hole, every)
    if raw and (rules is not None or options.coverage):
        raise SpecError(
            "--raw leaves polygons untouched; leave out --min-area, --min-hole and --coverage, or --raw"
        )
    names = [layer.name for layer in layers] + [LINES_LAYER, NODES_LAYER] * bool(roads)
    _check_copies(target, names, options.formats)
    confidence = AnyClassRaster.open_percent(options.confidence, source.grid) if options.confidence else None
    facts = (("scene", name), ("model", source.model), ("date", acquired(landcover)))
    _say_where_from(known, landcover, tell)

    with GeoPackageStore.beside(target) as outer:
        gpkg = Path(outer.folder, "vectors.gpkg")
        store = replace(outer, path=str(gpkg))
        with _told_of(target, gpkg.parent), small_cache():
            tell.stage(name, "vectorize", source.grid.megapixels)
            try:
                context = Context(confidence, facts=facts)
                counts = vectorize(source, layers, store, _counting(mapper, tell), most_px, context, rules)
            finally:
                tell.end_stage()
            if roads:
                counts |= add_road_network(source, confidence, roads, facts, str(gpkg))
            _add_styles(gpkg, names, known, landcover, tell)
            written = export_layers(gpkg, gpkg.parent, options.formats, options.crs)
        finals = [target.with_name(f"{target.stem}_{path.name}") for path in written]
        _publish([*zip(written, finals, strict=True), (gpkg, target)])
    return Vectorized(str(target), counts, tuple(map(str, finals)), source.grid.crs)


@contextmanager
def _told_of(target: Path, scratch: Path) -> Iterator[None]:
    """Errors of files in the scratch folder, whose names say nothing to a person, become those of the output."""
    try:
        yield
    except (OutputError, SourceError) as error:
        if error.path is None or not Path(error.path).is_relative_to(scratch):
            raise
        raise type(error)(error.args[0], target) from error


def _checked_source(
    landcover: str, target: Path, options: VectorizeOptions, tell: Reporter
) -> AnyClassRaster:
    """The raster, if all that was asked for is possible as far as can be told before reading it."""
    _check_options(target, options)
    source = AnyClassRaster.open(landcover, options.band)
    if target.resolve() == Path(landcover).resolve():
        raise SpecError("would be overwritten by its own polygons; take another name with -o", target)
    _check_size(source)
    if source.grid.crs is None:
        _check_formats(source, options)
    if doubt := doubt_of_place(source.grid):
        tell.say("warning", f"{source.path}: {doubt}")
    return source


def _check_copies(target: Path, layers: Sequence[str], formats: Sequence[str]) -> None:
    for layer in layers:
        for name in formats:
            path = target.with_name(f"{target.stem}_{layer}.{name}")
            if path.is_dir():
                raise OutputError("cannot be written (Is a directory)", path)


def _check_options(target: Path, options: VectorizeOptions) -> None:
    known_crs(options.crs)
    if options.crs is not None and not options.formats:
        raise SpecError("--crs is that of the copies that --format writes; name a format, too")
    if target.suffix.lower() != SUFFIX:
        raise SpecError(
            f"the output is a GeoPackage and ends in {SUFFIX}; --format adds copies of its layers beside it",
            target,
        )


def _check_size(source: AnyClassRaster) -> None:
    """Refuse, before anything is read, what would never end or not fit into memory."""
    grid = source.grid
    size = f"is {grid.width} x {grid.height} px"
    if grid.window.area_px > LARGEST_PX:
        raise SpecError(
            f"{size}; at most {LARGEST_PX // 10**6:,} Mpx are vectorized at once: cut it, "
            "for example with gdal_translate -srcwin",
            source.path,
        )
    needed, free = grid.width * BYTES_PER_COLUMN, psutil.virtual_memory().available
    if needed > free:
        raise SpecError(
            f"{size}; so wide a raster takes {needed / 1e9:.3g} GB of memory and {free / 1e9:.3g} GB are free: "
            "cut it, for example with gdal_translate -srcwin",
            source.path,
        )


def _check_formats(source: AnyClassRaster, options: VectorizeOptions) -> None:
    """Refuse what needs a CRS where there is none."""
    if options.crs is not None or "geojson" in options.formats:
        wanted = f"in {options.crs}" if options.crs else "as GeoJSON"
        raise SourceError(
            f"has no CRS, so its polygons cannot be written {wanted}; state it with gdal_edit.py", source.path
        )


def _layers(known: KnownClasses, raw: bool) -> tuple[Layer, ...]:
    if raw:
        return raw_layers(known.legend, NODATA)
    if known.legend is not None and known.has_roles:
        return role_layers(known.legend)
    return (Layer(RAW_LAYER, tuple((c.id, c.name) for c in known.of(range(NODATA)).classes)),)


def _road_ids(known: KnownClasses, raw: bool, landcover: str) -> tuple[int, ...]:
    """The classes that are roads. Raises SpecError where no road network can be made."""
    if raw:
        raise SpecError(
            "--centerlines are made of the layer roads, which --raw leaves out; leave out one of them"
        )
    ids = tuple(c.id for c in known.legend.of_role("road")) if known.legend is not None else ()
    if not ids:
        raise SpecError(
            "has no class that is a road, so --centerlines cannot be made; a --legend with roles says which is one",
            landcover,
        )
    return ids


def _say_where_from(known: KnownClasses, landcover: str, tell: Reporter) -> None:
    tell.say("note", f"{landcover}: names of classes: {known.origin}")
    if known.guessed:
        roles = ", ".join(f"{c.name!r} ({c.id}) is a {c.role}" for c in known.guessed)
        tell.say(
            "note", f"{landcover}: by their names, {roles}; a legend with roles, or --raw, says otherwise"
        )


def _counting(mapper: Mapper, tell: Reporter) -> Mapper:
    """A mapper that reports the strips that are done."""

    def mapped(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        for result in mapper(function, items):
            if isinstance(result, StripFile):
                tell.advance(result.window.area_px / 1e6)
            yield result

    return mapped


def _add_styles(
    gpkg: Path, layers: Sequence[str], known: KnownClasses, landcover: str, tell: Reporter
) -> None:
    """Keep a QGIS style for each layer in the GeoPackage, in the classes' colors."""
    styles: dict[str, str] = {}
    for layer in layers:
        if layer not in (RAW_LAYER, COVERAGE_LAYER):
            assert known.legend is not None
            styles[layer] = vector_style(layer, known.legend, ()).qml()
            continue
        ids = classes_in(gpkg, layer)
        if not ids:
            tell.say("warning", f"{landcover}: holds no class, all its pixels are nodata")
            continue
        if unnamed := known.unnamed(ids):
            some = ", ".join(map(str, unnamed[:10])) + ", ..." * (len(unnamed) > 10)
            tell.say("warning", f"{landcover}: classes without a name: {some}")
        styles[layer] = vector_style(COVERAGE_LAYER, known.of(ids), ()).qml()  # each class in its color
    store_styles(gpkg, styles)


def _publish(files: Iterable[tuple[Path, Path]]) -> None:
    for written, final in files:
        try:
            os.replace(written, final)
        except OSError as error:
            raise OutputError(f"cannot be written ({error.strerror or error})", final) from error
