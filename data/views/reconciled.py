"""The record of reconciliations: what each run found, up to where every model has been looked at, what is still open.

One SQLite file, one transaction per run: a kill leaves the runs before it, and the same command looks at what the lost
one looked at. Knows nothing of how two layers are compared.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.errors import SiteError

FORMAT = 1
"""Of the file, in its `user_version`."""
KEPT = 1000
"""Runs that are kept, besides those that found something unexplained."""
BUSY_S = 30.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    id INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT NOT NULL, position INTEGER NOT NULL, unexplained INTEGER NOT NULL,
    models TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS differences (
    run INTEGER NOT NULL REFERENCES runs(id), number INTEGER NOT NULL, told TEXT NOT NULL, PRIMARY KEY (run, number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS standing (model TEXT PRIMARY KEY, until INTEGER, position INTEGER, open TEXT NOT NULL);
"""

Span = tuple[int, int]
"""Ticks first..last-1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How far one model has been looked at."""

    until: int | None = None
    """Ticks below have been, from the first one said on; None: none has."""
    position: int = 0
    """Late readings of journal sequences below have been taken into account for them."""
    open: tuple[Span, ...] = ()
    """What differed without an explanation when it was looked at last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One reconciliation."""

    at: str
    """UTC, ISO 8601."""
    position: int
    """Journal sequence up to which the archive reached."""
    models: Sequence[Mapping[str, Any]]
    """Per model its counts, as JSON values."""
    differences: Sequence[Mapping[str, Any]]
    """Runs of ticks that differ, with what explains them."""
    id: int = field(default=0)
    """0: not written yet."""

    @property
    def unexplained(self) -> int:
        """Answers that differ without a reason."""
        return sum(int(model["unexplained"]) for model in self.models)


class Reconciled:
    """`views/reconcile.sqlite`; created by the first run, opened for each call, safe between processes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def standing(self) -> dict[str, Standing]:
        """By model; those that were never looked at are left out. Raises SiteError."""
        if not self.path.exists():
            return {}
        with self._open() as db:
            rows = db.execute("SELECT model, until, position, open FROM standing").fetchall()
        return {
            name: Standing(until=until, position=position, open=tuple((a, b) for a, b in json.loads(spans)))
            for name, until, position, spans in rows
        }

    def write(self, run: Run, standing: Mapping[str, Standing]) -> int:
        """Add a run, and how its models stand after it; the run's id. Durable when this returns. Raises SiteError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as db:
            added = db.execute(
                "INSERT INTO runs (at, position, unexplained, models) VALUES (?, ?, ?, ?)",
                (run.at, run.position, run.unexplained, json.dumps(list(run.models))),
            )
            number = int(added.lastrowid or 0)
            told = [(number, i, json.dumps(one)) for i, one in enumerate(run.differences)]
            db.executemany("INSERT INTO differences VALUES (?, ?, ?)", told)
            rows = [(name, s.until, s.position, json.dumps(s.open)) for name, s in standing.items()]
            db.executemany("INSERT OR REPLACE INTO standing VALUES (?, ?, ?, ?)", rows)
            gone = "SELECT id FROM runs WHERE unexplained = 0 AND id <= ?"
            db.execute(f"DELETE FROM differences WHERE run IN ({gone})", (number - KEPT,))
            db.execute("DELETE FROM runs WHERE unexplained = 0 AND id <= ?", (number - KEPT,))
        return number

    def last(self) -> Run | None:
        """The newest run; None where there was none. Raises SiteError."""
        if not self.path.exists():
            return None
        with self._open() as db:
            row = db.execute("SELECT id, at, position, models FROM runs ORDER BY id DESC LIMIT 1").fetchone()
            if row is None:
                return None
            told = db.execute("SELECT told FROM differences WHERE run = ? ORDER BY number", (row[0],)).fetchall()
        return Run(
            id=row[0],
            at=row[1],
            position=row[2],
            models=json.loads(row[3]),
            differences=[json.loads(t) for (t,) in told],
        )

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """In one transaction, the tables made where the file is new."""
        try:
            db = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None)
            try:
                db.execute("PRAGMA synchronous = FULL")
                db.execute("BEGIN IMMEDIATE")
                self._bring_up(db)
                yield db
                db.execute("COMMIT")
            finally:
                db.close()  # rolls back what was not committed
        except sqlite3.Error as error:
            raise SiteError(
                f"{self.path}: {error}; free the disk, or remove the file: all is then looked at again"
            ) from error

    def _bring_up(self, db: sqlite3.Connection) -> None:
        found = int(db.execute("PRAGMA user_version").fetchone()[0])
        if found > FORMAT:
            raise SiteError(f"{self.path}: is of format {found}, this penstock knows up to {FORMAT}: upgrade penstock")
        if found < FORMAT:
            for statement in _SCHEMA.split(";"):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {FORMAT}")
