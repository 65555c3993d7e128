"""The speed view's second form of closed ticks: a model's answers in blocks of 1,024 ticks, a column lying together.

    said    a row per tick, all members in it       what is written, and what counts
    packed  a row per model and block of ticks      the same once more, for whoever asks for a day of one model

The second form is made later, by the upkeep of whoever writes. It is only a copy: a row of `blocks` says
that a block is whole, and SQLite itself takes that back when a tick of it comes or goes (triggers, so in any process
and by any version of penstock); what has no block is read from `said`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.data.views.adjusted import COLUMNS as BESIDE
from penstock.data.views.adjusted import Adjusted
from penstock.data.views.said_rows import TYPES, Place, Run, SaidRows, places_of, runs_of

SHIFT = 10
"""Block k holds ticks k << SHIFT and on."""
TICKS = 1 << SHIFT
LOOKED = 100
"""Blocks that are looked at in one go, packed or not."""
_NEVER = 1 << 62
_SPAN = "fleet = ? AND tick >= ? AND tick < ?"
_CHANGES = [(table, event) for table in ("said", "adjusted") for event in ("INSERT", "DELETE")]
SCHEMA = f"""
CREATE TABLE IF NOT EXISTS blocks (
    fleet TEXT NOT NULL, block INTEGER NOT NULL, beside BLOB, PRIMARY KEY (fleet, block)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS packed (
    fleet TEXT NOT NULL, model TEXT NOT NULL, first INTEGER NOT NULL, count INTEGER NOT NULL, ticks BLOB,
    "values" BLOB NOT NULL, versions BLOB NOT NULL, reasons BLOB NOT NULL, filled BLOB NOT NULL,
    adjusted BLOB, hashes BLOB NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS packed_by_model ON packed (fleet, model, first);
CREATE INDEX IF NOT EXISTS packed_by_tick ON packed (first);
CREATE TRIGGER IF NOT EXISTS unpacked AFTER DELETE ON blocks BEGIN
    DELETE FROM packed WHERE first >= OLD.block << {SHIFT} AND first < (OLD.block + 1) << {SHIFT} AND fleet = OLD.fleet;
END;
""" + "".join(
    f"CREATE TRIGGER IF NOT EXISTS {table}_{event.lower()} AFTER {event} ON {table} BEGIN\n"
    f"    DELETE FROM blocks WHERE fleet = {row}.fleet AND block = {row}.tick >> {SHIFT};\nEND;\n"
    for table, event in _CHANGES
    for row in ["NEW" if event == "INSERT" else "OLD"]
)
ROWS = 'SELECT tick, layout, "values", versions, reasons, filled, hashes FROM said '
"""What `runs_of` takes."""
_BEFORE = {name: dtype for name, dtype in TYPES.items() if name != "hashes"}
"""Columns of `packed` behind the values; hashes come last: hardly anybody asks for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What `read` found."""

    parts: list[SaidRows]
    """By rising tick."""
    whole: set[int]
    """Blocks that these are all of."""
    beside: bool
    """Whether anything was said beside any model at these ticks."""


def read(connection: sqlite3.Connection, fleet: str, model: str, first: int, last: int) -> Found:
    """What `model` said at those of ticks first..last-1 that lie in blocks."""
    span = (fleet, first >> SHIFT, (last - 1) >> SHIFT)
    marks = dict(connection.execute("SELECT block, beside FROM blocks WHERE fleet = ? AND block BETWEEN ? AND ?", span))
    rows = connection.execute(
        'SELECT first, count, ticks, "values", versions, reasons, filled, adjusted, hashes FROM packed '
        "WHERE fleet = ? AND model = ? AND first >= ? AND first < ? ORDER BY first",
        (fleet, model, span[1] << SHIFT, last),
    ).fetchall()
    parts = [_said(row).between(first, last) for row in rows] if marks else []
    beside = any(_any_beside(block, blob, first, last) for block, blob in marks.items())
    return Found(parts=parts, whole=set(marks), beside=beside)


def open_spans(whole: set[int], first: int, last: int) -> Iterator[tuple[int, int]]:
    """Of ticks first..last-1 the spans [begin, end) that lie in none of the blocks `whole`."""
    begin = first
    for block in sorted(whole):
        if begin < block << SHIFT:
            yield begin, block << SHIFT
        begin = max(begin, block + 1 << SHIFT)
    if begin < last:
        yield begin, last


class Packer:
    """Packs the closed blocks of one view: those of late first, then, a few at a time, whatever older ones are not."""

    def __init__(self, connection: sqlite3.Connection, fleet: str) -> None:
        self._connection, self._fleet = connection, fleet
        self._down: int | None = None
        """So far down the past was looked at; None: from the top again."""

    def due(self) -> int | None:
        """The next block to pack; None: there is none, or enough was looked at for now."""
        newest = self._block_before(_NEVER)
        if newest is None:
            return None
        late = list(self._unpacked(newest))
        return late[-1] if late else self._older(newest)

    def pack(self, block: int) -> bool:
        """Pack it, in one transaction; False: it has changed since it was read."""
        rows, beside = self._rows(block)
        made = list(packed(runs_of(rows, beside), self._members({row[1] for row in rows})))
        mark = None
        if beside:
            mark = np.isin(np.arange(block << SHIFT, block + 1 << SHIFT), np.array([*beside], np.int64)).tobytes()
        db = self._connection
        db.execute("BEGIN IMMEDIATE")
        try:
            if not self._still(block, [row[0] for row in rows], list(beside)):
                db.execute("ROLLBACK")
                return False
            db.execute("INSERT INTO blocks VALUES (?, ?, ?)", (self._fleet, block, mark))
            db.executemany(
                "INSERT INTO packed VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", [(self._fleet, *row) for row in made]
            )
        except BaseException:
            db.execute("ROLLBACK")
            raise
        db.execute("COMMIT")
        return True

    def _unpacked(self, above: int) -> Iterator[int]:
        """Blocks with ticks below `above`, downwards, as long as they are not packed."""
        for _ in range(LOOKED):
            block = self._block_before(above << SHIFT)
            if block is None or self._is_packed(block):
                return
            yield block
            above = block

    def _older(self, newest: int) -> int | None:
        above = newest if self._down is None else self._down
        for _ in range(LOOKED):
            self._down = above
            block = self._block_before(above << SHIFT)
            if block is None:
                self._down = None
                return None
            if not self._is_packed(block):
                return block
            above = block
        return None

    def _block_before(self, tick: int) -> int | None:
        """Of the newest tick below `tick`."""
        row = self._connection.execute(
            "SELECT tick FROM said WHERE fleet = ? AND tick < ? ORDER BY tick DESC LIMIT 1", (self._fleet, tick)
        ).fetchone()
        return None if row is None else int(row[0]) >> SHIFT

    def _is_packed(self, block: int) -> bool:
        found = self._connection.execute(
            "SELECT 1 FROM blocks WHERE fleet = ? AND block = ?", (self._fleet, block)
        ).fetchone()
        return found is not None

    def _rows(self, block: int) -> tuple[list[tuple[Any, ...]], dict[int, list[bytes]]]:
        span = (self._fleet, block << SHIFT, block + 1 << SHIFT)
        rows = self._connection.execute(f"{ROWS} WHERE {_SPAN} ORDER BY tick", span).fetchall()
        beside = self._connection.execute(
            f"SELECT tick, {', '.join(BESIDE)} FROM adjusted WHERE {_SPAN} ORDER BY tick", span
        ).fetchall()
        return rows, {tick: blobs for tick, *blobs in beside}

    def _still(self, block: int, ticks: list[int], beside: list[int]) -> bool:
        """Whether the block has just these ticks; what stands at a tick never changes."""
        span = (self._fleet, block << SHIFT, block + 1 << SHIFT)
        there = [
            [
                tick
                for (tick,) in self._connection.execute(f"SELECT tick FROM {table} WHERE {_SPAN} ORDER BY tick", span)
            ]
            for table in ("said", "adjusted")
        ]
        return there == [ticks, beside] and not self._is_packed(block)

    def _members(self, layouts: set[int]) -> dict[int, dict[str, Place]]:
        """Of each layout, where its members stand."""
        every = self._connection.execute("SELECT id, members FROM layouts").fetchall()
        return {layout: places_of(json.loads(text)) for layout, text in every if layout in layouts}


def packed(runs: Iterable[Run], members: Mapping[int, Mapping[str, Place]]) -> Iterator[tuple[Any, ...]]:
    """Rows of `packed` behind `fleet`, of runs of one block: a row per model and number of outputs in turn."""
    said: dict[str, list[SaidRows]] = {}
    for run in runs:
        for model, place in members[run.layout].items():
            said.setdefault(model, []).append(run.of(place))
    for model, parts in said.items():
        for _, alike in groupby(parts, key=lambda part: part.values.shape[1]):
            some = list(alike)
            yield model, *_row(SaidRows.joined(some, any(part.adjusted is not None for part in some)))


def _row(said: SaidRows) -> tuple[Any, ...]:
    n, first = len(said.ticks), int(said.ticks[0])
    gaps = int(said.ticks[-1]) - first + 1 != n
    beside = said.adjusted
    return (
        first,
        n,
        (said.ticks - first).astype("<u2").tobytes() if gaps else None,
        said.values.astype("<f4").tobytes(),
        *(_blob(getattr(said, name).astype(dtype)) for name, dtype in _BEFORE.items()),
        None if beside is None else b"".join(beside.blobs()),
        _blob(said.hashes.astype(TYPES["hashes"])),
    )


def _said(row: Sequence[Any]) -> SaidRows:
    """The inverse of `_row`; its arrays are views of the row's bytes."""
    first, n, ticks, values, versions, reasons, filled, adjusted, hashes = row
    at = np.arange(first, first + n) if ticks is None else first + np.frombuffer(ticks, "<u2").astype(np.int64)
    said = np.frombuffer(values, "<f4").reshape(n, -1)
    beside = None
    if adjusted is not None:
        four = np.frombuffer(adjusted, "<f4").reshape(len(BESIDE), *said.shape)
        beside = Adjusted(**dict(zip(BESIDE, four, strict=True)))
    return SaidRows(
        ticks=at,
        values=said,
        versions=_column(versions, TYPES["versions"], n),
        reasons=_column(reasons, TYPES["reasons"], n),
        filled=_column(filled, TYPES["filled"], n).astype(bool),
        hashes=_column(hashes, TYPES["hashes"], n),
        adjusted=beside,
    )


def _blob(column: NDArray[Any]) -> bytes:
    """The column, or one item where all are the same."""
    return (column[:1] if (column == column[0]).all() else column).tobytes()


def _column(blob: bytes, dtype: str, n: int) -> NDArray[Any]:
    found = np.frombuffer(blob, dtype)
    return found if len(found) == n else np.broadcast_to(found, n)


def _any_beside(block: int, mark: bytes | None, first: int, last: int) -> bool:
    if mark is None:
        return False
    begin = block << SHIFT
    return bool(np.frombuffer(mark, np.bool_)[max(first - begin, 0) : max(last - begin, 0)].any())
