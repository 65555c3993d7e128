"""What must stand beside predictions, computed the obvious way: every tick from all that had come when it closed.

One output at a time, in plain Python lists, nothing kept but what was said and which truths were taken.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import small_site as small

from penstock.data.adjusting import HOLD
from penstock.data.conformal import KEPT, RATE
from penstock.data.correction import FEWEST, SPREAD, STEEPEST
from penstock.data.grid import Cells
from penstock.data.journal import Journal
from penstock.data.plant import LiveSpec
from penstock.data.quality import Rules, assess
from penstock.data.scoring import Member
from penstock.data.targets import targets
from penstock.data.views.speed_view import Spoken

FLOOR = -60


@dataclass
class Slow:
    """One target of one model."""

    member: Member
    column: int
    live: LiveSpec
    residuals: list[tuple[int, float, float]] = field(default_factory=list)
    """(tick of the answer, truth - raw, raw), of the version that speaks."""
    errors: list[float] = field(default_factory=list)
    said: dict[int, tuple[float, float, float, float, int]] = field(default_factory=dict)
    """raw, corrected, low, high, version by tick"""
    taken: set[int] = field(default_factory=set)
    version: int = 0
    bias: float = 0.0
    line: tuple[float, float, float, float] | None = None
    """slope, and of the raw values middle, least and largest"""
    missing: float = 0.0
    hits: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.missing = 0.0 if self.live.interval is None else 1.0 - self.live.interval

    def learn(self, tick: int, known: dict[int, float]) -> None:
        """`known`: truth by its time, as known at `tick`."""
        spec = self.member.spec
        due = tick - spec.lags[self.column]
        for r in range(due - HOLD + 1, due + 1):
            made = r - spec.horizon
            if r in self.taken or r not in known:
                continue
            self.taken.add(r)
            if made % spec.every or made not in self.said or math.isnan(self.said[made][0]):
                continue
            raw, corrected, low, high, version = self.said[made]
            if version == self.version:
                self.residuals.append((made, float(np.float32(known[r] - raw)), raw))
                self.correct()
            if not math.isnan(low):
                hit = low <= known[r] <= high
                self.hits.append(hit)
                moved = self.missing + RATE * ((1.0 - self.live.interval) - (not hit))
                self.missing = min(max(moved, -RATE), 1 + RATE)
            self.errors.append(float(np.float32(known[r] - corrected)))

    def correct(self) -> None:
        correct, spec = self.live.correct, self.member.spec
        if correct is None:
            return
        over = correct.over_ns // spec.period_ns
        if correct.by == "ewm":
            weight = max(1 / len(self.residuals), -math.expm1(-1 / max(over / spec.every, 1.0)))
            self.bias += weight * (self.residuals[-1][1] - self.bias)
            return
        last = self.residuals[-max(1, over // spec.every) :]
        newest = max(r for r, _, _ in last)
        near = [(e, x) for r, e, x in last if r > newest - over or r == newest]
        self.bias = math.fsum(e for e, _ in near) / len(near)
        self.line = line_through(near) if correct.by == "slope" else None

    def say(self, tick: int, raw: float, version: int) -> tuple[float, float, float, float]:
        if version != self.version:
            self.version, self.residuals, self.bias, self.line = version, [], 0.0, None
        bias = np.float32(self.correction(raw)) if self.live.correct and not math.isnan(raw) else np.float32(np.nan)
        best = np.float32(raw) + bias if self.live.correct else np.float32(raw)
        half = np.float32(self.half())
        self.said[tick] = (raw, float(best), float(best - half), float(best + half), version)
        return float(bias), float(best - half), float(best + half), self.chance(float(best))

    def correction(self, raw: float) -> float:
        if self.line is None:
            return self.bias
        slope, middle, low, high = self.line
        return self.bias + slope * (min(max(raw, low), high) - middle)

    def half(self) -> float:
        if self.live.interval is None:
            return math.nan
        sizes = sorted(abs(e) for e in self.errors[-KEPT:])
        if len(sizes) < math.ceil(1 / (1 - self.live.interval) - 1 - 1e-9):
            return math.nan
        rank = math.ceil((len(sizes) + 1) * (1 - self.missing) - 1e-9)
        return 0.0 if rank < 1 else sizes[min(rank, len(sizes)) - 1]

    def chance(self, best: float) -> float:
        limit = self.live.limits[self.column] if self.live.limits else None
        need = 9 if self.live.interval is None else math.ceil(1 / (1 - self.live.interval) - 1 - 1e-9)
        last = self.errors[-KEPT:]
        if limit is None or math.isnan(best) or len(last) < need:
            return math.nan
        return sum(e > np.float32(limit) - np.float32(best) for e in last) / len(last)


def line_through(pairs: list[tuple[float, float]]) -> tuple[float, float, float, float] | None:
    """Of (residual, raw), by the normal equations of truth = a + b raw; None: too few, or too close together."""
    if len(pairs) < FEWEST:
        return None
    x, y = [x for _, x in pairs], [e + x for e, x in pairs]
    spread, off = np.std(x), np.std([e for e, _ in pairs])
    if spread == 0 or spread < SPREAD * off:
        return None
    slope = float(np.linalg.lstsq(np.stack([np.ones(len(x)), x], axis=1), np.array(y), rcond=None)[0][1]) - 1.0
    return min(max(slope, -STEEPEST), STEEPEST), math.fsum(x) / len(x), min(x), max(x)


def known_at(journal: Journal, position: int, last: int) -> Cells:
    """All records of sequences up to `position`."""
    cells, closed = Cells.empty(FLOOR, last + 60 - FLOOR, len(small.NAMES)), None
    for record in journal.read(journal.first, position + 1):
        if record.readings is not None:
            cells.put(record.readings, small.GRID, np.arange(len(small.NAMES), dtype=np.int32), closed)
        if record.clock is not None:
            closed = max(closed or record.clock.closed, record.clock.closed)
    return cells


def usable(cells: Cells, member: Member, column: int, last: int) -> dict[int, float]:
    """Truth by its time."""
    spec = member.spec
    at = [small.NAMES.index(name) for name in spec.truth]
    mine = Cells(
        first=cells.first, values=cells.values[:, at], quality=cells.quality[:, at], offset=cells.offset[:, at]
    )
    block = assess(mine, Rules.of(spec.truth_tags, spec.period_ns))
    ends = np.arange(FLOOR + 20, last) - spec.horizon
    y, fit, _ = targets(spec, block, ends)
    return {int(r): float(v) for r, v, ok in zip(ends + spec.horizon, y[:, column], fit[:, column], strict=True) if ok}


def slowly(site: Path, spoken: Sequence[Spoken], slow: Sequence[Slow]) -> np.ndarray:
    """[ticks, outputs, 4] corrections, lows, highs, chances; NaN where an output says nothing."""
    told, journal, last = (
        np.full((len(spoken), len(slow), 4), np.nan),
        Journal.open(site / "journal"),
        spoken[-1].tick + 1,
    )
    position, truths = -2, list[dict[int, float]]()
    for i, one in enumerate(spoken):
        if one.position != position:
            cells, position = known_at(journal, one.position, last), one.position
            truths = [usable(cells, each.member, each.column, last) for each in slow]
        place = {name: (k, sum(o for _, o in one.members[:k])) for k, (name, _) in enumerate(one.members)}
        for j, each in enumerate(slow):
            each.learn(one.tick, truths[j])
            if each.member.name in place:
                k, at = place[each.member.name]
                told[i, j] = each.say(one.tick, float(one.values[at + each.column]), int(one.versions[k]))
    journal.close()
    return told
