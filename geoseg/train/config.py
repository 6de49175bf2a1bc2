"""The training file: what is learned, from which pixels, and how. Unknown keys are errors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from geoseg.errors import SpecError
from geoseg.legend import LandClass, Legend
from geoseg.model.card import ClassEntry, Dtype, GsdRange

Split = Literal["train", "validation", "test"]
LabelValue = Annotated[int, Field(ge=0, le=255)]
Share = Annotated[float, Field(ge=0, le=1)]

_PLACEHOLDER = re.compile(r"\$\{(\w+)\}")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RegionChoice(_Strict):
    """Polygons of a vector file, by the names in a field."""

    file: Path
    field: str = "region"
    names: tuple[str, ...] = Field(min_length=1)


class SceneEntry(_Strict):
    """A scene and its label raster.

    ignore: label values that teach nothing. group: scenes of one group share ground, whatever their
    georeferencing says, and must lie in one split. weight: how often it is drawn from, per labelled pixel.
    """

    scene: Path
    labels: Path
    ignore: tuple[LabelValue, ...] = ()
    split: Split = "train"
    group: str | None = None
    weight: float = Field(default=1.0, gt=0)
    validation_regions: RegionChoice | None = None

    @model_validator(mode="after")
    def _regions_belong_to_training(self) -> SceneEntry:
        if self.validation_regions is not None and self.split != "train":
            raise ValueError(f"validation_regions make no sense in a scene of split {self.split!r}")
        return self


class DemoEntry(_Strict):
    """Synthetic scenes of geoseg.demo, rendered before training. share: of the sampled patches."""

    seeds: tuple[int, ...] = Field(min_length=1)
    size: int = Field(default=1536, ge=64)
    share: Share = 0.2


class AugmentSettings(_Strict):
    """Chances of each kind of change, and the range of zoom (above 1 enlarges what is on the ground)."""

    zoom: tuple[float, float] = (0.6, 1.6)
    color: Share = 0.8
    haze: Share = 0.25
    blur: Share = 0.15
    jpeg: Share = 0.2
    noise: Share = 0.25
    cutout: Share = 0.1

    @model_validator(mode="after")
    def _zoom_rises(self) -> AugmentSettings:
        if not 0 < self.zoom[0] <= self.zoom[1]:
            raise ValueError(f"zoom must rise and lie above 0, got {self.zoom[0]} to {self.zoom[1]}")
        return self


class LossSettings(_Strict):
    """Weighted sum of cross entropy and Dice.

    class_weights: of the cross entropy, by class name; 1 where not given.
    """

    cross_entropy: float = Field(default=1.0, ge=0)
    dice: float = Field(default=1.0, ge=0)
    label_smoothing: float = Field(default=0.05, ge=0, lt=1)
    class_weights: dict[str, float] = Field(default_factory=dict)


class TrainConfig(_Strict):
    """A training run.

    steps: optimizer steps. max_minutes: wall-clock limit; the learning rate follows whichever of the two is
    nearer its end, so that a run that is cut short still ends annealed; only a run without this limit repeats
    bit by bit. crop_px: side of a training patch; patch_px: of the patches that a scene is mapped with.
    class_balance: 0 draws classes as often as they occur, 1 all equally often.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    version: str
    description: str = ""
    license: str = ""
    architecture: str
    encoder: str
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
    steps: int = Field(ge=1)
    max_minutes: float | None = Field(default=None, gt=0)
    validate_every: int = Field(default=100, ge=1)
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

    @model_validator(mode="after")
    def _holds_together(self) -> TrainConfig:
        try:
            legend = self.legend
        except SpecError as error:
            raise ValueError(f"classes: {error}") from error
        unknown = set(self.loss.class_weights) - set(legend.names)
        if unknown:
            raise ValueError(f"loss.class_weights names no class: {', '.join(sorted(unknown))}")
        known = set(legend.ids)
        for entry in self.datasets:
            both = known & set(entry.ignore)
            if both:
                raise ValueError(f"{entry.labels} ignores {sorted(both)}, which are classes")
        if self.demo is None and not any(entry.split == "train" for entry in self.datasets):
            raise ValueError("nothing to train from: give datasets of split train, or demo seeds")
        return self

    @property
    def legend(self) -> Legend:
        return Legend(tuple(LandClass(c.id, c.name, c.color, c.role) for c in self.classes))


def load_config(path: Path, environment: Mapping[str, str]) -> TrainConfig:
    """Read a training file. Relative paths start at its folder; ${NAME} stands for an environment variable.

    Raises SpecError, in one line, with the place of each fault in the file.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"cannot be read ({error})", path) from error
    except yaml.YAMLError as error:
        raise SpecError(f"is not YAML ({error})", path) from error
    if not isinstance(raw, dict):
        raise SpecError("a training file holds keys and values", path)
    try:
        config = TrainConfig.model_validate(_expand(raw, environment, path))
    except ValidationError as error:
        raise SpecError(_in_one_line(error), path) from error
    datasets = tuple(_from_folder(entry, path.parent) for entry in config.datasets)
    return config.model_copy(update={"datasets": datasets})


def _expand(value: Any, environment: Mapping[str, str], path: Path) -> Any:
    if isinstance(value, dict):
        return {key: _expand(item, environment, path) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, environment, path) for item in value]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        if match[1] not in environment:
            raise SpecError(f"uses ${{{match[1]}}}, but the environment variable {match[1]} is not set", path)
        return environment[match[1]]

    return _PLACEHOLDER.sub(replace, value)


def _in_one_line(error: ValidationError) -> str:
    faults = error.errors(include_url=False)
    lines = [
        f"{'.'.join(map(str, f['loc'])) or 'file'}: {f['msg'].removeprefix('Value error, ')}"
        for f in faults[:4]
    ]
    rest = len(faults) - len(lines)
    return "; ".join(lines) + (f"; and {rest} more" if rest else "")


def _from_folder(entry: SceneEntry, folder: Path) -> SceneEntry:
    changes: dict[str, Any] = {"scene": folder / entry.scene, "labels": folder / entry.labels}
    if entry.validation_regions is not None:
        regions = entry.validation_regions
        changes["validation_regions"] = regions.model_copy(update={"file": folder / regions.file})
    return entry.model_copy(update=changes)
