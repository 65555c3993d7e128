"""From the journal to the archive: the drain.

A drain begins at the head's position and ends with a head at the journal's tail. It can be killed at
any point and run again: the head is then an earlier commit, and the same records merge to the same
bytes. This file plans (which cells, which blocks); `committer` writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from penstock.data.archive import Archive, Head
from penstock.data.archive.committer import Committer
from penstock.data.archive.repository import DTYPES, open_chunks
from penstock.data.early import newest_of, parted
from penstock.data.frame import Dense, Frame, Readings
from penstock.data.grid import Cells, Grid
from penstock.data.journal import Journal, Kind, Record, Totals
from penstock.data.journal.ledger import REVISED, LateRange, late_ticks, ranges_of, revised_ranges, write_ranges
from penstock.data.layout import Layout
from penstock.data.remembered import Remembered
from penstock.errors import ArchiveError

CELLS_PER_COMMIT = 1 << 22
MOST_CELLS = 1 << 26
"""A commit goes on to the end of a block of ticks, so that it is written once, up to so many cells (340 MB)."""
STAGE_CELLS = 1 << 20
"""Cells that are merged at a time, in whole chunks: they stay in the processor's cache meanwhile (10 MB)."""
SLACK_TICKS = 4
"""Where late readings come, a commit goes on so far into the next block: those of the last ticks are then in it, and
the block need not be read and written again for their sake."""
EVERYTHING = int(np.iinfo(np.int64).max)
"""As `late_before`: all of it is late."""

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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Heap:
    """Readings that are all late or all on time, in order of tick; of dense ones each tick once, or they are long."""

    readings: Readings
    ticks: NDArray[np.int64]
    """Of each row, ascending."""
    is_late: bool

    @classmethod
    def of(cls, readings: Readings, grid: Grid, is_late: bool) -> Heap:
        """Sorted; what arrived in order is not copied."""
        ticks = grid.tick(readings.times)
        if isinstance(readings, Dense) and len(np.unique(ticks)) < len(ticks):
            readings = readings.long()
            ticks = grid.tick(readings.times)
        if not bool((np.diff(ticks) >= 0).all()):
            order = np.argsort(ticks, kind="stable")
            readings, ticks = readings.rows(order), ticks[order]
        return cls(readings=readings, ticks=ticks, is_late=is_late)

    def part(self, begin: int, end: int) -> Heap:
        """Rows begin..end-1."""
        rows = slice(begin, end)
        return Heap(readings=self.readings.rows(rows), ticks=self.ticks[rows], is_late=self.is_late)


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
            Heap.of(_joined(heap), committer.archive.grid, is_late)
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
            for column, stage in _stages(parts, dtype, index, wide, committer.archive.grid):
                committer.merge(dtype, column, stage)
            at = until


def close(committer: Committer) -> None:
    """Rewrite the segments that the stream has left behind."""
    if committer.head.closed is not None:
        for dtype, index in committer.open_segments(committer.head.closed):
            committer.close_segment(dtype, index)


def _stages(
    parts: Sequence[Heap], dtype: str, index: NDArray[np.int32], wide: int, grid: Grid
) -> Iterator[tuple[int, Cells]]:
    """The cells of some readings of one block, in ranges of `wide` columns: (first column, cells)."""
    first, last = min(int(p.ticks[0]) for p in parts), max(int(p.ticks[-1]) for p in parts) + 1
    across = [_Across.of(part, index) for part in parts]
    tags, local = int(np.count_nonzero(index >= 0)), np.arange(wide, dtype=np.int32)
    begin, end = min(int(a.columns[0]) for a in across), max(int(a.columns[-1]) for a in across) + 1
    for column in range(begin // wide * wide, end, wide):
        upto = min(column + wide, tags)
        inside = [(part, a.is_late) for a in across if (part := a.part(column, upto)) is not None]
        if inside:
            stage = Cells.empty(first, last - first, upto - column, dtype)
            for readings, is_late in inside:
                stage.put(readings, grid, local, EVERYTHING if is_late else None)
            yield column, stage


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Across:
    """A heap's readings in order of the archive's columns, so that those of a range of columns lie together."""

    readings: Readings
    columns: NDArray[np.int32]
    """Ascending: of each column of dense rows, or of each reading."""
    is_late: bool

    @classmethod
    def of(cls, heap: Heap, index: NDArray[np.int32]) -> _Across:
        """`index`: the archive's column of each tag."""
        readings, columns = heap.readings, index[heap.readings.tags]
        if not bool((np.diff(columns) >= 0).all()):
            order = np.argsort(columns, kind="stable")
            columns = columns[order]
            readings = readings.columns(order) if isinstance(readings, Dense) else readings.rows(order)
        return cls(readings=readings, columns=columns, is_late=heap.is_late)

    def part(self, begin: int, end: int) -> Readings | None:
        """The readings of columns begin..end-1, counted from 0 as their tags; None where there is none."""
        a, b = np.searchsorted(self.columns, (begin, end)).tolist()
        if a == b:
            return None
        r, tags = self.readings, self.columns[a:b] - np.int32(begin)
        if isinstance(r, Dense):
            return Dense(times=r.times, tags=tags, values=r.values[:, a:b], quality=r.quality[:, a:b])
        return Frame(times=r.times[a:b], tags=tags, values=r.values[a:b], quality=r.quality[a:b])


_bytes_of: Remembered[bytes] = Remembered()


def _joined(heap: list[Readings]) -> Readings:
    """One block of readings; the heap's are all long, or all dense with the same tags."""
    if len(heap) == 1:
        return heap[0]
    times = np.concatenate([r.times for r in heap])
    values = np.concatenate([r.values for r in heap])
    quality = np.concatenate([r.quality for r in heap])
    if isinstance(heap[0], Dense):
        return Dense(times=times, tags=heap[0].tags, values=values, quality=quality)
    return Frame(times=times, tags=np.concatenate([r.tags for r in heap]), values=values, quality=quality)
