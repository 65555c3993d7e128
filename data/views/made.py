"""What the rows of a batch view are of: which version in which ticks, and of which state of the archive.

It is committed with the rows and the seam, so whoever was killed goes on from it. Every row that is covered and not in
`todo` is what its version says of the archive as of `position`. This file knows no repository.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from penstock.data.views.changes import Ranges
from penstock.data.views.spans import Spans

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """As a commit of the view carries it."""

    position: int
    """Journal sequence: the cells of all below are in, but for `todo`."""
    closed: int | None
    """Ticks that were closed then; None: no clock had decided anything."""
    spans: Spans = ()
    """Who answers where; where nobody does, nothing was ever computed."""
    todo: Ranges = ()
    """Ticks whose cells have changed and that are still to be computed again."""
    at: str = ""
    """When it was last whole: UTC, ISO 8601; empty: never yet."""

    def attributes(self) -> dict[str, Any]:
        """As the root group has it."""
        return {
            "made": {
                "format": FORMAT, "position": self.position, "closed": self.closed, "at": self.at,
                "spans": [list(span) for span in self.spans], "todo": [list(part) for part in self.todo],
            }
        }  # fmt: skip

    @classmethod
    def of(cls, attributes: Mapping[str, Any]) -> Made | None:
        """None where the view does not tell: it was written by an older penstock."""
        said = attributes.get("made")
        if said is None or said.get("format") != FORMAT:
            return None
        return cls(
            position=said["position"],
            closed=said["closed"],
            spans=tuple((first, last, version) for first, last, version in said["spans"]),
            todo=tuple((first, last) for first, last in said["todo"]),
            at=said["at"],
        )
