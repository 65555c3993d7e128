"""How long ticks waited for their answer: percentiles of any number of them in a few kilobytes."""

from __future__ import annotations

import math
from typing import TypedDict

import numpy as np

STEP = 1.02
"""Ratio of two neighbouring classes: a percentile is right within 1 %."""
LEAST_MS = 0.01
CLASSES = 1000
"""The last one begins at 4 million ms: more than an hour."""


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
        """So many ticks were answered by a request that took `ms`."""
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
