"""The arithmetic of `sliding` as loops for numba: a few hundred tags at a time, and each loop over few arrays, so that
it becomes vector instructions. The bits are those of `sliding_arrays`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from penstock.data.exact_sums import added, fast_two_sum, moved, product, spread, two_sum
from penstock.data.machine_code import Loop
from penstock.data.sliding_arrays import LARGEST, WILD, Out

if TYPE_CHECKING:
    from penstock.data.sliding import State

TILE_VALUES, LEAST_TILE = 1 << 15, 512
"""Values of a block of rows that are taken through together: with a window of 60 rows they stay in a core's cache."""
INF, ZERO, NAN = np.float32(np.inf), np.float32(0), np.float32(np.nan)


def slide(
    state: State, rows: NDArray[np.float32], first: int, answered: NDArray[np.bool_], count: NDArray[np.int32],
    mean: Out, low: Out, high: Out, std: Out, start: int, stop: int,
) -> None:  # fmt: skip
    """`rows` [k, m] into the state; count, mean, low, high, std [n, m] of those `answered` [k]: tags start..stop-1."""
    k = len(rows)
    wide = max(LEAST_TILE, TILE_VALUES // max(1, k))
    least, most = (np.empty((k, min(wide, stop - start)), np.float32) for _ in range(2))
    for begin in range(start, stop, wide):
        end = min(begin + wide, stop)
        _EXTREMES(least, most, begin, end, state.least, state.most, state.low, state.high, rows, state.ring, first)
        _SUMS(begin, end, state.sums, state.count, state.peak, state.ring, rows, least, most, first,
              answered, count, mean, low, high, std)  # fmt: skip


# numba's from here on: untyped, as it finds types by itself. The ring is written by `_sums`, after `_extremes`.


def _extremes(
    out_least: Any,
    out_most: Any,
    begin: Any,
    end: Any,
    least: Any,
    most: Any,
    low: Any,
    high: Any,
    rows: Any,
    ring: Any,
    first: Any,
) -> None:
    """[k, end - begin] least and largest of the window at each row."""
    window = ring.shape[0]
    for k in range(rows.shape[0]):
        place = (first + k) % window
        if place == 0:
            _ended(least[window - 1, begin:end], most[window - 1, begin:end], low[begin:end], high[begin:end])
            for i in range(window - 2, -1, -1):
                at = k - window + i + 1
                row = rows[at, begin:end] if at >= 0 else ring[i + 1, begin:end]
                _behind(least[i, begin:end], most[i, begin:end], least[i + 1, begin:end], most[i + 1, begin:end], row)
        _folded(low[begin:end], high[begin:end], rows[k, begin:end])
        _both(
            out_least[k], out_most[k], low[begin:end], high[begin:end], least[place, begin:end], most[place, begin:end]
        )


def _ended(least: Any, most: Any, low: Any, high: Any) -> None:
    for c in range(len(least)):
        least[c], most[c], low[c], high[c] = INF, -INF, INF, -INF


def _behind(least: Any, most: Any, next_least: Any, next_most: Any, row: Any) -> None:
    for c in range(len(row)):
        x = row[c] + ZERO  # -0 and 0 are one
        ok = abs(x) <= LARGEST
        a, b = x if ok else INF, x if ok else -INF
        least[c] = a if a < next_least[c] else next_least[c]
        most[c] = b if b > next_most[c] else next_most[c]


def _folded(low: Any, high: Any, row: Any) -> None:
    for c in range(len(row)):
        x = row[c] + ZERO
        ok = abs(x) <= LARGEST
        a, b = x if ok else INF, x if ok else -INF
        low[c] = a if a < low[c] else low[c]
        high[c] = b if b > high[c] else high[c]


def _both(least: Any, most: Any, low: Any, high: Any, before_least: Any, before_most: Any) -> None:
    for c in range(len(low)):
        least[c] = low[c] if low[c] < before_least[c] else before_least[c]
    for c in range(len(low)):
        most[c] = high[c] if high[c] > before_most[c] else before_most[c]


def _sums(
    begin: Any,
    end: Any,
    sums: Any,
    count: Any,
    peak: Any,
    ring: Any,
    rows: Any,
    least: Any,
    most: Any,
    first: Any,
    answered: Any,
    counts: Any,
    mean: Any,
    lows: Any,
    highs: Any,
    std: Any,
) -> None:
    """The sums, and all answers."""
    s, t, q, r = sums[0, begin:end], sums[1, begin:end], sums[2, begin:end], sums[3, begin:end]
    number, largest, answer = count[begin:end], peak[begin:end], 0
    for k in range(rows.shape[0]):
        new, old = rows[k, begin:end], ring[(first + k) % ring.shape[0], begin:end]
        _counted(number, largest, new, old)
        _summed(s, t, new, old)
        _squared(q, r, new, old)
        _kept(old, new)
        if _wild(largest, least[k], most[k], number):
            _anew(s, t, q, r, largest, least[k], most[k], number, ring, begin)
        if answered[k]:
            counts[answer, begin:end] = number
            _means(mean[answer, begin:end], s, number)
            _ends(lows[answer, begin:end], least[k], number)
            _ends(highs[answer, begin:end], most[k], number)
            _stds(std[answer, begin:end], number, s, t, q, r)
            answer += 1


def _counted(count: Any, peak: Any, new: Any, old: Any) -> None:
    for c in range(len(count)):
        count[c] = count[c] + np.int32(abs(new[c]) <= LARGEST) - np.int32(abs(old[c]) <= LARGEST)
    for c in range(len(count)):
        size = abs(new[c]) if abs(new[c]) <= LARGEST else ZERO
        peak[c] = size if size > peak[c] else peak[c]


def _summed(high: Any, low: Any, new: Any, old: Any) -> None:
    for c in range(len(high)):
        x = np.float64(new[c] if abs(new[c]) <= LARGEST else ZERO)
        y = np.float64(old[c] if abs(old[c]) <= LARGEST else ZERO)
        high[c], low[c] = moved(high[c], low[c], x, y)


def _squared(high: Any, low: Any, new: Any, old: Any) -> None:
    for c in range(len(high)):
        x = np.float64(new[c] if abs(new[c]) <= LARGEST else ZERO)
        y = np.float64(old[c] if abs(old[c]) <= LARGEST else ZERO)
        high[c], low[c] = moved(high[c], low[c], x * x, y * y)


def _kept(old: Any, new: Any) -> None:
    for c in range(len(old)):
        old[c] = new[c]


def _wild(peak: Any, least: Any, most: Any, count: Any) -> Any:
    found: Any = 0
    for c in range(len(peak)):
        size = abs(least[c]) if abs(least[c]) > abs(most[c]) else abs(most[c])
        size = size if count[c] > 0 else ZERO
        found += np.int32(peak[c] > WILD * size)
    return found


def _anew(s: Any, t: Any, q: Any, r: Any, peak: Any, least: Any, most: Any, count: Any, ring: Any, begin: Any) -> None:
    for c in range(len(peak)):
        size = max(abs(least[c]), abs(most[c])) if count[c] > 0 else ZERO
        if peak[c] > WILD * size:
            s[c], t[c], q[c], r[c], peak[c] = 0.0, 0.0, 0.0, 0.0, size
            for i in range(ring.shape[0]):
                if abs(ring[i, begin + c]) <= LARGEST:
                    x = np.float64(ring[i, begin + c])
                    s[c], t[c] = added(s[c], t[c], x)
                    q[c], r[c] = added(q[c], r[c], x * x)


def _means(mean: Any, high: Any, count: Any) -> None:
    for c in range(len(mean)):
        mean[c] = high[c] / np.float64(count[c])


def _ends(out: Any, found: Any, count: Any) -> None:
    for c in range(len(out)):
        out[c] = found[c] if count[c] > 0 else NAN


def _stds(std: Any, count: Any, s: Any, t: Any, q: Any, r: Any) -> None:
    for c in range(len(std)):
        n = np.float64(count[c])
        apart = spread(n, s[c], t[c], q[c], r[c])
        std[c] = np.sqrt(apart if apart > 0.0 else 0.0) / n


_EXTREMES = Loop(_extremes, _ended, _behind, _folded, _both)
_SUMS = Loop(
    _sums, _counted, _summed, _squared, _kept, _wild, _anew, _means, _ends, _stds,
    added, moved, fast_two_sum, product, spread, two_sum,
)  # fmt: skip
