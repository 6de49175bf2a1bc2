"""Legend files, as people write them: YAML, JSON or CSV with a row per class."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictInt,
    StringConstraints,
    ValidationError,
)

from geoseg.errors import SpecError

LARGEST_FILE = 1 << 20
"""Bytes; 255 classes take a few kilobytes."""
EXAMPLE = "'- {id: 1, name: building, color: \"#c83c3c\", role: building}'"


def _whole(value: Any) -> Any:
    """CSV holds text only."""
    return int(value) if isinstance(value, str) and re.fullmatch(r"\s*-?\d{1,9}\s*", value) else value


def _from_hex(value: Any) -> Any:
    if value is None:
        raise ValueError("is empty; in YAML # begins a comment, so write it in quotes: '#c83c3c'")
    if isinstance(value, str):
        if not re.fullmatch(r"#[0-9a-fA-F]{6}", value.strip()):
            raise ValueError(f"{value[:40]!r} is not of the form #rrggbb or [red, green, blue]")
        return tuple(bytes.fromhex(value.strip()[1:]))
    return tuple(value) if isinstance(value, list) else value


def _in_quotes(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError(f"is no text but {type(value).__name__}; write it in quotes")
    return value


Part = Annotated[StrictInt, Field(ge=0, le=255)]


class LegendRow(BaseModel):
    """One class of a legend file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[StrictInt, BeforeValidator(_whole), Field(ge=0, le=254)]
    name: Annotated[
        str,
        StringConstraints(strip_whitespace=True, min_length=1, max_length=200),
        BeforeValidator(_in_quotes),
    ]
    color: Annotated[tuple[Part, Part, Part] | None, BeforeValidator(_from_hex)] = None
    role: Literal["building", "road"] | None = None

    @property
    def tells_role(self) -> bool:
        """Whether the file has this field, be it empty."""
        return "role" in self.model_fields_set


def read_legend_file(path: str) -> tuple[LegendRow, ...]:
    """The classes of a legend file, in rising order of id.

    A list of rows with the fields id, name and, optionally, color and role; in YAML and JSON it may lie under
    `classes`, as in a model card. Raises SpecError, which names the row and the field, for whatever does not hold.
    """
    readers = {".csv": _from_csv, ".json": _from_json, ".yaml": _from_yaml, ".yml": _from_yaml}
    reader = readers.get(Path(path).suffix.lower())
    if reader is None:
        raise SpecError("a legend is a file that ends in .yaml, .json or .csv", path)
    values = reader(_text(path), path)
    if isinstance(values, dict) and "classes" in values:
        values = values["classes"]
    if not isinstance(values, list) or not values:
        raise SpecError(f"a legend is a list of classes, such as {EXAMPLE}", path)
    rows = [_row(value, number, path) for number, value in enumerate(values, 1)]
    for what in ("id", "name"):
        _check_distinct([getattr(row, what) for row in rows], what, path)
    return tuple(sorted(rows, key=lambda row: row.id))


def _text(path: str) -> str:
    try:
        with Path(path).open("rb") as stream:
            content = stream.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise SpecError(f"is larger than {LARGEST_FILE >> 20} MB; a legend has up to 255 classes", path)
        return content.decode("utf-8-sig")
    except FileNotFoundError:
        raise SpecError("no such legend file", path) from None
    except OSError as error:
        raise SpecError(f"cannot be read ({error.strerror or error})", path) from error
    except UnicodeDecodeError as error:
        raise SpecError(f"is not UTF-8 text (byte {error.start}); save it as UTF-8", path) from error


def _from_yaml(text: str, path: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise SpecError(f"cannot be read as YAML ({error})", path) from error


def _from_json(text: str, path: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SpecError(f"cannot be read as JSON ({error})", path) from error


def _from_csv(text: str, path: str) -> Any:
    """A list of rows; cells of `color` that are empty are left out, as is all behind empty names of columns."""
    first = text.partition("\n")[0]
    try:
        rows = list(
            csv.DictReader(io.StringIO(text), delimiter=";" if ";" in first and "," not in first else ",")
        )
    except csv.Error as error:
        raise SpecError(f"cannot be read as CSV ({error})", path) from error
    found = []
    for row in rows:
        cells = {
            (key or "").strip().lower(): value for key, value in row.items() if key and value is not None
        }
        cells = {
            key: value for key, value in cells.items() if key and not (key == "color" and not value.strip())
        }
        if "role" in cells:
            cells["role"] = cells["role"].strip() or None
        found.append(cells)
    return found


def _row(value: Any, number: int, path: str) -> LegendRow:
    if not isinstance(value, dict):
        raise SpecError(f"row {number} is no class; write it as {EXAMPLE}", path, row=number)
    try:
        return LegendRow.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = f"row {number}, field {first['loc'][0]}"
        given = first["input"]
        told = f", got {given!r:.40}" if isinstance(given, str | int | float | bool) else ""
        message = first["msg"].removeprefix("Value error, ") + (
            "" if first["type"] == "value_error" else told
        )
        if first["type"] == "extra_forbidden":
            message = "no such field; there are id, name, color and role"
        elif first["type"] == "missing":
            message = "is missing"
        raise SpecError(f"{where}: {message}", path, row=number) from error


def _check_distinct(values: Sequence[Any], what: str, path: str) -> None:
    seen: dict[Any, int] = {}
    for number, value in enumerate(values, 1):
        if value in seen:
            raise SpecError(
                f"row {number}, field {what}: {value!r} is that of row {seen[value]}, too; each class has its own",
                path,
                row=number,
            )
        seen[value] = number
