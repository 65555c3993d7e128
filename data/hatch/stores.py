"""A journal and an archive at the other end of a wire: the same reading methods, the same records and cells.

A question that asks for much is answered in pages, each by a request of its own: nothing is kept at the hatch between
two of them, so that any of them may be asked again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from penstock.data.archive.head import Head
from penstock.data.grid import Cells
from penstock.data.hatch.wire import Wire
from penstock.data.journal.record import Record
from penstock.data.journal.record_format import records_in
from penstock.errors import BadAnswer

PAGE_CELLS = 1 << 22
"""Most cells of one answer: 59 MB."""


class Records(Protocol):
    """What a step asks of a journal: a `Journal`, or one behind a hatch."""

    @property
    def first(self) -> int:
        """The oldest sequence that can be read."""

    def read(self, start: int, stop: int, shard: int | None = None) -> Iterator[Record]:
        """Records of sequences start..stop-1 in order: of a shard, and all clock records. Raises JournalError."""

    def closed_before(self, sequence: int) -> int | None:
        """`closed` of the newest clock decision of a smaller sequence. Raises JournalError."""


class Stored(Protocol):
    """What a step asks of an archive: an `Archive`, or one behind a hatch."""

    def at(self, position: int) -> Head:
        """The newest commit whose position is not above `position`. Raises ArchiveError."""

    def read(self, tags: NDArray[np.int32], first: int, last: int, *, snapshot: str | None = None) -> Cells:
        """Cells of ticks first..last-1. Raises ArchiveError."""


class FarJournal:
    """Of the tags `ids` alone; records without any of them are passed over."""

    def __init__(self, wire: Wire, ids: NDArray[np.int32]) -> None:
        self._wire, self._ids = wire, np.ascontiguousarray(ids, "<i4").tobytes()

    @property
    def first(self) -> int:
        """See `Records`."""
        return int(self._wire.ask({"ask": "first"})[0]["first"])

    def read(self, start: int, stop: int, shard: int | None = None) -> Iterator[Record]:
        """See `Records`. Raises JournalCorrupt where a record did not come as it was written."""
        while start < stop:
            head, body = self._wire.ask({"ask": "records", "start": start, "stop": stop, "shard": shard}, self._ids)
            yield from records_in(memoryview(body))
            if not start < head["next"] <= stop:
                raise BadAnswer(f"records of {start}..{stop - 1} were asked for; the answer ends at {head['next']}")
            start = head["next"]

    def closed_before(self, sequence: int) -> int | None:
        """See `Records`."""
        closed = self._wire.ask({"ask": "closed_before", "sequence": sequence})[0]["closed"]
        return None if closed is None else int(closed)


class FarArchive:
    """The archive behind a hatch."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def at(self, position: int) -> Head:
        """See `Stored`."""
        told = self._wire.ask({"ask": "at", "position": position})[0]
        return Head.of(told["snapshot"], told["said"])

    def read(self, tags: NDArray[np.int32], first: int, last: int, *, snapshot: str | None = None) -> Cells:
        """See `Stored`."""
        wanted = np.ascontiguousarray(tags, "<i4")
        step = max(1, PAGE_CELLS // max(1, len(wanted)))
        pages = [(begin, min(begin + step, last)) for begin in range(first, last, step)] or [(first, first)]
        parts = [self._page(wanted, begin, end, snapshot) for begin, end in pages]
        if len(parts) == 1:
            return parts[0]
        return Cells(
            first=first,
            values=np.concatenate([p.values for p in parts]),
            quality=np.concatenate([p.quality for p in parts]),
            offset=np.concatenate([p.offset for p in parts]),
        )

    def _page(self, tags: NDArray[np.int32], first: int, last: int, snapshot: str | None) -> Cells:
        asked = {"ask": "cells", "first": first, "last": last, "snapshot": snapshot}
        head, body = self._wire.ask(asked, tags.tobytes())
        shape, at, columns = (last - first, len(tags)), 0, []
        for dtype in ("<f8" if head["double"] else "<f4", "<u4", "<u2"):
            column = np.frombuffer(body, dtype, shape[0] * shape[1], at)
            at += column.nbytes
            columns.append(column.reshape(shape))
        if at != len(body):
            raise BadAnswer(f"{len(body)} bytes of cells came; {at} were asked for")
        return Cells(first=first, values=columns[0], offset=columns[1], quality=columns[2])


def plan_text(wire: Wire, name: str) -> str:
    """The read plan of that name. Raises SiteError when there is none."""
    return bytes(wire.ask({"ask": "plan", "name": name})[1]).decode()
