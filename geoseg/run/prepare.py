"""Before anything is computed: open every scene, check what belongs to it, decide how it is cut."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from geoseg.errors import GeosegError, SourceError
from geoseg.grid.lattice import Block, Blocks, Lattice
from geoseg.io.formats import known_crs
from geoseg.io.identity import content_of, source_identity
from geoseg.io.labels import BurntPolygons, LabelOptions, Labels, open_labels
from geoseg.io.masks import AreaOfInterest, Mask
from geoseg.io.places import Place, place_of
from geoseg.io.regions import NamedPolygon, read_polygons
from geoseg.io.sources import Scene, open_scene
from geoseg.model.bundle import Bundle
from geoseg.model.runtimes import RuntimeChoice
from geoseg.run.evaluating import EvaluateOptions
from geoseg.run.job import Job, SceneEntry, generalize_rules
from geoseg.spec import FORMAT_VERSION, SegmentSpec, digest_of
from geoseg.stages.scores import ScoreSettings

SCRATCH = ".geoseg"
RESULTS_FORMAT = 4
"""Rises with what is made of a finished map: vectors, scores, styles. A rerun then makes them anew."""
BLOCK_CENTERS = 3
"""A block is at most so many patch centers wide: large enough to read margins seldom, small enough to share out."""
BLOCKS_PER_LANE = 8


@dataclass(frozen=True)
class Prepared:
    """A scene that can be mapped, and where its results go.

    labels_key: digest of the labels and of how they are read, None without; they are opened again to be scored, so that
    a job of many scenes holds no polygons of labels.
    """

    entry: SceneEntry
    scene: Scene
    lattice: Lattice
    regions: tuple[NamedPolygon, ...]
    labels_key: str | None
    output: Place

    @property
    def name(self) -> str:
        return self.entry.name

    @property
    def folder(self) -> Place:
        """Where the results are published."""
        return self.output / self.name

    @property
    def scratch(self) -> Place:
        """Where blocks, unfinished results and the ledger lie."""
        return self.output / SCRATCH / self.name

    @property
    def ledger_path(self) -> Place:
        return self.scratch / "ledger.json"

    def blocks(self, block_px: int) -> Iterator[Block]:
        """The blocks to map, rows first; those outside the area of interest are none of them."""
        every, aoi = Blocks.of(self.lattice, block_px), self.scene.aoi
        if aoi is None:
            return iter(every)
        box, side = aoi.box, every.block_px
        rows = range(box.row // side, -(-box.row_end // side))
        cols = range(box.col // side, -(-box.col_end // side))
        return (b for row in rows for col in cols if aoi.meets((b := every.at(row, col)).core))

    def auto_block_px(self, lanes: int) -> int:
        """Blocks as large as is useful, but several for each lane, so that none waits long for the last."""
        stride = self.lattice.spec.stride_px
        centers = BLOCK_CENTERS
        while centers > 1 and len(Blocks.of(self.lattice, centers * stride)) < BLOCKS_PER_LANE * lanes:
            centers -= 1
        return centers * stride


def prepare(job: Job, bundle: Bundle, spec: SegmentSpec) -> tuple[list[Prepared], dict[str, GeosegError]]:
    """All scenes of a job that can be mapped, and why the others cannot.

    Raises SpecError for a CRS or a class that is unknown, and for options of labels that cannot be.
    """
    known_crs(job.crs)
    evaluate_options(job)
    generalize_rules(job.min_area, job.min_hole, bundle.card.legend)
    ready, refused = [], {}
    for entry in job.scenes:
        try:
            ready.append(_prepare_one(entry, job, bundle, spec))
        except GeosegError as error:
            refused[entry.name] = error
    return ready, refused


def _prepare_one(entry: SceneEntry, job: Job, bundle: Bundle, spec: SegmentSpec) -> Prepared:
    scene = open_scene(entry.path, bundle.card.input_spec, job.bands, job.gsd)
    if scene.grid.crs is None and (job.crs or "geojson" in job.formats):
        wanted = f"in {job.crs}" if job.crs else "as GeoJSON"
        raise SourceError(
            f"has no CRS, so its polygons cannot be written {wanted}; state it with gdal_edit.py", entry.path
        )
    if scene.grid.gsd_m is None and (job.min_area or job.min_hole):
        raise SourceError(
            "has no CRS that tells how large its pixels are, so no least areas in m2 can be asked for",
            entry.path,
        )
    mask = Mask.open(entry.mask, scene.grid, job.mask_values) if entry.mask else None
    aoi = AreaOfInterest.open(job.aoi, scene.grid) if job.aoi else None
    scene = replace(scene, mask=mask, aoi=aoi)
    regions = read_polygons(entry.regions, scene.grid, job.region_field) if entry.regions else ()
    labels_key = None
    if entry.labels:
        options = evaluate_options(job).labels
        labels_key = _labels_key(open_labels(entry.labels, scene.grid, bundle.card.legend, options))
    lattice = Lattice(scene.grid.height, scene.grid.width, spec)
    return Prepared(entry, scene, lattice, regions, labels_key, place_of(job.output))


def evaluate_options(job: Job) -> EvaluateOptions:
    """How the scenes of a job are scored. Raises SpecError for options that do not fit each other."""
    return EvaluateOptions(
        labels=LabelOptions(job.class_field, job.map_class, job.ignore, job.background),
        scores=ScoreSettings(objects=job.objects),
        errors=job.errors,
    )


def map_recipe(
    ready: Prepared, bundle: Bundle, choice: RuntimeChoice, known: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """All that decides a map's bytes, by name, and the identities of its files (to spare hashing them again)."""
    scene, spec = ready.scene, ready.lattice.spec
    identities = {"source": source_identity(scene.path, known.get("source"))}
    if scene.mask is not None:
        identities["mask"] = source_identity(scene.mask.path, known.get("mask"))
    grid = [scene.grid.height, scene.grid.width, list(scene.grid.transform)[:6], scene.grid.crs]
    recipe = {
        "format": FORMAT_VERSION,
        "source": digest_of(
            [content_of(identities["source"]), grid, [str(v) for v in scene.nodata], scene.alpha]
        ),
        "mask": [content_of(identities["mask"]), list(scene.mask.values)] if scene.mask else None,
        "aoi": digest_of([p.wkb_hex for p in scene.aoi.polygons]) if scene.aoi else None,
        "bands": list(scene.bands),
        "gsd": None if scene.resampling is None else [scene.resampling, scene.grid.gsd_m],
        "model": bundle.card.digest,
        **choice.to_dict(),
        "patch_px": spec.patch_px,
        "margin_px": spec.margin_px,
        "blend": spec.blend,
        "tta": spec.tta,
    }
    return recipe, identities


def scores_key(ready: Prepared, map_key: str, job: Job) -> str:
    """Digest of all that decides scores and vectors beside the map itself."""
    return digest_of(
        [
            [map_key, RESULTS_FORMAT, sorted(job.formats), job.crs if job.formats else None],
            [job.centerlines, job.coverage, job.min_area, job.min_hole],
            [ready.labels_key, job.objects, job.errors] if ready.labels_key else None,
            [digest_of([r.name, r.geometry.wkb_hex]) for r in ready.regions] if ready.entry.regions else None,
        ]
    )


def _labels_key(labels: Labels) -> str:
    """Digest of all that decides true classes: what each value means, and the raster's bytes or the polygons."""
    if isinstance(labels.pixels, BurntPolygons):
        drawn = [
            [value, digest_of([polygon.wkb_hex for polygon in polygons])]
            for value, polygons in labels.pixels.layers
        ]
        return digest_of([list(labels.table), drawn])
    return digest_of([list(labels.table), content_of(source_identity(labels.path))])
