"""The record of training runs: what was asked, over which state of the archive, and what came of each model.

An SQLite table beside the models, never shortened: an interrupted run goes on from it, and a finished one is
history. A run whose models are all answered for is ended; one that was killed never is. This file knows rows and
one lock per command; what a run means for training is `lambda/runs.py`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from penstock.data.durable import locked
from penstock.errors import ModelError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    id TEXT PRIMARY KEY, begun TEXT NOT NULL, key TEXT NOT NULL, models TEXT NOT NULL, start_ns INTEGER,
    end_ns INTEGER, lstm TEXT NOT NULL, snapshot TEXT NOT NULL, ended TEXT, kind TEXT NOT NULL DEFAULT 'train',
    reasons TEXT NOT NULL DEFAULT '{}'
);
CREATE TABLE IF NOT EXISTS results (
    run TEXT NOT NULL, model TEXT NOT NULL, version INTEGER, error TEXT, at TEXT NOT NULL, verdict TEXT, outcome TEXT,
    PRIMARY KEY (run, model)
);
"""
_LATER = {
    "runs": {"kind": "TEXT NOT NULL DEFAULT 'train'", "reasons": "TEXT NOT NULL DEFAULT '{}'"},
    "results": {"verdict": "TEXT", "outcome": "TEXT"},
}
"""Columns that tables made by an older penstock have not."""
_RUN = "id, begun, key, models, start_ns, end_ns, lstm, snapshot, ended, kind, reasons"
_NOW = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')"
_WAIT_S = 30.0
Kind = Literal["train", "retrain"]
Outcome = Literal["promoted", "waiting", "kept", "refused", "challenging"]
"""Of a retrained version: it is live; it passed and waits for a person; the champion stays; Triton refused it; it is
scored beside the champion, and judged later."""
LONGEST_DAYS = 7
"""How long a run without a result keeps its state of the archive from being let go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One round of training. Its span and snapshot are those of its beginning, whatever came in since."""

    id: str
    begun: str
    """UTC, ISO 8601."""
    key: str
    """What was asked, as a digest: the same command on the same plant.toml has the same."""
    models: tuple[str, ...]
    start_ns: int | None
    end_ns: int | None
    """Absolute span [start, end), UTC; None: as plant.toml says, seen from the snapshot's newest reading."""
    lstm: Mapping[str, Any]
    """What was asked beyond plant.toml."""
    snapshot: str
    """State of the archive."""
    ended: str | None = None
    """None: it was interrupted, or is under way."""
    done: Mapping[str, int] = field(default_factory=dict)
    """Version by model that was trained."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """Reason by model that was not."""
    kind: Kind = "train"
    verdicts: Mapping[str, str] = field(default_factory=dict)
    """The gate's word by model that was retrained and judged."""
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    """What became of it."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Why a model was trained again, where it was not simply time to: what was found to have drifted."""


class Runs:
    """The folder `runs/` of a site. Opened for each call, safe between processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / "runs.sqlite"

    def begin(self, run: Run) -> None:
        """Add a run, durable when this returns. Raises ModelError where the disk refuses, as all of these do."""
        row = (run.id, run.begun, run.key, json.dumps(run.models), run.start_ns, run.end_ns)
        with self._open() as db:
            db.execute("PRAGMA journal_mode = WAL")
            _prepare(db)
            db.execute(
                f"INSERT INTO runs ({_RUN}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL, ?, ?)",
                (*row, json.dumps(run.lstm, default=_plain), run.snapshot, run.kind, json.dumps(dict(run.reasons))),
            )

    def trained(self, run: str, model: str, version: int) -> None:
        """`model` is stored as `version`."""
        self._answered(run, model, version, None)

    def failed(self, run: str, model: str, error: str) -> None:
        """`model` could not be trained."""
        self._answered(run, model, None, error)

    def judged(self, run: str, model: str, verdict: str) -> None:
        """The gate has said so of the version that was trained."""
        with self._open() as db:
            db.execute("UPDATE results SET verdict = ? WHERE run = ? AND model = ?", (verdict, run, model))

    def settled(self, run: str, model: str, outcome: Outcome) -> None:
        """What became of it."""
        with self._open() as db:
            db.execute("UPDATE results SET outcome = ? WHERE run = ? AND model = ?", (outcome, run, model))

    def end(self, run: str) -> None:
        """All of its models are answered for, or it was given up."""
        with self._open() as db:
            db.execute(f"UPDATE runs SET ended = {_NOW} WHERE id = ? AND ended IS NULL", (run,))

    def all(self) -> list[Run]:
        """Every run, newest first."""
        if not self._path.exists():
            return []
        with self._open() as db:
            _prepare(db)
            rows = db.execute(f"SELECT {_RUN} FROM runs ORDER BY begun DESC, rowid DESC").fetchall()
            results = db.execute("SELECT run, model, version, error, verdict, outcome FROM results").fetchall()
        return [_run(row, [r[1:] for r in results if r[0] == row[0]]) for row in rows]

    def unfinished(self, key: str) -> Run | None:
        """The newest run that was asked so and has not ended."""
        return next((run for run in self.all() if run.key == key and run.ended is None), None)

    def snapshots(self) -> set[str]:
        """States of the archive that runs under way may still read: later on, only the cards of their models count."""
        if not self._path.exists():
            return set()
        with self._open() as db:
            _prepare(db)
            young = "julianday('now') - julianday(begun) < ?"
            rows = db.execute(f"SELECT snapshot FROM runs WHERE ended IS NULL AND {young}", (LONGEST_DAYS,)).fetchall()
        return {snapshot for (snapshot,) in rows}

    @contextmanager
    def held(self, key: str) -> Iterator[None]:
        """One process at a time works on what was asked so; a killed one lets go. Raises ModelError where one does."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with locked(self.folder / f"{key[:16]}.lock", deadline_s=0.0):
                yield
        except TimeoutError:
            raise ModelError(
                f"{self.folder}: the same training is under way in another process; wait for it, or end it first"
            ) from None

    def _answered(self, run: str, model: str, version: int | None, error: str | None) -> None:
        with self._open() as db:
            db.execute(
                f"INSERT OR REPLACE INTO results (run, model, version, error, at) VALUES (?, ?, ?, ?, {_NOW})",
                (run, model, version, error),
            )

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            db = sqlite3.connect(self._path, timeout=_WAIT_S)
            try:
                db.execute("PRAGMA synchronous = FULL")
                with db:
                    yield db
            finally:
                db.close()
        except sqlite3.Error as error:
            raise ModelError(f"{self._path}: {error}; check the disk and who else uses the file") from error


def _plain(value: Any) -> Any:
    """A numpy number of `lstm` as JSON has it."""
    return value.item()


def _prepare(db: sqlite3.Connection) -> None:
    """The tables with all their columns, whatever penstock made them."""
    db.executescript(_SCHEMA)
    if _lacking(db):
        db.execute("BEGIN IMMEDIATE")  # another process may be at it too
        for table, column in _lacking(db):
            db.execute(f"ALTER TABLE {table} ADD COLUMN {column} {_LATER[table][column]}")
        db.commit()


def _lacking(db: sqlite3.Connection) -> list[tuple[str, str]]:
    there = {table: {row[1] for row in db.execute(f"PRAGMA table_info({table})")} for table in _LATER}
    return [(table, column) for table, columns in _LATER.items() for column in columns if column not in there[table]]


def _run(row: tuple[Any, ...], results: list[tuple[str, int | None, str | None, str | None, Outcome | None]]) -> Run:
    run, begun, key, models, start_ns, end_ns, lstm, snapshot, ended, kind, reasons = row
    return Run(
        id=run,
        begun=begun,
        key=key,
        models=tuple(json.loads(models)),
        start_ns=start_ns,
        end_ns=end_ns,
        lstm=json.loads(lstm),
        snapshot=snapshot,
        ended=ended,
        done={model: version for model, version, *_ in results if version is not None},
        failed={model: error for model, version, error, *_ in results if version is None and error is not None},
        kind=kind,
        verdicts={model: verdict for model, *_, verdict, _ in results if verdict is not None},
        outcomes={model: outcome for model, *_, outcome in results if outcome is not None},
        reasons=json.loads(reasons),
    )
