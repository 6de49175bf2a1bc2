"""Vector layers of a finished map."""

from __future__ import annotations

from pathlib import Path

import shapely

from geoseg.io.classmap import ClassMap
from geoseg.io.sources import acquired
from geoseg.io.vectors import GeoPackageStore, add_region_layer
from geoseg.model.card import ModelCard
from geoseg.run.prepare import Prepared
from geoseg.stages.evaluate import Scores
from geoseg.stages.protocols import Mapper
from geoseg.stages.vectorize import Context, role_layers, strip_px, vectorize


def write_vectors(
    landcover: Path, confidence: Path, card: ModelCard, ready: Prepared, scores: Scores | None, path: Path,
    mapper: Mapper,
) -> None:  # fmt: skip
    """Write buildings and roads and, where there are regions, these with their scores."""
    aoi = ready.scene.aoi
    clip = shapely.union_all(list(aoi.polygons)) if aoi is not None else None
    facts = (
        ("scene", ready.name),
        ("model", f"{card.name} {card.version}"),
        ("date", acquired(ready.scene.path)),
    )
    context = Context(ClassMap.open(str(confidence)), clip, facts)
    with GeoPackageStore.beside(path) as store:
        source = ClassMap.open(str(landcover))
        vectorize(source, role_layers(card.legend), store, mapper, strip_px(source.grid.width), context)
    if ready.regions:
        rows = scores.rows() if scores is not None else [{"region": region.name} for region in ready.regions]
        add_region_layer(path, [region.geometry for region in ready.regions], rows, ready.scene.grid.crs)
