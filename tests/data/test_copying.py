"""Copies of a journal and of an archive, taken while others append, trim, commit and expire: whole, each of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from penstock.data.archive import Archive
from penstock.data.archive.cloning import clone, cut_down
from penstock.data.archive.committer import uncollected
from penstock.data.frame import Frame
from penstock.data.grid import PRESENT, Cells, Grid
from penstock.data.journal import ClockDecision, Entry, Journal, Totals
from penstock.data.journal.copying import copy_journal

SEGMENT = 1 << 16
COPIES = 12
GRID = Grid(period_ns=1_000_000_000)
TAGS = np.arange(70, dtype=np.int32)


@contextmanager
def beside(step: Callable[[int], None]) -> Iterator[None]:
    """`step(0)`, `step(1)`, ... in a thread, until the block ends; what it raises is raised."""
    stop, wrong = threading.Event(), []

    def run() -> None:
        number = 0
        while not stop.is_set():
            try:
                step(number)
            except BaseException as error:
                wrong.append(error)
                return
            number += 1

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(60)
    assert not wrong, wrong


def entry(number: int) -> Entry:
    n = number * 37 % 900 + 1
    frame = Frame(
        times=np.full(n, number), tags=np.zeros(n, np.int32), values=np.full(n, number, np.float32),
        quality=np.zeros(n, np.uint8),
    )  # fmt: skip
    clock = ClockDecision(closed=number, reason="watermark") if number % 5 == 0 else None
    return Entry(source="s", source_offset=number, parts={0: frame}, clock=clock)


def test_a_journal_is_copied_beside_appends_and_trims(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "journal", segment_bytes=SEGMENT)
    looking = Journal.open(tmp_path / "journal", segment_bytes=SEGMENT)

    def step(number: int) -> None:
        journal.append([entry(number)])
        if number % 3 == 0:
            journal.trim(max(0, journal.tail - 8))

    firsts = set()
    with beside(step):
        for each in range(COPIES):
            until = time.monotonic() + 30.0
            while looking.tail < 20 * each and time.monotonic() < until:
                time.sleep(0.001)
            before = looking.tail
            first, tail = copy_journal(looking, tmp_path / f"copy-{each}")
            assert tail >= before, "what was acknowledged is in it"
            firsts.add(first)
    for each in range(COPIES):
        copy = Journal.open(tmp_path / f"copy-{each}", segment_bytes=SEGMENT)
        records = [r for r in copy.read(copy.first, copy.tail) if r.readings is not None]
        assert [r.sequence for r in records] == list(range(copy.first, copy.tail))
        for record in records:
            assert isinstance(record.readings, Frame)
            assert (record.readings.values == record.sequence).all()
        accepted = sum(n * 37 % 900 + 1 for n in range(copy.tail))
        assert copy.totals() == ({"s": Totals(accepted=accepted)} if copy.tail else {})
        clock = copy.clock()
        assert (None if clock is None else clock.closed) == (None if not copy.tail else (copy.tail - 1) // 5 * 5)
        (more,) = copy.append([entry(copy.tail)])
        assert more == len(records) + copy.first, "it goes on"
        copy.close()
    assert len(firsts) > 2, "it was trimmed meanwhile"
    journal.close()
    looking.close()


def test_an_archive_is_cloned_beside_commits_and_expiry(tmp_path: Path) -> None:
    archive = Archive.create(tmp_path / "archive", GRID)

    def step(number: int) -> None:
        shape = (50, len(TAGS))
        with archive.committer() as committer:
            committer.admit(np.zeros(len(TAGS), bool))
            quality, offset = np.full(shape, PRESENT, np.uint16), np.full(shape, number, np.uint32)
            cells = Cells(first=0, values=np.full(shape, number, np.float32), quality=quality, offset=offset)
            committer.merge("float32", 0, cells)
            committer.commit(number + 1, None, {}, {})
            if number % 4 == 3:
                committer.expire(set(), number - 2)

    step(0)
    mine, heads = Archive.open(archive.folder), []
    with beside(lambda number: step(number + 1)):
        for each in range(COPIES):
            until = time.monotonic() + 30.0
            while heads and mine.head() == heads[-1] and time.monotonic() < until:
                time.sleep(0.001)
            with uncollected(mine.folder):
                heads.append(mine.head())
                clone(mine.folder, tmp_path / f"copy-{each}")
    for each, head in enumerate(heads):
        cut_down(tmp_path / f"copy-{each}", head.snapshot)
        copy = Archive.open(tmp_path / f"copy-{each}")
        assert copy.commits() == [head]
        assert (copy.read(TAGS, 0, 50).values == head.position - 1).all()
        with copy.committer() as committer:
            assert committer.commit(head.position + 5, None, {}, {}).position == head.position + 5
    assert len({head.snapshot for head in heads}) > 2
    assert (mine.read(TAGS, 0, 50).values == mine.head().position - 1).all(), "the original is as it was"


def test_nothing_is_collected_while_somebody_copies(tmp_path: Path) -> None:
    archive = Archive.create(tmp_path / "archive", GRID)
    with archive.committer() as committer:
        for number in range(4):
            committer.commit(number + 1, None, {}, {})
        gone: list[int] = []
        expiry = threading.Thread(target=lambda: gone.append(committer.expire(set(), 4)))
        with uncollected(archive.folder):
            expiry.start()
            expiry.join(1.0)
            assert (gone, len(archive.commits())) == ([], 5)
        expiry.join(60)
        assert gone
        assert gone[0] > 0
