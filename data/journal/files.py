"""The journal's small files: its tail and its checkpoint.

`tail` says where the log ends; it is written after the records it covers are durable, and is only
a hint after a power cut (recovery scans on from it). `checkpoint.json` keeps what trimming would
forget. This file knows nothing of records' contents.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from penstock.data.durable import sync_folder, write_durably
from penstock.data.journal.record import ClockDecision, Totals
from penstock.errors import JournalCorrupt

TAIL = struct.Struct("<QQQQQII16x")
"""oldest stamp, newest stamp, byte, next sequence, oldest sequence, chain, crc."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """Where the log begins and ends."""

    oldest: int
    """Stamp of the oldest segment."""
    newest: int
    """Stamp of the segment that is written."""
    at: int
    """Byte in it at which the next sequence will begin."""
    sequence: int
    """The next sequence."""
    first: int
    """The oldest sequence."""
    chain: int
    """Checksum of the last record."""

    def pack(self) -> bytes:
        """64 bytes, checksummed."""
        fields = (self.oldest, self.newest, self.at, self.sequence, self.first, self.chain)
        return TAIL.pack(*fields, zlib.crc32(TAIL.pack(*fields, 0)))

    @classmethod
    def unpack(cls, raw: bytes) -> Tail | None:
        """The tail in `raw`, or None when it is torn or absent."""
        if len(raw) < TAIL.size:
            return None
        *fields, crc = TAIL.unpack_from(raw)
        if crc != zlib.crc32(TAIL.pack(*fields, 0)):
            return None
        oldest, newest, at, sequence, first, chain = fields
        return cls(oldest=oldest, newest=newest, at=at, sequence=sequence, first=first, chain=chain)


@dataclass(slots=True, kw_only=True)
class Fold:
    """What the log says about sources and clock up to a sequence."""

    sequence: int = 0
    """All sequences below are in."""
    offsets: dict[str, int] = field(default_factory=dict)
    totals: dict[str, Totals] = field(default_factory=dict)
    clock: ClockDecision | None = None

    def copy(self) -> Fold:
        """The same values, to fold on from."""
        return Fold(sequence=self.sequence, offsets=dict(self.offsets), totals=dict(self.totals), clock=self.clock)


def write_checkpoint(path: Path, fold: Fold) -> None:
    """Replace the checkpoint, whole and durable."""
    clock = fold.clock and {
        "closed": fold.clock.closed,
        "reason": fold.clock.reason,
        "state": dict(fold.clock.state),
    }
    body = {
        "sequence": fold.sequence,
        "offsets": fold.offsets,
        "totals": {s: [t.accepted, t.rejected, t.quarantined] for s, t in fold.totals.items()},
        "clock": clock,
    }
    text = json.dumps(body)
    fresh = path.with_name(path.name + ".new")
    write_durably(fresh, json.dumps({"crc": zlib.crc32(text.encode()), "body": text}).encode())
    fresh.rename(path)
    sync_folder(path.parent)


def read_checkpoint(path: Path) -> Fold:
    """The checkpoint, empty when there is none yet.

    Raises JournalCorrupt when it fails its checksum.
    """
    try:
        outer = json.loads(path.read_bytes())
    except FileNotFoundError:
        return Fold()
    except ValueError as error:
        raise _corrupt(path) from error
    text: str = outer["body"]
    if zlib.crc32(text.encode()) != outer["crc"]:
        raise _corrupt(path)
    body = json.loads(text)
    return Fold(
        sequence=body["sequence"],
        offsets=body["offsets"],
        totals={s: Totals(accepted=t[0], rejected=t[1], quarantined=t[2]) for s, t in body["totals"].items()},
        clock=_clock(body["clock"]),
    )


def _clock(said: Mapping[str, object] | None) -> ClockDecision | None:
    return None if said is None else ClockDecision(**said)  # type: ignore[arg-type]


def _corrupt(path: Path) -> JournalCorrupt:
    return JournalCorrupt(f"{path}: fails its checksum: restore the journal's folder from a copy")
