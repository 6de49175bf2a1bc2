"""Checkpoints: the whole state of a run in one file of plain values, which appears in one step."""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geoseg.errors import SourceError, SpecError
from geoseg.io.files import publish_bytes, remove_folder
from geoseg.model import _torchvision  # noqa: F401  must come before lightning, whose metrics import torchvision
from geoseg.train.config import TrainConfig
from geoseg.train.done import DONE
from geoseg.train.stopping import Stop

import lightning  # isort: skip
from lightning.fabric.plugins.io import TorchCheckpointIO  # isort: skip
from lightning.pytorch.callbacks import Callback  # isort: skip

LOG = logging.getLogger(__name__)
FOLDER, LAST = "checkpoints", "last.ckpt"
LOGS = ("log", "tensorboard")
OURS = "geoseg"
"""Key of a checkpoint under which stands what Lightning does not keep."""
FREE = {"name", "version", "description", "license", "training_data", "notes", "workers", "threads"}
"""Settings that may change before a run goes on: they do not decide what is learned."""


class PlainCheckpoints(TorchCheckpointIO):  # type: ignore[misc]
    """How Lightning writes and reads checkpoints: in one step, and no code is run from them."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """OutputError where the disk refuses; what was there before stays."""
        stream = io.BytesIO()
        torch.save(checkpoint, stream)
        publish_bytes(Path(path), stream.getvalue())

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> Any:
        """The state, on the CPU."""
        return read_checkpoint(Path(path))


class SaveState(Callback):  # type: ignore[misc]
    """Write the checkpoint every so many steps and at the end, after a validation that is due then; tell its scores.

    Where a stop is wanted, write it after the step at hand, and raise KeyboardInterrupt. A step with a validation is
    over after that only: a run that went on from between them would never make up for it.
    """

    def __init__(self, path: Path, every: int, validates: bool, stop: Stop) -> None:
        self._path, self._every, self._validates, self._stop, self._saved = path, every, validates, stop, 0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._saved = trainer.global_step
        self._stop.listen()

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._save(trainer)
        LOG.info(getattr(pl_module, "validated", ""))
        self._end_if_wanted(trainer)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *_: Any
    ) -> None:
        if trainer.global_step != self._saved:  # else gradients accumulate, and nothing is lost
            due = trainer.global_step % self._every == 0 or trainer.should_stop
            if due and self._validates:
                return
            if due or self._stop.wanted:
                self._save(trainer)
        self._end_if_wanted(trainer)

    def _end_if_wanted(self, trainer: lightning.Trainer) -> None:
        if self._stop.wanted:
            if self._saved:
                LOG.info("step %d of %d is saved", self._saved, trainer.max_steps)
            raise KeyboardInterrupt

    def _save(self, trainer: lightning.Trainer) -> None:
        self._saved = trainer.global_step
        for logger in trainer.loggers:  # a run that goes on from here finds the log up to here
            logger.save()
        trainer.save_checkpoint(self._path)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """SourceError, in one line, for a file that is no checkpoint of geoseg's."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what the restricted unpickler raises for damaged files is of any class
        reason = " ".join(str(error).split())[:120]
        raise SourceError(f"cannot be read as a checkpoint ({reason}); --fresh starts anew", path) from error
    if not isinstance(state, dict) or OURS not in state:
        raise SourceError("is no checkpoint of this version of geoseg; --fresh starts anew", path)
    return state


def found_checkpoint(folder: Path, config: TrainConfig, fresh: bool) -> dict[str, Any] | None:
    """The state that a run goes on from; None where it begins.

    folder: of the run. fresh: begin, whatever is there. Raises SpecError where the checkpoint is of another
    training file.
    """
    path = folder / FOLDER / LAST
    if path.is_file() and not fresh:
        state = read_checkpoint(path)
        refuse_another(state[OURS]["settings"], settings_of(config), path)
        for left in path.parent.glob(".part-*"):  # a writer that was killed
            left.unlink(missing_ok=True)
        return state
    return None


def clear_away(folder: Path) -> None:
    """Remove the checkpoint and the logs of an earlier run, and what says that it is done."""
    (folder / DONE).unlink(missing_ok=True)
    for name in (FOLDER, *LOGS):
        remove_folder(folder / name)


def settings_of(config: TrainConfig) -> dict[str, Any]:
    """What decides the weights, as plain values; files by their names alone, since folders may have moved."""
    plain: dict[str, Any] = _plain(config.model_dump(exclude=FREE))
    return plain


def refuse_another(kept: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> None:
    """SpecError that names the keys of the training file that differ from the checkpoint's."""
    differing = sorted(key for key in set(kept) | set(now) if kept.get(key) != now.get(key))
    if differing:
        raise SpecError(
            f"is of another training: {', '.join(differing)} changed since. Change back to go on from it, "
            "give another folder with -o, or start anew with --fresh",
            path,
        )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.name if isinstance(value, Path) else value


class Best:
    """The weights that validated best so far. score: their mean IoU; step: when; weights: by name, on the CPU."""

    def __init__(self) -> None:
        self.score, self.step = -math.inf, 0
        self.weights: dict[str, Tensor] = {}

    def offer(self, score: float, step: int, network: torch.nn.Module) -> None:
        """Keep a copy of the weights where they did better."""
        if score > self.score:
            self.score, self.step = score, step
            self.weights = {k: v.detach().cpu().clone() for k, v in network.state_dict().items()}

    def state(self) -> dict[str, Any]:
        return {"score": self.score, "step": self.step, "weights": self.weights}

    def load(self, state: Mapping[str, Any]) -> None:
        self.score, self.step, self.weights = state["score"], state["step"], state["weights"]
