"""Cells followed through the journal are those that a fresh reading of archive and journal gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from penstock.data.archive import Archive
from penstock.data.archive.archiver import drain
from penstock.data.following import AHEAD, Followed
from penstock.data.frame import Dense, Frame, Readings
from penstock.data.grid import Grid
from penstock.data.history import cells_now
from penstock.data.journal import ClockDecision, Entry, Journal
from penstock.data.layout import Layout

SECOND = 10**9
GRID = Grid(period_ns=SECOND, origin_ns=0)
LAYOUT = Layout(("float32",) * 4, 2)
TAGS = np.array([1, 3], np.int32)


def row(tick: int, value: float) -> Readings:
    """All four tags at a tick."""
    values = np.full((1, 4), value, np.float32) + np.arange(4, dtype=np.float32)
    return Dense(
        times=np.array([tick * SECOND], np.int64), tags=np.arange(4, dtype=np.int32), values=values,
        quality=np.zeros((1, 4), np.uint8),
    )  # fmt: skip


def reading(tick: int, tag: int, value: float, after_ns: int) -> Readings:
    """One reading that came by itself, somewhat behind the beginning of its tick."""
    return Frame(
        times=np.array([tick * SECOND + after_ns], np.int64), tags=np.array([tag], np.int32),
        values=np.array([value], np.float32), quality=np.zeros(1, np.uint8),
    )  # fmt: skip


class Plant:
    def __init__(self, folder: Path) -> None:
        self.archive = Archive.create(folder / "archive", GRID)
        self.journal = Journal.open(folder / "journal", segment_bytes=1 << 16)
        self.followed = Followed(self.archive, self.journal, TAGS)
        self._offset = 0

    def take(self, readings: Readings, closed: int) -> None:
        self._offset += 1
        clock = ClockDecision(closed=closed, reason="watermark", state={})
        parts = LAYOUT.split(readings)
        self.journal.append([Entry(source="s", source_offset=self._offset, parts=parts, clock=clock)])

    def agree(self, first: int, last: int) -> None:
        seen = self.followed.read(len(LAYOUT), first, last)
        fresh = cells_now(self.archive, self.journal, LAYOUT, GRID, TAGS, first, last)
        for name in ("values", "quality", "offset"):
            np.testing.assert_array_equal(getattr(seen, name), getattr(fresh, name), name)


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    return Plant(tmp_path)


def test_rows_late_ones_and_commits_are_followed_without_the_archive(plant: Plant) -> None:
    random = np.random.default_rng(0)
    for tick in range(100, 200):
        plant.take(row(tick, float(random.integers(50))), tick)
        if tick % 7 == 0:  # behind the watermark, into a row that has been seen
            plant.take(reading(tick - 30, 3, 7.5, int(random.integers(1, SECOND))), tick)
        if tick % 10 == 0:
            drain(plant.journal, plant.archive, LAYOUT)
        plant.agree(tick - 50, tick + 1)
    assert plant.followed.loads == 1


def test_a_block_that_is_left_behind_is_read_anew(plant: Plant) -> None:
    for tick in range(10):
        plant.take(row(tick, tick), tick)
    plant.agree(0, 10)
    beyond = 10 + AHEAD
    plant.take(row(beyond, 1.0), beyond)  # the block does not hold it
    plant.agree(0, beyond)
    plant.agree(5, beyond + 1)
    assert plant.followed.loads == 2
    plant.agree(-5, beyond + 1)
    assert plant.followed.loads == 3


def test_what_was_trimmed_before_it_was_followed_is_in_the_archive(plant: Plant) -> None:
    plant.take(row(0, 1.0), 0)
    plant.agree(0, 1)
    for tick in range(1, 900):
        plant.take(row(tick % 200, float(tick)), tick % 200)
    drain(plant.journal, plant.archive, LAYOUT)
    plant.journal.trim(plant.journal.tail)
    assert plant.journal.first > 1
    plant.agree(0, 200)
    assert plant.followed.loads == 2
