"""The error that a model keeps making, as the truths tell it that have come so far.

Of o outputs at once, a row each, and every row as if it stood alone: a fleet of hundreds costs a few array operations
a tick, and a model's numbers do not depend on its neighbours. State and arithmetic are all there is here; which truth
is known when, and what was said, is the caller's to find.

    mean, fading    e = mean of truth - raw
    slope           truth = a + b raw by least squares over the same pairs (Mincer and Zarnowitz 1969, "The evaluation
                    of economic forecasts"; as model output statistics: Glahn and Lowry 1972, J. Appl. Meteorology 11):
                    e = mean(truth - raw) + s (raw - mean(raw)),  s = b - 1 = cov(truth - raw, raw) / var(raw)

A line through too few pairs, or through pairs that lie too close together, is noise: then s is 0 and the mean remains.
Outside of the raw values that it was drawn through it is not drawn on: the correction of the nearest one holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.data.plant import CorrectSpec

FEWEST = 24
"""Pairs below which no line is drawn."""
SPREAD = 0.5
"""Standard deviation of the raw values below which none is, in units of that of the residuals about their mean."""
STEEPEST = 0.5
"""Largest slope of the residual on the raw value, either way: a model that is further off wants another training."""
MOST = 1000
"""Residuals of one output that a mean is taken of."""
NEVER = -(1 << 62)
"""Tick of a residual that is not there."""

Index = NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ways:
    """How each of o outputs is corrected."""

    mean: NDArray[np.bool_]
    """By the mean residual of the truths of the last `over` ticks before the newest one known,"""
    slope: NDArray[np.bool_]
    """or a line through them: these are among `mean`."""
    fading: NDArray[np.bool_]
    """By an exponentially weighted one."""
    over: NDArray[np.int64]
    """Ticks; 0 where neither."""
    every: NDArray[np.int64]
    """Ticks between two answers."""
    room: NDArray[np.int64]
    """Answers in that time: so many residuals are kept of it, 1 to MOST."""

    @classmethod
    def of(cls, specs: Sequence[CorrectSpec | None], every: Sequence[int], period_ns: int) -> Ways:
        """`every`: ticks between two answers of each."""
        over = np.array([0 if s is None else s.over_ns // period_ns for s in specs], np.int64)
        steps = np.maximum(np.array(every, np.int64), 1)
        return cls(
            mean=np.array([s is not None and s.by in ("bias", "slope") for s in specs], np.bool_),
            slope=np.array([s is not None and s.by == "slope" for s in specs], np.bool_),
            fading=np.array([s is not None and s.by == "ewm" for s in specs], np.bool_),
            over=over,
            every=steps,
            room=np.clip(over // steps, 1, MOST),
        )


class Correction:
    """A fold over residuals; `bias` is what it came to."""

    def __init__(self, ways: Ways) -> None:
        o, room = len(ways.over), int(ways.room[ways.mean].max()) if ways.mean.any() else 1
        self._ways = ways
        self.bias = np.zeros(o)
        """[o] mean residual, to be added; 0 where no truth is known."""
        self.slope = np.zeros(o)
        """[o] of the residual on the raw value; 0 where no line is drawn."""
        self.middle, self.low, self.high = np.zeros(o), np.zeros(o), np.zeros(o)
        """[o] mean, least and largest raw value of those that the line is drawn through."""
        self.count = np.zeros(o, np.int64)
        """[o] residuals that were ever taken in since the version that speaks began to."""
        self.residuals = np.zeros((o, room), np.float32)
        self.raw = np.zeros((o, room if ways.slope.any() else 1), np.float32)
        self.ticks = np.full((o, room), NEVER, np.int64)

    def at(self, at: Index, raw: NDArray[np.float32]) -> NDArray[np.float64]:
        """[n] what is to be added to the `raw` values [n] of the outputs `at`, each at most once."""
        inside = np.clip(raw.astype(np.float64), self.low[at], self.high[at])
        return np.where(self.slope[at] == 0, self.bias[at], self.bias[at] + self.slope[at] * (inside - self.middle[at]))

    def push(
        self, at: Index, ticks: NDArray[np.int64], residuals: NDArray[np.float32], raw: NDArray[np.float32]
    ) -> None:
        """Truth minus what was said raw, and that, [n] of the outputs `at`, each at most once, of `ticks`."""
        fading, mean = self._ways.fading[at], self._ways.mean[at]
        self.count[at] += 1
        self._fade(at[fading], residuals[fading])
        self._keep(at[mean], ticks[mean], residuals[mean], raw[mean])

    def forget(self, at: Index) -> None:
        """Another version speaks: its errors are its own."""
        self.bias[at], self.count[at], self.ticks[at], self.residuals[at] = 0.0, 0, NEVER, 0.0
        self.slope[at], self.middle[at], self.low[at], self.high[at], self.raw[at] = 0.0, 0.0, 0.0, 0.0, 0.0

    def settings(self) -> dict[str, NDArray[np.int64]]:
        """[o] each: a state that was made under others is worth nothing."""
        kind = self._ways.mean + 2 * self._ways.fading.astype(np.int64) + 4 * self._ways.slope
        return {"over": self._ways.over, "every": self._ways.every, "by": kind}

    def _fade(self, at: Index, residuals: NDArray[np.float32]) -> None:
        """The first residuals weigh alike, until one more would weigh less than those that fade do."""
        if not len(at):
            return
        steps = np.maximum(self._ways.over[at] / self._ways.every[at], 1.0)
        weight = np.maximum(1.0 / self.count[at], -np.expm1(-1.0 / steps))
        self.bias[at] += weight * (residuals.astype(np.float64) - self.bias[at])

    def _keep(
        self, at: Index, ticks: NDArray[np.int64], residuals: NDArray[np.float32], raw: NDArray[np.float32]
    ) -> None:
        if not len(at):
            return
        slot = (self.count[at] - 1) % self._ways.room[at]
        self.residuals[at, slot], self.ticks[at, slot] = residuals, ticks
        newest = self.ticks[at].max(axis=1, keepdims=True)
        kept = self.ticks[at] > newest - self._ways.over[at][:, None]
        kept |= self.ticks[at] == newest  # where `over` is shorter than a tick
        # Summed one after the other, in the order of the slots: numpy's own sum depends on how wide the array is.
        total = np.cumsum(np.where(kept, self.residuals[at], np.float32(0)), axis=1, dtype=np.float64)[:, -1]
        self.bias[at] = total / kept.sum(axis=1)
        line = self._ways.slope[at]
        if line.any():
            self.raw[at[line], slot[line]] = raw[line]
            self._draw(at[line], kept[line])

    def _draw(self, at: Index, kept: NDArray[np.bool_]) -> None:
        """The line through the pairs that are `kept` [n, room]; summed like the mean."""
        n, x = kept.sum(axis=1), self.raw[at].astype(np.float64)
        middle = _summed(np.where(kept, x, 0.0)) / n
        dx = np.where(kept, x - middle[:, None], 0.0)
        de = np.where(kept, self.residuals[at] - self.bias[at][:, None], 0.0)
        across, along, off = _summed(dx * dx), _summed(dx * de), _summed(de * de)
        drawn = (n >= FEWEST) & (across > 0) & (across >= SPREAD**2 * off)
        slope = np.clip(along / np.where(across > 0, across, 1.0), -STEEPEST, STEEPEST)
        self.slope[at], self.middle[at] = np.where(drawn, slope, 0.0), middle
        self.low[at], self.high[at] = np.where(kept, x, np.inf).min(axis=1), np.where(kept, x, -np.inf).max(axis=1)


def _summed(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """[n] of [n, room], in the order of the slots."""
    found: NDArray[np.float64] = np.cumsum(rows, axis=1)[:, -1]
    return found
