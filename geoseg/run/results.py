"""What is made of a finished map: vector layers, copies of them, what QGIS and catalogs want."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import shapely

from geoseg.io.classmap import ClassMap
from geoseg.io.formats import export_layers
from geoseg.io.networks import add_road_network
from geoseg.io.places import Place
from geoseg.io.qgis import write_qgis
from geoseg.io.sources import acquired
from geoseg.io.stac import CATALOG, ITEM, MapFacts, UsedModel, write_catalog, write_item
from geoseg.io.vectors import REGIONS_LAYER, GeoPackageStore, add_region_layer
from geoseg.legend import Legend
from geoseg.model.bundle import Bundle
from geoseg.model.card import ModelCard
from geoseg.run.job import Job, generalize_rules
from geoseg.run.prepare import Prepared
from geoseg.run.versions import versions
from geoseg.stages.evaluate import Scores
from geoseg.stages.layers import COVERAGE_LAYER, LAYER_OF_ROLE, Context, coverage_layer, role_layers
from geoseg.stages.protocols import Mapper
from geoseg.stages.roads import LINES_LAYER, NODES_LAYER
from geoseg.stages.vectorize import vectorize

VECTORS = "vectors.gpkg"
LAYERS = (*LAYER_OF_ROLE.values(), COVERAGE_LAYER, LINES_LAYER, NODES_LAYER, REGIONS_LAYER)


def write_vectors(
    landcover: Path, confidence: Path, card: ModelCard, ready: Prepared, scores: Scores | None, job: Job, path: Path,
    mapper: Mapper,
) -> None:  # fmt: skip
    """Write buildings and roads, the road network if it is wanted and, where there are regions, these with their
    scores."""
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
        layers = role_layers(card.legend)
        if job.coverage:
            layers += (coverage_layer(card.legend),)
        rules = generalize_rules(job.min_area, job.min_hole, card.legend)
        vectorize(source, layers, store, mapper, context=context, rules=rules)
    if job.centerlines:
        roads = tuple(c.id for c in card.legend.of_role("road"))
        tuple(mapper(partial(add_road_network, source, context.confidence, roads, facts), [str(path)]))
    if ready.regions:
        rows = scores.rows() if scores is not None else [{"region": region.name} for region in ready.regions]
        add_region_layer(path, [region.geometry for region in ready.regions], rows, ready.scene.grid.crs)


def _layers(ready: Prepared, job: Job) -> list[str]:
    wanted = {
        **dict.fromkeys(LAYER_OF_ROLE.values(), True),
        COVERAGE_LAYER: job.coverage,
        LINES_LAYER: job.centerlines,
        NODES_LAYER: job.centerlines,
        REGIONS_LAYER: bool(ready.regions),
    }
    return [layer for layer in LAYERS if wanted[layer]]


def copies(ready: Prepared, job: Job) -> list[str]:
    """The files that hold one layer each."""
    return [f"{layer}.{name}" for layer in _layers(ready, job) for name in job.formats]


def finish_vectors(folder: Path, legend: Legend, ready: Prepared, scores: Scores | None, job: Job) -> None:
    """Add styles and a QGIS project to `folder`, and copies of the layers in other formats where they are wanted."""
    export_layers(folder / VECTORS, folder, job.formats, job.crs)
    columns = scores.columns() if scores is not None else ["region"]
    write_qgis(folder, legend, ready.scene.grid, _layers(ready, job), columns, title=ready.name)


def write_catalog_entry(ready: Prepared, bundle: Bundle, started: str, folder: Path) -> None:
    """Describe the results in a folder as a STAC item, beside them."""
    card = bundle.card
    model = UsedModel(card.name, str(card.version), card.digest, bundle.described_by.resolve().as_uri())
    when, grid = acquired(ready.scene.path), ready.scene.grid
    facts = MapFacts(ready.name, grid, card.legend, model, started, versions(), when, f"../{CATALOG}")
    write_item(folder, facts)


def write_run_catalog(output: Place) -> None:
    """List all scenes of an output folder, those of earlier runs too."""
    found = (path for path in output.glob(f"*/{ITEM}") if not path.parent.name.startswith("."))
    items = sorted(found, key=str)
    if items:
        write_catalog(output, items, output.resolve().name)
