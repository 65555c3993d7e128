"""Cells of any span as of this moment: the archive, and what the journal holds beyond it.

The archive is committed every second or so; a query must not miss what was
acknowledged since. Both are read without a lock: the journal's tail first, so
that nothing falls between the two.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from penstock.data.archive import Archive
from penstock.data.grid import Cells, Grid
from penstock.data.journal import Journal
from penstock.data.layout import Layout


def cells_now(
    archive: Archive, journal: Journal, layout: Layout, grid: Grid, tags: NDArray[np.int32], first: int, last: int
) -> Cells:
    """Cells of ticks first..last-1, columns `tags` (ids), archive and journal merged."""
    tail = journal.tail
    head = archive.head()
    cells = archive.read(tags, first, last, snapshot=head.snapshot)
    column_of = np.full(len(layout.shard_of()), -1, np.int32)
    column_of[tags] = np.arange(len(tags), dtype=np.int32)
    closed = head.closed
    for record in journal.read(head.position, tail):
        if record.readings is not None:
            cells.put(record.readings, grid, column_of, closed)
        if record.clock is not None:
            closed = max(closed or record.clock.closed, record.clock.closed)
    return cells
