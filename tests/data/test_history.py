"""What is read of archive and journal together, while another process commits and trims between the two."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from penstock.data.archive import Archive, Head
from penstock.data.archive.archiver import drain
from penstock.data.frame import Dense
from penstock.data.grid import Grid
from penstock.data.history import at_a_head, cells_now
from penstock.data.journal import Entry, Journal
from penstock.data.layout import Layout
from penstock.errors import JournalError

GRID, LAYOUT, SMALL = Grid(period_ns=10**9), Layout(dtypes=["float32"] * 2, shards=1), 1 << 14
TICKS = 300


def a_site(folder: Path) -> tuple[Journal, Archive]:
    """A row per tick in the journal, over several segments; nothing archived yet."""
    journal = Journal.open(folder / "journal", segment_bytes=SMALL)
    for tick in range(TICKS):
        row = Dense(
            times=GRID.times(tick, tick + 1),
            tags=np.arange(2, dtype=np.int32),
            values=np.full((1, 2), tick, np.float32),
            quality=np.zeros((1, 2), np.uint8),
        )
        journal.append([Entry(source="s", source_offset=tick + 1, parts={0: row})])
    return journal, Archive.create(folder / "archive", GRID)


def test_a_commit_and_a_trim_between_the_two_cost_a_second_look(tmp_path: Path) -> None:
    journal, archive = a_site(tmp_path)
    seen: list[int] = []

    def newest(head: Head) -> int:
        seen.append(head.position)
        if len(seen) == 1:
            drain(journal, archive, LAYOUT)
            journal.trim(TICKS)
        return max([head.span[1], *(r.sequence + 1 for r in journal.read(head.position, TICKS))])

    assert at_a_head(archive, newest) == TICKS
    assert seen == [0, TICKS]
    cells = cells_now(archive, journal, LAYOUT, GRID, np.array([1], np.int32), 0, TICKS)
    assert cells.values[:, 0].tolist() == list(range(TICKS))
    journal.close()


def test_what_no_commit_holds_and_the_journal_lost_is_an_error(tmp_path: Path) -> None:
    journal, archive = a_site(tmp_path)
    journal.trim(TICKS)
    with pytest.raises(JournalError, match="asked for"):
        cells_now(archive, journal, LAYOUT, GRID, np.array([1], np.int32), 0, TICKS)
    journal.close()
