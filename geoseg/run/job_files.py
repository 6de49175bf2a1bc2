"""Job files: fields and values in YAML, read and checked, with one line for what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from geoseg.errors import SpecError
from geoseg.io.places import is_remote
from geoseg.model.bundle import bundle_at

M = TypeVar("M", bound=BaseModel)


def read_fields(path: Path, example: str) -> dict[str, Any]:
    """The fields of a YAML file. example: one of them, for who gives something else. Raises SpecError in one line."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SpecError("no such job file", path) from None
    except (OSError, UnicodeDecodeError, RecursionError, yaml.YAMLError) as error:
        raise SpecError(f"cannot be read as YAML ({error})", path) from error
    if not isinstance(values, dict):
        raise SpecError(f"a job file holds fields and values, such as '{example}'", path)
    return values


def bundle_beside(folder: Path, name: str) -> str:
    """A model bundle that a job file in this folder names: a path from there, or one that comes with geoseg."""
    return name if is_remote(name) else str(bundle_at(name, folder))


def checked(
    model: type[M],
    values: Mapping[str, Any],
    source: str | Path | None,
    missing: Mapping[str, str] | None = None,
) -> M:
    """The fields as a model. missing: what to say of a field that must be there, if not just that it is missing.

    Raises SpecError, in one line that names the first field that does not hold.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            message = "no such field"
        elif first["type"] == "missing":
            message = (missing or {}).get(where, "is missing")
        raise SpecError(f"{where}: {message}" if where else message, source) from error
