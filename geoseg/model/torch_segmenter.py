"""torch: the reference on a CPU, and the runtime for GPUs."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geoseg.errors import ModelError
from geoseg.model.bundle import Bundle
from geoseg.model.network import load_network
from geoseg.spec import Precision, SegmentSpec

CUDA_BATCH = 16


class TorchSegmenter:
    """A network of torch, for patches of one size.

    On a CPU, one thread per network: bits of float32 change with the number of threads. On CUDA each calling thread
    has a stream and pinned buffers of its own, so that the copies of one lane run beside the kernels of another;
    shapes are fixed and kernels are not picked by trial, so that a rerun gives the same map.
    """

    def __init__(self, bundle: Bundle, spec: SegmentSpec, precision: Precision, device: str) -> None:
        if device == "cpu":
            torch.set_num_threads(1)
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        self.batch = CUDA_BATCH if device == "cuda" else 1
        self._device = torch.device(device)
        self._spec = spec
        self._autocast = precision == "bfloat16"
        self._ids = torch.tensor(bundle.card.legend.ids, dtype=torch.uint8, device=self._device)
        self._lane = threading.local()
        try:
            network: Any = load_network(bundle).to(self._device)
            self._network = network.to(memory_format=torch.channels_last)
            if device == "cuda":
                torch.cuda.synchronize()  # the streams of lanes do not wait for this one
        except torch.OutOfMemoryError as error:
            raise ModelError("does not fit into the memory of the GPU", bundle.folder) from error

    def classify(self, patches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n, band, row, col) -> class ids and percent of each patch's center, both (n, row, col) uint8."""
        ids, percent = self._run(patches, self._choose)
        return ids, percent

    def probabilities(self, patches: np.ndarray) -> np.ndarray:
        """(n, band, row, col) -> (n, class, row, col) float32."""
        (scores,) = self._run(patches, lambda logits: (logits.softmax(1),))
        return scores

    def _choose(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Equal logits go to the first channel, which argmax does not promise on a GPU."""
        margin = self._spec.margin_px
        side = self._spec.stride_px
        logits = logits[:, :, margin : margin + side, margin : margin + side]
        best = logits.amax(1, keepdim=True)
        channels = torch.arange(logits.shape[1], device=logits.device).reshape(1, -1, 1, 1)
        first = torch.where(logits == best, channels, logits.shape[1]).amin(1).clamp_(max=logits.shape[1] - 1)
        share = 1.0 / (logits - best).exp().sum(1)
        return self._ids[first], torch.floor(share * 100 + 0.5).to(torch.uint8)

    @torch.inference_mode()
    def _run(self, patches: np.ndarray, finish: Any) -> tuple[np.ndarray, ...]:
        cuda = self._device.type == "cuda"
        with torch.cuda.stream(self._stream()) if cuda else nullcontext():
            pixels = self._to_device(patches).contiguous(memory_format=torch.channels_last)
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self._autocast):
                logits = self._network(pixels)
            outputs = finish(logits.float())
            if not cuda:
                return tuple(output.numpy() for output in outputs)
            held = [
                torch.empty(o.shape, dtype=o.dtype, pin_memory=True).copy_(o, non_blocking=True)
                for o in outputs
            ]
            torch.cuda.current_stream().synchronize()
            return tuple(output.numpy() for output in held)

    def _to_device(self, patches: np.ndarray) -> Tensor:
        values = patches.astype(np.int32) if patches.dtype == np.uint16 else patches
        if self._device.type == "cpu":
            return torch.from_numpy(np.ascontiguousarray(values))
        source = torch.from_numpy(np.ascontiguousarray(values))
        pinned: Tensor | None = getattr(self._lane, "pinned", None)
        if pinned is None or pinned.shape != source.shape:
            pinned = self._lane.pinned = torch.empty_like(source, pin_memory=True)
        pinned.copy_(source)
        return pinned.to(self._device, non_blocking=True)

    def _stream(self) -> torch.cuda.Stream:
        stream: torch.cuda.Stream | None = getattr(self._lane, "stream", None)
        if stream is None:
            make: Any = torch.cuda.Stream  # untyped in torch
            stream = self._lane.stream = make(self._device)
        return stream
