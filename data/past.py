"""A stretch of a site's past as a log again: what came before which tick was closed.

    journal   held still: copied, record by record, with the clock's own decisions
    archive   a cell without the mark LATE came before its tick closed; a late one came with the sequence that the
              late list names, so it is left out of every window that was cut before
    stored    ticks that no stream ever closed: each window from all that is stored

What may be ahead of its time came before any window could need it, so it is laid out as far ahead as its tag allows;
what came later than that stands in the list of revisions, and is laid out with the sequence that it names.

The archive keeps a cell's greatest reading only. What a late one has replaced is gone, and where several late ranges
touch a tick of a shard nobody knows which of them brought a cell: the first is taken. So it is with revisions. Only
reads; knows no models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from itertools import groupby, pairwise

import numpy as np
from numpy.typing import NDArray

from penstock.data.archive import Archive, Head
from penstock.data.frame import GOOD, Dense, Frame, Readings
from penstock.data.grid import LATE, PRESENT, STATUS, Cells, Grid
from penstock.data.history import cells_now
from penstock.data.journal import ClockDecision, Entry, Journal, Record
from penstock.data.journal.ledger import LateRange
from penstock.data.layout import Layout

CLOSED_TOGETHER = 64
"""Ticks of one decision where no stream ever decided."""
VALUES = 1 << 19
"""Of one entry at most."""
FOREVER = int(np.iinfo(np.int64).max)
"""Sequence of a late cell that no range names: it never came in time."""
SOURCE = "past"

Closes = NDArray[np.int64]


class Order(StrEnum):
    """From where the order of arrival is known."""

    JOURNAL = "journal"
    ARCHIVE = "archive"
    STORED = "as stored"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Past:
    """Where the past is read."""

    archive: Archive
    journal: Journal
    layout: Layout
    late: Sequence[LateRange]
    revised: Sequence[LateRange] = ()

    @property
    def grid(self) -> Grid:
        """The site's time axis."""
        return self.archive.grid


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stretch:
    """Ticks first..last-1, for models that read `ids`."""

    first: int
    last: int
    lead: int
    """Ticks before `first` that the first windows reach back."""
    wait: int = 0
    """Ticks that must close behind a tick before it is said."""
    ids: NDArray[np.int32]
    closes: Closes | None
    """[last - first] the sequence with which each tick was said; None where no stream did."""

    @property
    def begin(self) -> int:
        """The first tick that is read."""
        return self.first - self.lead

    @property
    def closing(self) -> Stretch:
        """The ticks with whose close those are said."""
        wait = self.wait
        return replace(self, first=self.first + wait, last=self.last + wait, lead=self.lead + wait)

    def clipped(self, closed: int) -> int:
        """What a decision means for these ticks: a ring need not hold what lies before them."""
        return max(self.begin, min(closed, self.last))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LaidOut:
    """A stretch as entries, to be read once."""

    entries: Iterator[Entry]
    exact: int
    """Ticks from here on are in the order that the journal holds; `last` where none is."""


def lay_out(past: Past, stretch: Stretch) -> LaidOut:
    """The entries of a log that says it all again, in order; their first decision closes what lies before `first`
    and what that waits for.

    They raise JournalError or ArchiveError when what they read was trimmed or expired meanwhile.
    """
    if stretch.closes is None:
        return LaidOut(entries=_as_stored(past, stretch.closing), exact=stretch.last)
    head = _beginning(past, int(stretch.closes[0]))
    known = int(np.searchsorted(stretch.closes, head.position))
    return LaidOut(entries=_as_it_came(past, stretch.closing, head, known), exact=stretch.first + known)


def _beginning(past: Past, closed_at: int) -> Head:
    """The newest commit before the first tick was closed from which the journal goes on, else the oldest one such."""
    first = past.journal.first
    held = [head for head in past.archive.commits() if head.position >= first]
    before = [head for head in held if head.position <= closed_at]
    if not before and first == 0:
        return Head(snapshot="", position=0, closed=None)
    return before[0] if before else held[-1]


def _as_stored(past: Past, stretch: Stretch) -> Iterator[Entry]:
    def stored(shard: int, ids: NDArray[np.int32], last: int) -> Cells:
        cells = cells_now(past.archive, past.journal, past.layout, past.grid, ids, stretch.begin, last)
        cells.quality &= np.uint16(~LATE & 0xFFFF)
        return cells

    parts = _Parts.of(past, stretch, stored, 0)
    closes = np.arange(stretch.last - stretch.first) // CLOSED_TOGETHER
    yield from _closing(parts, stretch, closes, stretch.first)


def _as_it_came(past: Past, stretch: Stretch, head: Head, known: int) -> Iterator[Entry]:
    """From the commit `head`: the `known` ticks that were closed before it, then the journal."""

    def stored(shard: int, ids: NDArray[np.int32], last: int) -> Cells:
        if head.snapshot:
            double = past.layout.dtype(shard) == "float64"
            return past.archive.read(ids, stretch.begin, last, snapshot=head.snapshot, double=double)
        return Cells.empty(stretch.begin, last - stretch.begin, len(ids), past.layout.dtype(shard))

    parts = _Parts.of(past, stretch, stored, head.position)
    assert stretch.closes is not None
    before = stretch.begin if head.closed is None else stretch.clipped(head.closed)
    before = min(before, stretch.first)
    yield from _closing(parts, stretch, stretch.closes[:known], stretch.first if known else before)
    done, begun = int(stretch.closes[known - 1]) if known else -1, stretch.first + known
    yield from parts.late_ones(done, head.position - 1)
    yield from parts.on_time(begun, stretch.last, None)
    if begun < stretch.last:
        yield from _copied(past, stretch, head.position)


def _closing(parts: _Parts, stretch: Stretch, closes: Closes, opened: int) -> Iterator[Entry]:
    """What lies before the first tick, then tick after tick with what came late until each was closed."""
    yield from parts.on_time(stretch.begin, stretch.first, _decision(opened, stretch))
    done = -1
    cuts = [0, *(np.flatnonzero(np.diff(closes)) + 1).tolist(), len(closes)] if len(closes) else [0]
    for begin, end in pairwise(cuts):
        closed_at, first, last = int(closes[begin]), stretch.first + begin, stretch.first + end
        yield from parts.late_ones(done, closed_at)
        yield from parts.on_time(first, last, _decision(last, stretch))
        done = closed_at


def _copied(past: Past, stretch: Stretch, start: int) -> Iterator[Entry]:
    """The journal from `start` on until all ticks are closed: only what the models read, and the decisions.

    No tick is closed before it was said: other models may have made it wait for longer.
    """
    assert stretch.closes is not None
    wanted = np.zeros(len(past.layout), bool)
    wanted[stretch.ids] = True
    shards = set(past.layout.shard_of()[stretch.ids].tolist())
    records = past.journal.read(start, past.journal.tail)
    ahead = past.layout.ahead_of() if len(past.layout.ahead_of()) else np.zeros(len(wanted), np.int64)
    for sequence, group in groupby(records, key=lambda record: record.sequence):
        parts, closed = _kept(group, shards, partial(_only, wanted, ahead, stretch, past.grid))
        said = stretch.first + int(np.searchsorted(stretch.closes, sequence, side="right"))
        closed = closed if closed is None else min(closed, said)
        yield from _entries(parts, None if closed is None else _decision(stretch.clipped(closed), stretch))
        if closed is not None and closed >= stretch.last:
            return


def _kept(
    records: Iterable[Record], shards: set[int], only: Callable[[Readings], Readings]
) -> tuple[dict[int, Readings], int | None]:
    """Of one sequence: copies of the readings wanted, by shard, and what its decision closed."""
    parts: dict[int, Readings] = {}
    closed = None
    for record in records:
        if record.clock is not None:
            closed = record.clock.closed
        elif record.readings is not None and record.shard in shards:
            parts[record.shard] = only(record.readings)
    return parts, closed


def _only(
    wanted: NDArray[np.bool_], ahead: NDArray[np.int64], stretch: Stretch, grid: Grid, readings: Readings
) -> Readings:
    known = readings.tags < len(wanted)  # a tag registered since is nobody's input
    beyond = np.where(known, ahead[np.where(known, readings.tags, 0)], 0)
    known[known] = wanted[readings.tags[known]]
    if not isinstance(readings, Frame):
        beyond = beyond.max(initial=0)
    last = grid.time(stretch.last) + beyond * grid.period_ns
    inside = (readings.times >= grid.time(stretch.begin)) & (readings.times < last)
    if isinstance(readings, Frame):
        return readings.only(inside & known)
    return readings.rows(np.flatnonzero(inside)).columns(np.flatnonzero(known))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Part:
    """The cells of tags of one shard that may be equally far ahead, and when those came that came later than that."""

    shard: int
    ids: NDArray[np.int32]
    cells: Cells
    ahead: int
    grid: Grid
    late: Frame
    """In order of arrival."""
    came: NDArray[np.int64]
    """[len(late)] their sequences, ascending."""

    on_time_at: NDArray[np.bool_]
    """[k, m] cells that came in time."""

    @classmethod
    def of(cls, past: Past, shard: int, ids: NDArray[np.int32], cells: Cells, ahead: int, below: int) -> _Part:
        """`below`: the cells can be from sequences under it."""
        came = _came(past.late, shard, cells, below)
        revised = _came(past.revised if ahead else (), shard, cells, below)
        is_late, present = (cells.quality & LATE) != 0, (cells.quality & PRESENT) != 0
        later = is_late | (present & (revised < FOREVER)[:, None])
        rows, columns = np.nonzero(later)
        when = np.where(is_late[rows, columns], came[rows], revised[rows])
        order = np.argsort(when, kind="stable")
        frame = _long(cells, ids, past.grid, rows[order], columns[order])
        return cls(
            shard=shard, ids=ids, cells=cells, ahead=ahead, grid=past.grid, late=frame, came=when[order],
            on_time_at=present & ~later,
        )  # fmt: skip

    def on_time(self, first: int, last: int) -> Readings:
        """What came in time for windows that end at ticks first..last-1; with the first ones all that lies before."""
        begin = first + self.ahead if first > self.cells.first else first
        cells, inside = self.cells.rows(begin, last + self.ahead), slice(begin - self.cells.first, None)
        return _readings(cells, self.ids, self.grid, self.on_time_at[inside][: len(cells.values)])

    def late_ones(self, after: int, upto: int) -> Readings:
        """What came late with sequences after+1..upto."""
        begin, end = np.searchsorted(self.came, [after, upto], side="right")
        return self.late.rows(slice(int(begin), int(end)))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Parts:
    """All parts, in layers: of a shard there is one in each, and the last one is of its time."""

    layers: Sequence[Sequence[_Part]]

    @classmethod
    def of(
        cls, past: Past, stretch: Stretch, stored: Callable[[int, NDArray[np.int32], int], Cells], below: int
    ) -> _Parts:
        """`stored`: cells from the stretch's beginning on, of a shard's tags, to before a tick."""
        may = past.layout.ahead_of()
        of = may[stretch.ids] if len(may) else np.zeros(len(stretch.ids), np.int64)
        layers = []
        for ahead in sorted({0, *of.tolist()}, reverse=True):
            some = _shards(past.layout, stretch.ids[of == ahead])
            last = stretch.last + ahead
            layers.append([_Part.of(past, s, ids, stored(s, ids, last), ahead, below) for s, ids in some])
        return cls(layers=layers)

    def on_time(self, first: int, last: int, clock: ClockDecision | None) -> Iterator[Entry]:
        """Of windows at ticks first..last-1, with the decision that closes them behind."""
        for layer in self.layers[:-1]:
            yield from _entries({p.shard: p.on_time(first, last) for p in layer}, None)
        yield from _entries({p.shard: p.on_time(first, last) for p in self.layers[-1]}, clock)

    def late_ones(self, after: int, upto: int) -> Iterator[Entry]:
        """What came late with sequences after+1..upto."""
        for layer in self.layers:
            yield from _entries({p.shard: p.late_ones(after, upto) for p in layer}, None)


def _came(ranges: Sequence[LateRange], shard: int, cells: Cells, below: int) -> Closes:
    """[k] the first sequence under `below` that a range of this shard names for each tick; FOREVER where none does."""
    came = np.full(len(cells.values), FOREVER)
    for r in ranges:
        if r.shard == shard and r.sequence < below and r.t0 < cells.last and r.t1 > cells.first:
            touched = came[max(r.t0, cells.first) - cells.first : r.t1 - cells.first]
            np.minimum(touched, r.sequence, out=touched)
    return came


def _shards(layout: Layout, ids: NDArray[np.int32]) -> Iterator[tuple[int, NDArray[np.int32]]]:
    of = layout.shard_of()[ids]
    for shard in np.unique(of).tolist():
        yield shard, ids[of == shard]


def _readings(cells: Cells, ids: NDArray[np.int32], grid: Grid, wanted: NDArray[np.bool_]) -> Readings:
    """The wanted cells as readings: dense where each row was read at one moment, as most are."""
    offset = np.where(wanted, cells.offset, 0).max(axis=1, initial=0)
    status = cells.quality & STATUS
    together = bool((~wanted | (cells.offset == offset[:, None])).all())
    if not together or bool((wanted & np.isnan(cells.values) & (status == GOOD)).any()):
        rows, columns = np.nonzero(wanted)
        return _long(cells, ids, grid, rows, columns)
    values = cells.values.copy()
    values[~wanted] = np.nan
    dense = Dense(
        times=grid.times(cells.first, cells.last) + grid.elapsed(offset),
        tags=ids,
        values=values,
        quality=np.where(wanted, status, GOOD).astype(np.uint8),
    )
    return dense.rows(np.flatnonzero(wanted.any(axis=1)))


def _long(cells: Cells, ids: NDArray[np.int32], grid: Grid, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> Frame:
    begins = grid.origin_ns + (cells.first + rows.astype(np.int64)) * grid.period_ns
    return Frame(
        times=begins + grid.elapsed(cells.offset[rows, columns]),
        tags=ids[columns],
        values=cells.values[rows, columns],
        quality=(cells.quality[rows, columns] & STATUS).astype(np.uint8),
    )


def _decision(closed: int, stretch: Stretch) -> ClockDecision:
    """`begin` makes a stream that is new to this log say its first tick first."""
    state = {"closed": closed, "begin": stretch.first - stretch.wait, "sources": {}}
    return ClockDecision(closed=closed, reason="watermark", state=state)


def _entries(parts: Mapping[int, Readings], clock: ClockDecision | None) -> Iterator[Entry]:
    """One entry where it fits; nothing where there is nothing to say. The decision stands last."""
    full = {shard: part for shard, part in parts.items() if len(part.times) and len(part.tags)}
    if sum(_size(part) for part in full.values()) > VALUES:
        for shard, part in full.items():
            most = max(1, VALUES // max(1, _size(part) // len(part.times)))
            for begin in range(0, len(part.times), most):
                yield _entry({shard: part.rows(slice(begin, begin + most))}, None)
        full = {}
    if full or clock is not None:
        yield _entry(full, clock)


def _size(part: Readings) -> int:
    return part.values.size


def _entry(parts: Mapping[int, Readings], clock: ClockDecision | None) -> Entry:
    return Entry(source=SOURCE, source_offset=0, parts=parts, clock=clock)
