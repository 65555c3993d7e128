"""What goes into the journal and what comes out: entries, records, clock decisions, totals.

This file knows nothing of bytes, files and locks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from penstock.data.frame import Readings


class Kind(IntEnum):
    """What a record is."""

    DATA = 0
    CLOCK = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockDecision:
    """Ticks below `closed` are closed from here on."""

    closed: int
    """One past the newest closed tick."""
    reason: str
    """"watermark", "idle", "end" or "skew"."""
    state: Mapping[str, Any] = field(default_factory=dict)
    """The clock's fold state, as JSON values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Readings of one source since the site began."""

    accepted: int = 0
    rejected: int = 0
    quarantined: int = 0

    def __add__(self, other: Totals) -> Totals:
        return Totals(
            accepted=self.accepted + other.accepted,
            rejected=self.rejected + other.rejected,
            quarantined=self.quarantined + other.quarantined,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Entry:
    """One atom of the log: all of it becomes durable, or none."""

    source: str
    """Name of the source; at most 255 bytes of UTF-8."""
    source_offset: int
    """Where the source resumes when this entry is durable."""
    parts: Mapping[int, Readings] = field(default_factory=dict)
    """Readings by shard."""
    rejected: int = 0
    quarantined: int = 0
    clock: ClockDecision | None = None
    """Stands after the readings of this entry."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Record:
    """One record as read back. Arrays are views of the segment file and cannot be written."""

    sequence: int
    shard: int
    """-1 for clock records and for entries without readings."""
    kind: Kind
    source: str
    source_offset: int
    accepted: int
    """Readings in this record."""
    rejected: int
    """Of the whole entry; carried by its first record, 0 in the others."""
    quarantined: int
    """Like `rejected`."""
    readings: Readings | None = None
    clock: ClockDecision | None = None
