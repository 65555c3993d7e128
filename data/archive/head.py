"""A commit of the archive, and what it says about itself: the journal position it holds, and more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from penstock.data.journal.record import Totals


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """One commit: what the archive held then."""

    snapshot: str
    """Its id: the lineage of whatever is computed from it."""
    position: int
    """Journal sequence; all below are in."""
    closed: int | None
    """Ticks below are closed, as of `position`; None: no clock decision yet."""
    source_offsets: Mapping[str, int] = field(default_factory=dict)
    totals: Mapping[str, Totals] = field(default_factory=dict)
    span: tuple[int, int] = (0, 0)
    """First tick and one past the last tick that hold a reading; equal when there is none. The first is not below
    `pruned`, where it may stand for readings that are gone."""

    newest: int = 0
    """One past the last tick that holds a reading of a tag that may not be ahead of its time; see `Layout.ahead`."""
    pruned: int | None = None
    """Readings of ticks below were removed, and none is taken in any more; None: all were kept."""

    def metadata(self) -> dict[str, Any]:
        """As a commit carries it."""
        return {
            "position": self.position,
            "closed": self.closed,
            "source_offsets": dict(self.source_offsets),
            "totals": {s: [t.accepted, t.rejected, t.quarantined] for s, t in self.totals.items()},
            "span": list(self.span),
            "newest": self.newest,
            **({} if self.pruned is None else {"pruned": self.pruned}),
        }

    @classmethod
    def of(cls, snapshot: str, said: Mapping[str, Any]) -> Head:
        """From a commit's metadata."""
        totals = {s: Totals(accepted=t[0], rejected=t[1], quarantined=t[2]) for s, t in said["totals"].items()}
        return cls(
            snapshot=snapshot,
            position=said["position"],
            closed=said["closed"],
            source_offsets=dict(said["source_offsets"]),
            totals=totals,
            span=(said["span"][0], said["span"][1]),
            newest=said.get("newest", said["span"][1]),
            pruned=said.get("pruned"),
        )
