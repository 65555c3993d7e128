"""Prediction intervals from the errors made live: adaptive conformal inference.

    half width = the ceil((n + 1) (1 - a))-th smallest of the last n errors' magnitudes
    a         += RATE * (share to be missed - (1 if the truth lay outside, else 0))       at each truth that comes

(Gibbs and Candes, "Adaptive conformal inference under distribution shift", 2021.) Over time the share of truths inside
is the one asked for, whatever the errors do: nothing is assumed of their distribution. Where a wider interval than any
known error would be due, the largest known one stands, so that a number can be drawn; errors that grow for long lie
outside then, and `a` is kept where an endless interval would keep it. Of o outputs at once, each row as if it stood
alone, like `correction`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

KEPT = 256
"""Newest errors of each output that a width is taken from; judged ones that the newest coverage is of."""
RATE = 0.01
"""How fast `a` follows. Of 0, 0.005, 0.01, 0.02 and 0.05, tried on three years of a drifting plant (gas turbine, ridge,
2011-2013, each left out in turn), all but 0 held every quarter within a point; slower ones swing less."""
FEWEST = 9
"""Errors that a probability asks for where there is no interval; of an interval its share decides: 9 at 0.9."""

Index = NDArray[np.intp]


class Conformal:
    """A fold over errors; `half` is what it came to."""

    def __init__(self, shares: Sequence[float | None]) -> None:
        """`shares` [o]: of the truths that are to lie inside; None: no interval, only the errors are kept."""
        o = len(shares)
        self._missed = np.array([np.nan if s is None else 1.0 - s for s in shares])
        with np.errstate(divide="ignore"):
            need = np.ceil(1.0 / self._missed - 1.0 - 1e-9)
        self._need = np.where(np.isnan(need), FEWEST, need)
        self.half = np.full(o, np.nan)
        """[o] half the interval's width; NaN where too few errors are known."""
        self.missing = np.nan_to_num(self._missed)
        """[o] the share `a` that is aimed to be missed now."""
        self.errors = np.full((o, KEPT), np.nan, np.float32)
        """[o, KEPT] truth minus what was said, corrected; NaN: none yet."""
        self.count = np.zeros(o, np.int64)
        """[o] errors that ever came."""
        self.judged = np.zeros(o, np.int64)
        """[o] truths that came for an interval,"""
        self.inside = np.zeros(o, np.int64)
        """[o] and those that lay in it."""
        self.hits = np.zeros((o, KEPT), np.bool_)
        """[o, KEPT] the newest of them."""

    def push(self, at: Index, errors: NDArray[np.float32], hit: NDArray[np.bool_], judged: NDArray[np.bool_]) -> None:
        """[n] of the outputs `at`, each at most once; `hit` counts where an interval was said: `judged`."""
        self.errors[at, self.count[at] % KEPT] = errors
        self.count[at] += 1
        seen, met = at[judged], hit[judged]
        self.hits[seen, self.judged[seen] % KEPT] = met
        self.judged[seen] += 1
        self.inside[seen] += met
        moved = self.missing[seen] + RATE * (self._missed[seen] - ~met)
        self.missing[seen] = np.clip(moved, -RATE, 1.0 + RATE)
        self.half[at] = self._halves(at)

    def recent(self) -> NDArray[np.float64]:
        """[o] share of the newest KEPT judged truths that lay inside; NaN where none was judged."""
        n = np.minimum(self.judged, KEPT)
        met = (self.hits & (np.arange(KEPT) < n[:, None])).sum(axis=1)
        return np.asarray(met / np.where(n, n, np.nan), np.float64)

    def above(self, at: Index, room: NDArray[np.float32]) -> NDArray[np.float32]:
        """[n] share of the known errors that are larger than `room` [n] (limit minus what is said); NaN: too few."""
        n = np.minimum(self.count[at], KEPT)
        over = (self.errors[at] > room[:, None]).sum(axis=1)
        known = (n >= self._need[at]) & np.isfinite(room)
        return np.where(known, over / np.maximum(n, 1), np.nan).astype(np.float32)

    def _halves(self, at: Index) -> NDArray[np.float64]:
        n = np.minimum(self.count[at], KEPT)
        sizes = np.sort(np.abs(self.errors[at]), axis=1)  # NaN, none yet, comes last
        with np.errstate(invalid="ignore"):
            rank = np.ceil((n + 1) * (1.0 - self.missing[at]) - 1e-9)
        picked = sizes[np.arange(len(at)), np.clip(rank, 1, n).astype(np.int64) - 1]
        found: NDArray[np.float64] = picked.astype(np.float64)
        found[rank < 1] = 0.0
        found[(n < self._need[at]) | np.isnan(self._missed[at])] = np.nan
        return found
