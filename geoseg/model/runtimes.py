"""Which runtime, precision and device map a scene, and how a worker builds its segmenter. Imports no runtime itself."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from geoseg.errors import ModelError, SpecError
from geoseg.model.bundle import Bundle
from geoseg.model.card import ModelCard
from geoseg.model.memory import check_memory
from geoseg.spec import InputSpec, Precision, Runtime, SegmentSpec
from geoseg.stages.segment import Segmenter, proof_patch, prove

MIN_EQUAL_LABELS = 0.995
"""Share of labels equal to float32 from which a bundle's lower precision is the default."""


@dataclass(frozen=True)
class RuntimeChoice:
    """What runs the network. version: of the runtime, since another may give other bits."""

    runtime: Runtime
    precision: Precision
    device: str
    version: str

    @classmethod
    def decide(cls, card: ModelCard, runtime: str = "auto", precision: str = "auto") -> RuntimeChoice:
        """Resolve "auto": a GPU takes torch, a CPU OpenVINO; bfloat16 where the hardware has it and the card shows
        at least 99.5 % equal labels, else float32. Raises SpecError for what this machine cannot do.

        An ONNX network runs in OpenVINO alone.
        """
        if card.is_onnx:
            if runtime == "torch":
                raise SpecError(
                    "the model is an ONNX network, which torch does not run; take --runtime openvino"
                )
            runtime = "openvino"
        cuda = runtime != "openvino" and cuda_devices() > 0
        if runtime == "auto":
            runtime = "torch" if cuda else "openvino"
        device = "cuda" if cuda else "cpu"
        native = _native_bfloat16(runtime, device)
        if precision == "auto":
            equal = card.equal_labels.get(f"{runtime}-bfloat16", 0.0)
            precision = "bfloat16" if native and equal >= MIN_EQUAL_LABELS else "float32"
        if precision == "bfloat16" and not native:
            raise SpecError("this machine does not compute in bfloat16 itself; take --precision float32")
        known: dict[str, Runtime] = {"openvino": "openvino", "torch": "torch"}
        kinds: dict[str, Precision] = {"float32": "float32", "bfloat16": "bfloat16"}
        return cls(known[runtime], kinds[precision], device, version(runtime).split("+")[0])

    def to_dict(self) -> dict[str, str]:
        """What decides bytes, for the ledger."""
        return {
            "runtime": f"{self.runtime} {self.version}",
            "precision": self.precision,
            "device": self.device,
        }


@dataclass(frozen=True)
class SegmenterRecipe:
    """How any worker, here or on a cluster, builds the same segmenter. digest: of the model that it must find."""

    bundle: Path
    digest: str
    inputs: InputSpec
    spec: SegmentSpec
    choice: RuntimeChoice

    @classmethod
    def of(cls, bundle: Bundle, spec: SegmentSpec, choice: RuntimeChoice) -> SegmenterRecipe:
        return cls(bundle.source, bundle.card.digest, bundle.card.input_spec, spec, choice)

    def build(self, lanes: int, threads: int) -> Segmenter:
        """lanes: patches (or batches) mapped at once. threads: cores for all lanes together.

        Raises ModelError where the bundle found here is another.
        """
        bundle = Bundle.open(self.bundle)
        if bundle.card.digest != self.digest:
            raise ModelError("this worker finds another model than the run began with", self.bundle)
        check_memory(bundle)
        if self.choice.runtime == "openvino":
            from geoseg.model.openvino_segmenter import OpenVinoSegmenter

            return OpenVinoSegmenter(bundle, self.spec, self.choice.precision, lanes, threads)
        from geoseg.model.torch_segmenter import TorchSegmenter

        return TorchSegmenter(bundle, self.spec, self.choice.precision, self.choice.device)

    def prove(self, segmenter: Segmenter) -> str:
        """Digest of the answer to one fixed patch: machines that disagree on it must not share a map."""
        return prove(segmenter, proof_patch(self.inputs, self.spec.patch_px), self.spec.labels_only)


def cuda_devices() -> int:
    """How many CUDA devices there are; torch is asked only where a driver is there, since its import takes seconds."""
    if not Path("/dev/nvidiactl").exists() and "CUDA_VISIBLE_DEVICES" not in os.environ:
        return 0
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _native_bfloat16(runtime: str, device: str) -> bool:
    if runtime == "openvino":
        from geoseg.model.openvino_segmenter import native_bfloat16

        return native_bfloat16()
    import torch

    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
