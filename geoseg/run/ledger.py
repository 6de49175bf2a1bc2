"""The ledger of a scene: what its results were made from, and which of them are published.

Blocks need no entry: a block is done when its file is there. The ledger names the folder that they lie in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError

from geoseg.errors import SpecError
from geoseg.io.files import publish_json, read_json
from geoseg.io.places import Place
from geoseg.spec import digest_of

SCENE_PARTS = ("source", "mask")
"""Parts of a map's recipe that may change from night to night; a change of any other must be asked for."""


class _Stored(BaseModel):
    """The content of the file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    recipe: dict[str, Any]
    identities: dict[str, dict[str, dict[str, Any]]]
    block_px: PositiveInt | None
    proof: str | None
    published: dict[str, str]


@dataclass
class Ledger:
    """recipe: all that decides the map's bytes, by name. proof: the answer to one fixed patch, which every machine
    that adds to this map must give too. published: digests of the recipes of the results in the output folder.
    """

    path: Place
    recipe: dict[str, Any] = field(default_factory=dict)
    identities: dict[str, Any] = field(default_factory=dict)
    block_px: int | None = None
    proof: str | None = None
    published: dict[str, str] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Place) -> Ledger:
        """An empty ledger where there is none."""
        values = read_json(path)
        if values is None:
            return cls(path)
        try:
            return cls(path, **_Stored.model_validate(values).model_dump())
        except ValidationError as error:
            raise SpecError("is not a ledger of geoseg; delete it to start anew", path) from error

    @property
    def key(self) -> str:
        """Digest of all that decides the map."""
        return digest_of(self.recipe)

    def begin(self, recipe: dict[str, Any], identities: dict[str, Any], overwrite: bool) -> str | None:
        """Take up a map. Returns what is new, in words; None where the map is the one that was begun before.

        Raises SpecError where results of other parameters are in the way and must not be overwritten.
        """
        changed = [name for name in recipe if self.recipe and recipe[name] != self.recipe.get(name)]
        given = [name for name in changed if not self._same_kind(name, recipe)]
        if given and not overwrite:
            was_now = "; ".join(
                f"{n}: {_short(self.recipe.get(n))} then, {_short(recipe[n])} now" for n in given
            )
            raise SpecError(
                f"holds results of other parameters ({was_now}); take another folder, or --overwrite",
                self.path.parent,
            )
        fresh = not self.recipe
        self.identities = identities
        if fresh or changed:
            self.recipe, self.block_px, self.proof, self.published = recipe, None, None, {}
        self.save()
        if fresh:
            return "is new"
        return f"has changed ({', '.join(changed)})" if changed else None

    def _same_kind(self, name: str, recipe: dict[str, Any]) -> bool:
        """A scene or a mask whose content changed, as it does from night to night."""
        old, new = self.recipe.get(name), recipe[name]
        return name in SCENE_PARTS and (name == "source" or (old is not None and new is not None))

    def save(self) -> None:
        publish_json(
            self.path,
            {
                "recipe": self.recipe,
                "identities": self.identities,
                "block_px": self.block_px,
                "proof": self.proof,
                "published": self.published,
            },
        )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:12]}..."
