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

LATER_FIELDS = ("options", "onnx", "largest_difference")
"""Fields that came after the first cards: left out while they say nothing, so that digests and texts stay."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Band(_Strict):
    """One input channel. mean, std: of the raw values, in the scene's own units; they normalize the input."""

    name: str
    mean: float
    std: float = Field(gt=0)


class ClassEntry(_Strict):
    """One output channel, in this order."""

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
    classes: tuple[ClassEntry, ...] = Field(min_length=1)
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
        }  # fmt: skip
        return digest_of({k: v for k, v in self.to_dict().items() if k in deciding})
