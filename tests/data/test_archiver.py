"""Journal to archive: the same bytes whatever the order, the batches and the restarts."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading_strategies import GRID, PERIOD_NS, Model, model_cells, model_put, raw, readings

from penstock.data.archive import Archive
from penstock.data.archive.archiver import drain
from penstock.data.frame import Dense, Readings
from penstock.data.grid import LATE, Cells
from penstock.data.journal import ClockDecision, Entry, Journal, Totals
from penstock.data.journal.ledger import LateRange, late_list, late_ranges
from penstock.data.layout import Layout
from penstock.errors import ArchiveBusy, ArchiveError

TAGS, TICKS = 5, 8
LAYOUT = Layout(["float32"] * TAGS, 2)
IDS = np.arange(TAGS, dtype=np.int32)
SMALL = 1 << 14


@contextmanager
def site() -> Iterator[tuple[Journal, Archive]]:
    folder = Path(tempfile.mkdtemp())
    journal = Journal.open(folder / "journal", segment_bytes=SMALL)
    try:
        yield journal, Archive.create(folder / "archive", GRID)
    finally:
        journal.close()
        shutil.rmtree(folder)


def entry(given: Readings, number: int, closed: int | None = None, source: str = "s") -> Entry:
    clock = None if closed is None else ClockDecision(closed=closed, reason="watermark")
    return Entry(source=source, source_offset=number, parts=LAYOUT.split(given), rejected=1, clock=clock)


def row(tick: int, *values: float) -> Dense:
    return Dense(
        times=np.array([GRID.time(tick)]),
        tags=np.arange(len(values), dtype=np.int32),
        values=np.array([values], np.float32),
        quality=np.zeros((1, len(values)), np.uint8),
    )


def stored(archive: Archive) -> Cells:
    return archive.read(IDS, 0, TICKS)


entries = st.lists(
    st.tuples(readings(tags=TAGS, ticks=TICKS), st.none() | st.integers(0, TICKS)), min_size=1, max_size=6
)


@given(entries, st.integers(1, 9), st.data())
@settings(max_examples=25, deadline=None)
def test_the_archive_is_the_maximum_of_the_log(
    given_entries: list[tuple[Readings, int | None]], cells: int, data: st.DataObject
) -> None:
    """In one drain, or in several that stop anywhere; late is what the log says, and the ledger says so too."""
    model: Model = {}
    late_before: int | None = None
    late = 0
    with site() as (journal, archive):
        for number, (block, closed) in enumerate(given_entries):
            journal.append([entry(block, number, closed)])
            model_put(model, block, late_before)
            frame = block.long() if isinstance(block, Dense) else block
            late += 0 if late_before is None else int((GRID.tick(frame.times) < late_before).sum())
            late_before = late_before if closed is None else closed
        stops = data.draw(st.lists(st.integers(0, journal.tail), max_size=3))
        done = [drain(journal, archive, LAYOUT, stop=stop, cells=cells) for stop in [*sorted(stops), None]]

        assert raw(stored(archive)) == raw(model_cells(model, 0, TICKS, IDS))
        head = archive.head()
        assert (head.position, head.closed) == (journal.tail, late_before)
        assert (dict(head.source_offsets), dict(head.totals)) == (journal.offsets(), journal.totals())
        ticks = [tick for tick, _ in model]
        assert head.span == ((min(ticks), max(ticks) + 1) if ticks else (0, 0))
        assert late_list(journal.folder) == late_ranges(journal, 0, journal.tail, LAYOUT, GRID)
        assert sum(d.late for d in done) == late == sum(r.count for r in late_list(journal.folder))


def test_draining_twice_changes_nothing() -> None:
    with site() as (journal, archive):
        journal.append([entry(row(3, 1, 2), 0), entry(row(4, 3, 4), 1, closed=4)])
        first = drain(journal, archive, LAYOUT)
        assert (first.sequences, first.readings, first.late, first.commits) == (2, 4, 0, 1)
        again = drain(journal, archive, LAYOUT)
        assert again.head == first.head
        assert (again.sequences, again.readings, again.commits) == (0, 0, 0)
        journal.append([entry(row(3, 1, 2), 0), entry(row(4, 3, 4), 1)])
        before = raw(stored(archive))
        assert drain(journal, archive, LAYOUT).late == 2, "the repeated row 3 comes late, and loses"
        assert raw(stored(archive)) == before
        assert archive.head().totals == {"s": Totals(accepted=8, rejected=4)}


def test_a_late_reading_after_its_commit() -> None:
    """
    sequence | 0         1           2           3
    ticks    | 1         2, closed 3 3           1 (tag 1) and 4
    """
    with site() as (journal, archive):
        journal.append([entry(row(1, 10), 0), entry(row(2, 20), 1, closed=3), entry(row(3, 30), 2)])
        early = drain(journal, archive, LAYOUT).head
        journal.append([entry(row(1, np.nan, 11), 3, source="import:x"), entry(row(4, 40), 4)])
        assert drain(journal, archive, LAYOUT).late == 1

        now, then = stored(archive), archive.read(IDS, 0, TICKS, snapshot=early.snapshot)
        assert now.values[1:5, 0].tolist() == [10, 20, 30, 40]
        assert now.values[1, 1] == 11
        assert now.quality[1, 1] & LATE
        assert not now.quality[3, 0] & LATE
        assert then.quality[1, 1] == 0
        expected = [LateRange(sequence=3, shard=1, t0=1, t1=2, count=1, source="import:x")]
        assert late_list(journal.folder) == expected
        assert late_ranges(journal, 3, 5, LAYOUT, GRID) == expected


def test_trim_reopen_and_drain_on() -> None:
    with site() as (journal, archive):
        position = 0
        for number in range(300):
            journal.append([entry(row(number, number, -number), number, closed=number)])
            if number % 50 == 49:
                position = drain(journal, archive, LAYOUT, cells=20).head.position
                journal.trim(position)
        assert journal.first > 0
        journal.close()
        journal = Journal.open(journal.folder, segment_bytes=SMALL)
        archive = Archive.open(archive.folder)
        journal.append([entry(row(300, 7), 300)])
        assert drain(journal, archive, LAYOUT).sequences == 1
        values = archive.read(IDS, 0, 301).values
        assert values[:300, 1].tolist() == [-float(n) for n in range(300)]
        assert archive.head().totals == journal.totals()
        assert late_ranges(journal, journal.first, journal.tail, LAYOUT, GRID) == []
        journal.close()


def test_a_journal_trimmed_too_far_is_an_error_not_a_gap() -> None:
    with site() as (journal, archive):
        for number in range(200):
            journal.append([entry(row(number, 1), number)])
        journal.trim(150)
        with pytest.raises(ArchiveError, match="lost unless you restore"):
            drain(journal, archive, LAYOUT)


def test_segments_that_the_stream_has_left_are_rewritten() -> None:
    with site() as (journal, archive):
        year = archive.segment_ticks
        rows = [row(tick, tick) for tick in (year - 2, year - 1, year, year + 1)]
        journal.append([entry(r, n, closed=year - 2 + n) for n, r in enumerate(rows)])
        drain(journal, archive, LAYOUT, stop=2)
        assert not archive.view().segments["float32", 0].closed
        drain(journal, archive, LAYOUT)
        assert archive.view().segments["float32", 0].closed
        assert not archive.view().segments["float32", 1].closed
        assert archive.read(IDS, year - 2, year + 2).values[:, 0].tolist() == [year - 2, year - 1, year, year + 1]
        assert archive.head().position == 4


def test_progress_and_both_dtypes() -> None:
    layout = Layout(["float64", "float32", "float64"], 2)
    block = Dense(
        times=GRID.times(0, 4),
        tags=np.arange(3, dtype=np.int32),
        values=np.arange(12).reshape(4, 3) + 0.1,
        quality=np.zeros((4, 3), np.uint8),
    )
    seen: list[tuple[int, int]] = []
    with site() as (journal, archive):
        # A commit goes on to the end of its block of ticks: the second entry lies in the first one's.
        later = [replace(block, times=GRID.times(at, at + 4)) for at in (0, 4, 1024, 2048)]
        journal.append([Entry(source="s", source_offset=n, parts=layout.split(b)) for n, b in enumerate(later)])
        drain(journal, archive, layout, cells=12, progress=lambda done, of: seen.append((done, of)))
        cells = archive.read(np.array([2, 1, 0], np.int32), 0, 4)
    assert seen == [(2, 4), (3, 4), (4, 4)]
    assert cells.values[:, 0].tolist() == block.values[:, 2].tolist()
    assert cells.values[:, 1].tolist() == block.values[:, 1].astype(np.float32).tolist()


def test_a_busy_archive_says_so() -> None:
    with site() as (journal, archive), archive.committer(), pytest.raises(ArchiveBusy):
        drain(journal, archive, LAYOUT)


def test_a_wide_plant_is_merged_in_pieces() -> None:
    """More tags than one chunk has, a block that is read column range by column range."""
    tags = 20_000
    layout = Layout(["float32"] * tags, 2)
    wide = Dense(
        times=GRID.times(0, 3) + PERIOD_NS // 2,
        tags=np.arange(tags, dtype=np.int32),
        values=np.random.default_rng(0).normal(size=(3, tags)).astype(np.float32),
        quality=np.zeros((3, tags), np.uint8),
    )
    with site() as (journal, archive):
        journal.close()
        journal = Journal.open(journal.folder, segment_bytes=1 << 20)
        journal.append([Entry(source="s", source_offset=0, parts=layout.split(wide))])
        drain(journal, archive, layout)
        cells = archive.read(np.array([19_999, 0, 8_192], np.int32), 0, 3)
        journal.close()
    assert cells.values.tolist() == wide.values[:, [19_999, 0, 8_192]].tolist()
    assert (cells.offset == 1 << 31).all()
