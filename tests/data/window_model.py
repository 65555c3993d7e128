"""The slow, obvious model: quality and windows written reading by reading, as the documentation says them.

It sees the whole past of a row and loops over it in plain Python. Tests hold the fast code against it.
"""

from __future__ import annotations

import math

import numpy as np

from penstock.data.frame import BAD
from penstock.data.grid import LATE, PRESENT, STATUS, Cells
from penstock.data.plant import PrepareStep, Tag
from penstock.data.quality import Flag


def column(cells: Cells, j: int, tag: Tag, period_ns: int) -> tuple[list[float], list[int]]:
    """Usable values (NaN where withheld) and flags of one column."""
    k = len(cells.values)
    raw = [float(v) for v in cells.values[:, j]]
    quality = [int(q) for q in cells.quality[:, j]]
    present = [bool(q & PRESENT) for q in quality]
    readable = [present[i] and (quality[i] & STATUS) < BAD and math.isfinite(raw[i]) for i in range(k)]
    low, high = (-math.inf, math.inf) if tag.range is None else tag.range
    kind = np.float32 if tag.dtype == "float32" else np.float64
    believed = [readable[i] and float(kind(low)) <= raw[i] <= float(kind(high)) for i in range(k)]
    flags, good = [], []
    for i in range(k):
        flag = Flag(0)
        flag |= Flag.MISSING if not present[i] else Flag(0)
        flag |= Flag.SOURCE_BAD if present[i] and not readable[i] else Flag(0)
        flag |= Flag.LATE if quality[i] & LATE else Flag(0)
        flag |= Flag.RANGE if readable[i] and not believed[i] else Flag(0)
        flag |= Flag.RATE if _jumps(cells, j, tag, period_ns, believed, i) else Flag(0)
        flag |= Flag.FLAT if readable[i] and _stuck(raw, readable, tag, period_ns, i) else Flag(0)
        good.append(believed[i] and not flag & (Flag.RATE | Flag.FLAT))
        flags.append(flag)
    if tag.join != "last":
        readings = [(r * 2**32 + int(cells.offset[r, j]), r, raw[r]) for r in range(k) if good[r]]
        raw = [_joined(readings, tag, period_ns, i) for i in range(k)]
        present = good = [not math.isnan(v) for v in raw]
        flags = [f & ~Flag.MISSING | (Flag(0) if there else Flag.MISSING) for f, there in zip(flags, good, strict=True)]
    found = [_value(raw, present, good[: i + 1], tag, period_ns, i) for i in range(k)]
    return [value for value, _ in found], [int(f | why) for f, (_, why) in zip(flags, found, strict=True)]


def _joined(readings: list[tuple[int, int, float]], tag: Tag, period_ns: int, i: int) -> float:
    """The value at the beginning of row i; of each reading its moment in 2^-32 periods, its row and its value."""
    bound, now = tag.join_delay_ns // period_ns, i * 2**32
    old = [r for r in readings if r[0] <= now and i - r[1] <= bound][-1:]
    new = [r for r in readings if r[0] >= now and r[1] - i <= bound][:1]
    if tag.join == "nearest":
        near = sorted([*old, *new], key=lambda r: (abs(r[0] - now), r[0]))
        return near[0][2] if near else math.nan
    if old and old[0][0] == now:
        return old[0][2]
    if not old or not new:
        return math.nan
    (t0, _, low), (t1, _, high) = old[0], new[0]
    return low + (high - low) * ((now - t0) / (t1 - t0))


def _jumps(cells: Cells, j: int, tag: Tag, period_ns: int, believed: list[bool], i: int) -> bool:
    if tag.rate is None or i == 0 or not (believed[i] and believed[i - 1]):
        return False
    later = (int(cells.offset[i, j]) - int(cells.offset[i - 1, j])) / 2**32
    seconds = max(1.0 + later, 1.0) * (period_ns / 1e9)
    return abs(float(cells.values[i, j]) - float(cells.values[i - 1, j])) > tag.rate * seconds


def _stuck(raw: list[float], readable: list[bool], tag: Tag, period_ns: int, i: int) -> bool:
    if not tag.flat_after_ns:
        return False
    lasted, gap = math.ceil(tag.flat_after_ns / period_ns), tag.max_gap_ns // period_ns
    for q in range(i - lasted, i - lasted - gap - 1, -1):
        if q >= 0 and readable[q]:
            bits = np.float64(raw[i]).tobytes()
            return all(np.float64(raw[r]).tobytes() == bits for r in range(q, i + 1) if readable[r])
    return False


def _value(
    raw: list[float], present: list[bool], good: list[bool], tag: Tag, period_ns: int, i: int
) -> tuple[float, Flag]:
    gap = tag.max_gap_ns // period_ns
    beat = None if tag.heartbeat_ns is None else tag.heartbeat_ns // period_ns
    hold = beat if beat is not None else (gap if tag.kind == "state" else 0)
    goods = [r for r in range(i + 1) if good[r]]
    seen = [r for r in range(i + 1) if present[r]]
    why = Flag(0)
    if beat is not None and (not seen or i - seen[-1] > beat) and not _usable(raw, good, tag, gap, hold, i):
        why |= Flag.STALE
    if (usable := _usable(raw, good, tag, gap, hold, i)) is not None:
        return usable, why
    last = goods[-1] if goods else None
    if last is not None and last == seen[-1] and not present[i] and i - last <= hold:
        return (0.0 if tag.kind == "counter" else float(np.float32(raw[last]))), why | Flag.HELD
    if last is not None and i - last <= gap and tag.kind != "counter":
        return float(np.float32(raw[last])), why | Flag.CARRIED
    if tag.substitute is not None:
        return float(np.float32(tag.substitute)), why | Flag.SUBSTITUTED
    return math.nan, why | Flag.BAD


def _usable(raw: list[float], good: list[bool], tag: Tag, gap: int, hold: int, i: int) -> float | None:
    if not good[i]:
        return None
    if tag.kind != "counter":
        return float(np.float32(raw[i]))
    before = [r for r in range(max(0, i - max(1, gap, hold)), i) if good[r]]
    if not before or raw[i] < raw[before[-1]]:
        return None
    return float(np.float32(raw[i] - raw[before[-1]]))


def step(x: list[float], one: PrepareStep, period_ns: int, stride: int) -> list[float]:
    """One step of a preparation; NaN where anything it needs is NaN or before the first row."""
    span = math.ceil(one.span_ns / period_ns)

    def at(i: int) -> float:
        return x[i] if i >= 0 else math.nan

    def over(i: int) -> list[float]:
        return [at(r) for r in range(i - max(1, span) + 1, i + 1)]

    def value(i: int) -> float:
        last = over(i)
        if any(math.isnan(v) for v in (at(i), *last)) and one.name in ("mean", "min", "max", "std", "deadband"):
            return math.nan
        match one.name:
            case "difference":
                return at(i) - at(i - stride)
            case "lag":
                return at(i - span)
            case "mean":
                return sum(last) / len(last)
            case "min":
                return min(last)
            case "max":
                return max(last)
            case "std":
                return float(np.std(last))
            case "deadband":
                held = last[0]
                for reading in last:
                    held = reading if abs(reading - held) > one.low else held
                return held
            case "log":
                return math.log(at(i)) if at(i) > 0 else math.nan
            case "clip":
                return math.nan if math.isnan(at(i)) else min(max(at(i), one.low), one.high)
        raise AssertionError(f"the model does not know {one.name}")

    return [value(i) for i in range(len(x))]
