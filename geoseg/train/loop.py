"""The training loop: Lightning's, with our schedule, our time limit and our checkpoints."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from geoseg import __version__
from geoseg.errors import SpecError
from geoseg.model import _torchvision  # noqa: F401  must come before lightning, whose metrics import torchvision
from geoseg.train.checkpoints import FOLDER, LAST, OURS, Best, PlainCheckpoints, SaveState
from geoseg.train.config import TrainConfig
from geoseg.train.data import Example
from geoseg.train.scores import confusion_of, iou_of, mean_iou
from geoseg.train.steplog import BoardLog, StepLog
from geoseg.train.stopping import Stop
from geoseg.train.terminal import StepBar

import lightning  # isort: skip
from lightning.pytorch.callbacks import Callback, EarlyStopping, WeightAveraging  # isort: skip

LOG = logging.getLogger(__name__)
FLOOR = 0.01
"""Share of the learning rate that is left at the end."""
ENCODER = "network.body.encoder."
LOG_FILE = "log/metrics.csv"


def learning_rate_share(step: int, warmup_steps: int, progress: float) -> float:
    """Linear warm-up, then half a cosine (Loshchilov and Hutter 2017). progress: 0 to 1."""
    warm = min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
    return warm * (FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def moving_average(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """Exponential moving average whose decay rises to `decay`, so that the untrained start is forgotten.

    After n updates the decay is at most (1 + n) / (10 + n), as in TensorFlow's ExponentialMovingAverage.
    Without that, the running variances of batch normalization, 1 before training, spoil a thousand steps.
    What does not change keeps its exact value.
    """

    def average(averaged: Tensor, current: Tensor, updates: Tensor | int) -> Tensor:
        if not averaged.is_floating_point():
            return current
        return averaged.lerp(current, 1 - min(decay, (1 + int(updates)) / (10 + int(updates))))

    return average


class SegmentationTask(lightning.LightningModule):  # type: ignore[misc]
    """A network that learns: loss, optimizer, schedule and validation scores.

    known: plain values that go into each checkpoint, beside the seconds that the run has taken over all sittings.
    validated: what the last validation has found, in words.
    """

    def __init__(
        self, network: nn.Module, loss: nn.Module, config: TrainConfig, known: dict[str, Any]
    ) -> None:
        super().__init__()
        self.network, self.loss = network, loss
        self.best = Best()
        self.validated = ""
        self._config, self._known = config, known
        self._begun, self._before_s = time.monotonic(), 0.0
        self._confusion = torch.zeros(0)
        self._frozen = config.start.encoder_rate == 0
        if self._frozen:
            for name, parameter in self.named_parameters():
                if name.startswith(ENCODER):
                    parameter.requires_grad_(False)

    @property
    def seconds(self) -> float:
        """How long the run has taken, over all sittings."""
        return self._before_s + time.monotonic() - self._begun

    @property
    def progress(self) -> float:
        """How much of the run is over, in steps or in minutes, whichever is further."""
        by_steps: float = self.global_step / self._config.steps
        if self._config.max_minutes is None:
            return by_steps
        return max(by_steps, self.seconds / (60 * self._config.max_minutes))

    def on_train_start(self) -> None:
        """A frozen encoder stays in evaluation, with the statistics that it has."""
        self._begun = time.monotonic()
        self.train()
        if self._frozen:
            self.get_submodule(ENCODER[:-1]).eval()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """SpecError where nothing is left to go on from, so that the checkpoint before stays."""
        if not all(bool(parameter.isfinite().all()) for parameter in self.parameters()):
            raise SpecError(
                f"the training has diverged: its weights are no numbers after step {self.global_step}; lower "
                "learning_rate, and begin anew with --fresh"
            )
        checkpoint[OURS] = {
            **self._known,
            "seconds": self.seconds,
            "over": self.trainer.should_stop,
            "best": self.best.state(),
            "day": datetime.now(UTC).date().isoformat(),
            "software": f"geoseg {__version__}, torch {torch.__version__}",
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._before_s = checkpoint[OURS]["seconds"]
        self.best.load(checkpoint[OURS]["best"])

    def on_train_batch_start(self, _batch: Example, number: int) -> None:
        """What is random in a step depends on the seed and the step only, so that a run can go on anywhere."""
        seeds = np.random.SeedSequence([self._config.seed, number, 1])
        torch.manual_seed(int(seeds.generate_state(1, np.uint64)[0]))

    def training_step(self, batch: Example, _number: int) -> Tensor:
        pixels, targets = batch
        loss: Tensor = self.loss(self.network(pixels), targets)
        self.log("loss", loss)
        self.log("learning_rate", self.trainer.optimizers[0].param_groups[-1]["lr"])
        return loss

    def on_validation_epoch_start(self) -> None:
        channels = len(self._config.classes)
        self._confusion = torch.zeros(channels + 1, channels, dtype=torch.int64)

    def validation_step(self, batch: Example, _number: int) -> None:
        pixels, targets = batch
        chosen = self.network(pixels).argmax(1)
        self._confusion += confusion_of(chosen, targets, len(self._config.classes)).cpu()

    def offer_best(self) -> None:
        """Keep the weights that were just validated, where they did better than all before."""
        self.best.offer(mean_iou(self._confusion), self.global_step, self.network)

    def on_validation_epoch_end(self) -> None:
        miou, ious = mean_iou(self._confusion), iou_of(self._confusion)
        names = self._config.legend.names
        self.log("miou_validation", miou)
        self.log_dict({f"iou_{name}": float(iou) for name, iou in zip(names, ious, strict=True)})
        listed = listed_ious(names, ious)
        best = "best so far" if self.best.step == self.global_step else f"best {self.best.score:.3f}"
        self.validated = (
            f"step {self.global_step}, {100 * min(self.progress, 1):.0f} %, {self.seconds / 60:.1f} min: "
            f"validation mIoU {miou:.3f}, {best} ({listed})"
        )

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW; no decay of what is one number per channel. The last group learns at the full rate."""
        config, groups = self._config, []
        learning = [(n, p) for n, p in self.named_parameters() if p.requires_grad]
        for in_encoder, share in ((True, config.start.encoder_rate), (False, 1.0)):
            chosen = [p for name, p in learning if name.startswith(ENCODER) == in_encoder]
            for decays, decay in ((True, config.weight_decay), (False, 0.0)):
                parameters = [p for p in chosen if (p.ndim > 1) == decays]
                if parameters:
                    rate = config.learning_rate * share
                    groups.append({"params": parameters, "weight_decay": decay, "lr": rate})
        optimizer = torch.optim.AdamW(groups, lr=config.learning_rate)
        schedule = LambdaLR(
            optimizer, lambda step: learning_rate_share(step, config.warmup_steps, self.progress)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def listed_ious(names: Iterable[str], ious: Tensor) -> str:
    """IoU by class, in words; a class that no label has says so."""
    return ", ".join(
        f"{name} {iou:.3f}" if iou == iou else f"{name}: no labels"
        for name, iou in zip(names, ious.tolist(), strict=True)
    )


class Averaging(WeightAveraging):  # type: ignore[misc]
    """Averaged weights, which are validated and, where they do best, kept."""

    def on_validation_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """The averaged weights are offered before they make room for those in training."""
        if isinstance(pl_module, SegmentationTask):
            pl_module.offer_best()
        super().on_validation_epoch_end(trainer, pl_module)


class StopInTime(Callback):  # type: ignore[misc]
    """End the run in good order when its steps or its time are over; the last validation still runs."""

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *_: Any
    ) -> None:
        if isinstance(pl_module, SegmentationTask) and pl_module.progress >= 1:
            trainer.should_stop = True


def build_trainer(
    config: TrainConfig, folder: Path, validates: bool, progress_bar: bool, first_step: int, stop: Stop
) -> lightning.Trainer:
    """The trainer; all its files go under `folder`. first_step: 0, or where a checkpoint goes on."""
    validate_every = min(config.validate_every, config.steps)
    columns = ("loss", "learning_rate", "miou_validation", *(f"iou_{name}" for name in config.legend.names))
    stopping = (
        [
            EarlyStopping(
                "miou_validation", mode="max", patience=config.patience, check_on_train_epoch_end=False
            )
        ]
        if config.patience
        else []
    )
    return lightning.Trainer(
        accelerator="auto",
        devices=1,
        precision="bf16-mixed" if config.precision == "bfloat16" else "32-true",
        max_steps=config.steps,
        max_epochs=1,
        accumulate_grad_batches=config.accumulate,
        val_check_interval=validate_every * config.accumulate,
        gradient_clip_val=config.gradient_clip,
        callbacks=[
            Averaging(avg_fn=moving_average(config.ema_decay)),
            StopInTime(),
            *stopping,
            *([StepBar()] if progress_bar else []),
            SaveState(folder / FOLDER / LAST, validate_every, validates, stop),
        ],
        logger=[
            StepLog(folder / LOG_FILE, columns, first_step),
            BoardLog(folder, "tensorboard", version="", default_hp_metric=False, purge_step=first_step + 1),
        ],
        log_every_n_steps=max(1, min(20, config.steps // 50)),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        plugins=[PlainCheckpoints()],
    )


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """What Lightning says about itself and others' services is kept off the terminal; its warnings are not.

    Likewise what TensorBoard's thread says where it cannot write: the thread that trains is told, too.
    """
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    told = threading.excepthook
    threading.excepthook = lambda args: None if issubclass(args.exc_type, OSError) else told(args)
    try:
        yield
    finally:
        threading.excepthook = told
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
