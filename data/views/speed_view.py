"""The speed view's file: what was said, tick by tick, durable and append-only.

One row per (tick, fleet): the first write wins and is never recomputed. A row
holds the members of that tick by a layout id, and their values, versions,
reasons and hashes as packed columns. A tick without any model has a row too:
the newest row is how far the stream has been published. Knows nothing of
streams; the merge reads it while the speed layer writes it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.data.challengers import is_challenger
from penstock.data.views.adjusted import SCHEMA as ADJUSTED
from penstock.data.views.adjusted import Adjusted
from penstock.data.views.said_blocks import ROWS, Packer, open_spans
from penstock.data.views.said_blocks import SCHEMA as BLOCKS
from penstock.data.views.said_blocks import read as read_blocks
from penstock.data.views.said_rows import Place, SaidRows, place_of, runs_of
from penstock.errors import SiteError

__all__ = ["SaidRows", "SpeedView", "Spoken"]

BUSY_S = 10.0
"""How long a statement waits for another process' write."""
FORMAT = 2
"""Of the file, in its `user_version`. 1 (then unwritten, 0) had no tables beside `said`; they are made on opening."""
_LAST_TICK = 2**63 - 1
_SPOKEN = (
    'SELECT tick, members, "values", versions, reasons, filled, hashes, position, '
    "corrections, lows, highs, chances FROM said "
    "JOIN layouts ON layouts.id = layout LEFT JOIN adjusted USING (tick, fleet)"
)
"""What `_spoken` takes."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS layouts (id INTEGER PRIMARY KEY, members TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS said (
    tick INTEGER NOT NULL, fleet TEXT NOT NULL, layout INTEGER NOT NULL REFERENCES layouts(id),
    "values" BLOB NOT NULL, versions BLOB NOT NULL, reasons BLOB NOT NULL, filled BLOB NOT NULL,
    hashes BLOB NOT NULL, position INTEGER NOT NULL, PRIMARY KEY (tick, fleet)
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Spoken:
    """What all members of a fleet said at one tick; m members, o outputs in all."""

    tick: int
    members: tuple[tuple[str, int], ...]
    """[m] (model name, number of its outputs), in the order of the columns."""
    values: NDArray[np.float32]
    """[o] predictions in the target's unit, members one behind the other; NaN where withheld."""
    versions: NDArray[np.int32]
    """[m] the version that answered."""
    reasons: NDArray[np.uint8]
    """[m] `windows.Reason`."""
    filled: NDArray[np.bool_]
    """[m] the window held a carried or substituted value."""
    hashes: NDArray[np.uint64]
    """[m] hash of the window; 0 where there was none."""
    position: int
    """Journal sequence of the clock decision that closed the tick."""
    adjusted: Adjusted | None = None
    """[o] what is said beside the values; None: nothing is."""


class SpeedView:
    """One file. Any number of readers; one writer at a time."""

    def __init__(self, path: Path, connection: sqlite3.Connection, fleet: str) -> None:
        self._path, self._connection, self._fleet = path, connection, fleet
        self._layouts: dict[tuple[tuple[str, int], ...], int] = {}
        self._packer = Packer(connection, fleet)

    @classmethod
    def open(cls, path: Path, *, fleet: str = "all") -> SpeedView:
        """Open, creating it where it is missing. Raises SiteError where the file cannot be used."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Autocommit with BEGIN written out: python's own transactions would commit behind our back.
            connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            if not connection.execute("PRAGMA page_count").fetchone()[0]:  # said again, it would write every time
                connection.execute("PRAGMA auto_vacuum=INCREMENTAL")  # what is pruned can be given back
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            _bring_up(connection, path)
        except (OSError, sqlite3.Error) as error:
            raise SiteError(f"{path}: the speed view cannot be opened: {error}; check the folder") from error
        return cls(path, connection, fleet)

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def write(self, spoken: Sequence[Spoken], state: bytes | None = None) -> int:
        """Add rows in one durable transaction; how many were new. What was said before stays as it is.

        `state`: of what adjusts, as it stands behind the last of them.
        """
        with self._translated(), self._transaction():
            ids = [self._layout(s.members) for s in spoken]
            added = self._connection.executemany(
                "INSERT OR IGNORE INTO said VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [self._row(s, i) for s, i in zip(spoken, ids, strict=True)],
            )
            self._connection.executemany(
                "INSERT OR IGNORE INTO adjusted VALUES (?, ?, ?, ?, ?, ?)",
                [(s.tick, self._fleet, *s.adjusted.blobs()) for s in spoken if s.adjusted is not None],
            )
            if state is not None:
                row = (self._fleet, spoken[-1].tick, state)
                self._connection.execute("INSERT OR REPLACE INTO adjusting VALUES (?, ?, ?)", row)
            return added.rowcount if spoken else 0

    def state(self) -> tuple[int, bytes] | None:
        """The newest state of what adjusts, and the tick behind which it stood; None where there is none."""
        with self._translated():
            found = self._connection.execute(
                "SELECT tick, state FROM adjusting WHERE fleet = ?", (self._fleet,)
            ).fetchone()
        return None if found is None else (int(found[0]), bytes(found[1]))

    def forgotten(self) -> int | None:
        """What was said at ticks below was removed; None: nothing was."""
        with self._translated():
            if not self._connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'forgotten'").fetchone():
                return None
            found = self._connection.execute("SELECT tick FROM forgotten").fetchone()
        return None if found is None else int(found[0])

    def last_tick(self) -> int | None:
        """The newest tick published; None where nothing was."""
        return self._newest("tick")

    def last_position(self) -> int | None:
        """Journal sequence that closed the newest tick published; None where nothing was."""
        return self._newest("position")

    def after(self, tick: int, most: int) -> list[Spoken]:
        """The first `most` ticks behind `tick`, in order."""
        with self._translated():
            rows = self._connection.execute(
                f"{_SPOKEN} WHERE fleet = ? AND tick > ? ORDER BY tick LIMIT ?", (self._fleet, tick, most)
            ).fetchall()
        return [_spoken(row) for row in rows]

    def newest_each(self, after: int) -> list[Spoken]:
        """Behind tick `after` the newest of each set of members, in order: with them what is newest of each model."""
        with self._translated():
            rows = self._connection.execute(
                f"{_SPOKEN} WHERE fleet = ? AND tick IN "
                "(SELECT MAX(tick) FROM said WHERE fleet = ? AND tick > ? GROUP BY layout) ORDER BY tick",
                (self._fleet, self._fleet, after),
            ).fetchall()
        return [_spoken(row) for row in rows]

    def newest(self, until: int | None = None) -> Spoken | None:
        """All that was said at the newest tick, of those up to `until`; None where nothing was."""
        with self._translated():
            row = self._connection.execute(
                f"{_SPOKEN} WHERE fleet = ? AND tick <= ? ORDER BY tick DESC LIMIT 1",
                (self._fleet, _LAST_TICK if until is None else until),
            ).fetchone()
        return None if row is None else _spoken(row)

    def count(self) -> tuple[int, int]:
        """(ticks, predictions) ever said; withheld predictions are not among them."""
        with self._translated():
            found = self._connection.execute("SELECT reasons FROM said WHERE fleet = ?", (self._fleet,)).fetchall()
        return len(found), sum(reasons.count(0) for (reasons,) in found)

    def models(self) -> list[str]:
        """Names of all models that ever spoke, sorted; their challengers are left out."""
        with self._translated():
            found = self._connection.execute("SELECT members FROM layouts").fetchall()
        names = {name for (text,) in found for name, _ in json.loads(text)}
        return sorted(name for name in names if not is_challenger(name))

    def read(self, model: str, first: int, last: int) -> SaidRows:
        """What `model` said at ticks first..last-1; ticks at which it was no member are left out."""
        with self._translated(), self._at_once():
            found = read_blocks(self._connection, self._fleet, model, first, last)
            parts, beside = list(found.parts), found.beside
            places = self._places(model)
            for span in open_spans(found.whole, first, last):
                rows, more = self._rows(*span)
                mine = [row for row in rows if row[1] in places]
                parts += [run.of(places[run.layout]) for run in runs_of(mine, more)]
                beside = beside or bool(more)
        filled = [part for part in parts if len(part.ticks)]
        return SaidRows.joined(sorted(filled, key=lambda part: int(part.ticks[0])), beside)

    def pack(self, most: int) -> int:
        """Bring up to `most` closed blocks of ticks into the form in which a day of one model is read at once.

        How many it were. It changes nothing of what is read; call it from one process, now and then.
        """
        done = 0
        with self._translated():
            while done < most and (block := self._packer.due()) is not None and self._packer.pack(block):
                done += 1
        return done

    def _places(self, model: str) -> dict[int, Place]:
        """Where the model stands in each layout of which it is a member."""
        every = self._connection.execute("SELECT id, members FROM layouts").fetchall()
        return {i: place for i, text in every if (place := place_of(json.loads(text), model)) is not None}

    def _rows(self, first: int, last: int) -> tuple[list[tuple[Any, ...]], dict[int, list[bytes]]]:
        """Rows of ticks first..last-1 as `runs_of` takes them, and what stands beside them."""
        span = (self._fleet, first, last)
        rows = self._connection.execute(
            f"{ROWS} WHERE fleet = ? AND tick >= ? AND tick < ? ORDER BY tick", span
        ).fetchall()
        beside = self._connection.execute(
            "SELECT tick, corrections, lows, highs, chances FROM adjusted WHERE fleet = ? AND tick >= ? AND tick < ?",
            span,
        ).fetchall()
        return rows, {tick: blobs for tick, *blobs in beside}

    def positions(self, first: int, last: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The ticks of first..last-1 that were published, ascending, and the journal sequence that closed each."""
        with self._translated():
            found = self._connection.execute(
                "SELECT tick, position FROM said WHERE fleet = ? AND tick >= ? AND tick < ? ORDER BY tick",
                (self._fleet, first, last),
            ).fetchall()
        both = np.array(found, np.int64).reshape(-1, 2)
        return both[:, 0], both[:, 1]

    def _newest(self, column: str) -> int | None:
        with self._translated():
            found = self._connection.execute(
                f"SELECT {column} FROM said WHERE fleet = ? ORDER BY tick DESC LIMIT 1",
                (self._fleet,),
            ).fetchone()
        return None if found is None else int(found[0])

    def _layout(self, members: tuple[tuple[str, int], ...]) -> int:
        if members not in self._layouts:
            text = json.dumps(members)
            self._connection.execute("INSERT OR IGNORE INTO layouts (members) VALUES (?)", (text,))
            found = self._connection.execute("SELECT id FROM layouts WHERE members = ?", (text,)).fetchone()
            self._layouts[members] = int(found[0])
        return self._layouts[members]

    def _row(self, s: Spoken, layout: int) -> tuple[object, ...]:
        packed = (
            s.values.astype("<f4"),
            s.versions.astype("<i4"),
            s.reasons.astype("u1"),
            s.filled.astype("u1"),
            s.hashes.astype("<u8"),
        )
        return (s.tick, self._fleet, layout, *(p.tobytes() for p in packed), s.position)

    @contextmanager
    def _at_once(self) -> Iterator[None]:
        """What is read inside is one state of the file."""
        self._connection.execute("BEGIN")
        try:
            yield
        finally:
            self._connection.execute("COMMIT")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            self._layouts.clear()  # an id given inside a rolled-back transaction is not there
            raise
        self._connection.execute("COMMIT")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise SiteError(f"{self._path}: the speed view cannot be used: {error}; check disk and file") from error


def _spoken(row: tuple[Any, ...]) -> Spoken:
    """A row as `newest` selects it."""
    return Spoken(
        tick=int(row[0]),
        members=tuple((str(name), int(outputs)) for name, outputs in json.loads(row[1])),
        values=np.frombuffer(row[2], "<f4"),
        versions=np.frombuffer(row[3], "<i4"),
        reasons=np.frombuffer(row[4], "u1"),
        filled=np.frombuffer(row[5], "u1").astype(bool),
        hashes=np.frombuffer(row[6], "<u8"),
        position=int(row[7]),
        adjusted=None if row[8] is None else Adjusted.of_blobs(row[8:]),
    )


def _bring_up(connection: sqlite3.Connection, path: Path) -> None:
    """The tables, and the file's format where it is new or older. Raises SiteError for a newer one."""
    found = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if found > FORMAT:
        raise SiteError(
            f"{path}: is of format {found}, this penstock knows up to {FORMAT}: upgrade penstock to open it"
        )
    connection.executescript(_SCHEMA + ADJUSTED + BLOCKS)
    if found < FORMAT:
        connection.execute(f"PRAGMA user_version = {FORMAT}")
