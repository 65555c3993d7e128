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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.data.challengers import is_challenger
from penstock.data.views.adjusted import SCHEMA as ADJUSTED
from penstock.data.views.adjusted import Adjusted, gathered
from penstock.errors import SiteError

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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SaidRows:
    """What one model said; n ticks, o outputs."""

    ticks: NDArray[np.int64]
    """[n] ascending."""
    values: NDArray[np.float32]
    """[n, o]; NaN where withheld."""
    versions: NDArray[np.int32]
    """[n]"""
    reasons: NDArray[np.uint8]
    """[n]"""
    filled: NDArray[np.bool_]
    """[n]"""
    hashes: NDArray[np.uint64]
    """[n]"""
    adjusted: Adjusted | None = None
    """[n, o] what was said beside the values; None: nothing was."""


class SpeedView:
    """One file. Any number of readers; one writer at a time."""

    def __init__(self, path: Path, connection: sqlite3.Connection, fleet: str) -> None:
        self._path, self._connection, self._fleet = path, connection, fleet
        self._layouts: dict[tuple[tuple[str, int], ...], int] = {}

    @classmethod
    def open(cls, path: Path, *, fleet: str = "all") -> SpeedView:
        """Open, creating it where it is missing. Raises SiteError where the file cannot be used."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Autocommit with BEGIN written out: python's own transactions would commit behind our back.
            connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
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
            begun = self._connection.total_changes
            self._connection.executemany(
                "INSERT OR IGNORE INTO said VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [self._row(s, i) for s, i in zip(spoken, ids, strict=True)],
            )
            new = self._connection.total_changes - begun
            self._connection.executemany(
                "INSERT OR IGNORE INTO adjusted VALUES (?, ?, ?, ?, ?, ?)",
                [(s.tick, self._fleet, *s.adjusted.blobs()) for s in spoken if s.adjusted is not None],
            )
            if state is not None:
                row = (self._fleet, spoken[-1].tick, state)
                self._connection.execute("INSERT OR REPLACE INTO adjusting VALUES (?, ?, ?)", row)
            return new

    def state(self) -> tuple[int, bytes] | None:
        """The newest state of what adjusts, and the tick behind which it stood; None where there is none."""
        with self._translated():
            found = self._connection.execute(
                "SELECT tick, state FROM adjusting WHERE fleet = ?", (self._fleet,)
            ).fetchone()
        return None if found is None else (int(found[0]), bytes(found[1]))

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
        with self._translated():
            places = {
                i: _place(json.loads(text), model)
                for i, text in self._connection.execute("SELECT id, members FROM layouts").fetchall()
            }
            rows = self._connection.execute(
                'SELECT tick, layout, "values", versions, reasons, filled, hashes FROM said '
                "WHERE fleet = ? AND tick >= ? AND tick < ? ORDER BY tick",
                (self._fleet, first, last),
            ).fetchall()
            beside = self._connection.execute(
                "SELECT tick, corrections, lows, highs, chances FROM adjusted "
                "WHERE fleet = ? AND tick >= ? AND tick < ?",
                (self._fleet, first, last),
            ).fetchall()
        found = [(row, place) for row in rows if (place := places.get(row[1])) is not None]
        return _unpack(found, {tick: blobs for tick, *blobs in beside})

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


def _place(members: Sequence[tuple[str, int]], model: str) -> tuple[int, int, int] | None:
    """(member's index, its first output, one past its last), or None where it is no member."""
    at = 0
    for index, (name, outputs) in enumerate(members):
        if name == model:
            return index, at, at + outputs
        at += outputs
    return None


def _unpack(
    found: Sequence[tuple[tuple[Any, ...], tuple[int, int, int]]], beside: Mapping[int, Sequence[bytes]]
) -> SaidRows:
    """Rows as `read` selects them, each with the member's place in its layout; `beside`: by tick."""
    width = max((p[2] - p[1] for _, p in found), default=0)
    values = np.full((len(found), width), np.nan, np.float32)
    for i, (row, (_, start, stop)) in enumerate(found):
        values[i, : stop - start] = np.frombuffer(row[2], "<f4", stop - start, 4 * start)
    index = [p[0] for _, p in found]
    columns = [
        np.array([np.frombuffer(row[c], t)[m] for (row, _), m in zip(found, index, strict=True)], t)
        for c, t in ((3, "<i4"), (4, "u1"), (5, "u1"), (6, "<u8"))
    ]
    return SaidRows(
        ticks=np.array([row[0] for row, _ in found], np.int64),
        values=values,
        versions=columns[0].astype(np.int32),
        reasons=columns[1].astype(np.uint8),
        filled=columns[2].astype(bool),
        hashes=columns[3].astype(np.uint64),
        adjusted=_adjusted(found, beside, width),
    )


def _adjusted(
    found: Sequence[tuple[tuple[Any, ...], tuple[int, int, int]]], beside: Mapping[int, Sequence[bytes]], width: int
) -> Adjusted | None:
    if not beside:
        return None
    rows = [(i, beside[row[0]], p[1:]) for i, (row, p) in enumerate(found) if row[0] in beside]
    return gathered(rows, len(found), width)


def _bring_up(connection: sqlite3.Connection, path: Path) -> None:
    """The tables, and the file's format where it is new or older. Raises SiteError for a newer one."""
    found = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if found > FORMAT:
        raise SiteError(
            f"{path}: is of format {found}, this penstock knows up to {FORMAT}: upgrade penstock to open it"
        )
    connection.executescript(_SCHEMA + ADJUSTED)
    if found < FORMAT:
        connection.execute(f"PRAGMA user_version = {FORMAT}")
