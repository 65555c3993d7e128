"""From the journal to the archive: the drain.

A drain begins at the head's position and ends with a head at the journal's tail. It can be killed at
any point and run again: the head is then an earlier commit, and the same records merge to the same
bytes. This file plans (which cells, which blocks); `committer` writes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from penstock.data.archive import Archive, Head
from penstock.data.archive.committer import Committer
from penstock.data.archive.heaps import Heap, stages
from penstock.data.archive.repository import DTYPES, open_chunks
from penstock.data.early import newest_of, parted
from penstock.data.frame import Dense, Readings
from penstock.data.grid import Grid
from penstock.data.journal import Journal, Kind, Record, Totals
from penstock.data.journal.ledger import REVISED, LateRange, late_ticks, ranges_of, revised_ranges, write_ranges
from penstock.data.layout import Layout
from penstock.data.remembered import Remembered
from penstock.errors import ArchiveError

CELLS_PER_COMMIT = 1 << 22
MOST_CELLS = 1 << 26
"""A commit goes on to the end of a block of ticks, to write it once, up to so many cells (340 MB of the journal)."""
STAGE_CELLS = 1 << 20
"""Cells that are merged at a time, in whole chunks: they stay in the processor's cache meanwhile (10 MB)."""
SLACK_TICKS = 4
"""Where late readings come, a commit goes on so far into the next block: those of the last ticks are then in it, and
the block need not be read and written again for their sake."""

Progress = Callable[[int, int], None]
"""Called with (sequences done, sequences to do)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """What one drain did."""

    head: Head
    """The head after it, flushed to disk: the journal may be trimmed below `head.position`."""
    sequences: int
    readings: int
    late: int
    """Late readings among them."""
    commits: int


@dataclass(slots=True, kw_only=True)
class Batch:
    """The records of one commit, sorted into heaps that can be merged together."""

    position: int
    closed: int | None
    offsets: dict[str, int]
    totals: dict[str, Totals]
    readings: int = 0
    late: list[LateRange] = field(default_factory=list)
    revised: list[LateRange] = field(default_factory=list)
    """Readings of ticks that were not closed, but within reach of windows that were."""
    newest: int | None = None
    """Tick of the last reading of the record that reaches furthest."""
    been: int | None = None
    """One past the newest tick of what may not be ahead of its time; None: no tag may."""
    heaps: dict[tuple[int, bool, bytes | None], list[Readings]] = field(default_factory=dict)
    """By (float64?, late?, tags of dense rows | None for long frames)."""

    def add(self, record: Record, grid: Grid, layout: Layout) -> None:
        """Fold one record in."""
        said = Totals(accepted=record.accepted, rejected=record.rejected, quarantined=record.quarantined)
        self.offsets[record.source] = record.source_offset
        self.totals[record.source] = self.totals.get(record.source, Totals()) + said
        self.readings += record.accepted
        if record.kind == Kind.CLOCK and record.clock is not None:
            self.closed = record.clock.closed
        elif record.readings is not None:
            self.late += ranges_of(record, self.closed, grid)
            if self.been is not None:
                own, early = parted(record.readings, layout.ahead_of())
                self.been = max(self.been, newest_of(own, grid, self.been))
                self.revised += revised_ranges(record, early, self.closed, layout, grid)
            newest = grid.tick_of(int(record.readings.times[-1])) if len(record.readings.times) else None
            self.newest = newest if self.newest is None else max(self.newest, newest or self.newest)
            self._sort(record.readings, int(layout.dtype(record.shard) == "float64"), grid)

    def ends_block(self, record: Record, grid: Grid, block: int) -> bool:
        """Whether `record` begins with another block of ticks than the readings before it ended with.

        With late readings about, some ticks later.
        """
        if record.readings is None or not len(record.readings.times) or self.newest is None:
            return False
        slack = min(SLACK_TICKS, block // 8) if self.late else 0
        return (grid.tick_of(int(record.readings.times[0])) - slack) // block > (self.newest - slack) // block

    def _sort(self, readings: Readings, double: int, grid: Grid) -> None:
        late, _ = late_ticks(readings, self.closed, grid)
        tags = _bytes_of.of(readings.tags.tobytes, readings.tags) if isinstance(readings, Dense) else None
        for is_late in (False, True):
            rows = late == is_late
            if rows.any():
                part = readings if rows.all() else readings.rows(np.flatnonzero(rows))
                self.heaps.setdefault((double, is_late, tags), []).append(part)


def drain(
    journal: Journal,
    archive: Archive,
    layout: Layout,
    *,
    stop: int | None = None,
    progress: Progress | None = None,
    cells: int = CELLS_PER_COMMIT,
) -> Drained:
    """Bring the archive to journal sequence `stop` (None: the tail), about `cells` readings per commit.

    Raises ArchiveBusy when another process is writing, ArchiveError when the journal no longer has what
    the archive lacks, JournalCorrupt when a record fails its checksum.
    """
    with archive.committer() as committer:
        begun = committer.head.position
        stop = max(journal.tail if stop is None else stop, begun)
        if begun < journal.first:
            raise ArchiveError(
                f"{archive.folder}: holds all below sequence {begun}, but the journal begins at {journal.first}: "
                "what lies between is lost unless you restore an older journal"
            )
        committer.admit(layout.double())
        readings = late = commits = 0
        while committer.head.position < stop:
            block = open_chunks(archive.segment_ticks, len(layout))[0]
            batch = gather(journal, committer.head, stop, layout, archive.grid, cells, block)
            write(batch, committer, layout)
            # The list first: a kill between the two only writes the same rows again.
            if batch.late:
                write_ranges(journal.folder, batch.late)
            if batch.revised:
                write_ranges(journal.folder, batch.revised, table=REVISED)
            committer.commit(batch.position, batch.closed, batch.offsets, batch.totals, batch.been)
            readings, late, commits = readings + batch.readings, late + sum(r.count for r in batch.late), commits + 1
            if progress:
                progress(batch.position - begun, stop - begun)
        close(committer)
        head = committer.head
    return Drained(head=head, sequences=head.position - begun, readings=readings, late=late, commits=commits)


def gather(journal: Journal, head: Head, stop: int, layout: Layout, grid: Grid, cells: int, block: int = 1) -> Batch:
    """The next whole sequences from the head's position on, until they hold `cells` readings and end with a `block`.

    `block`: ticks that the archive writes together.
    """
    batch = Batch(
        position=head.position, closed=head.closed, offsets=dict(head.source_offsets), totals=dict(head.totals),
        been=head.newest if len(layout.ahead_of()) else None,
    )  # fmt: skip
    for record in journal.read(head.position, stop):
        full = batch.readings >= MOST_CELLS or (batch.readings >= cells and batch.ends_block(record, grid, block))
        if record.sequence >= batch.position and full:
            break
        batch.add(record, grid, layout)
        batch.position = record.sequence + 1
    return batch


def write(batch: Batch, committer: Committer, layout: Layout) -> None:
    """Merge a batch's readings into the archive, block by block; each block is touched once per dtype."""
    for double, dtype in enumerate(DTYPES):
        heaps = [
            Heap.of(heap, committer.archive.grid, is_late)
            for (is_double, is_late, _), heap in batch.heaps.items()
            if is_double == double
        ]
        index = np.where(layout.double() == bool(double), layout.index_of(), np.int32(-1)).astype(np.int32)
        at, chunk = [0] * len(heaps), open_chunks(committer.archive.segment_ticks, int((index >= 0).sum()))
        while left := [int(h.ticks[a]) for h, a in zip(heaps, at, strict=True) if a < len(h.ticks)]:
            _, last = committer.block(dtype, min(left))
            until = [int(np.searchsorted(h.ticks, last)) for h in heaps]
            parts = [h.part(a, u) for h, a, u in zip(heaps, at, until, strict=True) if a < u]
            wide = max(STAGE_CELLS // chunk[0] // chunk[1], 1) * chunk[1]
            for column, stage in stages(parts, dtype, index, wide, committer.archive.grid):
                committer.merge(dtype, column, stage)
            at = until


def close(committer: Committer) -> None:
    """Rewrite the segments that the stream has left behind."""
    if committer.head.closed is not None:
        for dtype, index in committer.open_segments(committer.head.closed):
            committer.close_segment(dtype, index)


_bytes_of: Remembered[bytes] = Remembered()
