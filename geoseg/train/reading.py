"""Reading training files. No torch is imported, so that a fault in a file is told at once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from geoseg.errors import SpecError
from geoseg.model.bundle import bundle_at
from geoseg.model.card import ClassEntry, GsdRange
from geoseg.train.config import SceneEntry, Strict, TrainConfig

_PLACEHOLDER = re.compile(r"\$\{(\w+)\}")


def load_config(path: Path, environment: Mapping[str, str]) -> TrainConfig:
    """Read a training file. Relative paths start at its folder; ${NAME} stands for an environment variable.

    Raises SpecError, in one line, with the place of each fault in the file.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"cannot be read ({error})", path) from error
    except yaml.YAMLError as error:
        raise SpecError(f"is not YAML ({error})", path) from error
    if not isinstance(raw, dict):
        raise SpecError("a training file holds keys and values", path)
    try:
        config = TrainConfig.model_validate(_expand(raw, environment, path))
    except ValidationError as error:
        raise SpecError(_in_one_line(error), path) from error
    except RecursionError:
        raise SpecError("is nested too deeply, or an anchor in it holds itself", path) from None
    datasets = tuple(_from_folder(entry, path.parent) for entry in config.datasets)
    bundle, encoder = config.start.bundle, config.start.encoder
    places = {
        "bundle": bundle_at(bundle, path.parent) if bundle else None,
        "encoder": path.parent / encoder if encoder else None,
    }
    start = config.start.model_copy(update=places)
    return config.model_copy(update={"datasets": datasets, "start": start})


def _expand(value: Any, environment: Mapping[str, str], path: Path) -> Any:
    if isinstance(value, dict):
        return {key: _expand(item, environment, path) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, environment, path) for item in value]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        if match[1] not in environment:
            raise SpecError(f"uses ${{{match[1]}}}, but the environment variable {match[1]} is not set", path)
        return environment[match[1]]

    return _PLACEHOLDER.sub(replace, value)


def _in_one_line(error: ValidationError) -> str:
    faults = error.errors(include_url=False)
    lines = [": ".join(filter(None, (".".join(map(str, f["loc"])), _said(f)))) for f in faults[:4]]
    rest = len(faults) - len(lines)
    return "; ".join(lines) + (f"; and {rest} more" if rest else "")


def _said(fault: Mapping[str, Any]) -> str:
    """pydantic's words where they speak of training files, else ours."""
    if fault["type"] == "extra_forbidden":
        kinds: list[type[BaseModel]] = [*Strict.__subclasses__(), ClassEntry, GsdRange]
        known = {name for kind in kinds for name in kind.model_fields}
        near = get_close_matches(str(fault["loc"][-1]), sorted(known), 1)
        return "there is no such key" + (f"; is it {near[0]}?" if near else "")
    message: str = fault["msg"]
    return message.removeprefix("Value error, ").replace("valid tuple", "list")


def _from_folder(entry: SceneEntry, folder: Path) -> SceneEntry:
    changes: dict[str, Any] = {"scene": folder / entry.scene, "labels": folder / entry.labels}
    if entry.validation_regions is not None:
        regions = entry.validation_regions
        changes["validation_regions"] = regions.model_copy(update={"file": folder / regions.file})
    return entry.model_copy(update=changes)
