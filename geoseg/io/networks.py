"""Road networks in a GeoPackage that holds the road polygons."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyogrio
import shapely

from geoseg.io.vectors import output_errors
from geoseg.stages.protocols import ClassSource
from geoseg.stages.roads import LINES_LAYER, NODES_LAYER, Columns, trace_roads


def add_road_network(
    source: ClassSource,
    confidence: ClassSource | None,
    class_ids: Sequence[int],
    facts: Sequence[tuple[str, str | None]],
    path: str,
) -> dict[str, int]:
    """Add layers `road_centerlines` and `road_nodes` to a GeoPackage, made of its layer `roads`.

    Returns how many features each has. Raises OutputError where the file cannot be read or written.
    """
    with output_errors(path):
        _, _, wkb, _ = pyogrio.raw.read(path, layer="roads", columns=[])
        polygons = np.asarray(shapely.from_wkb(wkb), dtype=object)
    layers = trace_roads(polygons, source, confidence, class_ids, facts)
    _add(path, LINES_LAYER, "LineString", layers.lines, layers.line_columns, source.grid.crs)
    _add(path, NODES_LAYER, "Point", layers.nodes, layers.node_columns, source.grid.crs)
    return {LINES_LAYER: len(layers.lines), NODES_LAYER: len(layers.nodes)}


def _add(
    path: str, layer: str, geometry_type: str, geometries: np.ndarray, columns: Columns, crs: str | None
) -> None:
    with output_errors(path), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'crs' was not provided")
        pyogrio.raw.write(
            Path(path),
            shapely.to_wkb(geometries),
            list(columns.values()),
            list(columns),
            layer=layer,
            driver="GPKG",
            geometry_type=geometry_type,
            crs=crs,
        )
