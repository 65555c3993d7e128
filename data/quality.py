"""From cells to usable values: the one definition of good, bad and bridged.

Batch calls `assess` on years, the speed layer on the last rows of its ring,
and both must get the same bits. So memory is finite: row i of the result
depends on rows i - reach .. i alone (.. i + wait, where a tag is joined), and
what lies outside the block counts as no reading. Running state enters only as row *indices* (exact integers), never
as sums.

The checks (range, rate, flat) judge the reading itself, before a counter's
difference is taken.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from penstock.data.block import FILLED, Block, Flag
from penstock.data.frame import BAD, Float
from penstock.data.grid import LATE, PRESENT, STATUS, Cells
from penstock.data.joining import join
from penstock.data.rules import Rules

__all__ = ["FILLED", "Block", "Flag", "Rules", "assess", "assess_last"]

NEVER = np.int32(-(1 << 30))
"""Row index of something that has not happened in this block: older than any limit."""

Mask = NDArray[np.bool_]
Rows = NDArray[np.int32]
Flags = NDArray[np.uint16]
T = TypeVar("T", bound=np.generic)

LOOKS = 16, 8
"""Rows of the first look back of `assess_last`, and how many times longer each further one is."""
UNREAD = Flag.MISSING | Flag.SOURCE_BAD
UNFIT = UNREAD | Flag.RANGE | Flag.RATE | Flag.FLAT

Look = Callable[[int, NDArray[np.intp]], Cells]
"""Cells from a tick on, of these columns of the rules."""


def assess(cells: Cells, rules: Rules) -> Block:
    """The same rows with usable values and flags; the caller drops the first `rules.reach` and the last `rules.wait`.

    `cells` is [k, m] float32 or float64 with the columns of `rules`. Values come out as float32 [k, m],
    NaN exactly where flagged BAD.
    """
    present = (cells.quality & PRESENT) != 0
    readable = present & ((cells.quality & STATUS) < BAD) & _finite(cells.values, rules)
    flags = np.where(present, 0, Flag.MISSING).astype(np.uint16)
    _mark(flags, present & ~readable, Flag.SOURCE_BAD)
    _mark(flags, (cells.quality & LATE) != 0, Flag.LATE)
    low, high = rules.low.astype(cells.values.dtype), rules.high.astype(cells.values.dtype)
    believed = readable & np.greater_equal(cells.values, low) & np.less_equal(cells.values, high)
    _mark(flags, readable & ~believed, Flag.RANGE)
    good = believed & ~_jumps(cells, believed, rules, flags) & ~_stuck(cells.values, readable, rules, flags)
    raw, present, good = _joined(cells, present, good, rules, flags)
    values = _fill(raw, present, good, rules, flags)
    return Block(first=cells.first, tags=rules.tags, values=values, flags=flags)


def assess_last(look: Look, rules: Rules, first: int, last: int, *, looks: tuple[int, int] = LOOKS) -> Block:
    """Rows first..last-1 as `assess` has them, each column looked at only as far back as its readings make necessary.

    Most readings differ from the one before and are good: a few rows settle them, where a rule for stuck sensors may
    reach back thousands. Columns that those leave open are looked at again from further back, and at last from
    `rules.reach` before. What `look` gives ends `rules.wait` ticks behind `last`.
    """
    m, (back, longer) = len(rules.tags), looks
    values, flags = np.empty((last - first, m), np.float32), np.empty((last - first, m), np.uint16)
    left = np.arange(m)
    while len(left):
        part = rules.only(left)
        back = min(back, part.reach)
        cells = look(first - back, left)
        block = assess(cells, part)
        rows = slice(back, back + last - first)
        settled = _settled(cells.values, block.flags, part)[rows].all(axis=0)
        done = left[settled]
        values[:, done], flags[:, done] = block.values[rows, settled], block.flags[rows, settled]
        left, back = left[~settled], max(1, back) * longer
    return Block(first=first, tags=rules.tags, values=values, flags=flags)


def _settled(values: Float, flags: Flags, rules: Rules) -> Mask:
    """[k, m] rows that earlier rows than these could not change.

    With fewer rows a reading is called good too often, never too seldom. So the newest good one is the right one
    where its own judgement stands, and what is filled from it is right too. Of joined readings it is not asked: their
    flags tell of ticks.
    """
    rows = np.arange(len(flags), dtype=np.int32)[:, None]
    read, good = (flags & UNREAD) == 0, (flags & UNFIT) == 0
    moved = _newest(_changed(values, read, _newest(read))) > rows - rules.flat
    judged = ~read | (rows >= rules.judged) | moved
    newest = _newest(good)
    source = np.where(rules.counter & good, _before(newest, 1), newest)
    own = rules.joined == 0
    settled: Mask = (own & judged & (source >= 0) & _pick(judged, source)) | (rows >= rules.reaches)
    return settled


def _mark(flags: Flags, where: Mask, flag: Flag) -> None:
    flags |= where * np.uint16(flag)


def _finite(values: Float, rules: Rules) -> Mask:
    """Finite as float32 too, save for counters, whose difference is what must fit."""
    if values.dtype == np.float32:
        return np.isfinite(values)
    with np.errstate(over="ignore"):
        return np.isfinite(values) & (rules.counter | np.isfinite(values.astype(np.float32)))


def _jumps(cells: Cells, believed: Mask, rules: Rules, flags: Flags) -> Mask:
    """Readings that changed faster than `rate` since the previous row's believable reading.

    The elapsed time is that between the readings, but at least a period: two readings a
    millisecond apart across a cell's border are noise, not a rate.
    """
    result = np.zeros(believed.shape, bool)
    limited = np.isfinite(rules.rate)
    if not limited.any() or len(believed) < 2:
        return result
    at = slice(None) if limited.all() else np.flatnonzero(limited)  # a slice copies nothing
    values = cells.values[:, at].astype(np.float64)
    offset = cells.offset[:, at].astype(np.float64)
    periods = np.maximum(1.0 + (offset[1:] - offset[:-1]) / 2.0**32, 1.0)
    allowed = rules.rate[at] * (periods * (rules.period_ns / 1e9))
    both = believed[1:, at] & believed[:-1, at]
    with np.errstate(invalid="ignore", over="ignore"):
        result[1:, at] = both & (np.abs(values[1:] - values[:-1]) > allowed)
    _mark(flags, result, Flag.RATE)
    return result


def _stuck(values: Float, readable: Mask, rules: Rules, flags: Flags) -> Mask:
    """Readings that have been bit-equal for `flat` ticks.

    The reading that stood at row i - flat (at most `gap` older than that row) had the same bits,
    and so has every reading since. A dropped message does not hide a stuck sensor.
    """
    result = np.zeros(readable.shape, bool)
    at = np.flatnonzero(rules.flat > 0)
    if not len(at) or not len(readable):
        return result
    read = readable[:, at]
    newest = _newest(read)
    changed = _changed(values[:, at], read, newest)
    flat, gap = rules.flat[at], rules.gap[at]
    rows = np.arange(len(read), dtype=np.int32)[:, None]
    began = np.where(rows >= flat, _pick(newest, rows - flat), NEVER)
    result[:, at] = read & (began >= 0) & (began >= rows - flat - gap) & (_newest(changed) <= began)
    _mark(flags, result, Flag.FLAT)
    return result


def _joined(cells: Cells, present: Mask, good: Mask, rules: Rules, flags: Flags) -> tuple[Float, Mask, Mask]:
    """Values, what is there and what is good of it: of joined tags at the ticks, of the others as they were read.

    A joined tag is missing where no reading comes onto the tick, whatever its own cell holds.
    """
    at = np.flatnonzero(rules.joined > 0)
    if not len(at):
        return cells.values, present, good
    found = join(cells.values[:, at], cells.offset[:, at], good[:, at], linear=rules.linear[at], bound=rules.joined[at])
    there = ~np.isnan(found)
    raw, present, good = cells.values.copy(), present.copy(), good.copy()
    raw[:, at], present[:, at], good[:, at] = found, there, there
    flags[:, at] = (flags[:, at] & ~np.uint16(Flag.MISSING)) | ~there * np.uint16(Flag.MISSING)
    return raw, present, good


def _changed(values: Float, read: Mask, newest: Rows) -> Mask:
    """Readings whose bits differ from those of the reading before; `newest` is that of `read`."""
    previous = _before(newest, 1)
    bits = np.ascontiguousarray(values).view(np.uint32 if values.dtype.itemsize == 4 else np.uint64)
    changed: Mask = read & (previous >= 0) & (bits != _pick(bits, previous))
    return changed


def _fill(raw: Float, present: Mask, good: Mask, rules: Rules, flags: Flags) -> NDArray[np.float32]:
    """Values where good; else held, carried, substituted or withheld, in this order."""
    with np.errstate(over="ignore", invalid="ignore"):
        values = np.where(good, raw, np.nan).astype(np.float32)
    usable = _count(raw, values, good, rules)
    at = np.flatnonzero(~usable.all(axis=0))
    if not len(at):
        return values
    bare, seen, counter = ~usable[:, at], present[:, at], rules.counter[at]
    last_good, last_seen = _newest(good[:, at]), _newest(seen)
    rows = np.arange(len(bare), dtype=np.int32)[:, None]
    age = rows - last_good
    stale = (rules.stale[at] >= 0) & (rows - last_seen > rules.stale[at])
    held = bare & ~seen & (last_seen == last_good) & (age <= rules.hold[at])
    carried = bare & ~held & ~counter & (age <= rules.gap[at])
    substituted = bare & ~held & ~carried & ~np.isnan(rules.substitute[at])
    old = np.where(counter, np.float32(0), _pick(values[:, at], last_good))  # a silent counter has not counted
    filled = np.where(held | carried, old, np.where(substituted, rules.substitute[at], np.float32(np.nan)))
    values[:, at] = np.where(bare, filled, values[:, at])
    part = flags[:, at]
    _mark(part, stale, Flag.STALE)
    _mark(part, held, Flag.HELD)
    _mark(part, carried, Flag.CARRIED)
    _mark(part, substituted, Flag.SUBSTITUTED)
    _mark(part, bare & ~held & ~carried & ~substituted, Flag.BAD)
    flags[:, at] = part
    return values


def _count(raw: Float, values: NDArray[np.float32], good: Mask, rules: Rules) -> Mask:
    """Put each counter's difference from its previous good reading into `values`; says which rows are usable.

    The difference is taken in float64: a float32 total of 1e9 kWh steps by 64. A
    decrease is a reset of the meter; how much it counted is not known.
    """
    at = np.flatnonzero(rules.counter)
    if not len(at):
        return good
    readings = raw[:, at].astype(np.float64)
    previous = _before(_newest(good[:, at]), 1)
    rows = np.arange(len(raw), dtype=np.int32)[:, None]
    with np.errstate(over="ignore", invalid="ignore"):
        gained = readings - _pick(readings, previous)
        narrow = gained.astype(np.float32)
    near = rows - previous <= rules.bridge[at]
    counted = good[:, at] & near & (gained >= 0) & np.isfinite(narrow)
    values[:, at] = np.where(counted, narrow, np.float32(np.nan))
    usable = good.copy()
    usable[:, at] = counted
    return usable


def _newest(mask: Mask) -> Rows:
    """[k, m] the newest row at or before each where `mask` holds, NEVER where there is none."""
    rows = np.arange(len(mask), dtype=np.int32)[:, None]
    return np.maximum.accumulate(np.where(mask, rows, NEVER), axis=0)


def _before(rows: Rows, n: int) -> Rows:
    """The same, as it stood n rows earlier."""
    return np.concatenate([np.full((min(n, len(rows)), rows.shape[1]), NEVER, np.int32), rows[:-n]])


def _pick(values: NDArray[T], rows: Rows) -> NDArray[T]:
    """values[rows[i, j], j]; rows that are NEVER give row 0, for the caller to mask."""
    return np.take_along_axis(values, np.maximum(rows, 0).astype(np.intp), axis=0)
