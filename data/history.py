"""Cells of any span as of this moment: the archive, and what the journal holds beyond it.

The archive is committed every second or so; a query must not miss what was
acknowledged since. Both are read without a lock: the journal's tail first, so
that nothing falls between the two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from penstock.data.archive import Archive, Head
from penstock.data.grid import Cells, Grid
from penstock.data.journal import Journal, Record
from penstock.data.layout import Layout
from penstock.errors import JournalError

T = TypeVar("T")


def cells_now(
    archive: Archive, journal: Journal, layout: Layout, grid: Grid, tags: NDArray[np.int32], first: int, last: int
) -> Cells:
    """Cells of ticks first..last-1, columns `tags` (ids), archive and journal merged."""
    tail = journal.tail
    return at_a_head(
        archive, lambda head: _cells(archive, journal, layout, grid, tags, first, last, head=head, tail=tail)
    )


def at_a_head(archive: Archive, read: Callable[[Head], T]) -> T:
    """`read` of the newest commit and the journal from there on; again where that was trimmed meanwhile.

    Only what a newer commit holds is trimmed. Raises what `read` raises where there is no newer one.
    """
    while True:
        head = archive.head()
        try:
            return read(head)
        except JournalError:
            if archive.head().position == head.position:
                raise


def _cells(
    archive: Archive,
    journal: Journal,
    layout: Layout,
    grid: Grid,
    tags: NDArray[np.int32],
    first: int,
    last: int,
    *,
    head: Head,
    tail: int,
) -> Cells:
    double = bool(layout.double()[tags].any())
    cells = archive.read_again(tags, first, last, snapshot=head.snapshot, double=double)
    column_of = np.full(len(layout.shard_of()), -1, np.int32)
    column_of[tags] = np.arange(len(tags), dtype=np.int32)
    put_records(cells, journal.read(head.position, tail), grid, column_of, head.closed)
    if head.pruned is not None and first < head.pruned:  # the archiver will not take it in either
        cells.rows(first, min(head.pruned, max(first, last))).clear()
    return cells


def put_records(
    cells: Cells, records: Iterable[Record], grid: Grid, column_of: NDArray[np.int32], closed: int | None
) -> int | None:
    """Merge the records' readings into `cells`, late ones marked; ticks below the result are closed after them.

    `closed`: ticks below were closed before the first of them. Raises what reading them raises; those before are in.
    """
    for record in records:
        if record.readings is not None:
            cells.put(record.readings, grid, column_of, closed)
        if record.clock is not None:
            closed = max(closed or record.clock.closed, record.clock.closed)
    return closed
