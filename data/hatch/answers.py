"""What a hatch answers, from the files of its site. Reads only; knows nothing of sockets.

`first`, `records`, `closed_before` and `at`, `cells` are what a `Journal` and an `Archive` answer to the methods of
these names; `plan` is a read plan of the speed layer, by its name. Records of a shard leave out the tags that were not
asked for, and clock decisions are whole. Every size is bounded, whatever is asked.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.data.archive import Archive
from penstock.data.frame import Dense, Readings
from penstock.data.hatch.message import Buffer, Head
from penstock.data.hatch.stores import PAGE_CELLS
from penstock.data.journal import Entry, Journal, Record
from penstock.data.journal.record_format import drafts, records_in
from penstock.errors import BadRequest, SiteError

PAGE_BYTES = 8 << 20
"""An answer with records ends behind the sequence that makes it as long as this,"""
LOOK_BYTES = 8 * PAGE_BYTES
"""or for which so much of the journal was looked through,"""
LOOK_SEQUENCES = 4096
"""or behind so many sequences."""
LARGEST_ID = 1 << 24
SHARE = 0.75
"""Where more of a record's readings than this are asked for, it goes out whole, as it lies in the journal."""
_PLAN = re.compile(r"plan-\d+-[0-9a-f]{16}\.json")

Answer = tuple[Head, list[Buffer]]


class Answers:
    """Of one site. Safe to use from several threads."""

    def __init__(self, site: Path) -> None:
        """Opens nothing before it is asked for."""
        self._site = site
        self._mutex = threading.Lock()
        self._journal: Journal | None = None
        self._archive: Archive | None = None
        self._kinds: Mapping[str, Callable[[Head, bytes], Answer]] = {
            "first": lambda head, body: ({"first": self._log().first}, []),
            "records": self._records,
            "closed_before": lambda head, body: (
                {"closed": self._log().closed_before(_number(head, "sequence"))},
                [],
            ),
            "at": self._at,
            "cells": self._cells,
            "plan": self._plan,
        }

    def close(self) -> None:
        """Give the files back."""
        with self._mutex:
            if self._journal is not None:
                self._journal.close()
            self._journal = self._archive = None

    def answer(self, head: Head, body: bytes) -> Answer:
        """Raises BadRequest, JournalError, ArchiveError, SiteError."""
        kind = self._kinds.get(str(head.get("ask")))
        if kind is None:
            raise BadRequest(f"a hatch knows no question {head.get('ask')!r}; are both of one version of penstock?")
        return kind(head, body)

    def _log(self) -> Journal:
        with self._mutex:
            if self._journal is None:
                self._journal = Journal.open(self._site / "journal")
            return self._journal

    def _store(self) -> Archive:
        with self._mutex:
            if self._archive is None:
                self._archive = Archive.open(self._site / "archive")
            return self._archive

    def _records(self, head: Head, body: bytes) -> Answer:
        start, stop, shard = _number(head, "start"), _number(head, "stop"), _number(head, "shard")
        stop = min(stop, start + LOOK_SEQUENCES)
        wanted, newest, looked = _wanted(_ids(body)), start, 0
        found: list[Buffer] = []
        for sequence, raw in self._log().copies(start, stop, shard):
            if sequence > newest and (looked >= LOOK_BYTES or sum(map(len, found)) >= PAGE_BYTES):
                return {"next": sequence}, found
            newest, looked = sequence, looked + len(raw)
            if part := thinned(raw, wanted):
                found.append(part)
        return {"next": stop}, found

    def _at(self, head: Head, body: bytes) -> Answer:
        found = self._store().at(_number(head, "position"))
        return {"snapshot": found.snapshot, "said": found.metadata()}, []

    def _cells(self, head: Head, body: bytes) -> Answer:
        ids, first, last = _ids(body), _number(head, "first"), _number(head, "last")
        snapshot = head.get("snapshot")
        if last < first or (last - first) * len(ids) > max(PAGE_CELLS, len(ids)):
            raise BadRequest(f"{last - first} ticks of {len(ids)} tags asked for; at most {PAGE_CELLS} cells at once")
        if not isinstance(snapshot, str | None):
            raise BadRequest(f"snapshot: {snapshot!r} is no name of one")
        cells = self._store().read(ids, first, last, snapshot=snapshot)
        columns = (cells.values, cells.offset, cells.quality)
        return {"double": cells.values.dtype.itemsize == 8}, [_bytes(column) for column in columns]

    def _plan(self, head: Head, body: bytes) -> Answer:
        name = str(head.get("name"))
        if not _PLAN.fullmatch(name):
            raise BadRequest(f"{name!r} is no name of a read plan")
        try:
            return {}, [(self._site / "speed" / name).read_bytes()]
        except OSError as error:
            raise SiteError(f"{name}: no such read plan: {error}; the running service writes it anew") from error


def thinned(raw: bytes, wanted: NDArray[np.bool_]) -> bytes:
    """A record with the readings of wanted tags alone, `wanted` [ids] telling which; empty where it has none of them.

    As it is where it is a clock decision, or has few others. Raises JournalCorrupt.
    """
    (record,) = records_in(raw)
    readings = record.readings
    if readings is None or not len(readings.tags):
        return raw
    mine = np.zeros(len(readings.tags), np.bool_)
    known = readings.tags < len(wanted)
    mine[known] = wanted[readings.tags[known]]
    if not mine.any():
        return b""
    return raw if mine.mean() > SHARE else _written(record, readings, mine)


def _written(record: Record, readings: Readings, mine: NDArray[np.bool_]) -> bytes:
    """A record anew, with these of its columns (or rows) alone."""
    part = readings.columns(np.flatnonzero(mine)) if isinstance(readings, Dense) else readings.only(mine)
    entry = Entry(source=record.source, source_offset=record.source_offset, parts={record.shard: part})
    return b"".join(drafts(entry)[0].bytes_at(0, record.sequence, 0)[0])


def _wanted(ids: NDArray[np.int32]) -> NDArray[np.bool_]:
    wanted = np.zeros(int(ids.max()) + 1 if len(ids) else 0, np.bool_)
    wanted[ids] = True
    return wanted


def _ids(body: bytes) -> NDArray[np.int32]:
    """Tag ids as a request brings them."""
    if len(body) % 4:
        raise BadRequest("tag ids are 4 bytes each")
    ids = np.frombuffer(body, "<i4").astype(np.int32, copy=False)
    if len(ids) and not (ids.min() >= 0 and ids.max() < LARGEST_ID):
        raise BadRequest(f"tag ids lie between 0 and {LARGEST_ID - 1}")
    return ids


def _number(head: Head, key: str) -> int:
    value: Any = head.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not -(1 << 62) < value < 1 << 62:
        raise BadRequest(f"{key}: {value!r} is no number")
    return value


def _bytes(column: NDArray[Any]) -> Buffer:
    return np.ascontiguousarray(column).reshape(-1).view(np.uint8).data if column.size else b""
