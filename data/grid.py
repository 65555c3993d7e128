"""The regular time axis and its cells.

A cell is the *maximum* of its readings under one total order, so merging is
commutative and idempotent: arrival order and repetition change nothing. The
order, most significant first: offset in the cell, bits of the value, on time
before late, status.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.data.frame import GOOD, Dense, Float, Readings
from penstock.data.remembered import Remembered

STATUS = 0x00FF
"""Low byte of a cell's quality: the source status of its reading."""
PRESENT = 0x0100
"""Set where the cell holds a reading; an empty cell's quality is 0."""
LATE = 0x0200
"""Set where the reading arrived behind the watermark."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Ticks k at ``origin_ns + k * period_ns``; cell k covers [time(k), time(k + 1))."""

    period_ns: int
    origin_ns: int = 0

    def tick(self, times: NDArray[np.int64]) -> NDArray[np.int64]:
        """The tick whose cell each time falls into."""
        return (times - self.origin_ns) // self.period_ns

    def tick_of(self, time_ns: int) -> int:
        """`tick` for one time."""
        return (time_ns - self.origin_ns) // self.period_ns

    def time(self, tick: int) -> int:
        """Start of a cell, ns UTC."""
        return self.origin_ns + tick * self.period_ns

    def times(self, first: int, last: int) -> NDArray[np.int64]:
        """Starts of cells first..last-1, ns UTC."""
        return self.origin_ns + np.arange(first, last, dtype=np.int64) * self.period_ns

    def offset(self, times: NDArray[np.int64]) -> NDArray[np.uint32]:
        """Position of each time in its cell, in period / 2^32, rounded down.

        Long division in two steps of 16 bits: exact in 64-bit integers for
        periods up to a day.
        """
        rest = ((times - self.origin_ns) % self.period_ns).astype(np.uint64)
        period = np.uint64(self.period_ns)
        shift = np.uint64(16)
        high, rest = np.divmod(rest << shift, period)
        low = (rest << shift) // period
        return ((high << shift) | low).astype(np.uint32)

    def elapsed(self, offset: NDArray[np.uint32]) -> NDArray[np.int64]:
        """The earliest time in a cell, ns from its start, that has this `offset`: the inverse of it.

        In two products of 64 bits, as `offset` is: exact for periods up to a day.
        """
        wide, narrow = divmod(self.period_ns, 1 << 32)
        at, shift = offset.astype(np.uint64), np.uint64(32)
        low = at * np.uint64(narrow)
        up = ((low & np.uint64(0xFFFF_FFFF)) != 0).astype(np.uint64)
        passed: NDArray[np.uint64] = at * np.uint64(wide) + (low >> shift) + up
        return passed.astype(np.int64)


Read = Callable[[NDArray[np.intp], int, int], "Cells"]
"""Cells of ticks first..last-1, of these columns of a block."""


@dataclass(slots=True, kw_only=True, eq=False)
class Cells:
    """A block of cells [k ticks, m columns]. Mutable: merging happens in place."""

    first: int
    """Tick of row 0."""
    values: Float
    """[k, m]; NaN where empty."""
    quality: NDArray[np.uint16]
    """[k, m] status | PRESENT | LATE."""
    offset: NDArray[np.uint32]
    """[k, m]; 0 where empty."""

    @classmethod
    def empty(cls, first: int, k: int, m: int, dtype: str = "float32") -> Cells:
        """k ticks from `first`, m columns, no readings."""
        return cls(
            first=first,
            values=np.full((k, m), np.nan, dtype),
            quality=np.zeros((k, m), np.uint16),
            offset=np.zeros((k, m), np.uint32),
        )

    @property
    def last(self) -> int:
        """One past the last tick."""
        return self.first + len(self.values)

    def clear(self) -> None:
        """Make all cells empty."""
        self.values[:], self.quality[:], self.offset[:] = np.nan, 0, 0

    def rows(self, first: int, last: int) -> Cells:
        """A view of ticks first..last-1, which must lie inside."""
        if not self.first <= first <= last <= self.last:
            raise IndexError(f"ticks {first}..{last} lie outside {self.first}..{self.last}")
        cut = slice(first - self.first, last - self.first)
        return Cells(first=first, values=self.values[cut], quality=self.quality[cut], offset=self.offset[cut])

    @classmethod
    def read_ahead(cls, read: Read, ahead: NDArray[np.int64], first: int, last: int) -> Cells:
        """Row k of column j holds the cell of tick k + ahead[j]; `ahead` [m].

        `read` is asked for columns that lie equally far ahead, and their ticks.
        """
        distances = np.unique(ahead).tolist()
        if distances in ([], [0]):
            return read(np.arange(len(ahead)), first, last)
        parts = [(at, read(at, first + d, last + d)) for d in distances for at in [np.flatnonzero(ahead == d)]]
        double = any(part.values.dtype == np.float64 for _, part in parts)
        cells = cls.empty(first, last - first, len(ahead), "float64" if double else "float32")
        for at, part in parts:
            cells.values[:, at], cells.quality[:, at], cells.offset[:, at] = part.values, part.quality, part.offset
        return cells

    def merge(self, other: Cells) -> None:
        """Cell-wise maximum with `other`, whose ticks must lie inside; columns must be the same."""
        mine = self.rows(other.first, other.last)
        taken = np.flatnonzero(mine.quality.any(axis=1))  # mostly few: a block that goes on where a commit ended
        begin, end = (int(taken[0]), int(taken[-1]) + 1) if len(taken) else (0, 0)
        for free in (slice(0, begin), slice(end, None)):
            mine.values[free], mine.quality[free] = other.values[free], other.quality[free]
            mine.offset[free] = other.offset[free]
        if len(taken):
            mine.rows(mine.first + begin, mine.first + end)._win(other.rows(other.first + begin, other.first + end))

    def _win(self, other: Cells) -> None:
        """Take what is greater, of cells of the same ticks and columns."""
        wins = greater(other, self)
        self.values[wins] = other.values[wins]
        self.quality[wins] = other.quality[wins]
        self.offset[wins] = other.offset[wins]

    def put(
        self,
        readings: Readings,
        grid: Grid,
        column_of: NDArray[np.int32],
        late_before: int | None,
        *,
        fresh: bool = False,
    ) -> None:
        """Merge readings in.

        `column_of[tag id]` is the column, -1 for tags that are not here (their readings are
        passed over, as are ticks outside the block). A reading of a tick
        below `late_before` is marked LATE. `fresh`: the caller knows that these columns are empty.
        """
        if isinstance(readings, Dense):
            self._put_dense(readings, grid, column_of, late_before, fresh)
            return
        from penstock.data.placing import place  # it builds on this module

        place(self, readings, grid, column_of, late_before)

    def _put_dense(
        self, dense: Dense, grid: Grid, column_of: NDArray[np.int32], late_before: int | None, fresh: bool
    ) -> None:
        ticks = grid.tick(dense.times)
        if len(ticks) > 1 and len(np.unique(ticks)) != len(ticks):  # two rows of one cell: the long way orders them
            self.put(dense.long(), grid, column_of, late_before)
            return
        inside = (ticks >= self.first) & (ticks < self.last)
        across = _across.of(partial(_Across.of, column_of, dense.tags), column_of, dense.tags)
        if not inside.any() or not len(across.known):
            return
        ticks = ticks[inside]
        at, pick = across.index(ticks - self.first, np.flatnonzero(inside))
        late = None if late_before is None else ticks < late_before
        offsets = grid.offset(dense.times[inside])
        if fresh or not self.quality[at].any():
            self._lay_dense(at, dense.values[pick], dense.quality[pick], offsets, late)
            return
        new = _cells_of(dense.values[pick], dense.quality[pick], offsets, late, self.values.dtype)
        old = Cells(first=0, values=self.values[at], quality=self.quality[at], offset=self.offset[at])
        wins = greater(new, old)
        self.values[at] = np.where(wins, new.values, old.values)
        self.quality[at] = np.where(wins, new.quality, old.quality)
        self.offset[at] = np.where(wins, new.offset, old.offset)

    def _lay_dense(
        self,
        at: tuple[Any, ...],
        raw: Float,
        status: NDArray[np.uint8],
        offsets: NDArray[np.uint32],
        late: NDArray[np.bool_] | None,
    ) -> None:
        """`_cells_of`, laid into empty cells `at`; what is whole is written once, without a copy between."""
        if np.isnan(raw).any():
            new = _cells_of(raw, status, offsets, late, self.values.dtype)
            self.values[at], self.quality[at], self.offset[at] = new.values, new.quality, new.offset
            return
        self.values[at] = raw
        marks = np.full(len(offsets), PRESENT, np.uint16)
        if late is not None:
            marks[late] |= np.uint16(LATE)
        self.quality[at] = status | marks[:, None]
        if offsets.any():
            self.offset[at] = offsets[:, None]


def _cells_of(
    raw: Float,
    status: NDArray[np.uint8],
    offsets: NDArray[np.uint32],
    late: NDArray[np.bool_] | None,
    dtype: np.dtype[Any],
) -> Cells:
    """Dense readings [k, m] at `offsets` [k] as cells, values as `dtype`; `late` [k].

    In few passes: a plant of a million tags comes this way at every tick.
    """
    values: Float = raw.astype(dtype)
    nan = np.isnan(values)
    quality = status.astype(np.uint16)
    quality |= np.uint16(PRESENT)
    if late is not None and late.any():
        quality[late] |= np.uint16(LATE)
    offset = np.broadcast_to(offsets[:, None], status.shape)
    if nan.any():
        np.copyto(values, np.nan, where=nan)  # of whatever bits they were
        absent = nan & (status == GOOD)
        np.copyto(quality, np.uint16(0), where=absent)
        offset = np.where(absent, np.uint32(0), offset) if offsets.any() else offset
    return Cells(first=0, values=values, quality=quality, offset=offset)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Across:
    """Where columns of dense readings go in a block of cells."""

    columns: NDArray[np.int32]
    """[n] of the block."""
    known: NDArray[np.intp]
    """[n] of the readings."""
    slices: tuple[slice, slice] | None
    """Both, where both are evenly spaced: that copies ten times faster."""

    @classmethod
    def of(cls, column_of: NDArray[np.int32], tags: NDArray[np.int32]) -> _Across:
        columns = column_of[tags]
        known = np.flatnonzero(columns >= 0)
        columns = columns[known]
        to, of = (spaced(columns), spaced(known)) if len(known) else (None, None)
        return cls(columns=columns, known=known, slices=None if to is None or of is None else (to, of))

    def index(self, rows: NDArray[np.int64], picked: NDArray[np.intp]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """(of the block, of the readings): the index of all columns of these rows."""
        to, of = spaced(rows), spaced(picked)
        if self.slices is None or to is None or of is None:
            return np.ix_(rows, self.columns), np.ix_(picked, self.known)
        return (to, self.slices[0]), (of, self.slices[1])


_across: Remembered[_Across] = Remembered()


def spaced(at: NDArray[np.integer[Any]]) -> slice | None:
    """The slice that picks the same as `at` [n >= 1], where it is ascending and evenly spaced."""
    if len(at) == 1:
        return slice(int(at[0]), int(at[0]) + 1)
    step = int(at[1]) - int(at[0])
    even = step > 0 and bool((np.diff(at) == step).all())
    return slice(int(at[0]), int(at[-1]) + 1, step) if even else None


def canonical(values: Float, dtype: np.dtype[Any]) -> Float:
    """A copy of the values as `dtype`, every NaN with one bit pattern, so that bits can be compared."""
    cast: Float = values.astype(dtype)
    nan = np.isnan(cast)
    if nan.any():
        np.copyto(cast, np.nan, where=nan)
    return cast


def quality_of(status: NDArray[np.uint8], late: NDArray[np.bool_]) -> NDArray[np.uint16]:
    """Of cells that hold readings of that status."""
    quality = status.astype(np.uint16)
    quality |= PRESENT
    if late.any():
        quality |= np.where(late, np.uint16(LATE), np.uint16(0))
    return quality


def _bits(values: Float) -> NDArray[np.uint64]:
    return values.view(np.uint32 if values.dtype.itemsize == 4 else np.uint64).astype(np.uint64)


def greater(a: Cells, b: Cells) -> NDArray[np.bool_]:
    """Cell-wise a > b in the order of this module; an empty cell is below every reading."""
    present_a, present_b = (a.quality & PRESENT) != 0, (b.quality & PRESENT) != 0
    bits_a, bits_b = _bits(a.values), _bits(b.values)
    on_time_a, on_time_b = (a.quality & LATE) == 0, (b.quality & LATE) == 0
    status_a, status_b = a.quality & STATUS, b.quality & STATUS
    same_value = (a.offset == b.offset) & (bits_a == bits_b)
    greater = (a.offset > b.offset) | ((a.offset == b.offset) & (bits_a > bits_b))
    greater |= same_value & on_time_a & ~on_time_b
    greater |= same_value & (on_time_a == on_time_b) & (status_a > status_b)
    return np.asarray(present_a & (~present_b | greater), bool)
