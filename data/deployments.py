"""The record of deployments: an append-only SQLite table, and who answers by it.

Rows are never changed or removed; the champion is a fold over them, so the
question "which version answered at that time" always has an answer.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from penstock.errors import ModelError

Action = Literal["deploy", "rollback", "undeploy"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS deployments (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    action TEXT NOT NULL,
    who TEXT NOT NULL,
    at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
)
"""
_WAIT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One row of the record."""

    id: int
    name: str
    version: int
    action: Action
    who: str
    at: str
    """UTC, ISO 8601."""


class Registry:
    """`registry.sqlite`; created by the first record, opened for each call, safe between processes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def record(self, name: str, version: int, action: Action, who: str, at: str | None) -> None:
        """Append one row, durable when this returns."""
        if action not in get_args(Action):
            raise ModelError(f"deployment of {name!r}: action {action!r}; allowed: {', '.join(get_args(Action))}")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute(_SCHEMA)
            if at is None:
                row: tuple[str | int, ...] = (name, version, action, who)
                db.execute("INSERT INTO deployments (name, version, action, who) VALUES (?, ?, ?, ?)", row)
            else:
                row = (name, version, action, who, at)
                db.execute("INSERT INTO deployments (name, version, action, who, at) VALUES (?, ?, ?, ?, ?)", row)

    def history(self, name: str | None = None) -> list[Deployment]:
        """Rows of one name, or all, oldest first."""
        if not self.path.exists():
            return []
        with self._open() as db:
            if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'deployments'").fetchone():
                return []
            rows = db.execute(
                "SELECT id, name, version, action, who, at FROM deployments WHERE ?1 IS NULL OR name = ?1 ORDER BY id",
                (name,),
            ).fetchall()
        return [Deployment(id=i, name=n, version=v, action=a, who=w, at=t) for i, n, v, a, w, t in rows]

    def champions(self) -> dict[str, int]:
        """Who answers, by name."""
        answering: dict[str, int] = {}
        for row in self.history():
            if row.action != "undeploy":
                answering[row.name] = row.version
            elif answering.get(row.name) == row.version:  # undeploying a challenger leaves the champion
                del answering[row.name]
        return answering

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            db = sqlite3.connect(self.path, timeout=_WAIT_S)
            try:
                with db:
                    yield db
            finally:
                db.close()
        except sqlite3.Error as error:
            raise ModelError(f"{self.path}: {error}; check the disk and who else uses the file") from error
