"""What a person sees who waits for a training: a bar of steps, and above it a line per validation."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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


class Worded(logging.Formatter):
    """Warnings say that they are."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        return prefix + super().format(record)


@contextmanager
def progress_told() -> Iterator[None]:
    """Show what geoseg.train logs, each line once, whatever others do with theirs."""
    logger, handler = logging.getLogger("geoseg.train"), AboveBar()
    handler.setFormatter(Worded())
    before = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]


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
