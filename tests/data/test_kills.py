"""kill -9 at random moments: nothing acknowledged is lost, nothing is torn, nothing counted twice."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from penstock.data.archive import Archive
from penstock.data.archiver import drain
from penstock.data.frame import Dense, Frame
from penstock.data.grid import Grid
from penstock.data.journal import ClockDecision, Entry, Journal, Totals
from penstock.data.layout import Layout
from penstock.data.ledger import late_list, late_ranges
from penstock.data.plant import HOUR_NS

SEGMENT = 1 << 16
LAYOUT = Layout(["float32", "float64", "float32", "float32"], 2)
GRID = Grid(period_ns=HOUR_NS)

APPEND = """
import sys
import numpy as np
from pathlib import Path
from penstock.data.frame import Frame
from penstock.data.journal import Entry, Journal

journal = Journal.open(Path(sys.argv[1]), segment_bytes={segment})
number = journal.offsets().get("s", -1)
while True:
    number += 1
    n = number * 37 % 900
    parts = {{s: Frame(times=np.full(n, number), tags=np.zeros(n, np.int32), values=np.full(n, number, np.float32),
                      quality=np.zeros(n, np.uint8)) for s in (0, 1)}}
    journal.append([Entry(source="s", source_offset=number, parts=parts, quarantined=1)])
    print(number, flush=True)
"""

DRAIN = """
import sys
from pathlib import Path
from penstock.data.archive import Archive
from penstock.data.archiver import drain
from penstock.data.journal import Journal
from penstock.data.layout import Layout

folder = Path(sys.argv[1])
journal = Journal.open(folder / "journal", segment_bytes={segment})
archive = Archive.open(folder / "archive")
print("ready", flush=True)
drain(journal, archive, Layout({dtypes}, 2), cells=1500)
print("done", flush=True)
"""


def start(program: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE, text=True)


def kill_after(process: subprocess.Popen[str], seconds: float) -> list[str]:
    """What it had printed, whole lines only, when it was killed `seconds` after its first line."""
    assert process.stdout is not None
    first = process.stdout.readline()
    time.sleep(seconds)
    process.kill()
    rest = process.stdout.read()
    process.wait(30)
    process.stdout.close()
    return [line for line in (first + rest).split("\n")[:-1] if line]


def test_acknowledged_entries_survive_twenty_kills(tmp_path: Path) -> None:
    acknowledged = -1
    moments = random.Random(1)
    for _ in range(20):
        lines = kill_after(start(APPEND.format(segment=SEGMENT), tmp_path), moments.uniform(0, 0.08))
        acknowledged = int(lines[-1])
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
    moments, positions, rounds = random.Random(2), [], 0
    while rounds < 40:
        rounds += 1
        lines = kill_after(
            start(DRAIN.format(segment=SEGMENT, dtypes=list(LAYOUT.dtypes)), tmp_path), moments.uniform(0, 0.5)
        )
        positions.append(Archive.open(tmp_path / "archive").head().position)
        if "done" in lines:
            break
    assert positions == sorted(positions)
    assert rounds >= 4, "it was killed a few times on the way"

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
