"""What the views let go of: old rows of the speed view, while a stream writes it, and of batch views.

In the speed view some hundred rows go at a time, so that a tick to be said waits for none of them; killed between two,
the next call goes on. The tick up to which rows went is noted in the same transaction: what was said before it is not
a hole that somebody should look for. The newest row always stays, as a stream goes on from it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from penstock.data.archive.repository import BRANCH, sync_filesystem, translated
from penstock.data.views import store
from penstock.errors import SiteError

ROWS = 500
"""Of the speed view in a transaction."""
PAGES = 4096
"""Given back to the file system at a time."""
BUSY_S = 10.0
INCREMENTAL = 2
"""Of SQLite's auto_vacuum."""
LOCK_S = 60.0
_FORGOTTEN = "CREATE TABLE IF NOT EXISTS forgotten (id INTEGER PRIMARY KEY CHECK (id = 0), tick INTEGER NOT NULL)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """What is old of a view."""

    rows: int
    size_bytes: int
    """Of them on disk, about."""


def said_before(path: Path, tick: int) -> Rows:
    """What the speed view in `path` has of ticks below `tick`. Raises SiteError."""
    if not path.exists():
        return Rows(rows=0, size_bytes=0)
    with _opened(path) as db:
        old = int(db.execute("SELECT count(*) FROM said WHERE tick < ?", (tick,)).fetchone()[0])
        if not old:
            return Rows(rows=0, size_bytes=0)
        number = int(db.execute("SELECT count(*) FROM said").fetchone()[0])
        pages, free, size = (int(db.execute(f"PRAGMA {p}").fetchone()[0]) for p in _PAGES)
    return Rows(rows=old, size_bytes=(pages - free) * size * old // number)


def forget_said(path: Path, tick: int, *, go_on: Callable[[], bool] = lambda: True) -> int:
    """Remove what was said at ticks below `tick`, but for the newest row; how many rows went.

    `go_on` is asked between two transactions. Room goes back to the file system where the file was made for that, else
    new rows use it. Raises SiteError.
    """
    if not path.exists():
        return 0
    gone = 0
    with _opened(path) as db:
        newest = db.execute("SELECT max(tick) FROM said").fetchone()[0]
        tick = tick if newest is None else min(tick, int(newest))
        while go_on() and (cut := _cut(db, tick)) is not None:
            gone += _forget(db, cut)
        if int(db.execute("PRAGMA auto_vacuum").fetchone()[0]) == INCREMENTAL:
            while go_on() and int(db.execute("PRAGMA freelist_count").fetchone()[0]):
                db.execute(f"PRAGMA incremental_vacuum({PAGES})").fetchall()
    return gone


def compact(path: Path) -> bool:
    """Write the speed view's file anew, where it was made by a penstock that could not give room back.

    For a view that nobody writes: it takes as much room once more, and is locked meanwhile. True where it was done.
    Raises SiteError.
    """
    with _opened(path) as db:
        if int(db.execute("PRAGMA auto_vacuum").fetchone()[0]) == INCREMENTAL:
            return False
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("VACUUM")
        return True


def recomputed_before(folder: Path, tick: int) -> Rows:
    """What the batch view in `folder` has of ticks below `tick`. Raises ArchiveError."""
    root = store.newest(folder)
    if root is None or "ticks" not in root:
        return Rows(rows=0, size_bytes=0)
    with translated(folder):
        ticks = _ticks(root)
        old = int(np.searchsorted(ticks, tick))
        if not old:
            return Rows(rows=0, size_bytes=0)
        size = sum(int(array.nbytes_stored()) for array in _columns(root, len(ticks)).values())
    return Rows(rows=old, size_bytes=size * old // len(ticks))


def forget_recomputed(folder: Path, tick: int, *, older_than_ns: int | None = None) -> int:
    """Remove the batch view's rows of ticks below `tick`, in one commit; how many. It then begins there.

    Former commits made before `older_than_ns` (UTC; None: none) are let go of. Raises ArchiveBusy, ArchiveError.
    """
    if not recomputed_before(folder, tick).rows:
        return 0
    with store.written(folder, deadline_s=LOCK_S) as repository, translated(folder):
        session = repository.writable_session(BRANCH)
        root = zarr.open_group(session.store, mode="a")
        ticks = _ticks(root)
        old = int(np.searchsorted(ticks, tick))
        for array in _columns(root, len(ticks)).values():
            kept = np.asarray(array[old:])
            array.resize((len(kept), *array.shape[1:]))
            array[:] = kept
        begun: Any = root.attrs.get("start", tick)
        root.attrs.update({"start": max(int(begun), tick), "pruned": tick})
        session.commit("pruned")
        sync_filesystem(folder)
        if older_than_ns is not None:
            store.let_go(repository, older_than_ns)
    return old


_PAGES = ("page_count", "freelist_count", "page_size")


def _ticks(root: zarr.Group) -> Any:
    array: Any = root["ticks"]
    return np.asarray(array[:])


def _columns(root: zarr.Group, rows: int) -> dict[str, Any]:
    """The arrays that have a row for each tick."""
    return {name: array for name, array in root.arrays() if array.shape[0] == rows}


def _cut(db: sqlite3.Connection, tick: int) -> int | None:
    """One past the last tick of the next rows to go; None where there are none."""
    asked = "SELECT max(tick) FROM (SELECT tick FROM said WHERE tick < ? ORDER BY tick LIMIT ?)"
    found = db.execute(asked, (tick, ROWS)).fetchone()[0]
    return None if found is None else int(found) + 1


def _forget(db: sqlite3.Connection, cut: int) -> int:
    db.execute("BEGIN IMMEDIATE")
    try:
        gone = db.execute("DELETE FROM said WHERE tick < ?", (cut,)).rowcount
        if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'adjusted'").fetchone():
            db.execute("DELETE FROM adjusted WHERE tick < ?", (cut,))
        db.execute(_FORGOTTEN)
        db.execute("INSERT OR REPLACE INTO forgotten VALUES (0, ?)", (cut,))
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise
    return gone


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        with closing(sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)) as db:
            db.execute("PRAGMA secure_delete = OFF")  # Debian's default writes zeros over all that goes
            yield db
    except sqlite3.Error as error:
        raise SiteError(f"{path}: the speed view cannot be shortened: {error}; check disk and file") from error
