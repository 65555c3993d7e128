"""kill -9 at random moments: nothing acknowledged is lost, nothing is torn, nothing counted twice."""

from __future__ import annotations

import multiprocessing
import random
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from penstock.data.archive import Archive
from penstock.data.archive.archiver import drain
from penstock.data.frame import Dense, Frame
from penstock.data.grid import Grid
from penstock.data.journal import ClockDecision, Entry, Journal, Totals
from penstock.data.journal.ledger import late_list, late_ranges
from penstock.data.layout import Layout
from penstock.data.plant import HOUR_NS

SEGMENT = 1 << 16
LAYOUT = Layout(["float32", "float64", "float32", "float32"], 2)
GRID = Grid(period_ns=HOUR_NS)

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["penstock.data.archive.archiver"])  # so that a new process is there in no time


def append_for_ever(folder: Path, say: Connection) -> None:
    """Append entries of growing and shrinking size from where the journal ends; say each acknowledged number."""
    journal = Journal.open(folder, segment_bytes=SEGMENT)
    number = journal.offsets().get("s", -1)
    while True:
        number += 1
        n = number * 37 % 900
        frame = Frame(
            times=np.full(n, number),
            tags=np.zeros(n, np.int32),
            values=np.full(n, number, np.float32),
            quality=np.zeros(n, np.uint8),
        )
        journal.append([Entry(source="s", source_offset=number, parts={0: frame, 1: frame}, quarantined=1)])
        say.send(number)


def drain_all(folder: Path, say: Connection) -> None:
    """Say when the drain begins, each commit, and when it has ended; between two commits there is time to be killed."""
    journal = Journal.open(folder / "journal", segment_bytes=SEGMENT)
    archive = Archive.open(folder / "archive")

    def committed(done: int, of: int) -> None:
        say.send(0)
        time.sleep(0.005)

    say.send(0)
    drain(journal, archive, LAYOUT, cells=1_000, progress=committed)
    say.send(1)


def run_and_kill(program: Callable[[Path, Connection], None], folder: Path, seconds: float, words: int = 1) -> int:
    """The last thing it said before it was killed, `seconds` after so many words, or at its end."""
    hear, say = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=program, args=(folder, say))
    process.start()
    say.close()
    said = None
    with suppress(EOFError):
        for _ in range(words):
            assert hear.poll(60), "it says nothing"
            said = hear.recv()
    time.sleep(seconds)
    process.kill()
    process.join(30)
    with hear, suppress(EOFError):
        while True:
            said = hear.recv()
    assert said is not None
    return int(said)


def test_acknowledged_entries_survive_twenty_kills(tmp_path: Path) -> None:
    acknowledged = -1
    moments = random.Random(1)
    for _ in range(20):
        acknowledged = run_and_kill(append_for_ever, tmp_path, moments.uniform(0, 0.08))
        journal = Journal.open(tmp_path, segment_bytes=SEGMENT)
        assert journal.tail in (acknowledged + 1, acknowledged + 2), "at most one was durable and not yet told"
        journal.close()
    assert acknowledged > 50
    journal = Journal.open(tmp_path, segment_bytes=SEGMENT)
    for number, record in enumerate(journal.read(0, journal.tail, shard=1)):
        n = number * 37 % 900
        assert (record.sequence, record.source_offset, record.accepted) == (number, number, n)
        assert isinstance(record.readings, Frame)
        assert (record.readings.values == number).all()
    accepted = sum(2 * (n * 37 % 900) for n in range(journal.tail))
    assert journal.totals() == {"s": Totals(accepted=accepted, quarantined=journal.tail)}
    journal.close()


def fill(journal: Journal) -> int:
    """Three years of rows and some late ones; the number of readings."""
    rng = np.random.default_rng(5)
    ticks = 9_000
    values = rng.normal(size=(ticks, 4))
    for number, first in enumerate(range(0, ticks, 50)):
        start = first if number % 7 else max(first - 3_000, 0)
        block = Dense(
            times=GRID.times(start, start + 50) + number,
            tags=np.arange(4, dtype=np.int32),
            values=values[start : start + 50],
            quality=np.zeros((50, 4), np.uint8),
        )
        clock = ClockDecision(closed=first + 40, reason="watermark")
        journal.append([Entry(source="s", source_offset=number, parts=LAYOUT.split(block), clock=clock)])
    return ticks * 4


def test_a_killed_archiver_ends_with_the_same_bytes(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "journal", segment_bytes=SEGMENT)
    readings = fill(journal)
    Archive.create(tmp_path / "archive", GRID)
    moments, positions = random.Random(2), []
    for _ in range(15):
        ended = run_and_kill(drain_all, tmp_path, moments.uniform(0, 0.02), words=moments.randint(1, 4))
        positions.append(Archive.open(tmp_path / "archive").head().position)
        if ended:
            break
    assert positions == sorted(positions)
    assert len(set(positions)) >= 3, "it was killed at several places on the way"

    killed = Archive.open(tmp_path / "archive")
    drain(journal, killed, LAYOUT)
    whole = Archive.create(tmp_path / "whole", GRID)
    drain(journal, whole, LAYOUT, cells=10**6)
    ids = np.arange(4, dtype=np.int32)
    one, other = (a.read(ids, -10, 9_100) for a in (killed, whole))
    for name in ("values", "quality", "offset"):
        assert getattr(one, name).tobytes() == getattr(other, name).tobytes(), name
    mine, its = killed.head(), whole.head()
    assert (mine.position, mine.closed, mine.totals, mine.span) == (its.position, its.closed, its.totals, its.span)
    assert mine.totals == {"s": Totals(accepted=readings)}
    assert late_list(journal.folder) == late_ranges(journal, 0, journal.tail, LAYOUT, GRID)
    assert killed.view().segments["float32", 0].closed
    journal.close()
