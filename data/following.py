"""Cells of the newest ticks, kept up with the journal: what a page looks at again and again.

`history.cells_now` reads the archive every time, and the archive's chunks are wide: one tag costs what all
of a chunk's tags do. Here it is read once; what comes later, late readings too, is in the journal, and only
that is read from then on. The archive is read again when the rows wanted have left the block, when the site
has got new tags, and when the journal was trimmed meanwhile.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from penstock.data.archive import Archive, Head
from penstock.data.grid import Cells
from penstock.data.history import at_a_head, put_records
from penstock.data.journal import Journal
from penstock.errors import JournalError

AHEAD = 256
"""Least number of ticks that a block reaches beyond those asked for; a quarter of them where that is more."""


class Followed:
    """A block of cells of some tags; `read` gives what `cells_now` would. For one thread."""

    def __init__(self, archive: Archive, journal: Journal, tags: NDArray[np.int32], *, double: bool = False) -> None:
        """`tags` [m]: ids, the columns of what `read` gives; `double` where some are float64."""
        self._double = double
        self._archive, self._journal, self._tags = archive, journal, tags
        self._cells = Cells.empty(0, 0, len(tags))
        self._column_of: NDArray[np.int32] = np.zeros(0, np.int32)
        self._position = 0
        self._closed: int | None = None
        self.loads = 0
        """How often the archive was read."""

    def read(self, known: int, first: int, last: int) -> Cells:
        """Cells of ticks first..last-1 as of this moment: a view, valid until the next call.

        `known`: how many tag ids the site has given. Raises what the archive and the journal raise.
        """
        inside = self._cells.first <= first and last <= self._cells.last and known == len(self._column_of)
        if not (inside and self._follow()):
            self._load(known, first, last)
        return self._cells.rows(first, last)

    def _follow(self) -> bool:
        """Take in what was appended; false when it was trimmed before it was read."""
        tail = self._journal.tail
        try:
            records = self._journal.read(self._position, tail)
            self._closed = put_records(self._cells, records, self._archive.grid, self._column_of, self._closed)
        except JournalError:
            return False
        self._position = tail
        return True

    def _load(self, known: int, first: int, last: int) -> None:
        """A new block, from the archive and the journal behind it."""
        end, tail = last + max(AHEAD, (last - first) // 4), self._journal.tail
        column_of = np.full(known, -1, np.int32)
        column_of[self._tags] = np.arange(len(self._tags), dtype=np.int32)

        def block(head: Head) -> tuple[Cells, int | None]:
            cells = self._archive.read(self._tags, first, end, snapshot=head.snapshot, double=self._double)
            records = self._journal.read(head.position, tail)
            return cells, put_records(cells, records, self._archive.grid, column_of, head.closed)

        self._cells, self._closed = at_a_head(self._archive, block)
        self._column_of, self._position = column_of, tail
        self.loads += 1
