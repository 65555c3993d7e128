"""The record of deployments and audit log: an append-only SQLite table, and who answers by it.

Who moved which model from which version to which, when, on which state of the archive it was trained, and why. Rows
are never changed or removed, which the table itself refuses; the champion is a fold over them, so the question
"which version answered at that time" always has an answer, and log and truth cannot differ. So is the challenger,
which is scored beside it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from penstock.errors import ModelError

Action = Literal["deploy", "promote", "rollback", "undeploy", "challenge", "dismiss"]
BESIDE = ("challenge", "dismiss")
"""Moves of a challenger: they leave the champion where it is."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS deployments (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    action TEXT NOT NULL,
    who TEXT NOT NULL,
    at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    before INTEGER,
    snapshot TEXT,
    why TEXT NOT NULL DEFAULT ''
)
"""
_LATER = {"before": "INTEGER", "snapshot": "TEXT", "why": "TEXT NOT NULL DEFAULT ''"}
"""Columns that a table made by an older penstock has not."""
_APPEND_ONLY = [
    f"CREATE TRIGGER IF NOT EXISTS no_{event.lower()} BEFORE {event} ON deployments"
    " BEGIN SELECT RAISE(ABORT, 'the record of deployments is append only'); END"
    for event in ("UPDATE", "DELETE")
]
_COLUMNS = "id, name, version, action, who, at, before, snapshot, why"
_WAIT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One row of the record."""

    id: int
    name: str
    version: int
    """Moved to; of an undeploy or a dismissal: the version that was taken off."""
    action: Action
    who: str
    at: str
    """UTC, ISO 8601."""
    before: int | None = None
    """The version that answered until then; None: none did, or the row was written before this was kept."""
    snapshot: str | None = None
    """State of the archive that the version was trained on."""
    why: str = ""


def answering(rows: Iterable[Deployment]) -> dict[str, int]:
    """Who answers after `rows`, by name. Undeploying a version that does not answer leaves the one that does."""
    found: dict[str, int] = {}
    for row in rows:
        if row.action in BESIDE:
            continue
        if row.action != "undeploy":
            found[row.name] = row.version
        elif found.get(row.name) == row.version:
            del found[row.name]
    return found


def challenging(rows: Iterable[Deployment]) -> dict[str, int]:
    """Who is scored beside the champion after `rows`, by model. It ends where it answers itself, or the model does not
    any more."""
    found: dict[str, int] = {}
    for row in rows:
        if row.action == "challenge":
            found[row.name] = row.version
        elif row.action == "undeploy" or found.get(row.name) == row.version:
            found.pop(row.name, None)
    return found


def previous(rows: Iterable[Deployment]) -> int | None:
    """The version of one name to roll back to: the one that its champion took over from; None: there is none.

    A roll-back takes the versions behind it off, so that a second one goes one further back::

        deploy 1, deploy 2, deploy 3      -> 2
        deploy 1, deploy 2, rollback 1    -> None
        deploy 1, deploy 2, deploy 1      -> 2
    """
    line = line_of(rows)
    return line[-2] if len(line) > 1 else None


def line_of(rows: Iterable[Deployment]) -> list[int]:
    """The versions of one name that answered one after the other, up to the champion, as `previous` counts back."""
    line: list[int] = []
    for row in rows:
        if row.action in BESIDE:
            continue
        if row.action == "undeploy":
            if line and line[-1] == row.version:
                line = []  # what answers from then on took over from nobody
        elif row.action == "rollback" and row.version in line:
            del line[len(line) - line[::-1].index(row.version) :]
        elif not line or line[-1] != row.version:
            line.append(row.version)
    return line


class Registry:
    """`registry.sqlite`; created by the first record, opened for each call, safe between processes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def record(
        self,
        name: str,
        version: int,
        action: Action,
        who: str,
        at: str | None,
        *,
        snapshot: str | None = None,
        why: str = "",
    ) -> None:
        """Append one row, durable when this returns; which version answered until then it finds itself."""
        if action not in get_args(Action):
            raise ModelError(f"deployment of {name!r}: action {action!r}; allowed: {', '.join(get_args(Action))}")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("BEGIN IMMEDIATE")  # nobody moves the model between the look and the row
            _prepare(db)
            before = answering(_rows(db, name)).get(name)
            row = {"name": name, "version": version, "action": action, "who": who, "before": before}
            row |= {"snapshot": snapshot, "why": why} | ({} if at is None else {"at": at})
            marks = ", ".join("?" * len(row))
            db.execute(f"INSERT INTO deployments ({', '.join(row)}) VALUES ({marks})", tuple(row.values()))

    def history(self, name: str | None = None) -> list[Deployment]:
        """Rows of one name, or all, oldest first."""
        if not self.path.exists():
            return []
        with self._open() as db:
            if not _has_table(db):
                return []
            if _lacking(db):
                db.execute("BEGIN IMMEDIATE")
                _prepare(db)
            return _rows(db, name)

    def champions(self) -> dict[str, int]:
        """Who answers, by name."""
        return answering(self.history())

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


def _prepare(db: sqlite3.Connection) -> None:
    """The table with all its columns, append only, whatever penstock made it."""
    db.execute(_SCHEMA)
    for column in _lacking(db):
        db.execute(f"ALTER TABLE deployments ADD COLUMN {column} {_LATER[column]}")
    for trigger in _APPEND_ONLY:
        db.execute(trigger)


def _has_table(db: sqlite3.Connection) -> bool:
    return db.execute("SELECT 1 FROM sqlite_master WHERE name = 'deployments'").fetchone() is not None


def _lacking(db: sqlite3.Connection) -> list[str]:
    there = {row[1] for row in db.execute("PRAGMA table_info(deployments)")}
    return [column for column in _LATER if column not in there]


def _rows(db: sqlite3.Connection, name: str | None) -> list[Deployment]:
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM deployments WHERE ?1 IS NULL OR name = ?1 ORDER BY id", (name,)
    ).fetchall()
    return [Deployment(**dict(zip(_COLUMNS.split(", "), row, strict=True))) for row in rows]
