"""The training file: what is learned, from which pixels, and how. Unknown keys are errors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, model_validator

from geoseg.errors import SpecError
from geoseg.legend import LandClass, Legend
from geoseg.model.card import ClassEntry, Dtype, GsdRange
from geoseg.train.meanings import ClassMapping, Meaning, possible_classes

Split = Literal["train", "validation", "test"]
LabelValue = Annotated[int, Field(ge=0, le=255)]
Share = Annotated[float, Field(ge=0, le=1)]


def _as_text(version: Any) -> Any:
    """YAML reads 1 and 1.0 as numbers."""
    return str(version) if type(version) in (int, float) else version


class Strict(BaseModel):
    """A part of a training file: no other keys than its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RegionChoice(Strict):
    """Polygons of a vector file, by the names in a field."""

    file: Path
    field: str = "region"
    names: tuple[str, ...] = Field(min_length=1)


class SceneEntry(Strict):
    """A scene and its labels: a raster on the same grid, or polygons.

    bands: of the scene, counted from 1, in the order of the run's bands; the first ones where not given.
    class_field: the labels are polygons, their classes are in this field; every_polygon: they all are this.
    map_class: what the labels call a class (a name, or a value), and what that means here: a class; a list of
    classes, of which it is one; {not: [...]}, any class but these; "" teaches nothing. background: what the pixels
    in no polygon are, in the same words; they teach nothing where it is not given. ignore: values of a label raster
    that teach nothing. group: scenes of one group share ground, whatever their georeferencing says, and must lie in
    one split. nominal: their georeferencing is not to be believed, so that only groups tell of shared ground.
    weight: how often it is drawn from, per labelled pixel.
    """

    scene: Path
    labels: Path
    bands: tuple[Annotated[int, Field(ge=1)], ...] = ()
    class_field: str | None = None
    every_polygon: Meaning = None
    map_class: ClassMapping = Field(default_factory=dict)
    background: Meaning = None
    ignore: tuple[LabelValue, ...] = ()
    split: Split = "train"
    group: str | None = None
    nominal: bool = False
    weight: float = Field(default=1.0, gt=0)
    validation_regions: RegionChoice | None = None

    @property
    def has_polygons(self) -> bool:
        return self.class_field is not None or bool(self.every_polygon)

    @property
    def meanings(self) -> dict[str, Meaning]:
        """All that the labels may mean, by where the file says so."""
        mapped = {f"map_class.{name}": meaning for name, meaning in self.map_class.items()}
        return {"background": self.background, "every_polygon": self.every_polygon, **mapped}

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if self.validation_regions is not None and self.split != "train":
            raise ValueError(f"validation_regions make no sense in a scene of split {self.split!r}")
        if self.class_field is not None and self.every_polygon:
            raise ValueError("give class_field or every_polygon, not both")
        if self.every_polygon and self.map_class:
            raise ValueError(
                "map_class is for values of a raster or of a class_field; every_polygon has none"
            )
        if self.has_polygons and self.ignore:
            raise ValueError(
                "ignore is for values of a raster; leave polygons out with map_class: {NAME: ''}"
            )
        if self.background and not self.has_polygons:
            raise ValueError(
                "background is for labels that are polygons (class_field, every_polygon); say what a value of a "
                "raster means with map_class: {0: ...}"
            )
        both = {str(value) for value in self.ignore} & set(self.map_class)
        if both:
            raise ValueError(f"the value {min(both)} is both ignored and in map_class")
        return self


DEMO_CLASSES = ("building", "road", "land", "vegetation", "water")
"""Those of geoseg.demo, by value from 1; 0 is nodata."""


class DemoEntry(Strict):
    """Synthetic scenes of geoseg.demo, rendered before training. share: of the sampled patches.

    map_class: what those of DEMO_CLASSES mean that are no classes of the run.
    """

    seeds: tuple[int, ...] = Field(min_length=1)
    size: int = Field(default=1536, ge=64)
    share: Share = 0.2
    map_class: ClassMapping = Field(default_factory=dict)

    @property
    def meanings(self) -> dict[str, Meaning]:
        """What each of their classes means."""
        return {name: name for name in DEMO_CLASSES} | self.map_class

    @model_validator(mode="after")
    def _maps_its_classes(self) -> Self:
        strange = sorted(set(self.map_class) - set(DEMO_CLASSES))
        if strange:
            raise ValueError(
                f"demo scenes have no class {strange[0]!r}; theirs are {', '.join(DEMO_CLASSES)}"
            )
        return self


class AugmentSettings(Strict):
    """Chances of each kind of change, and the range of zoom (above 1 enlarges what is on the ground).

    Every patch is flipped and turned by right angles; rotate: the chance of any angle on top. haze and jpeg are
    for three bands of uint8 only; for others color is a gain and an offset of each band.
    """

    zoom: tuple[float, float] = (0.6, 1.6)
    rotate: Share = 0.0
    color: Share = 0.8
    haze: Share = 0.25
    blur: Share = 0.15
    jpeg: Share = 0.2
    noise: Share = 0.25
    cutout: Share = 0.1

    @model_validator(mode="after")
    def _zoom_rises(self) -> Self:
        if not 0 < self.zoom[0] <= self.zoom[1]:
            raise ValueError(f"zoom must rise and lie above 0, got {self.zoom[0]} to {self.zoom[1]}")
        return self


LossWeight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class LossSettings(Strict):
    """A weighted sum of losses; 0 leaves one out.

    label_smoothing, class_weights: of the cross entropy; class_weights by class name, 1 where not given.
    focal_gamma: how much the focal loss turns to hard pixels. tversky_alpha: the share of false positives in the
    Tversky loss; the rest is that of false negatives, and 0.5 is Dice. reverse_cross_entropy: holds against wrong
    labels; with cross_entropy it is the symmetric cross entropy.
    """

    cross_entropy: LossWeight = 1.0
    dice: LossWeight = 1.0
    focal: LossWeight = 0.0
    lovasz: LossWeight = 0.0
    tversky: LossWeight = 0.0
    reverse_cross_entropy: LossWeight = 0.0
    label_smoothing: float = Field(default=0.05, ge=0, lt=1)
    focal_gamma: LossWeight = 2.0
    tversky_alpha: Share = 0.3
    class_weights: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(default_factory=dict)

    @property
    def learns_from_sets(self) -> bool:
        return self.cross_entropy > 0 or self.reverse_cross_entropy > 0

    @model_validator(mode="after")
    def _weighs_something(self) -> Self:
        if not (self.learns_from_sets or self.dice or self.focal or self.lovasz or self.tversky):
            raise ValueError("all losses have weight 0")
        return self


class StartSettings(Strict):
    """Weights to begin with instead of random ones.

    bundle: a model bundle; every tensor that fits is kept, and of a tensor per class or per band what belongs to
    classes and bands of the same name. encoder: a safetensors file with the weights of the encoder alone.
    encoder_rate: learning rate of the encoder as a share of the others'; 0 freezes it, with the statistics of its
    batch normalization.
    """

    bundle: Path | None = None
    encoder: Path | None = None
    encoder_rate: float = Field(default=1.0, ge=0, le=1)

    @model_validator(mode="after")
    def _one_source(self) -> StartSettings:
        if self.bundle is not None and self.encoder is not None:
            raise ValueError("give bundle or encoder, not both: a bundle holds an encoder")
        if self.encoder_rate == 0 and self.bundle is None and self.encoder is None:
            raise ValueError(
                "encoder_rate: 0 freezes an encoder of random weights; give start.encoder or start.bundle"
            )
        return self


class TrainConfig(Strict):
    """A training run.

    steps: optimizer steps. max_minutes: wall-clock limit over all sittings; the learning rate follows whichever of
    the two is nearer its end, so that a run that is cut short still ends annealed; only a run without this limit
    repeats bit by bit. accumulate: batches whose gradients make one step. validate_every: steps between two
    validations, each of which leaves a checkpoint. patience: validations without a better mean IoU after which a
    run ends. crop_px: side of a training patch; patch_px: of the patches that a scene is mapped with.
    class_balance: 0 draws classes as often as they occur, 1 all equally often. options: further arguments of the
    architecture.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    version: Annotated[str, BeforeValidator(_as_text)]
    description: str = ""
    license: str = ""
    architecture: str
    encoder: str
    options: dict[str, JsonValue] = Field(default_factory=dict)
    bands: tuple[str, ...] = ("red", "green", "blue")
    dtype: Dtype = "uint8"
    gsd_m: GsdRange
    classes: tuple[ClassEntry, ...] = Field(min_length=2)
    patch_px: int = Field(default=512, ge=64, multiple_of=32)
    training_data: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    datasets: tuple[SceneEntry, ...] = ()
    demo: DemoEntry | None = None

    crop_px: int = Field(default=320, ge=32, multiple_of=32)
    batch: int = Field(default=8, ge=2)
    accumulate: int = Field(default=1, ge=1)
    steps: int = Field(ge=1)
    max_minutes: float | None = Field(default=None, gt=0)
    validate_every: int = Field(default=100, ge=1)
    patience: int | None = Field(default=None, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    warmup_steps: int = Field(default=100, ge=0)
    weight_decay: float = Field(default=0.01, ge=0)
    gradient_clip: float = Field(default=5.0, gt=0)
    ema_decay: float = Field(default=0.995, ge=0, lt=1)
    seed: int = Field(default=0, ge=0)
    precision: Literal["float32", "bfloat16"] = "float32"
    workers: int = Field(default=0, ge=0)
    threads: int | None = Field(default=None, ge=1)
    class_balance: Share = 0.5
    loss: LossSettings = LossSettings()
    augment: AugmentSettings = AugmentSettings()
    start: StartSettings = StartSettings()

    @model_validator(mode="after")
    def _holds_together(self) -> TrainConfig:
        try:
            legend = self.legend
        except SpecError as error:
            raise ValueError(f"classes: {error}") from error
        unknown = set(self.loss.class_weights) - set(legend.names)
        if unknown:
            raise ValueError(f"loss.class_weights names no class: {', '.join(sorted(unknown))}")
        for number, entry in enumerate(self.datasets):
            self._check_meanings(f"datasets.{number}", entry.meanings, legend)
            both = set(legend.ids) & set(entry.ignore)
            if both and not entry.map_class:
                raise ValueError(f"{entry.labels} ignores {sorted(both)}, which are classes")
        if self.demo is not None:
            meanings = {f"map_class.{name}": meaning for name, meaning in self.demo.meanings.items()}
            self._check_meanings("demo", meanings, legend)
        if self.demo is None and not any(entry.split == "train" for entry in self.datasets):
            raise ValueError("nothing to train from: give datasets of split train, or demo seeds")
        validated = (e.split == "validation" or e.validation_regions is not None for e in self.datasets)
        if self.patience is not None and not any(validated):
            raise ValueError(
                "patience counts validations, but nothing is for validation: give a dataset split: validation or "
                "validation_regions, or leave patience out"
            )
        return self

    def _check_meanings(self, where: str, meanings: Mapping[str, Meaning], legend: Legend) -> None:
        for what, meaning in meanings.items():
            try:
                several = len(possible_classes(meaning, legend)) > 1
            except ValueError as error:
                raise ValueError(f"{where}.{what}: {error}") from error
            if several and not self.loss.learns_from_sets:
                raise ValueError(
                    f"{where}.{what} is one of several classes, which only cross_entropy and reverse_cross_entropy "
                    "learn from: give one of them a weight in loss"
                )

    @property
    def legend(self) -> Legend:
        return Legend(tuple(LandClass(c.id, c.name, c.color, c.role) for c in self.classes))
