"""What is kept of single tags between questions is what the archive would say, whatever was committed meanwhile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from penstock.data.archive import Archive
from penstock.data.archive.archiver import drain
from penstock.data.archive.kept import Kept
from penstock.data.durations import UNITS_NS
from penstock.data.frame import Frame
from penstock.data.grid import Cells, Grid
from penstock.data.journal import ClockDecision, Entry, Journal
from penstock.data.layout import Layout

GRID = Grid(period_ns=UNITS_NS["h"])
SEGMENT = 8784
SPAN = (SEGMENT - 1200, SEGMENT + 1200)
"""Both sides of a border of segments."""


def frame(random: np.random.Generator, tags: int, ticks: tuple[int, int], n: int) -> Frame:
    return Frame(
        times=np.sort(GRID.time(0) + random.integers(*ticks, n) * GRID.period_ns + random.integers(0, 9, n)),
        tags=random.integers(0, tags, n).astype(np.int32),
        values=random.normal(size=n),
        quality=(random.random(n) < 0.1).astype(np.uint8) * 192,
    )


def bits(cells: Cells) -> tuple[bytes, ...]:
    return cells.values.dtype.str.encode(), cells.values.tobytes(), cells.quality.tobytes(), cells.offset.tobytes()


@pytest.mark.parametrize(("seed", "room"), [(1, 1 << 26), (2, 1 << 26), (3, 20_000)])
def test_a_question_is_answered_as_from_the_archive_itself(tmp_path: Path, seed: int, room: int) -> None:
    """Late readings, closed segments, tags that come later, two who ask in turn, and little room."""
    random = np.random.default_rng(seed)
    journal, archive = Journal.open(tmp_path / "journal"), Archive.create(tmp_path / "archive", GRID)
    reader, heads = Archive.open(archive.folder), []
    kept = Kept(reader, room)
    for step in range(14):
        tags = 3 if step < 8 else 5
        layout = Layout(["float32", "float64", "float32", "float32", "float64"][:tags], 1)
        near = (SPAN[0] + 150 * step, SPAN[0] + 150 * step + 300)
        some = frame(random, tags, SPAN if step % 3 == 2 else near, 200)
        clock = ClockDecision(closed=near[0], reason="watermark") if step % 2 else None
        journal.append([Entry(source="s", source_offset=step, parts=layout.split(some), clock=clock)])
        drain(journal, archive, layout)
        heads.append(reader.head().snapshot)
        for _ in range(3):
            asked = random.choice(tags, random.integers(1, 4), replace=False).astype(np.int32)
            first = int(random.integers(SPAN[0] - 50, SPAN[1]))
            last = first + int(random.integers(0, 1500))
            snapshot = heads[-1] if random.random() < 0.8 else str(random.choice(heads))
            plain = reader.read(asked, first, last, snapshot=snapshot)
            assert bits(reader.read_again(asked, first, last, snapshot=snapshot)) == bits(plain), step
            again = Cells.empty(first, last - first, len(asked), plain.values.dtype.name)
            assert kept.fill(again, asked, snapshot)
            assert bits(again) == bits(plain), step
    journal.close()
