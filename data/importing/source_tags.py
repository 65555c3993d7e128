"""The plant's tags under the names that a source of history may use for them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from penstock.data.plant import Plant
from penstock.data.plants.tables import near_name
from penstock.data.registry import Registry

UNKNOWN, IGNORED = -1, -2
"""What `find` gives instead of an id."""


class SourceTags:
    """The plant's stored tags by the names a source may use, and what a raw reading becomes."""

    def __init__(self, plant: Plant, registry: Registry, columns: Mapping[str, str | None]) -> None:
        stored = [tag for tag in plant.tags.values() if tag.expr is None]
        ids = registry.ids([tag.name for tag in stored])
        self.derived = {tag.name for tag in plant.tags.values() if tag.expr is not None}
        self.columns = columns
        self._known: list[str] = []
        self.ids = {tag.name: int(at) for tag, at in zip(stored, ids, strict=True)}
        for tag in stored:
            for alias in tag.aliases:
                self.ids.setdefault(alias, self.ids[tag.name])
        self.scale, self.offset = np.ones(len(registry)), np.zeros(len(registry))
        self.scale[ids] = [tag.scale for tag in stored]
        self.offset[ids] = [tag.offset for tag in stored]
        self.double = np.array([dtype == "float64" for dtype in registry.dtypes()], bool)

    def find(self, name: str) -> int:
        """The id of a name of the source, UNKNOWN or IGNORED."""
        wanted = self.columns.get(name, name)
        return IGNORED if wanted is None else self.ids.get(wanted, UNKNOWN)

    def why_not(self, name: str) -> str:
        """The reason of a reject for a name without an id."""
        wanted = self.columns.get(name, name) or name
        if wanted in self.derived:
            return "a derived tag: it is computed, never stored"
        near = near_name(wanted, self._sorted())
        return f"unknown tag; did you mean {near}?" if near else "unknown tag"

    def _sorted(self) -> list[str]:
        self._known = self._known or sorted(self.ids)
        return self._known
