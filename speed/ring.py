"""The newest cells of a shard's read tags: a fold over journal records.

No I/O: what lies in the archive comes in through a function. The ring holds the
ticks from `floor` on; below it readings are passed over (the archiver keeps
them), above it the ring grows as readings come.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from penstock.data.frame import Dense, Frame, Readings
from penstock.data.grid import Cells, Grid

AHEAD = 4096
"""Ticks above the closed ones that are kept as cells; readings beyond wait in the form they came in."""

Stored = Callable[[int, int], Cells]
"""Cells of ticks first..last-1 as the archive had them where this fold began, ring columns."""


class Ring:
    """Cells [floor.., columns] at one journal position."""

    def __init__(
        self,
        *,
        grid: Grid,
        ids: NDArray[np.int32],
        dtype: str,
        lead: int,
        floor: int,
        closed: int | None,
        stored: Stored,
        stored_last: int,
    ) -> None:
        """`lead`: ticks kept below the closed ones. `stored_last`: no stored cell at or above this tick."""
        self.closed = closed
        """Ticks below are closed; None before the first decision."""
        self.floor = floor
        self.lead = lead
        self.hold: int | None = None
        """Ticks from here on are kept, however far the closed ones go; None: the lead alone decides."""
        self.ids = ids
        """[columns] tags, ascending."""
        self._grid, self._dtype = grid, dtype
        self._stored, self._stored_last = stored, stored_last
        self._column_of = np.empty(0, np.int32)
        self._held: list[Readings] = []
        self._cells = Cells.empty(floor, 0, len(ids), dtype)

    def late(self, readings: Readings) -> int | None:
        """The lowest closed tick of the ring that these readings touch; None where they touch none."""
        if self.closed is None or not len(readings.times):
            return None
        ticks = self._grid.tick(readings.times)
        low = (ticks < self.closed) & (ticks >= self.floor)
        if low.any() and isinstance(readings, Frame):  # what nobody reads corrects nothing
            self._know(readings)
            low &= self._column_of[readings.tags] >= 0
        return int(ticks[low].min()) if low.any() else None

    def put(self, readings: Readings) -> None:
        """Merge readings in; those of closed ticks are marked late."""
        if not len(readings.times) or not len(self.ids):
            return
        self._know(readings)
        last = self._grid.tick_of(int(readings.times.max())) + 1
        if last > self._cells.last and isinstance(readings, Frame):  # what nobody reads needs no room
            readings = readings.only(self._column_of[readings.tags] >= 0)
            if not len(readings):
                return
            last = self._grid.tick_of(int(readings.times.max())) + 1
        limit = self._limit()
        if last > limit:
            self._held.append(_from_tick(readings, limit, self._grid))
        self._extend(min(last, limit))
        self._cells.put(readings, self._grid, self._column_of, self.closed)

    def close(self, closed: int) -> None:
        """Ticks below `closed` are closed; ticks below both lead and hold may be forgotten."""
        self.closed = closed
        keep = closed - self.lead
        self.floor = max(self.floor, keep if self.hold is None else min(keep, self.hold))
        self._extend(closed)

    def rows(self, first: int, last: int) -> Cells:
        """A view of ticks first..last-1, which must lie at or above the floor."""
        self._extend(last)
        return self._cells.rows(first, last)

    def _limit(self) -> int:
        """While a new ring catches up, the ticks it is being built for count as closed."""
        return max(self.floor + self.lead, self.floor if self.closed is None else self.closed) + AHEAD

    def _extend(self, last: int) -> None:
        """Hold cells up to tick `last`; what lies below the floor makes room."""
        old = self._cells
        if last <= old.last:
            return
        # Twice as far as asked: the copy is then paid once per many extensions.
        first, last = self.floor, min(last + max(self.lead, 64), max(last, self._limit()))
        fresh = Cells.empty(first, last - first, len(self.ids), self._dtype)
        if old.last > first:
            kept = old.rows(first, old.last)
            n = old.last - first
            fresh.values[:n], fresh.quality[:n], fresh.offset[:n] = kept.values, kept.quality, kept.offset
        begin, end = max(old.last, first), min(last, self._stored_last)
        if begin < end and len(self.ids):
            fresh.merge(self._stored(begin, end))
        self._cells = fresh
        self._put_held(last)

    def _put_held(self, last: int) -> None:
        """Held readings were ahead of every closed tick when they came: none is late."""
        waiting, self._held = self._held, []
        for readings in waiting:
            self._cells.put(readings, self._grid, self._column_of, None)
            if self._grid.tick_of(int(readings.times.max())) >= last:
                self._held.append(_from_tick(readings, last, self._grid))

    def _know(self, readings: Readings) -> None:
        """Tags registered after the plan was made are nobody's columns."""
        top = int(readings.tags.max()) + 1 if len(readings.tags) else 0
        if top > len(self._column_of):
            top = max(top, int(self.ids.max(initial=-1)) + 1)
            self._column_of = np.full(top, -1, np.int32)
            self._column_of[self.ids] = np.arange(len(self.ids), dtype=np.int32)


def _from_tick(readings: Readings, tick: int, grid: Grid) -> Readings:
    """A copy of the readings of `tick` and later: what was read from the journal is gone when that is trimmed."""
    keep = readings.times >= grid.time(tick)
    if isinstance(readings, Frame):
        return readings.only(keep)
    return Dense(
        times=readings.times[keep],
        tags=readings.tags.copy(),
        values=readings.values[keep],
        quality=readings.quality[keep],
    )
