"""What is made from a finished map: scores per region and vector layers."""

from __future__ import annotations

from pathlib import Path

import shapely

from geoseg.io.classmap import ClassMap
from geoseg.io.files import publish_bytes, publish_json
from geoseg.io.regions import NamedPolygon, burn
from geoseg.io.vectors import GeoPackageStore, add_region_layer
from geoseg.legend import Legend
from geoseg.run.evaluating import METRICS_FILE, REGIONS_FILE, format_csv
from geoseg.run.prepare import Prepared
from geoseg.stages.evaluate import Mapper, Scores, score_map
from geoseg.stages.vectorize import role_layers, vectorize


def write_scores(
    landcover: Path, labels: str, legend: Legend, regions: tuple[NamedPolygon, ...], folder: Path, mapper: Mapper
) -> Scores:
    """Score a map against its labels; writes metrics.json and, where there are regions, regions.csv."""
    scores = score_map(ClassMap.open(str(landcover)), ClassMap.open(labels), legend, regions, burn, mapper)
    publish_json(folder / METRICS_FILE, scores.to_dict())
    if regions:
        publish_bytes(folder / REGIONS_FILE, format_csv(scores).encode())
    return scores


def write_vectors(landcover: Path, legend: Legend, ready: Prepared, scores: Scores | None, path: Path, mapper: Mapper) -> None:
    """Write buildings and roads and, where there are regions, these with their scores."""
    aoi = ready.scene.aoi
    clip = shapely.union_all(list(aoi.polygons)) if aoi is not None else None
    with GeoPackageStore.beside(path) as store:
        vectorize(ClassMap.open(str(landcover)), role_layers(legend), store, mapper, aoi=clip)
    if ready.regions:
        rows = scores.rows() if scores is not None else [{"region": region.name} for region in ready.regions]
        add_region_layer(path, [region.geometry for region in ready.regions], rows, ready.scene.grid.crs)
