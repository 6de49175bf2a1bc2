"""The log of a run for people: one CSV file, one row for each time that something was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from geoseg.io.files import make_folder
from geoseg.model import _torchvision  # noqa: F401  must come before lightning, whose metrics import torchvision

from lightning.pytorch.loggers import Logger, TensorBoardLogger  # isort: skip


class StepLog(Logger):  # type: ignore[misc]
    """Rows with the number of steps done. They are appended; those after step `first` of an earlier sitting go.

    columns: beside the step; what else is logged is left out.
    """

    def __init__(self, path: Path, columns: Sequence[str], first: int) -> None:
        super().__init__()
        self._path, self._columns = path, ("step", *columns)
        header = ",".join(self._columns) + "\n"
        make_folder(path.parent)
        with path.open("a+b") as stream:
            stream.seek(0)
            kept = 0
            for number, line in enumerate(stream):
                if line != header.encode() if number == 0 else not _is_up_to(line, first):
                    break
                kept += len(line)
            stream.truncate(kept)
            if not kept:
                stream.write(header.encode())

    @property
    def name(self) -> str:
        """Of no use here."""
        return ""

    @property
    def version(self) -> str:
        """Of no use here."""
        return ""

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """They are in the training file."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append a row. step: counted from 0, as Lightning counts."""
        told = {name: float(metrics[name]) for name in self._columns if name in metrics}
        if not told or step is None:
            return
        cells = [
            f"{told[name]:.9g}" if math.isfinite(told.get(name, math.nan)) else ""
            for name in self._columns[1:]
        ]
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(",".join([str(step + 1), *cells]) + "\n")


class BoardLog(TensorBoardLogger):  # type: ignore[misc]
    """TensorBoard's log, with the number of steps done."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """step: counted from 0, as Lightning counts."""
        super().log_metrics(metrics, None if step is None else step + 1)


def _is_up_to(line: bytes, step: int) -> bool:
    """Whether a whole row is of a step up to this one."""
    found = line.partition(b",")[0]
    return line.endswith(b"\n") and found.isdigit() and int(found) <= step
