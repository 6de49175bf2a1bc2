"""The training loop: Lightning's, with our schedule and our time limit."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from geoseg.model import _torchvision  # noqa: F401  must come before lightning, whose metrics import torchvision
from geoseg.train.config import TrainConfig
from geoseg.train.data import Example
from geoseg.train.scores import confusion_of, iou_of, mean_iou

import lightning  # isort: skip
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, ModelCheckpoint, WeightAveraging  # isort: skip
from lightning.pytorch.loggers import CSVLogger  # isort: skip

LOG = logging.getLogger(__name__)
FLOOR = 0.01
"""Share of the learning rate that is left at the end."""


def learning_rate_share(step: int, warmup_steps: int, progress: float) -> float:
    """Linear warm-up, then half a cosine (Loshchilov and Hutter 2017). progress: 0 to 1."""
    warm = min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
    return warm * (FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def moving_average(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """Exponential moving average whose decay rises to `decay`, so that the untrained start is forgotten.

    After n updates the decay is at most (1 + n) / (10 + n), as in TensorFlow's ExponentialMovingAverage.
    Without that, the running variances of batch normalization, 1 before training, spoil a thousand steps.
    """

    def average(averaged: Tensor, current: Tensor, updates: Tensor | int) -> Tensor:
        if not averaged.is_floating_point():
            return current
        weight = min(decay, (1 + int(updates)) / (10 + int(updates)))
        return averaged * weight + current * (1 - weight)

    return average


class SegmentationTask(lightning.LightningModule):  # type: ignore[misc]
    """A network that learns: loss, optimizer, schedule and validation scores."""

    def __init__(self, network: nn.Module, loss: nn.Module, config: TrainConfig) -> None:
        super().__init__()
        self.network, self.loss = network, loss
        self._config = config
        self._started = time.monotonic()
        self._confusion = torch.zeros(0)

    @property
    def progress(self) -> float:
        """How much of the run is over, in steps or in minutes, whichever is further."""
        by_steps: float = self.global_step / self._config.steps
        if self._config.max_minutes is None:
            return by_steps
        return max(by_steps, (time.monotonic() - self._started) / (60 * self._config.max_minutes))

    def on_train_start(self) -> None:
        self._started = time.monotonic()

    def training_step(self, batch: Example, _number: int) -> Tensor:
        pixels, targets = batch
        loss: Tensor = self.loss(self.network(pixels), targets)
        self.log("loss", loss, prog_bar=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        channels = len(self._config.classes)
        self._confusion = torch.zeros(channels, channels, dtype=torch.int64)

    def validation_step(self, batch: Example, _number: int) -> None:
        pixels, targets = batch
        chosen = self.network(pixels).argmax(1)
        self._confusion += confusion_of(chosen, targets, len(self._config.classes)).cpu()

    def on_validation_epoch_end(self) -> None:
        miou, ious = mean_iou(self._confusion), iou_of(self._confusion)
        names = self._config.legend.names
        self.log("miou_validation", miou, prog_bar=True)
        self.log_dict({f"iou_{name}": float(iou) for name, iou in zip(names, ious, strict=True)})
        listed = ", ".join(f"{name} {iou:.3f}" for name, iou in zip(names, ious, strict=True))
        LOG.info(
            "step %d, %.0f %%: validation mIoU %.3f (%s)", self.global_step, 100 * self.progress, miou, listed
        )

    def configure_optimizers(self) -> dict[str, Any]:
        decayed = [p for p in self.parameters() if p.ndim > 1]
        plain = [p for p in self.parameters() if p.ndim <= 1]
        groups = [
            {"params": decayed, "weight_decay": self._config.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self._config.learning_rate)
        warmup = self._config.warmup_steps
        schedule = LambdaLR(optimizer, lambda step: learning_rate_share(step, warmup, self.progress))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class StopInTime(Callback):  # type: ignore[misc]
    """End the run in good order when its time is over; the last validation still runs."""

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *_: Any
    ) -> None:
        if isinstance(pl_module, SegmentationTask) and pl_module.progress >= 1:
            trainer.should_stop = True


def build_trainer(
    config: TrainConfig, folder: Path, validates: bool, progress_bar: bool
) -> tuple[lightning.Trainer, ModelCheckpoint]:
    """The trainer, and the callback that knows its best checkpoint; all files go under `folder`."""
    monitor: dict[str, Any] = (
        {"monitor": "miou_validation", "mode": "max", "save_top_k": 2} if validates else {}
    )
    name = "{step}-{miou_validation:.3f}" if validates else "{step}"
    best = ModelCheckpoint(folder / "checkpoints", filename=name, save_last=True, **monitor)
    callbacks = [
        WeightAveraging(avg_fn=moving_average(config.ema_decay)),
        StopInTime(),
        best,
        LearningRateMonitor("step"),
    ]
    trainer = lightning.Trainer(
        accelerator="auto",
        devices=1,
        precision="bf16-mixed" if config.precision == "bfloat16" else "32-true",
        max_steps=config.steps,
        max_epochs=1,
        val_check_interval=min(config.validate_every, config.steps),
        gradient_clip_val=config.gradient_clip,
        callbacks=callbacks,
        logger=CSVLogger(folder, name="log", flush_logs_every_n_steps=20),
        log_every_n_steps=min(20, config.steps),
        enable_progress_bar=progress_bar,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
    )
    return trainer, best
