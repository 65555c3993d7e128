"""Readings of a slower or shifted source at the ticks themselves: the nearest one, or the line between two.

    readings        x      x         x    cells keep where inside the period they were
    ticks        |      |      |      |
    nearest      ?      x      x      x   by distance; of two equally near ones the earlier
    linear       ?      /      /      /   between the newest one at or before the tick and the first one behind it

Without a join a tick's value is the last reading of its own cell, known when the tick closes. Here a tick also needs
what comes up to `bound` ticks later, so whoever asks while a plant runs must wait that long. A pure function of the
cells from `bound` ticks before to `bound` ticks behind, with the same bits wherever the block begins. A cell keeps one
reading; of a source with several in a period the last one stands for it. Knows no rules: which readings are good is
said by who calls. No I/O, no clock.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from penstock.data.frame import Float

PERIOD = np.int64(1) << np.int64(32)
"""In units of a cell's offset."""
BEFORE, BEHIND = np.int64(-(1 << 30)), np.int64(1 << 30)
"""Rows of readings that are not there: farther than any limit."""
Mask = NDArray[np.bool_]
Rows = NDArray[np.int64]


def join(
    values: Float, offset: NDArray[np.uint32], good: Mask, *, linear: Mask, bound: NDArray[np.int32]
) -> NDArray[np.float64]:
    """The values at the beginnings of cells [k, m]; NaN where there are not the readings that it takes.

    `values`, `offset`, `good` [k, m]: the readings, where in their cells they were, and which of them count; they must
    be finite. `linear` [m]: the line between two, else the nearest. `bound` [m]: how many ticks before and behind
    a reading's cell may lie, at least 1. The first and the last `bound` rows are not exact: the caller drops them.
    """
    ticks = np.arange(len(values), dtype=np.int64)[:, None]
    old = np.where(good & (offset == 0), ticks, _newest_before(good, ticks))
    new = _first_from(good, ticks)
    old_ok, new_ok = ticks - old <= bound, new - ticks <= bound
    since, until = ticks * PERIOD - _moment(offset, old), _moment(offset, new) - ticks * PERIOD
    low, high = _value(values, old), _value(values, new)
    earlier = old_ok & (~new_ok | (since <= until))
    nearest = np.where(earlier, low, np.where(new_ok, high, np.nan))
    with np.errstate(invalid="ignore"):
        line = low + (high - low) * (since / np.maximum(since + until, 1))
    line = np.where(since == 0, low, line)
    line = np.where(old_ok & (new_ok | (since == 0)), line, np.nan)
    return np.where(linear, line, nearest)


def _newest_before(good: Mask, ticks: Rows) -> Rows:
    """[k, m] the newest row above each in which there is a reading; BEFORE where there is none."""
    newest = np.maximum.accumulate(np.where(good, ticks, BEFORE), axis=0)
    return np.concatenate([np.full((min(1, len(good)), good.shape[1]), BEFORE), newest[:-1]])


def _first_from(good: Mask, ticks: Rows) -> Rows:
    """[k, m] the first row from each on in which there is a reading; BEHIND where there is none."""
    return np.minimum.accumulate(np.where(good, ticks, BEHIND)[::-1], axis=0)[::-1]


def _moment(offset: NDArray[np.uint32], rows: Rows) -> Rows:
    """When the readings of these rows were, in units of the offset; of rows that are not there something."""
    return rows % BEHIND * PERIOD + _pick(offset, rows).astype(np.int64)


def _value(values: Float, rows: Rows) -> NDArray[np.float64]:
    return _pick(values, rows).astype(np.float64)


def _pick(array: NDArray[np.generic], rows: Rows) -> NDArray[np.generic]:
    return np.take_along_axis(array, np.clip(rows, 0, len(array) - 1), axis=0)
