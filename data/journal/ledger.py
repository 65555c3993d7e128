"""The late list: which readings arrived behind the watermark, as ranges of ticks.

Late is defined by the log alone: a reading is late when its tick is below the `closed` of the newest
clock record of a smaller sequence. So the ledger is only a copy of what the log says, kept because the
log is trimmed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from penstock.data.frame import Dense, Frame, Readings
from penstock.data.grid import Grid
from penstock.data.journal import Journal, Kind, Record
from penstock.data.layout import Layout
from penstock.errors import JournalError

BUSY_S = 30.0
LATE, REVISED = "late", "revised"
"""The lists: behind the watermark; and ahead of it, but by no more than the tag's `ahead`: a window that was cut may
have read the tick without it."""


@dataclass(frozen=True, slots=True, order=True)
class LateRange:
    """Late readings of one record in neighbouring ticks."""

    sequence: int
    shard: int
    t0: int
    """First tick."""
    t1: int
    """One past the last tick."""
    count: int
    """Readings."""
    source: str


def late_ticks(readings: Readings, closed: int | None, grid: Grid) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Rows that lie behind `closed` [len(times)], and the tick of each row."""
    ticks = grid.tick(readings.times)
    return (np.zeros(len(ticks), bool) if closed is None else ticks < closed), ticks


def ranges_of(record: Record, closed: int | None, grid: Grid) -> list[LateRange]:
    """The late ranges of one data record, ascending; `closed` as of smaller sequences."""
    readings = record.readings
    if readings is None:
        return []
    late, ticks = late_ticks(readings, closed, grid)
    return _ranges(record, readings, late, ticks) if late.any() else []


def revised_ranges(
    record: Record, early: Frame | None, closed: int | None, layout: Layout, grid: Grid
) -> list[LateRange]:
    """Of the readings `early` of a record, which may be ahead of their time, those of ticks behind which a window of
    a closed tick may look; ascending."""
    if early is None or closed is None:
        return []
    ticks = grid.tick(early.times)
    within = (ticks >= closed) & (ticks - layout.ahead_of()[early.tags] < closed)
    return _ranges(record, early, within, ticks) if within.any() else []


def _ranges(record: Record, readings: Readings, late: NDArray[np.bool_], ticks: NDArray[np.int64]) -> list[LateRange]:
    counts = readings.counts() if isinstance(readings, Dense) else np.ones(len(ticks), np.int64)
    found, back = np.unique(ticks[late], return_inverse=True)
    per_tick = np.bincount(back, weights=counts[late]).astype(np.int64)
    found, per_tick = found[per_tick > 0], per_tick[per_tick > 0]
    cuts = np.flatnonzero(np.diff(found) != 1) + 1
    return [
        LateRange(
            sequence=record.sequence, shard=record.shard, t0=int(run[0]), t1=int(run[-1]) + 1,
            count=int(n.sum()), source=record.source,
        )
        for run, n in zip(np.split(found, cuts), np.split(per_tick, cuts), strict=True)
        if len(run)
    ]  # fmt: skip


def late_ranges(journal: Journal, start: int, stop: int, layout: Layout, grid: Grid) -> list[LateRange]:
    """What the log of sequences start..stop-1 says was late, in order of sequence, shard and tick.

    Raises JournalError when `start` was trimmed.
    """
    closed = journal.closed_before(start)
    found: list[LateRange] = []
    for record in journal.read(start, stop):
        if record.kind == Kind.CLOCK and record.clock is not None:
            closed = record.clock.closed  # the last of its sequence: it holds from the next one on
        elif 0 <= record.shard < layout.shard_count():
            found += ranges_of(record, closed, grid)
    return found


def write_ranges(folder: Path, found: Sequence[LateRange], *, table: str = LATE) -> None:
    """Add ranges to a list of the ledger of the journal in `folder`, durably; those already there stay."""
    with _ledger(folder) as database, database:
        database.executemany(f"INSERT OR IGNORE INTO {table} VALUES (?, ?, ?, ?, ?, ?)", map(astuple, found))


def late_list(folder: Path, *, table: str = LATE) -> list[LateRange]:
    """All ranges of a list since the site began, in order of sequence, shard and tick.

    `folder`: the journal's.
    """
    if not (folder / "ledger.sqlite").exists():
        return []
    with _ledger(folder) as database:
        rows = database.execute(f"SELECT * FROM {table} ORDER BY sequence, shard, t0")
        return [LateRange(*row) for row in rows]


def late_count(folder: Path, since: int, *, table: str = LATE) -> int:
    """Readings of a list, of sequences from `since` on, whoever archived them. `folder`: the journal's."""
    if not (folder / "ledger.sqlite").exists():
        return 0
    with _ledger(folder) as database:
        counted = f"SELECT coalesce(sum(count), 0) FROM {table} WHERE sequence >= ?"
        found = database.execute(counted, (since,)).fetchone()
    return int(found[0])


@contextmanager
def _ledger(folder: Path) -> Iterator[sqlite3.Connection]:
    try:
        with closing(sqlite3.connect(folder / "ledger.sqlite", timeout=BUSY_S)) as database:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            for table in (LATE, REVISED):
                database.execute(
                    f"CREATE TABLE IF NOT EXISTS {table} (sequence INTEGER, shard INTEGER, t0 INTEGER, t1 INTEGER,"
                    " count INTEGER, source TEXT, PRIMARY KEY (sequence, shard, t0)) WITHOUT ROWID"
                )
            yield database
    except sqlite3.Error as error:
        raise JournalError(f"{folder / 'ledger.sqlite'}: {error}; free the disk or restore the file") from error
