"""The model card, `model.json`: what a network expects, what it answers, and where it comes from."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from geoseg.legend import LandClass, Legend
from geoseg.spec import InputSpec, digest_of

WEIGHTS = "model.safetensors"
IR_XML, IR_BIN = "openvino.xml", "openvino.bin"

Dtype = Literal["uint8", "uint16", "int16", "float32"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


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


class ModelCard(_Strict):
    """Everything about a bundle but its weights."""

    format: Literal[1] = 1
    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    version: str
    description: str = ""
    license: str = ""
    architecture: str
    encoder: str
    bands: tuple[Band, ...] = Field(min_length=1)
    dtype: Dtype
    gsd_m: GsdRange
    classes: tuple[ClassEntry, ...] = Field(min_length=1)
    patch_px: int = Field(default=512, ge=32)
    temperature: float = Field(default=1.0, gt=0)
    files: dict[Literal["model.safetensors", "openvino.xml", "openvino.bin"], Sha256]
    equal_labels: dict[str, float] = Field(
        default_factory=dict,
        description="share of labels equal to torch float32 on real patches, by 'runtime-precision'",
    )
    training_data: list[str] = Field(default_factory=list)
    scores: dict[str, float] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)

    @field_validator("files")
    @classmethod
    def _has_weights(cls, files: dict[str, str]) -> dict[str, str]:
        if WEIGHTS not in files:
            raise ValueError(f"files names no {WEIGHTS}")
        if (IR_XML in files) != (IR_BIN in files):
            raise ValueError(f"files must name {IR_XML} and {IR_BIN} together")
        return files

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
    def legend(self) -> Legend:
        return Legend(tuple(LandClass(c.id, c.name, c.color, c.role) for c in self.classes))

    @property
    def input_spec(self) -> InputSpec:
        """What stands in for missing pixels is the mean, rounded where the dtype holds whole numbers."""
        whole = self.dtype != "float32"
        fill = tuple(round(band.mean) if whole else band.mean for band in self.bands)
        names = tuple(band.name for band in self.bands)
        return InputSpec(names, self.dtype, fill, (self.gsd_m.min, self.gsd_m.max))

    @property
    def digest(self) -> str:
        """Of all that decides a map's bytes; a changed description is the same model."""
        deciding = {"architecture", "encoder", "bands", "dtype", "classes", "temperature", "files"}
        return digest_of(self.model_dump(mode="json", include=deciding))
