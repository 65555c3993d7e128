"""How each model is answered: counts, errors by kind, and a bounded histogram of the last minutes.

Vectorised over models: a tick of hundreds counts each of them with a handful of numpy calls. Any
thread may count; time is an argument. Knows no Triton and no Prometheus.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]

SLICE_S, SLICES = 60.0, 5
"""The histogram forgets by the minute; its quantiles are of the last four to five."""
EDGES = np.geomspace(1e-4, 100.0, 73)
"""s; 12 buckets per factor of ten: a quantile is right within 10 %. Shorter and longer ones fall into the outermost."""
MODELS = 4096
"""Most names that are kept apart; calls under any further name count as `OTHERS`."""
OTHERS = "(others)"

_MIDDLES = np.sqrt(EDGES[:-1] * EDGES[1:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """One model's figures."""

    count: int
    """Requests answered since the pool was made; a tick is one for each of its members."""
    seconds: float
    """Sum of their times, from the call to the answer."""
    errors: Mapping[str, int]
    """Requests without an answer, by kind, since the pool was made."""
    p50_s: float | None
    """Median time of the last minutes; None where nothing was answered."""
    p99_s: float | None


class Tally:
    """Figures of many models."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._row: dict[str, int] = {}
        self._answered = np.zeros(0, np.int64)
        self._seconds = np.zeros(0)
        self._failed: dict[str, NDArray[np.int64]] = {}
        self._histogram = np.zeros((SLICES, 0, len(_MIDDLES)), np.uint32)
        self._slice = 0
        """Number of the newest slice since the clock's zero."""

    def rows(self, names: Sequence[str]) -> Rows:
        """The models' rows, for `answered` and `failed`; they stay the same."""
        with self._lock:
            found = [self._row.get(name, -1) for name in names]
            if -1 in found:
                found = [self._place(name) for name in names]
            return np.array(found, np.int64)

    def answered(self, rows: Rows, seconds: float, now: float) -> None:
        """A request that took `seconds` was answered for these models, each once; now: monotonic seconds."""
        bucket = min(max(int(np.searchsorted(EDGES, seconds, "right")) - 1, 0), len(_MIDDLES) - 1)
        with self._lock:
            self._turn(now)
            np.add.at(self._answered, rows, 1)
            np.add.at(self._seconds, rows, seconds)
            np.add.at(self._histogram[self._slice % SLICES, :, bucket], rows, 1)

    def failed(self, rows: Rows, kind: str) -> None:
        """A request was not answered for these models."""
        with self._lock:
            if kind not in self._failed:
                self._failed[kind] = np.zeros(len(self._answered), np.int64)
            np.add.at(self._failed[kind], rows, 1)

    def counted(self, now: float) -> dict[str, Counted]:
        """Every model's figures, by name."""
        with self._lock:
            self._turn(now)
            histogram = self._histogram.sum(axis=0)
            p50, p99 = _quantile(histogram, 0.5), _quantile(histogram, 0.99)
            return {
                name: Counted(
                    count=int(self._answered[row]),
                    seconds=float(self._seconds[row]),
                    errors={kind: int(n[row]) for kind, n in self._failed.items() if n[row]},
                    p50_s=None if np.isnan(p50[row]) else float(p50[row]),
                    p99_s=None if np.isnan(p99[row]) else float(p99[row]),
                )
                for name, row in self._row.items()
            }

    def _place(self, name: str) -> int:
        if name not in self._row and len(self._row) >= MODELS:
            name = OTHERS
        row = self._row.setdefault(name, len(self._row))
        if row >= len(self._answered):
            self._grow(max(16, 2 * len(self._answered)))
        return row

    def _grow(self, room: int) -> None:
        more = room - len(self._answered)
        self._answered = np.pad(self._answered, (0, more))
        self._seconds = np.pad(self._seconds, (0, more))
        self._failed = {kind: np.pad(n, (0, more)) for kind, n in self._failed.items()}
        self._histogram = np.pad(self._histogram, ((0, 0), (0, more), (0, 0)))

    def _turn(self, now: float) -> None:
        """Forget the slices whose place the newest ones take."""
        number = int(now // SLICE_S)
        passed = number - self._slice
        if passed > 0:
            self._histogram[[k % SLICES for k in range(number, number - min(passed, SLICES), -1)]] = 0
            self._slice = number


def _quantile(histogram: NDArray[np.uint64], share: float) -> NDArray[np.float64]:
    """[models, buckets] -> [models] s; the middle of the bucket that holds it, NaN where nothing was counted."""
    passed = np.cumsum(histogram, axis=1)
    total = passed[:, -1:]
    at = (passed < np.maximum(np.ceil(share * total), 1)).sum(axis=1)
    return np.where(total[:, 0] > 0, _MIDDLES[np.minimum(at, len(_MIDDLES) - 1)], np.nan)
