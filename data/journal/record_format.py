"""How the journal's records lie in bytes.

    header (80 bytes, little-endian) | source name, padded to 8 | payload, padded to 8

A *sequence* is one entry's records, `parts` of them, in order: data by shard, then the clock
decision. Each header carries the checksum of the record before it, so that what an interrupted
writer left behind a torn record is never taken for the log's continuation. This file knows
nothing of files and locks.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
from isal.isal_zlib import crc32  # zlib's own checksum, ten times as fast
from numpy.typing import NDArray

from penstock.data.frame import GOOD, Dense, Frame, Readings
from penstock.data.journal.record import ClockDecision, Entry, Kind, Record
from penstock.data.remembered import Remembered
from penstock.errors import JournalCorrupt

Buffer = bytes | memoryview

MAGIC = 0x4B54534E  # "NSTK"
HEADER = struct.Struct("<IIQQqQQQQiHHHBBI")
"""magic, chain, stamp, sequence, source offset, accepted, rejected, quarantined, payload length,
shard, part, parts, name length, kind, form, crc of all that precedes it and all that follows."""
WORD = 8
NONE, JSON, FRAME, DENSE = 0, 1, 2, 3
DOUBLE, ALL_GOOD, PROGRESSION = 0x10, 0x20, 0x40
"""Payload forms and their flags: float64 values; every quality GOOD, so the column is left out;
tag ids are an arithmetic progression, so only start and step are written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """A record's header, parsed."""

    chain: int
    stamp: int
    sequence: int
    source_offset: int
    accepted: int
    rejected: int
    quarantined: int
    payload: int
    shard: int
    part: int
    parts: int
    name: int
    kind: int
    form: int
    crc: int

    @property
    def size(self) -> int:
        """Bytes of the whole record."""
        return HEADER.size + padded(self.name) + padded(self.payload)


def padded(length: int) -> int:
    """`length` rounded up to whole words."""
    return -(-length // WORD) * WORD


def parse_header(raw: Buffer, at: int) -> Header | None:
    """The header at byte `at`, or None where none stands."""
    if at + HEADER.size > len(raw):
        return None
    f = HEADER.unpack_from(raw, at)
    if f[0] != MAGIC:
        return None
    return Header(
        chain=f[1], stamp=f[2], sequence=f[3], source_offset=f[4], accepted=f[5], rejected=f[6], quarantined=f[7],
        payload=f[8], shard=f[9], part=f[10], parts=f[11], name=f[12], kind=f[13], form=f[14], crc=f[15],
    )  # fmt: skip


def intact(raw: Buffer, at: int, header: Header) -> bool:
    """Whether the record at `at` lies whole in `raw` and has the checksum its header names."""
    if at + header.size > len(raw):
        return False
    body = at + HEADER.size
    crc = crc32(raw[at : body - 4])
    return crc32(raw[body : at + header.size], crc) == header.crc


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """One record to be written: everything but its place in the log."""

    shard: int
    kind: Kind
    source: bytes
    source_offset: int
    accepted: int
    rejected: int
    quarantined: int
    part: int
    parts: int
    form: int
    columns: tuple[Buffer, ...]
    """The payload, each column padded to whole words."""

    @property
    def size(self) -> int:
        """Bytes of the whole record."""
        return HEADER.size + padded(len(self.source)) + sum(len(c) for c in self.columns)

    def bytes_at(self, stamp: int, sequence: int, chain: int) -> tuple[list[Buffer], int]:
        """The record's buffers for this place in the log, and its checksum."""
        payload = sum(len(c) for c in self.columns)
        name = self.source + bytes(padded(len(self.source)) - len(self.source))
        head = HEADER.pack(
            MAGIC, chain, stamp, sequence, self.source_offset, self.accepted, self.rejected, self.quarantined,
            payload, self.shard, self.part, self.parts, len(self.source), self.kind, self.form, 0,
        )[:-4]  # fmt: skip
        crc = crc32(name, crc32(head))
        for column in self.columns:
            crc = crc32(column, crc)
        return [head + struct.pack("<I", crc), name, *self.columns], crc


def drafts(entry: Entry) -> list[Draft]:
    """The records of an entry, in the order they are written."""
    bodies: list[tuple[int, Kind, int, int, tuple[Buffer, ...]]] = []
    for shard, readings in sorted(entry.parts.items()):
        form, columns = _encode(readings)
        bodies.append((shard, Kind.DATA, len(readings), form, columns))
    if entry.clock is not None:
        bodies.append((-1, Kind.CLOCK, 0, JSON, (_encode_clock(entry.clock),)))
    if not bodies:
        bodies.append((-1, Kind.DATA, 0, NONE, ()))
    return [
        Draft(
            shard=shard, kind=kind, source=entry.source.encode(), source_offset=entry.source_offset,
            accepted=accepted, rejected=entry.rejected if part == 0 else 0,
            quarantined=entry.quarantined if part == 0 else 0,
            part=part, parts=len(bodies), form=form, columns=columns,
        )
        for part, (shard, kind, accepted, form, columns) in enumerate(bodies)
    ]  # fmt: skip


def record_at(raw: Buffer, at: int, header: Header) -> Record:
    """The record at `at`; its arrays are views of `raw`."""
    body = at + HEADER.size
    payload = memoryview(raw)[body + padded(header.name) : at + header.size]
    return Record(
        sequence=header.sequence,
        shard=header.shard,
        kind=Kind(header.kind),
        source=source_at(raw, at, header),
        source_offset=header.source_offset,
        accepted=header.accepted,
        rejected=header.rejected,
        quarantined=header.quarantined,
        readings=_decode(payload, header.form) if header.form & 0x0F in (FRAME, DENSE) else None,
        clock=decode_clock(payload) if header.form == JSON else None,
    )


def records_in(raw: Buffer) -> Iterator[Record]:
    """Records that stand one behind the other in `raw`, and nothing else. Raises JournalCorrupt."""
    at = 0
    while at < len(raw):
        header = parse_header(raw, at)
        if header is None or not intact(raw, at, header):
            raise JournalCorrupt(f"byte {at} of {len(raw)} of copied records: no whole record; read them again")
        yield record_at(raw, at, header)
        at += header.size


def source_at(raw: Buffer, at: int, header: Header) -> str:
    """Name of the source of the record at `at`."""
    body = at + HEADER.size
    return bytes(raw[body : body + header.name]).decode()


def _encode_clock(clock: ClockDecision) -> bytes:
    text = json.dumps({"closed": clock.closed, "reason": clock.reason, "state": dict(clock.state)}).encode()
    return text.ljust(padded(len(text)))


def decode_clock(payload: Buffer) -> ClockDecision:
    """A clock record's payload."""
    said = json.loads(bytes(payload))
    return ClockDecision(closed=said["closed"], reason=said["reason"], state=said["state"])


def _encode(readings: Readings) -> tuple[int, tuple[Buffer, ...]]:
    form = DENSE if isinstance(readings, Dense) else FRAME
    form |= DOUBLE if readings.values.dtype.itemsize == 8 else 0
    tags = np.ascontiguousarray(readings.tags, np.int32)
    # Those of dense rows come again and again; those of a frame never do.
    if _progressions.of(partial(_is_progression, tags), tags) if form & 0x0F == DENSE else _is_progression(tags):
        form |= PROGRESSION
        tags = np.array([tags[0], tags[1] - tags[0]], np.int32)
    form |= 0 if bool((readings.quality != GOOD).any()) else ALL_GOOD
    shape = np.array([len(readings.times), len(readings.tags)], np.int64)
    columns = [shape, readings.times, readings.values, tags, *([] if form & ALL_GOOD else [readings.quality])]
    return form, tuple(_column(np.ascontiguousarray(c)) for c in columns)


_progressions: Remembered[bool] = Remembered(64)


def _is_progression(tags: NDArray[np.int32]) -> bool:
    if len(tags) < 3:
        return False
    step = int(tags[1]) - int(tags[0])
    if step == 0 or int(tags[-1]) - int(tags[0]) != step * (len(tags) - 1):
        return False
    return bool((np.diff(tags) == step).all())


@lru_cache(maxsize=64)
def _progression(start: int, step: int, count: int) -> NDArray[np.int32]:
    """Whoever reads dense rows one after the other gets the same array of tags for all of them."""
    tags = np.arange(start, start + step * count, step, dtype=np.int32)
    tags.flags.writeable = False
    return tags


def _column(array: NDArray[Any]) -> Buffer:
    raw = array.reshape(-1).view(np.uint8).data if array.size else memoryview(b"")
    spare = padded(len(raw)) - len(raw)
    return raw if not spare else bytes(raw) + bytes(spare)


def _decode(payload: memoryview, form: int) -> Readings:
    at = 0

    def column(dtype: str, count: int) -> NDArray[Any]:
        nonlocal at
        array = np.frombuffer(payload, dtype, count, at)
        at += padded(array.nbytes)
        return array

    dense = form & 0x0F == DENSE
    try:
        k, m = (int(n) for n in column("<i8", 2))
        cells = k * m if dense else k
        times = column("<i8", k)
        values = column("<f8" if form & DOUBLE else "<f4", cells)
        if form & PROGRESSION:
            start, step = (int(n) for n in column("<i4", 2))
            tags = _progression(start, step, m)
        else:
            tags = column("<i4", m)
        quality = np.zeros(cells, np.uint8) if form & ALL_GOOD else column("|u1", cells)
    except ValueError as error:
        raise JournalCorrupt(f"a record's columns do not fit its length ({error}): restore the journal") from error
    if dense:
        return Dense(times=times, tags=tags, values=values.reshape(k, m), quality=quality.reshape(k, m))
    return Frame(times=times, tags=tags, values=values, quality=quality)
