"""Classes: ids, names, colors, and the roles that turn some of them into vectors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from geoseg.errors import SpecError

NODATA = 255
"""Value of pixels without an answer, in class and confidence rasters alike."""

Role = Literal["building", "road"]
ROLES: tuple[Role, ...] = ("building", "road")

ROLE_WORDS: Mapping[Role, str] = {
    "building": r"buildings?|built structures?|houses?|roofs?|rooftops?",
    "road": r"roads?|streets?|highways?",
}
"""Words, whole and in any case, that give a class its role where its source tells of no roles."""
OTHERWISE = r"no|non|not|without|except|than|over|under|near|between|along"
"""Words that take the role away again, as in "trees over roads"."""


@dataclass(frozen=True)
class LandClass:
    """One class of the map. id: 0..254. color: red, green, blue, 0..255 each."""

    id: int
    name: str
    color: tuple[int, int, int]
    role: Role | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.id < NODATA:
            raise SpecError(f"class id must lie in 0..254 ({NODATA} is nodata), got {self.id}")
        if not self.name.strip():
            raise SpecError(f"class {self.id} has no name")
        if len(self.color) != 3 or not all(0 <= part <= 255 for part in self.color):
            raise SpecError(f"class {self.name!r}: color must be three numbers in 0..255, got {self.color}")
        if self.role is not None and self.role not in ROLES:
            raise SpecError(f"class {self.name!r}: role must be one of {', '.join(ROLES)}, got {self.role!r}")


@dataclass(frozen=True)
class Legend:
    """The classes of a map, in rising order of id; a network's channels come in this order too."""

    classes: tuple[LandClass, ...]

    def __post_init__(self) -> None:
        if not self.classes:
            raise SpecError("a legend needs at least one class")
        if list(self.ids) != sorted(set(self.ids)):
            raise SpecError(f"class ids must be distinct and rising, got {list(self.ids)}")
        if len(set(self.names)) != len(self.names):
            raise SpecError(f"class names must be distinct, got {list(self.names)}")

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(c.id for c in self.classes)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.classes)

    def of_role(self, role: Role) -> tuple[LandClass, ...]:
        """The classes that play a role; none is a legal answer."""
        return tuple(c for c in self.classes if c.role == role)

    def to_list(self) -> list[dict[str, Any]]:
        """Plain values for JSON."""
        return [{"id": c.id, "name": c.name, "color": list(c.color), "role": c.role} for c in self.classes]

    @classmethod
    def from_list(cls, rows: Iterable[dict[str, Any]]) -> Legend:
        return cls(tuple(LandClass(r["id"], r["name"], tuple(r["color"]), r.get("role")) for r in rows))


def role_of(name: str) -> Role | None:
    """The role that a class plays by its name: that of ROLE_WORDS if it speaks of one role only."""
    words = " ".join(re.findall(r"[^\W_]+", name.lower()))
    if re.search(rf"\b({OTHERWISE})\b", words):
        return None
    roles = [role for role, pattern in ROLE_WORDS.items() if re.search(rf"\b({pattern})\b", words)]
    return roles[0] if len(roles) == 1 else None


def role_remarks(legend: Legend) -> tuple[str, ...]:
    """A line for each role that a class has by its name, and that no class plays."""
    named = {role: [c.name for c in legend.classes if role_of(c.name) == role] for role in ROLES}
    return tuple(
        f"class {names[0]} has no role: its pixels are mapped, but no {role}s drawn as polygons; write role: {role}"
        for role, names in named.items()
        if names and not legend.of_role(role)
    )
