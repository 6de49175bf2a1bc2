"""The error tree. Every error a user can cause is one of these, and reads as one line.

GeosegError
├── SpecError     a setting that cannot be: job file, option, patch, margin, disk or memory plan
├── GridError     windows and grids that do not fit each other
├── SourceError   a raster, mask, label or region file that cannot be used
├── ModelError    a bundle that is broken, altered, or does not fit the scene
├── BlockError    a block that could not be mapped or read back
└── OutputError   a result that could not be written

All survive pickling, because they cross process borders on a Ray cluster.
"""

from __future__ import annotations

from typing import Any


class GeosegError(Exception):
    """What went wrong, and with which file.

    path: the file concerned, by its path or URL, if one is; it leads the message. Keyword facts (window, numbers) are
    kept in `facts` for programs; the message names those that help a person.
    """

    def __init__(self, message: str, path: object = None, **facts: Any) -> None:
        super().__init__(message)
        self.path = str(path) if path is not None else None
        self.facts = facts

    def __str__(self) -> str:
        message = " ".join(str(self.args[0]).split())
        return f"{self.path}: {message}" if self.path else message

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args, self.__dict__


class SpecError(GeosegError):
    """A setting that cannot be."""


class GridError(GeosegError):
    """Windows or grids that do not fit each other."""


class SourceError(GeosegError):
    """An input file that cannot be used."""


class ModelError(GeosegError):
    """A model bundle that is broken, altered, or does not fit the scene."""


class BlockError(GeosegError):
    """A block that could not be mapped or read back."""


class OutputError(GeosegError):
    """A result that could not be written."""
