"""What a shard keeps between steps: the cells of what its models read, and apart those of what may be known ahead.

    ticks       ...    closed - 1 |  closed   ...   closed + ahead
    near   [ most tags, read at a row's own time ]
    far    [ schedules and forecasts, which are few: rows read them at their own time or behind it ]

A reading of the far ring touches rows that are closed although its own tick is not. Apart, because a day of seconds
ahead of the clock would otherwise be kept of every tag. No I/O: what lies in the archive comes in through `build`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from penstock.data.frame import Frame, Readings
from penstock.data.grid import Cells
from penstock.speed.plan import ShardPlan
from penstock.speed.ring import Ring

Build = Callable[[NDArray[np.int32]], Ring]
"""A ring of these tag ids, ascending."""


class Rings:
    """One fold over both rings; ticks are the plan's."""

    def __init__(self, plan: ShardPlan, build: Build) -> None:
        self._grid = plan.grid
        far = np.isin(plan.ids, plan.ids[_may_be_ahead(plan)]) & (plan.ids >= 0)
        self._is_far = far
        self._near = build(np.unique(plan.ids[~far & (plan.ids >= 0)]))
        self._far = build(np.unique(plan.ids[far])) if far.any() else None
        self._furthest = np.full(int(plan.ids.max(initial=-1)) + 1, -1, np.int64)
        """[tags] how far ahead a row reads it at most; -1: no tag of the far ring."""
        np.maximum.at(self._furthest, plan.ids[far], plan.ahead[far])

    @property
    def closed(self) -> int | None:
        """Ticks below are closed; None before the first decision."""
        return self._near.closed

    @property
    def floor(self) -> int:
        """The oldest tick that is kept."""
        return self._near.floor

    def hold_from(self, tick: int) -> None:
        """Keep the ticks from there on, however far the closed ones go."""
        for ring in self._both():
            ring.hold = tick

    def touched(self, readings: Readings) -> int | None:
        """The lowest closed row that these readings are in; None where they are in none."""
        found = [row for row in (self._near.late(readings), self._revised(readings)) if row is not None]
        return min(found, default=None)

    def put(self, readings: Readings) -> None:
        """Merge readings in."""
        for ring in self._both():
            ring.put(readings)

    def close(self, closed: int) -> None:
        """Ticks below `closed` are closed."""
        for ring in self._both():
            ring.close(closed)

    def look(self, plan: ShardPlan, columns: NDArray[np.intp], first: int, last: int) -> Cells:
        """Rows first..last-1 of these of the plan's columns, each read as far ahead as it says."""

        def read(at: NDArray[np.intp], begin: int, end: int) -> Cells:
            ids, far = plan.ids[columns[at]], self._is_far[columns[at]]
            if not (ids >= 0).any():
                return Cells.empty(begin, end - begin, len(ids), plan.dtype)
            if self._far is None or not far.any():
                return spread(self._near.rows(begin, end), self._near.ids, ids, plan.dtype)
            cells = spread(self._far.rows(begin, end), self._far.ids, np.where(far, ids, -1), plan.dtype)
            if not far.all():
                _fill(cells, self._near.rows(begin, end), self._near.ids, np.where(far, -1, ids))
            return cells

        return Cells.read_ahead(read, plan.ahead[columns], first, last)

    def _both(self) -> list[Ring]:
        return [self._near] if self._far is None else [self._near, self._far]

    def _revised(self, readings: Readings) -> int | None:
        """The lowest closed row that reads any of these ahead of its own time."""
        if self._far is None or self._far.closed is None or not len(readings.times):
            return None
        ticks, known = self._grid.tick(readings.times), readings.tags < len(self._furthest)
        ahead = np.where(known, self._furthest[np.where(known, readings.tags, 0)], -1)
        if not isinstance(readings, Frame):
            ahead = np.full(len(ticks), ahead.max(initial=-1))
        rows = ticks - ahead
        low = (ahead >= 0) & (rows < self._far.closed) & (ticks >= self._far.floor)
        return int(rows[low].min()) if low.any() else None


def spread(cells: Cells, have: NDArray[np.int32], ids: NDArray[np.int32], dtype: str) -> Cells:
    """Cells of the tags `have` -> cells of the tags `ids`, which may repeat; -1: an empty column."""
    if np.array_equal(have, ids):
        return cells
    spread = Cells.empty(cells.first, len(cells.values), len(ids), dtype)
    _fill(spread, cells, have, ids)
    return spread


def _fill(spread: Cells, cells: Cells, have: NDArray[np.int32], ids: NDArray[np.int32]) -> None:
    """Put the cells of the tags `have` where `ids` has them."""
    known = np.flatnonzero(ids >= 0)
    at = np.searchsorted(have, ids[known])
    spread.values[:, known] = cells.values[:, at]
    spread.quality[:, known] = cells.quality[:, at]
    spread.offset[:, known] = cells.offset[:, at]


def _may_be_ahead(plan: ShardPlan) -> NDArray[np.bool_]:
    """[columns]"""
    return np.array([c.ahead > 0 or c.tag.ahead_ns > 0 for c in plan.columns], np.bool_)
