"""How long ticks waited: percentiles of any number of them in a few kilobytes. Time is an argument."""

from __future__ import annotations

import math
from collections import deque
from typing import TypedDict

import numpy as np

STEP = 1.02
"""Ratio of two neighbouring classes: a percentile is right within 1 %."""
LEAST_MS = 0.01
CLASSES = 1000
"""The last one begins at 4 million ms: more than an hour."""
CLOSES = 4096
"""Decisions that are remembered while nothing is said; of older ones it is not told how long their ticks waited."""


class Told(TypedDict):
    """Of ``count`` ticks, in ms; None where there are none."""

    count: int
    p50: float | None
    p99: float | None


class Delays:
    """A histogram with classes of equal ratio."""

    def __init__(self) -> None:
        self._counts = np.zeros(CLASSES, np.int64)

    def see(self, ms: float, ticks: int) -> None:
        """So many ticks waited `ms`."""
        at = int(math.log(max(ms, LEAST_MS) / LEAST_MS) / math.log(STEP))
        self._counts[min(at, CLASSES - 1)] += ticks

    def told(self) -> Told:
        """Median and 99th percentile so far."""
        return {"count": int(self._counts.sum()), "p50": self._at(0.5), "p99": self._at(0.99)}

    def _at(self, share: float) -> float | None:
        """The middle of the class in which the smallest value lies that `share` of all do not exceed."""
        total = int(self._counts.sum())
        if not total:
            return None
        at = int(np.searchsorted(np.cumsum(self._counts), math.ceil(share * total)))
        return float(round(LEAST_MS * STEP ** (at + 0.5), 3))


class Closes:
    """When ticks closed, until they are said."""

    def __init__(self) -> None:
        self.delays = Delays()
        """From a tick's close to its being said."""
        self._closed: int | None = None
        self._waiting: deque[tuple[int, int, float]] = deque(maxlen=CLOSES)
        """First tick, one past the last, and when they closed."""
        self._said: int | None = None

    def close(self, closed: int, now_s: float) -> None:
        """Ticks below `closed` can be said. What was closed before the first call is not measured."""
        if self._closed is not None and closed > self._closed:
            self._waiting.append((self._closed, closed, now_s))
        self._closed = closed

    def say(self, tick: int, now_s: float) -> None:
        """`tick` is said."""
        self._said = tick
        while self._waiting and self._waiting[0][1] <= tick:
            self._waiting.popleft()
        if self._waiting and self._waiting[0][0] <= tick:
            self.delays.see(1000 * (now_s - self._waiting[0][2]), 1)

    def overdue_s(self, now_s: float) -> float:
        """How long the oldest closed tick has waited to be said; 0 where none waits."""
        said = self._said
        waiting = (at for _, stop, at in list(self._waiting) if said is None or stop > said + 1)
        return max(0.0, now_s - next(waiting, now_s))
