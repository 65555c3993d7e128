"""The journal's small files: its lock, its tail, its checkpoint.

`tail` says where the log ends; it is written after the records it covers are durable, and is only
a hint after a power cut (recovery scans on from it). `checkpoint.json` keeps what trimming would
forget. This file knows nothing of records' contents.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from penstock.data.record import ClockDecision, Totals
from penstock.data.segment import sync_folder
from penstock.errors import JournalCorrupt, JournalError

TAIL = struct.Struct("<QQQQQII16x")
"""oldest stamp, newest stamp, byte, next sequence, oldest sequence, chain, crc."""
LOCK_POLL_S = 0.001


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
        return Fold(
            sequence=self.sequence, offsets=dict(self.offsets), totals=dict(self.totals), clock=self.clock
        )


@contextmanager
def locked(path: Path, deadline_s: float) -> Iterator[None]:
    """Hold the exclusive lock of `path`.

    Raises JournalError when another process keeps it beyond the deadline.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    until = time.monotonic() + deadline_s
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise JournalError(
                        f"{path}: another process has held this lock for {deadline_s:g} s; "
                        "end it, or wait for it to finish"
                    ) from None
                time.sleep(LOCK_POLL_S)
        yield
    finally:
        os.close(fd)


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
    replace_durably(path, json.dumps({"crc": zlib.crc32(text.encode()), "body": text}).encode())


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


def replace_durably(path: Path, raw: bytes) -> None:
    """Write `raw` beside `path`, make it durable, and rename it into place."""
    fresh = path.with_name(path.name + ".new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        os.write(fd, raw)
        os.fsync(fd)
    finally:
        os.close(fd)
    fresh.rename(path)
    sync_folder(path.parent)
