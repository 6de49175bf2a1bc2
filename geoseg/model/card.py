"""The model card, `model.json`: what a network expects, what it answers, and where it comes from."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

from geoseg.legend import LandClass, Legend
from geoseg.spec import InputSpec, digest_of

WEIGHTS, ONNX = "model.safetensors", "model.onnx"
IR_XML, IR_BIN = "openvino.xml", "openvino.bin"
FILES = (WEIGHTS, ONNX, IR_XML, IR_BIN)

Dtype = Literal["uint8", "uint16", "int16", "float32"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

ONE_OUTPUT = "the network has one output: say in positive_class which of the two classes it stands for"

PICTURE = frozenset({"red", "green", "blue", "nir", "r", "g", "b"})
"""Names of bands that never hold zeros and ones alone."""

LATER_FIELDS = ("options", "onnx", "largest_difference", "positive_class")
"""Fields that came after the first cards: left out while they say nothing, so that digests and texts stay."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Band(_Strict):
    """One input channel. mean, std: of the raw values, in the scene's own units; they normalize the input."""

    name: str
    mean: float
    std: float = Field(gt=0)


class ClassEntry(_Strict):
    """One output channel, in this order; but see ModelCard.positive_class."""

    id: int = Field(ge=0, le=254)
    name: str
    color: tuple[int, int, int]
    role: Literal["building", "road"] | None = None


class GsdRange(_Strict):
    """Ground sample distances, in metres, that the network was trained for."""

    min: float = Field(gt=0)
    max: float = Field(gt=0)

    @model_validator(mode="after")
    def _rises(self) -> GsdRange:
        if self.min > self.max:
            raise ValueError(f"gsd_m.min ({self.min}) is above gsd_m.max ({self.max})")
        return self


class OnnxEntry(_Strict):
    """How an ONNX file is met.

    input: "normalized" if it takes (value - mean) / std of the card's bands, "raw" if it takes a scene's values.
    output: what it answers, per class.
    """

    input: Literal["normalized", "raw"] = "normalized"
    output: Literal["logits", "probabilities"] = "logits"


class ModelCard(_Strict):
    """Everything about a bundle but its weights."""

    format: Literal[1] = 1
    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    version: str
    description: str = ""
    license: str = ""
    architecture: str
    encoder: str = ""
    options: dict[str, JsonValue] = Field(
        default_factory=dict, description="arguments of the architecture that differ from its defaults"
    )
    bands: tuple[Band, ...] = Field(min_length=1)
    dtype: Dtype
    gsd_m: GsdRange
    classes: tuple[ClassEntry, ...]
    positive_class: str | None = Field(
        default=None,
        description="the class whose probability is the sigmoid of a network's only output; the other has the rest",
    )
    patch_px: int = Field(default=512, ge=32)
    temperature: float = Field(default=1.0, gt=0)
    files: dict[Literal["model.safetensors", "model.onnx", "openvino.xml", "openvino.bin"], Sha256]
    onnx: OnnxEntry | None = None
    equal_labels: dict[str, float] = Field(
        default_factory=dict,
        description="share of labels equal to torch float32 on real patches, by 'runtime-precision'",
    )
    largest_difference: dict[str, float] = Field(
        default_factory=dict, description="largest difference of a probability on the same patches"
    )
    training_data: list[str] = Field(default_factory=list)
    scores: dict[str, float] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)

    @field_validator("version", mode="before")
    @classmethod
    def _as_text(cls, version: Any) -> Any:
        """YAML reads 1 and 1.0 as numbers."""
        return str(version) if type(version) in (int, float) else version

    @field_validator("classes")
    @classmethod
    def _are_several(cls, classes: tuple[ClassEntry, ...]) -> tuple[ClassEntry, ...]:
        if len(classes) < 2:
            raise ValueError(
                "a map of one class says nothing: name all else as a class, too, and where the network has one "
                "output, in positive_class the class that it stands for"
            )
        return classes

    @field_validator("files")
    @classmethod
    def _has_weights(cls, files: dict[str, str]) -> dict[str, str]:
        if (WEIGHTS in files) == (ONNX in files):
            found = "both" if WEIGHTS in files else "no"
            raise ValueError(f"files names {found} {WEIGHTS} and {found} {ONNX}; one of them is the network")
        if (IR_XML in files) != (IR_BIN in files):
            raise ValueError(f"files must name {IR_XML} and {IR_BIN} together")
        return files

    @model_validator(mode="after")
    def _onnx_is_met(self) -> ModelCard:
        if (self.onnx is not None) != self.is_onnx:
            raise ValueError(f"onnx (input, output) is told for a bundle with {ONNX}, and only there")
        return self

    @model_validator(mode="after")
    def _legend_holds(self) -> ModelCard:
        try:
            _ = self.legend
        except Exception as error:
            raise ValueError(str(error)) from error
        return self

    @model_validator(mode="after")
    def _one_output_is_one_of_two(self) -> ModelCard:
        names = [entry.name for entry in self.classes]
        if self.positive_class is not None and (len(names) != 2 or self.positive_class not in names):
            raise ValueError(
                f"positive_class ({self.positive_class!r}) must be one of two classes; named are {', '.join(names)}"
            )
        return self

    @model_validator(mode="after")
    def _statistics_are_of_raw_values(self) -> ModelCard:
        """Those of values scaled to 0..1 would turn whole numbers into noise; a std of 1 leaves values as they are.

        A band of zeros and ones beside others is none of the picture.
        """
        if self.dtype == "float32":
            return self
        scaled = [band.name for band in self.bands if 0 <= band.mean <= 1 and band.std < 1]
        if len(scaled) == len(self.bands) or PICTURE.intersection(name.lower() for name in scaled):
            values, factor = (
                ("0..255", "255") if self.dtype == "uint8" else (self.dtype, "what was scaled to 1")
            )
            raise ValueError(
                f"bands: means of values {values} are needed; these are of 0..1: times {factor}? "
                f"({', '.join(scaled)}; the same for std)"
            )
        return self

    @model_validator(mode="after")
    def _means_fit_the_dtype(self) -> ModelCard:
        for band, fill in zip(self.bands, self.input_spec.fill, strict=True):
            if self.dtype != "float32" and not np.iinfo(self.dtype).min <= fill <= np.iinfo(self.dtype).max:
                raise ValueError(f"band {band.name!r}: a mean of {band.mean} is no value of {self.dtype}")
        return self

    @property
    def is_onnx(self) -> bool:
        """The network is an ONNX file, which OpenVINO runs and torch does not."""
        return ONNX in self.files

    @property
    def positive_channel(self) -> int | None:
        """Place of the class that a network's only output stands for; None where each class has an output."""
        return None if self.positive_class is None else self.legend.names.index(self.positive_class)

    @property
    def outputs(self) -> int:
        """Channels that the network itself answers."""
        return len(self.classes) if self.positive_class is None else 1

    @property
    def legend(self) -> Legend:
        return Legend(tuple(LandClass(c.id, c.name, c.color, c.role) for c in self.classes))

    @property
    def input_spec(self) -> InputSpec:
        """What stands in for missing pixels is the mean, rounded where the dtype holds whole numbers."""
        whole = self.dtype != "float32"
        fill = tuple(round(band.mean) if whole else band.mean for band in self.bands)
        names = tuple(band.name for band in self.bands)
        return InputSpec(names, self.dtype, fill, (self.gsd_m.min, self.gsd_m.max))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        plain = self.model_dump(mode="json")
        return {k: v for k, v in plain.items() if v or k not in LATER_FIELDS}

    def to_json(self) -> str:
        """The text of a card's file."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"

    @property
    def digest(self) -> str:
        """Of all that decides a map's bytes; a changed description is the same model."""
        deciding = {
            "architecture", "encoder", "options", "bands", "dtype", "classes", "temperature", "files", "onnx",
            "positive_class",
        }  # fmt: skip
        return digest_of({k: v for k, v in self.to_dict().items() if k in deciding})
