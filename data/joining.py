"""Readings of a slower or shifted source at the ticks themselves: the nearest one, or the line between two.

    readings        x      x         x    cells keep where inside the period they were
    ticks        |      |      |      |
    nearest      ?      x      x      x   by distance; of two equally near ones the earlier
    linear       ?      /      /      /   between the newest one at or before the tick and the first one behind it

Without a join a tick's value is the last reading of its own cell, known when the tick closes. Here a tick also needs
what comes up to `ahead` ticks later, so whoever asks while a plant runs must wait that long. A pure function of the
cells from `back` ticks before to `ahead` ticks behind, with the same bits wherever the block begins. A cell keeps one
reading; of a source with several in a period the last one stands for it. No I/O, no clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from penstock.data.frame import BAD
from penstock.data.grid import PRESENT, STATUS, Cells

Way = Literal["nearest", "linear"]
PERIOD = np.int64(1) << np.int64(32)
"""In units of a cell's offset."""
BEFORE, BEHIND = np.int64(-(1 << 30)), np.int64(1 << 30)
"""Rows of readings that are not there: farther than any limit."""
Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Joined:
    """Values at ticks first..first+k-1; [k, m]."""

    first: int
    values: NDArray[np.float64]
    """NaN where there are not the readings that it takes."""


def join(cells: Cells, way: Way, *, back: int, ahead: int) -> Joined:
    """The values at the beginnings of cells, but the first `back` and the last `ahead`, which are only looked at.

    `back`, `ahead`: how many ticks before and behind a reading may lie, at least 1 and 0. A bad one, or one that is
    no finite number, is none. Raises ValueError for other limits, or fewer rows.
    """
    rows = len(cells.values)
    if back < 1 or ahead < 0 or rows < back + ahead:
        raise ValueError(
            f"back {back}, ahead {ahead} of {rows} rows: at least 1, 0, and both together at most the rows"
        )
    good = ((cells.quality & PRESENT) != 0) & ((cells.quality & STATUS) < BAD) & np.isfinite(cells.values)
    ticks = np.arange(rows, dtype=np.int64)[:, None]
    on_tick = good & (cells.offset == 0)
    old = np.where(on_tick, ticks, _newest_before(good, ticks))
    new = _first_from(good, ticks)
    at = slice(back, rows - ahead)
    old, new, ticks = old[at], new[at], ticks[at]
    old_ok, new_ok = ticks - old <= back, new - ticks <= ahead
    since, until = ticks * PERIOD - _moment(cells, old), _moment(cells, new) - ticks * PERIOD
    low, high = _value(cells, old), _value(cells, new)
    if way == "nearest":
        earlier = old_ok & (~new_ok | (since <= until))
        values = np.where(earlier, low, np.where(new_ok, high, np.nan))
    else:
        share = since / np.maximum(since + until, 1)
        values = np.where(since == 0, low, low + (high - low) * share)
        values = np.where(old_ok & (new_ok | (since == 0)), values, np.nan)
    return Joined(first=cells.first + back, values=values)


def _newest_before(good: NDArray[np.bool_], ticks: Rows) -> Rows:
    """[k, m] the newest row above each in which there is a reading; BEFORE where there is none."""
    newest = np.maximum.accumulate(np.where(good, ticks, BEFORE), axis=0)
    return np.concatenate([np.full((min(1, len(good)), good.shape[1]), BEFORE), newest[:-1]])


def _first_from(good: NDArray[np.bool_], ticks: Rows) -> Rows:
    """[k, m] the first row from each on in which there is a reading; BEHIND where there is none."""
    return np.minimum.accumulate(np.where(good, ticks, BEHIND)[::-1], axis=0)[::-1]


def _moment(cells: Cells, rows: Rows) -> Rows:
    """When the readings of these rows were, in units of the offset; of rows that are not there something."""
    return rows % BEHIND * PERIOD + _pick(cells.offset, rows).astype(np.int64)


def _value(cells: Cells, rows: Rows) -> NDArray[np.float64]:
    return _pick(cells.values, rows).astype(np.float64)


def _pick(array: NDArray[np.generic], rows: Rows) -> NDArray[np.generic]:
    return np.take_along_axis(array, np.clip(rows, 0, len(array) - 1), axis=0)
