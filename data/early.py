"""Readings that may be known before their time: schedules and forecasts, tag by tag.

They tell nothing of what time it is: clock, archive span and screens go by the others. What was told later counts:
a cell keeps its greatest reading, and the position inside the cell ranks first, so a live source's readings get one
that grows with their arrival. `ahead` is `Layout.ahead_of()` throughout: [tags] ticks, or empty. Knows neither journal
nor clock.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from penstock.data.frame import Frame, Readings
from penstock.data.grid import Grid

PLACES = 64
"""Positions that the times inside a cell are told apart by, among readings that arrived together."""


def parted(readings: Readings, ahead: NDArray[np.int64]) -> tuple[Readings, Frame | None]:
    """The readings that are of their time, and those of tags that may be ahead; None where there are none."""
    if not len(ahead):
        return readings, None
    known = readings.tags < len(ahead)  # a tag registered since is one like any other
    early = known & (ahead[np.where(known, readings.tags, 0)] > 0)
    if not early.any():
        return readings, None
    if isinstance(readings, Frame):
        return readings.only(~early), readings.only(early)
    return readings.columns(np.flatnonzero(~early)), readings.columns(np.flatnonzero(early)).long()


def newest_of(readings: Readings, grid: Grid, least: int) -> int:
    """One past the newest tick of the readings, at least `least`."""
    if not len(readings.times) or not len(readings.tags):
        return least
    return max(least, grid.tick_of(int(readings.times.max())) + 1)


def admitted(early: Frame, ahead: NDArray[np.int64], grid: Grid, now_ns: int, skew_ns: int) -> tuple[Frame, int]:
    """Those of `early` that lie no further ahead than they may, stamped with their arrival; how many do not."""
    allowed = early.times <= now_ns + skew_ns + ahead[early.tags] * grid.period_ns
    kept = early.only(allowed)
    return stamped(kept, ahead, grid, now_ns, skew_ns), len(early) - len(kept)


def stamped(early: Frame, ahead: NDArray[np.int64], grid: Grid, now_ns: int, skew_ns: int) -> Frame:
    """The same readings in the same cells, those that arrived later further behind in theirs.

    A cell counts its own place in 2^32 parts, so a place is at least that long. What arrives when its cell is over has
    the last one. Two that arrive within a 1/100,000 of the time that they may be ahead rank by their times as sent.
    """
    unit = max(1, -(-grid.period_ns // (1 << 32)))
    slots = max(1, grid.period_ns // (PLACES * unit))
    begins = grid.origin_ns + grid.tick(early.times) * grid.period_ns
    span = ahead[early.tags] * grid.period_ns + skew_ns + grid.period_ns
    age = np.clip(now_ns - (begins + grid.period_ns - span), 0, span - 1)
    slot = age // np.maximum(1, -(-span // slots))
    place = slot * PLACES + (early.times - begins) * PLACES // grid.period_ns
    times = begins + np.minimum(place * unit, grid.period_ns - 1)
    return Frame(times=times, tags=early.tags, values=early.values, quality=early.quality)
