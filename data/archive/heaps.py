"""Readings of one commit, in the order in which the archive wants them: tick after tick, range of columns by range.

Arithmetic alone: what is read and what is written is the archiver's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.data.frame import Dense, Frame, Readings
from penstock.data.grid import Cells, Grid

EVERYTHING = int(np.iinfo(np.int64).max)
"""As `late_before`: all of it is late."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Heap:
    """Readings that are all late or all on time, in order of tick; of dense ones each tick once, or they are long."""

    sheets: tuple[Readings, ...]
    """One after the other; of dense ones all have the same tags. Several are joined when they are cut into ranges of
    columns: before, that would be a copy of a whole commit."""
    ticks: NDArray[np.int64]
    """Of each row of all sheets, ascending."""
    is_late: bool

    @classmethod
    def of(cls, heap: Sequence[Readings], grid: Grid, is_late: bool) -> Heap:
        """Sorted; what arrived in order is not copied."""
        ticks = np.concatenate([grid.tick(r.times) for r in heap])
        rise = np.diff(ticks)
        if bool((rise > 0).all()) and all(isinstance(r, Dense) for r in heap):
            return cls(sheets=tuple(heap), ticks=ticks, is_late=is_late)
        readings = _joined(heap)
        if isinstance(readings, Dense) and len(np.unique(ticks)) < len(ticks):
            readings = readings.long()
            ticks = grid.tick(readings.times)
            rise = np.diff(ticks)
        if not bool((rise >= 0).all()):
            order = np.argsort(ticks, kind="stable")
            readings, ticks = readings.rows(order), ticks[order]
        return cls(sheets=(readings,), ticks=ticks, is_late=is_late)

    def part(self, begin: int, end: int) -> Heap:
        """Rows begin..end-1."""
        cut, at = [], 0
        for sheet in self.sheets:
            a, b = max(begin - at, 0), min(end - at, len(sheet.times))
            if a < b:
                cut.append(sheet.rows(slice(a, b)))
            at += len(sheet.times)
        return Heap(sheets=tuple(cut), ticks=self.ticks[begin:end], is_late=self.is_late)


def stages(
    parts: Sequence[Heap], dtype: str, index: NDArray[np.int32], wide: int, grid: Grid
) -> Iterator[tuple[int, Cells]]:
    """The cells of some readings of one block, in ranges of `wide` columns: (first column, cells)."""
    first, last = min(int(p.ticks[0]) for p in parts), max(int(p.ticks[-1]) for p in parts) + 1
    across = [_Across.of(part, index) for part in parts]
    tags, local = int(np.count_nonzero(index >= 0)), np.arange(wide, dtype=np.int32)
    begin, end = min(int(a.columns[0]) for a in across), max(int(a.columns[-1]) for a in across) + 1
    for column in range(begin // wide * wide, end, wide):
        upto = min(column + wide, tags)
        inside = [(part, a.is_late) for a in across if (part := a.part(column, upto)) is not None]
        if inside:
            stage, laid = Cells.empty(first, last - first, upto - column, dtype), np.zeros(wide, bool)
            for readings, is_late in inside:
                fresh = not laid[readings.tags].any()
                stage.put(readings, grid, local, EVERYTHING if is_late else None, fresh=fresh)
                laid[readings.tags] = True
            yield column, stage


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Across:
    """A heap's readings in order of the archive's columns, so that those of a range of columns lie together."""

    sheets: tuple[Readings, ...]
    columns: NDArray[np.int32]
    """Ascending: of each column of dense rows, or of each reading."""
    is_late: bool

    @classmethod
    def of(cls, heap: Heap, index: NDArray[np.int32]) -> _Across:
        """`index`: the archive's column of each tag."""
        sheets, columns = heap.sheets, index[heap.sheets[0].tags]
        if not bool((np.diff(columns) >= 0).all()):
            order = np.argsort(columns, kind="stable")
            columns = columns[order]
            sheets = tuple(r.columns(order) if isinstance(r, Dense) else r.rows(order) for r in sheets)
        return cls(sheets=sheets, columns=columns, is_late=heap.is_late)

    def part(self, begin: int, end: int) -> Readings | None:
        """The readings of columns begin..end-1, counted from 0 as their tags; None where there is none."""
        a, b = np.searchsorted(self.columns, np.array((begin, end), np.int32)).tolist()  # other types copy all of it
        if a == b:
            return None
        tags, cut = self.columns[a:b] - np.int32(begin), slice(a, b)
        return _joined([_cut(sheet, cut, tags) for sheet in self.sheets])


def _cut(readings: Readings, at: slice, tags: NDArray[np.int32]) -> Readings:
    """Some columns of dense rows, some readings of a long frame, under other tags."""
    if isinstance(readings, Dense):
        return Dense(times=readings.times, tags=tags, values=readings.values[:, at], quality=readings.quality[:, at])
    return Frame(times=readings.times[at], tags=tags, values=readings.values[at], quality=readings.quality[at])


def _joined(heap: Sequence[Readings]) -> Readings:
    """One block of readings; the heap's are all long, or all dense with the same tags."""
    if len(heap) == 1:
        return heap[0]
    times = np.concatenate([r.times for r in heap])
    values = np.concatenate([r.values for r in heap])
    quality = np.concatenate([r.quality for r in heap])
    if isinstance(heap[0], Dense):
        return Dense(times=times, tags=heap[0].tags, values=values, quality=quality)
    return Frame(times=times, tags=np.concatenate([r.tags for r in heap]), values=values, quality=quality)
