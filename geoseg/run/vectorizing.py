"""`geoseg vectorize`: polygons of a class raster, in a GeoPackage."""

from __future__ import annotations

from geoseg.errors import SourceError
from geoseg.io.classmap import ClassMap
from geoseg.io.vectors import GeoPackageStore
from geoseg.stages.protocols import Mapper
from geoseg.stages.vectorize import raw_layers, role_layers, vectorize


def vectorize_file(landcover: str, output: str, raw: bool, block_px: int, mapper: Mapper) -> dict[str, int]:
    """Write the buildings and roads of a map that geoseg wrote; raw: all polygons of any class raster.

    Returns how many polygons each layer has. Raises SourceError for a raster that cannot be used, or that has
    no legend where one is needed; SpecError for an impossible block size; OutputError where the output cannot
    be written.
    """
    source = ClassMap.open(landcover)
    if raw:
        layers = raw_layers(source.legend, source.nodata)
    elif source.legend is not None:
        layers = role_layers(source.legend)
    else:
        raise SourceError(
            "has no legend tag, so which classes are buildings and roads is unknown; "
            "--raw writes the polygons of every class",
            landcover,
        )
    with GeoPackageStore.beside(output) as store:
        return vectorize(source, layers, store, mapper, block_px)
