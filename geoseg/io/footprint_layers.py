"""Building layers of result GeoPackages, read by boxes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyogrio
import shapely
from shapely.errors import ShapelyError

from geoseg.errors import SourceError
from geoseg.stages.turnover import Box, Footprints


@dataclass(frozen=True)
class BuildingLayer:
    """A layer of buildings as geoseg writes it. Holds no handles."""

    path: str
    layer: str
    fields: tuple[str, ...]

    @classmethod
    def open(cls, path: str, layer: str) -> BuildingLayer | None:
        """None where the file has no such layer. Raises SourceError where it cannot be read."""
        try:
            if layer not in {str(name) for name, _ in pyogrio.list_layers(path)}:
                return None
            return cls(path, layer, tuple(pyogrio.read_info(path, layer=layer)["fields"]))
        except (RuntimeError, ValueError) as error:
            raise SourceError(f"cannot be read as a GeoPackage ({error})", path) from error

    def read(self, box: Box) -> Footprints:
        """The buildings that touch a box, in the layer's order; fields that it lacks are empty or NaN."""
        wanted = [name for name in ("id", "area_m2", "confidence_mean") if name in self.fields]
        try:
            _, _, blobs, columns = pyogrio.raw.read(
                self.path, layer=self.layer, columns=wanted, bbox=box, force_2d=True
            )
            geometries = np.asarray(shapely.from_wkb(blobs), dtype=object)
        except (RuntimeError, ValueError, ShapelyError) as error:
            raise SourceError(f"layer {self.layer!r} cannot be read ({error})", self.path) from error
        found = dict(zip(wanted, columns, strict=True))
        keep = ~(shapely.is_missing(geometries) | shapely.is_empty(geometries)) & (
            shapely.area(geometries) > 0
        )
        unknown = np.full(len(geometries), np.nan)
        return Footprints(
            geometries,
            np.asarray(found.get("id", np.full(len(geometries), None, object)), dtype=object),
            np.asarray(found.get("area_m2", unknown), np.float64),
            np.asarray(found.get("confidence_mean", unknown), np.float64),
        ).at(keep)
