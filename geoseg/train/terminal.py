"""What a person sees who waits for a training: a bar of steps, and above it a line per validation."""

from __future__ import annotations

import logging
import sys
from typing import Any

from tqdm import tqdm

from geoseg.model import _torchvision  # noqa: F401  must come before lightning, whose metrics import torchvision

import lightning  # isort: skip
from lightning.pytorch.callbacks import Callback  # isort: skip


class AboveBar(logging.Handler):
    """Lines on standard error that do not break the bar."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        tqdm.write(self.format(record), file=sys.stderr)


def tell_progress() -> None:
    """Show what geoseg.train logs; once is enough."""
    logger = logging.getLogger("geoseg.train")
    logger.setLevel(logging.INFO)
    if not any(isinstance(handler, AboveBar) for handler in logger.handlers):
        logger.addHandler(AboveBar())


class StepBar(Callback):  # type: ignore[misc]
    """Steps of all, how long the rest will take, and the last loss."""

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._bar = tqdm(
            total=trainer.max_steps,
            initial=trainer.global_step,
            unit="step",
            file=sys.stderr,
            dynamic_ncols=True,
        )

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, *_: Any
    ) -> None:
        done = trainer.global_step - self._bar.n
        if done:
            self._bar.set_postfix_str(f"loss {float(outputs['loss']):.3f}", refresh=False)
            self._bar.update(done)

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Also where a run is stopped."""
        if hasattr(self, "_bar"):
            self._bar.close()
