"""Jobs: what a user asks for, from options and job files, checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from geoseg.errors import SpecError
from geoseg.io.places import beside, place_of
from geoseg.io.remote import Remote
from geoseg.legend import Legend
from geoseg.pixels.generalize import GeneralizeRules
from geoseg.run.job_files import bundle_beside, checked, read_fields
from geoseg.spec import SegmentSpec

SCENE_FILES = ("labels", "regions", "mask")
ABOUT_LABELS = ("class_field", "map_class", "ignore", "background", "objects", "errors")
NOT_GIVEN = {"scenes": "none given; name at least one", "output": "none given; name a folder with -o"}

ALL_CLASSES = "all"
MARGIN_PX = 64
"""Of a patch, unless that is small: the table of blends in the README says what it gives."""
MOST_NAMES = 12
"""Of classes, in a message."""


class Workers(NamedTuple):
    """How many there are at least and at most; most None: as many as there is room for."""

    least: int
    most: int | None


class SceneEntry(BaseModel):
    """One scene of a job, with what belongs to it alone."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    labels: str | None = None
    regions: str | None = None
    mask: str | None = None

    @property
    def name(self) -> str:
        return Path(self.path).stem

    @field_validator("path")
    @classmethod
    def _names_a_folder(cls, path: str) -> str:
        stem = Path(path).stem
        if not stem or stem.startswith("."):
            raise ValueError(f"the results of {path!r} would have no folder name; rename the file")
        return path


class Job(BaseModel):
    """Everything that `geoseg run` can be told. A job file has these fields; options of the same name win."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scenes: tuple[SceneEntry, ...] = Field(
        min_length=1, description="scenes, each a path or path, labels, regions, mask"
    )
    output: str = Field(min_length=1, description="folder for the results")
    model: str | None = Field(None, description="model bundle; the one that comes with geoseg if not given")
    region_field: str = Field("region", description="field that names the regions")
    class_field: str | None = Field(
        None, description="the labels are polygons; their classes are in this field"
    )
    map_class: dict[str, str] = Field(
        default_factory=dict,
        description="what the labels call a class (a name, or a value) and what the map calls it; '' leaves it out",
    )
    ignore: tuple[int, ...] = Field((), description="values of label rasters to leave out")
    background: str | None = Field(
        None, description="class of the pixels in no polygon of the labels; left out if not given"
    )
    objects: bool = Field(False, description="score buildings as objects and roads as lines, too")
    errors: bool = Field(False, description="errors.tif, where the map differs from the labels")
    mask_values: tuple[int, ...] = Field(
        (), description="values of a mask raster that leave pixels out; if none, all but 0"
    )
    aoi: str | None = Field(None, description="area of interest: map only inside these polygons")
    engine: Literal["auto", "local", "ray"] = "auto"
    address: str | None = Field(None, description="Ray cluster to join")
    workers: str | None = Field(
        None, description="blocks mapped at once: N, or MIN:MAX for a pool that follows the cluster"
    )
    worker_gpus: float = Field(1.0, gt=0, description="share of a GPU, or GPUs, that a worker on Ray claims")
    allow_partial: bool = Field(
        False, description="publish a scene even if some of its blocks could not be mapped: they are nodata"
    )
    block_px: int | None = Field(
        None, ge=1, description="side of a block; chosen from the scene's size if not given"
    )
    patch_px: int | None = Field(
        None, description="side of what the network sees; the model's own if not given"
    )
    margin_px: int | None = Field(
        None,
        description="what a patch gives up on each side; 64, or a quarter of a patch below 256 if not given",
    )
    blend: Literal["crop", "hann"] = "crop"
    tta: Literal["none", "d4"] = "none"
    gsd: float | None = Field(None, gt=0, description="resample to this ground sample distance in metres")
    bands: tuple[int, ...] = Field((), description="bands of the scene, in the model's order, counted from 1")
    runtime: Literal["auto", "openvino", "torch"] = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    formats: tuple[Literal["gpkg", "parquet", "fgb", "geojson"], ...] = Field(
        (), alias="format", description="copies of each vector layer, a file each, beside vectors.gpkg"
    )
    crs: str | None = Field(None, description="CRS of these copies; that of the scene if not given")
    min_area: dict[str, float] = Field(
        default_factory=dict,
        description="least area of a polygon in m2, by class name or id, or 'all'; smaller ones go to a neighbor",
    )
    min_hole: dict[str, float] = Field(
        default_factory=dict, description="least area of a hole in m2, likewise; smaller ones are filled"
    )
    coverage: bool = Field(
        False, description="layer landcover: all classes, simplified, without gap or overlap"
    )
    centerlines: bool = Field(False, description="road_centerlines and road_nodes, made of the road polygons")
    report: bool = Field(True, description="report.html and quicklook.png for each scene, index.html for all")
    hours: float | None = Field(
        None, gt=0, description="begin no block after so many hours; the next run goes on from there"
    )
    overwrite: bool = Field(False, description="replace results of another model or other parameters")
    config: dict[str, str] = Field(default_factory=dict, description="GDAL options")
    json_events: bool = Field(False, alias="json", description="events as JSON lines")

    @field_validator("scenes", mode="before")
    @classmethod
    def _plain_paths(cls, scenes: Any) -> Any:
        if isinstance(scenes, str):
            scenes = [scenes]
        return (
            [{"path": s} if isinstance(s, str) else s for s in scenes]
            if isinstance(scenes, list | tuple)
            else scenes
        )

    @field_validator("output")
    @classmethod
    def _can_be_written_to(cls, output: str) -> str:
        if isinstance(place_of(output), Remote) and output.startswith("http"):
            raise ValueError(f"{output} can only be read; results go to disk, or to s3://, gs:// or az://")
        return output

    @field_validator("workers", mode="before")
    @classmethod
    def _number_or_range(cls, value: Any) -> str | None:
        if value is None:
            return None
        ends = str(value).split(":")
        if not (len(ends) <= 2 and all(map(str.isdecimal, ends)) and 1 <= int(ends[0]) <= int(ends[-1])):
            raise ValueError(f"{value} is neither a number from 1 up nor a range such as 2:16")
        return str(value)

    @field_validator("config")
    @classmethod
    def _can_be_set(cls, config: dict[str, str]) -> dict[str, str]:
        for key, value in config.items():
            if not key or "=" in key or "\0" in key + value:
                raise ValueError(f"{key!r}: {value!r} is no GDAL option")
        return config

    @field_validator("min_area", "min_hole", mode="before")
    @classmethod
    def _for_all_classes(cls, limits: Any) -> Any:
        if isinstance(limits, int | float) and not isinstance(limits, bool):
            return {ALL_CLASSES: limits}
        return {str(key): value for key, value in limits.items()} if isinstance(limits, dict) else limits

    @field_validator("map_class", mode="before")
    @classmethod
    def _values_are_text(cls, names: Any) -> Any:
        if not isinstance(names, dict):
            return names
        return {str(known): "" if name is None else name for known, name in names.items()}

    @model_validator(mode="after")
    def _labels_to_score_by(self) -> Job:
        asked = [name for name in ABOUT_LABELS if getattr(self, name)]
        if asked and not any(scene.labels for scene in self.scenes):
            raise ValueError(f"{asked[0]}: is about labels, and no scene has any; name them with --labels")
        return self

    @model_validator(mode="after")
    def _crs_of_copies(self) -> Job:
        if self.crs is not None and not self.formats:
            raise ValueError("crs: is that of the copies that --format writes; name a format, too")
        return self

    @model_validator(mode="after")
    def _one_folder_each(self) -> Job:
        paths: dict[str, str] = {}
        for scene in self.scenes:
            if scene.name in paths:
                raise ValueError(
                    f"{paths[scene.name]} and {scene.path} would both write to {self.output}/{scene.name}; rename one"
                )
            paths[scene.name] = scene.path
        return self

    @property
    def worker_range(self) -> Workers:
        if self.workers is None:
            return Workers(1, None)
        ends = [int(end) for end in self.workers.split(":")]
        return Workers(ends[0], ends[-1])

    def segment_spec(self, model_patch_px: int) -> SegmentSpec:
        patch_px = model_patch_px if self.patch_px is None else self.patch_px
        margin_px = min(MARGIN_PX, patch_px // 4) if self.margin_px is None else self.margin_px
        return SegmentSpec(patch_px, margin_px, self.blend, self.tta)


def generalize_rules(
    min_area: Mapping[str, float], min_hole: Mapping[str, float], legend: Legend
) -> GeneralizeRules | None:
    """What is too small to stay, by class id; None where everything stays.

    Classes go by their names or ids; 'all' stands for those that are not named. Raises SpecError for others.
    """
    limits = [_by_id(name, given, legend) for name, given in (("min-area", min_area), ("min-hole", min_hole))]
    return GeneralizeRules(*limits) if any(limits) else None


def _by_id(option: str, given: Mapping[str, float], legend: Legend) -> dict[int, float]:
    ids = {str(c.id): c.id for c in legend.classes} | {c.name: c.id for c in legend.classes}
    some = ", ".join(legend.names[:MOST_NAMES]) + ", ..." * (len(legend.names) > MOST_NAMES)
    for name in given:
        if name != ALL_CLASSES and name not in ids:
            raise SpecError(f"--{option}: no class {name!r}; there are {some}, and '{ALL_CLASSES}'")
    rest = dict.fromkeys(legend.ids, given[ALL_CLASSES]) if ALL_CLASSES in given else {}
    return rest | {ids[name]: area for name, area in given.items() if name != ALL_CLASSES}


def make_job(options: Mapping[str, Any], job_file: str | None = None) -> Job:
    """A job from options (None: not given) over a job file. Paths in a file start from its own folder.

    Raises SpecError, in one line, for whatever does not hold.
    """
    values = _from_file(Path(job_file)) if job_file else {}
    given = {name: value for name, value in options.items() if value not in (None, (), {})}
    for name in SCENE_FILES:
        if name in given:
            scenes = given.get("scenes", values.get("scenes", ()))
            if len(scenes) != 1:
                raise SpecError(
                    f"--{name} goes with one scene, there are {len(scenes)}; "
                    f"give several in a job file, each with its own {name}"
                )
            entry = {"path": scenes[0]} if isinstance(scenes[0], str) else dict(scenes[0])
            given["scenes"] = [{**entry, name: given.pop(name)}]
    return checked(Job, {**values, **given}, job_file, NOT_GIVEN)


def _from_file(path: Path) -> dict[str, Any]:
    values = read_fields(path, "scenes: [a.tif]")
    for name, there in {"output": beside, "model": bundle_beside, "aoi": beside}.items():
        if isinstance(values.get(name), str):
            values[name] = there(path.parent, values[name])
    scenes = values.get("scenes")
    if isinstance(scenes, list):
        values["scenes"] = [_scene_beside(path.parent, scene) for scene in scenes]
    return values


def _scene_beside(folder: Path, scene: Any) -> Any:
    if isinstance(scene, str):
        return {"path": beside(folder, scene)}
    if not isinstance(scene, dict):
        return scene
    files = ("path", *SCENE_FILES)
    return {k: beside(folder, v) if k in files and isinstance(v, str) else v for k, v in scene.items()}
