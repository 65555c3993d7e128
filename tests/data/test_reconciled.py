"""The record of reconciliations: whole or not at all, bounded, refused where it is of a newer format."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from penstock.data.views import reconciled
from penstock.data.views.reconciled import Reconciled, Run, Standing
from penstock.errors import SiteError


def run(unexplained: int, difference: str = "late") -> Run:
    counts = {"model": "nox", "ticks": 9, "unexplained": unexplained}
    return Run(at="2026-01-01T00:00:00Z", position=3, models=[counts], differences=[{"verdict": difference}])


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    record = Reconciled(tmp_path / "views" / "reconcile.sqlite")
    assert (record.last(), record.standing()) == (None, {})
    standing = Standing(until=40, position=3, open=((4, 6), (9, 10)))
    assert record.write(run(0), {"nox": Standing(until=10, position=1)}) == 1
    assert record.write(run(3, "unexplained"), {"nox": standing, "tey": Standing()}) == 2
    last = Reconciled(record.path).last()
    assert last is not None
    assert (last.id, last.unexplained, last.differences) == (2, 3, [{"verdict": "unexplained"}])
    assert record.standing() == {"nox": standing, "tey": Standing()}


def test_a_run_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    record = Reconciled(tmp_path / "reconcile.sqlite")
    record.write(run(0), {"nox": Standing(until=10)})
    broken = Run(at="", position=1, models=[{"model": "nox", "unexplained": 0}], differences=[{"a": object()}])
    with pytest.raises(TypeError):
        record.write(broken, {"nox": Standing(until=99)})
    last = record.last()
    assert last is not None
    assert last.id == 1
    assert record.standing()["nox"].until == 10


def test_old_runs_go_and_those_with_something_unexplained_stay(tmp_path: Path) -> None:
    record = Reconciled(tmp_path / "reconcile.sqlite")
    record.write(run(1), {})
    record.write(run(0), {})
    with closing(sqlite3.connect(record.path)) as db, db:
        db.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = 'runs'", (reconciled.KEPT + 5,))
    record.write(run(0), {})
    with closing(sqlite3.connect(record.path)) as db:
        kept = [i for (i,) in db.execute("SELECT id FROM runs ORDER BY id")]
        told = {i for (i,) in db.execute("SELECT run FROM differences")}
    assert kept == [1, reconciled.KEPT + 6]
    assert told == set(kept)


def test_a_newer_or_damaged_file_is_refused(tmp_path: Path) -> None:
    record = Reconciled(tmp_path / "reconcile.sqlite")
    record.write(run(0), {})
    with closing(sqlite3.connect(record.path)) as db, db:
        db.execute("PRAGMA user_version = 9")
    with pytest.raises(SiteError, match="format 9"):
        record.last()
    record.path.write_bytes(b"no database at all, not a bit of it" * 99)
    with pytest.raises(SiteError, match="looked at again"):
        record.standing()
