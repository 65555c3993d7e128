"""What was said is kept, once, and read back as it was."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from penstock.data.views.adjusted import COLUMNS, Adjusted
from penstock.data.views.speed_view import SpeedView, Spoken
from penstock.errors import SiteError

FIRST_FORMAT = """
CREATE TABLE layouts (id INTEGER PRIMARY KEY, members TEXT NOT NULL UNIQUE);
CREATE TABLE said (
    tick INTEGER NOT NULL, fleet TEXT NOT NULL, layout INTEGER NOT NULL REFERENCES layouts(id),
    "values" BLOB NOT NULL, versions BLOB NOT NULL, reasons BLOB NOT NULL, filled BLOB NOT NULL,
    hashes BLOB NOT NULL, position INTEGER NOT NULL, PRIMARY KEY (tick, fleet)
) WITHOUT ROWID;
"""


def spoken(tick: int, value: float = 1.0, members: tuple[tuple[str, int], ...] = (("nox", 1), ("two", 2))) -> Spoken:
    outputs, m = sum(o for _, o in members), len(members)
    return Spoken(
        tick=tick,
        members=members,
        values=np.arange(outputs, dtype=np.float32) + np.float32(value),
        versions=np.arange(m, dtype=np.int32) + 3,
        reasons=np.arange(m, dtype=np.uint8),
        filled=np.arange(m) == 1,
        hashes=np.full(m, 2**64 - 1 - tick, np.uint64),
        position=tick * 10,
    )


def test_rows_come_back(tmp_path: Path) -> None:
    view = SpeedView.open(tmp_path / "views" / "speed.sqlite")
    assert view.last_tick() is None
    assert view.write([spoken(5, 0.5), spoken(6, 7.0)]) == 2
    two = view.read("two", 5, 7)
    assert two.ticks.tolist() == [5, 6]
    assert two.values.tolist() == [[1.5, 2.5], [8.0, 9.0]]
    assert two.versions.tolist() == [4, 4]
    assert two.reasons.tolist() == [1, 1]
    assert two.filled.tolist() == [True, True]
    assert two.hashes.tolist() == [2**64 - 6, 2**64 - 7]
    assert view.read("nox", 6, 7).values.tolist() == [[7.0]]
    assert len(view.read("nobody", 0, 10).ticks) == 0
    assert (view.last_tick(), view.last_position(), view.models()) == (6, 60, ["nox", "two"])


def test_the_first_write_wins(tmp_path: Path) -> None:
    view = SpeedView.open(tmp_path / "speed.sqlite")
    assert view.write([spoken(5, 1.0)]) == 1
    assert view.write([spoken(5, 2.0), spoken(6, 2.0)]) == 1
    again = SpeedView.open(tmp_path / "speed.sqlite")
    assert again.read("nox", 0, 10).values.tolist() == [[1.0], [2.0]]


def test_members_come_and_go(tmp_path: Path) -> None:
    view = SpeedView.open(tmp_path / "speed.sqlite")
    view.write([spoken(1, members=()), spoken(2, members=(("nox", 1),)), spoken(3, members=(("tey", 1), ("nox", 1)))])
    rows = view.read("nox", 0, 10)
    assert rows.ticks.tolist() == [2, 3]
    assert rows.values.tolist() == [[1.0], [2.0]]
    assert view.last_tick() == 3


def test_a_reader_sees_what_a_writer_committed(tmp_path: Path) -> None:
    reader = SpeedView.open(tmp_path / "speed.sqlite")
    writer = SpeedView.open(tmp_path / "speed.sqlite")
    for tick in range(3):
        writer.write([spoken(tick)])
        assert reader.last_tick() == tick


def test_a_file_that_is_no_view_is_refused(tmp_path: Path) -> None:
    (tmp_path / "speed.sqlite").write_bytes(b"not a database, " * 100)
    with pytest.raises(SiteError, match=r"speed\.sqlite"):
        SpeedView.open(tmp_path / "speed.sqlite")


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_speed_view import spoken
from penstock.data.views.speed_view import SpeedView
view = SpeedView.open(Path(sys.argv[1]))
tick = (view.last_tick() if view.last_tick() is not None else -1) + 1
while True:
    view.write([spoken(t, t) for t in range(tick, tick + 7)])
    tick += 7
    print(tick, flush=True)
"""


def test_a_killed_writer_loses_nothing_it_acknowledged(tmp_path: Path) -> None:
    path, acknowledged = tmp_path / "speed.sqlite", 0
    for _ in range(3):
        command = [sys.executable, "-c", WRITER, str(path), str(Path(__file__).parent)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            acknowledged = int(child.stdout.readline())
            time.sleep(0.05)
            os.kill(child.pid, signal.SIGKILL)
            rest = [int(line) for line in child.stdout.read().splitlines() if line.strip()]
            acknowledged = max([acknowledged, *rest])
        rows = SpeedView.open(path).read("nox", 0, 1 << 40)
        assert len(rows.ticks) >= acknowledged
        assert np.array_equal(rows.ticks, np.arange(len(rows.ticks)))
        assert np.array_equal(rows.values[:, 0], rows.ticks.astype(np.float32))


def test_what_stands_beside_comes_back_and_its_first_write_wins(tmp_path: Path) -> None:
    view = SpeedView.open(tmp_path / "speed.sqlite")
    said = Adjusted(**{name: np.arange(3, dtype=np.float32) + k for k, name in enumerate(COLUMNS)})
    view.write([spoken(4), replace(spoken(5), adjusted=said)], b"behind 5")
    other = Adjusted(**{name: np.zeros(3, np.float32) for name in COLUMNS})
    view.write([replace(spoken(5), adjusted=other)])
    two = SpeedView.open(tmp_path / "speed.sqlite").read("two", 0, 10).adjusted
    assert two is not None
    assert two.corrections.tolist()[1] == [1.0, 2.0]
    assert two.chances.tolist()[1] == [4.0, 5.0]
    assert np.isnan(two.lows[0]).all()
    assert view.state() == (5, b"behind 5")
    for found in (view.after(4, 9)[0], view.newest_each(4)[0], view.newest()):
        assert found is not None
        assert found.adjusted is not None
        assert found.adjusted.highs.tolist() == [2.0, 3.0, 4.0]
    assert view.after(3, 1)[0].adjusted is None
    assert view.read("two", 0, 5).adjusted is None


def test_a_view_of_the_first_format_is_opened_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "speed.sqlite"
    old = sqlite3.connect(path)
    old.executescript(FIRST_FORMAT)
    row = ("1", b"\x00\x00\x80?", b"\x03\x00\x00\x00", b"\x00", b"\x00", b"\x00" * 8)
    old.execute("INSERT INTO layouts VALUES (1, ?)", ('[["nox", 1]]',))
    old.execute("INSERT INTO said VALUES (7, 'all', ?, ?, ?, ?, ?, ?, 70)", row)
    old.commit()
    view = SpeedView.open(path)
    assert view.read("nox", 0, 10).values.tolist() == [[1.0]]
    assert view.read("nox", 0, 10).adjusted is None
    view.write([replace(spoken(8), adjusted=Adjusted.nothing(3))], b"state")
    assert view.last_tick() == 8
    # A penstock of that format writes and reads on.
    old.execute("INSERT INTO said VALUES (9, 'all', ?, ?, ?, ?, ?, ?, 90)", row)
    old.commit()
    old.close()
    assert SpeedView.open(path).read("nox", 0, 10).ticks.tolist() == [7, 8, 9]


def test_a_view_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    SpeedView.open(tmp_path / "speed.sqlite").close()
    connection = sqlite3.connect(tmp_path / "speed.sqlite")
    connection.execute("PRAGMA user_version = 9")
    connection.close()
    with pytest.raises(SiteError, match=r"format 9.*upgrade penstock"):
        SpeedView.open(tmp_path / "speed.sqlite")
