"""The record of training runs: what another process, or the next one, finds in it."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from penstock.data.runs import Run, Runs
from penstock.errors import ModelError

RUN = Run(
    id="20260102T030405-abc",
    begun="2026-01-02T03:04:05+00:00",
    key="k" * 64,
    models=("nox.U001", "nox.U002"),
    start_ns=None,
    end_ns=1_700_000_000_000_000_001,
    lstm={"epochs": 3, "change_from_last": None},
    snapshot="S1",
)


def test_a_run_is_read_back_as_it_was_begun_with_what_came_of_it(tmp_path: Path) -> None:
    runs = Runs(tmp_path / "runs")
    assert runs.all() == []
    assert runs.unfinished(RUN.key) is None
    runs.begin(RUN)
    runs.trained(RUN.id, "nox.U002", 4)
    runs.failed(RUN.id, "nox.U001", "too few windows")
    again = Runs(tmp_path / "runs").unfinished(RUN.key)
    assert again == replace(RUN, done={"nox.U002": 4}, failed={"nox.U001": "too few windows"})
    runs.trained(RUN.id, "nox.U001", 1)  # a second try
    (told,) = runs.all()
    assert told.done == {"nox.U002": 4, "nox.U001": 1}
    assert told.failed == {}


def test_an_ended_run_is_history_and_no_more_gone_on_with(tmp_path: Path) -> None:
    runs = Runs(tmp_path / "runs")
    later = replace(RUN, id="later", begun="2026-01-03T00:00:00+00:00", snapshot="S2")
    other = replace(RUN, id="other", key="o" * 64)
    for run in (RUN, later, other):
        runs.begin(run)
    found = runs.unfinished(RUN.key)
    assert found is not None
    assert found.id == "later", "the newest that was asked so"
    runs.end("later")
    found = runs.unfinished(RUN.key)
    assert found is not None
    assert found.id == RUN.id
    runs.end(RUN.id)
    assert runs.unfinished(RUN.key) is None
    assert next(run.id for run in runs.all()) == "later"
    assert {run.id: run.ended is None for run in runs.all()} == {"later": False, RUN.id: False, "other": True}


def test_only_young_runs_keep_their_snapshot(tmp_path: Path) -> None:
    runs = Runs(tmp_path / "runs")
    assert runs.snapshots() == set()
    runs.begin(replace(RUN, id="old", snapshot="OLD", begun="2001-01-01T00:00:00+00:00"))
    runs.begin(replace(RUN, id="young", snapshot="YOUNG", begun="2999-01-01T00:00:00+00:00"))
    assert runs.snapshots() == {"YOUNG"}
    runs.end("young")
    assert runs.snapshots() == set()


def test_what_the_gate_said_and_what_became_of_it(tmp_path: Path) -> None:
    runs = Runs(tmp_path / "runs")
    run = replace(RUN, kind="retrain")
    runs.begin(run)
    runs.trained(run.id, "nox.U001", 4)
    runs.judged(run.id, "nox.U001", "better")
    runs.settled(run.id, "nox.U001", "promoted")
    (told,) = runs.all()
    assert told == replace(
        run, done={"nox.U001": 4}, verdicts={"nox.U001": "better"}, outcomes={"nox.U001": "promoted"}
    )


def test_the_tables_of_an_older_penstock_are_read_and_gone_on_with(tmp_path: Path) -> None:
    runs = Runs(tmp_path / "runs")
    runs.folder.mkdir()
    with closing(sqlite3.connect(runs.folder / "runs.sqlite")) as db, db:
        db.executescript(
            "CREATE TABLE runs (id TEXT PRIMARY KEY, begun TEXT NOT NULL, key TEXT NOT NULL, models TEXT NOT NULL, "
            "start_ns INTEGER, end_ns INTEGER, lstm TEXT NOT NULL, snapshot TEXT NOT NULL, ended TEXT);"
            "CREATE TABLE results (run TEXT NOT NULL, model TEXT NOT NULL, version INTEGER, error TEXT, at TEXT NOT "
            "NULL, PRIMARY KEY (run, model));"
            "INSERT INTO runs VALUES ('old', '2025-01-01T00:00:00+00:00', 'k', '[\"a\"]', NULL, NULL, '{}', 'S', NULL);"
            "INSERT INTO results VALUES ('old', 'a', 2, NULL, '2025-01-01T00:10:00Z');"
        )
    (old,) = runs.all()
    assert (old.kind, old.done, old.verdicts, old.outcomes) == ("train", {"a": 2}, {}, {})
    runs.begin(replace(RUN, kind="retrain"))
    assert [run.kind for run in runs.all()] == ["retrain", "train"]


HOLD = """
import sys, time
from pathlib import Path
from penstock.data.runs import Runs
with Runs(Path(sys.argv[1])).held(sys.argv[2]):
    print("held", flush=True)
    time.sleep(600)
"""


def test_one_process_works_on_a_run_and_a_killed_one_lets_go(tmp_path: Path) -> None:
    runs = Runs(tmp_path / "runs")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "runs"), RUN.key], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ModelError, match="under way in another process"), runs.held(RUN.key):
            pass
        with runs.held("another command"):
            pass
        other.kill()
        other.wait(30)
        with runs.held(RUN.key):
            pass
