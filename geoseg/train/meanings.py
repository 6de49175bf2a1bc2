"""What a label may mean: a class of the run, one of several, or nothing."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from geoseg.legend import Legend


def _checked(value: Any) -> Any:
    """One line instead of one for each kind that it is not."""
    names = value["not"] if isinstance(value, dict) and set(value) == {"not"} else value
    listed = isinstance(names, list | tuple) and bool(names) and all(isinstance(name, str) for name in names)
    if listed or (names is value and (names is None or isinstance(names, str))):
        return value
    raise ValueError(f"give a class, a list of classes or {{not: [classes]}}, not {value!r}")


Meaning = Annotated[
    str | tuple[str, ...] | dict[Literal["not"], tuple[str, ...]] | None, BeforeValidator(_checked)
]
"""A class; a list of classes, of which it is one; {not: [...]}, any class but these. "" or None teaches nothing."""


def possible_classes(meaning: Meaning, legend: Legend) -> tuple[str, ...]:
    """The classes that it may be, in the legend's order; none where it teaches nothing.

    ValueError for a name that is no class.
    """
    named: tuple[str, ...]
    if isinstance(meaning, str):
        named = (meaning,) if meaning else ()
    elif isinstance(meaning, dict):
        named = meaning.get("not", ())
    else:
        named = meaning or ()
    unknown = sorted(set(named) - set(legend.names))
    if unknown:
        raise ValueError(f"no class is named {', '.join(unknown)}; the classes are {', '.join(legend.names)}")
    possible = tuple(name for name in legend.names if (name in named) != isinstance(meaning, dict))
    return () if len(possible) == len(legend.names) else possible


def _keys_as_text(value: Any) -> Any:
    """YAML reads 7 as a number; what labels call a class is text."""
    return {str(key): item for key, item in value.items()} if isinstance(value, dict) else value


ClassMapping = Annotated[dict[str, Meaning], BeforeValidator(_keys_as_text)]
"""What labels call a class (a name, or a value as text), and what that means."""
