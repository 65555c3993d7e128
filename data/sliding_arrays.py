"""The arithmetic of `sliding` in numpy: a row after the other, all tags at once. The bits are those of the loops."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from penstock.data.exact_sums import moved, spread

if TYPE_CHECKING:
    from penstock.data.sliding import State

WILD = np.float32(1 << 13)
"""A reading that many times larger than all of the window has left traces in the sums, at worst 2^-60 of them."""
Out = NDArray[np.floating]
LARGEST = np.finfo(np.float32).max


def slide(
    state: State, rows: NDArray[np.float32], first: int, answered: NDArray[np.bool_], count: NDArray[np.int32],
    mean: Out, low: Out, high: Out, std: Out, start: int, stop: int,
) -> None:  # fmt: skip
    """`rows` [k, m] into the state; count, mean, low, high, std [n, m] of those `answered` [k].

    All tags always: `start` is 0 and `stop` is m.
    """
    assert (start, stop) == (0, rows.shape[1])
    answer = 0
    with np.errstate(all="ignore"):
        for row, at, wanted in zip(rows, range(first, first + len(rows)), answered, strict=True):
            place = at % len(state.ring)
            if place == 0:
                _end_block(state)
            _take_in(state, row, place)
            least, most = np.minimum(state.low, state.least[place]), np.maximum(state.high, state.most[place])
            _anew(state, least, most)
            if wanted:
                count[answer] = state.count
                _tell(state, least, most, mean[answer], low[answer], high[answer], std[answer])
                answer += 1


def _end_block(state: State) -> None:
    """What the block's rows leave behind: the extremes behind each of them."""
    ring, ok = state.ring, np.abs(state.ring) <= LARGEST
    state.least[-1], state.most[-1] = np.inf, -np.inf
    state.least[:-1] = np.minimum.accumulate(np.where(ok, ring + 0, np.inf)[:0:-1], axis=0)[::-1]
    state.most[:-1] = np.maximum.accumulate(np.where(ok, ring + 0, -np.inf)[:0:-1], axis=0)[::-1]
    state.low[:], state.high[:] = np.inf, -np.inf


def _take_in(state: State, row: NDArray[np.float32], place: int) -> None:
    old = state.ring[place]
    ok, was = np.abs(row) <= LARGEST, np.abs(old) <= LARGEST
    new, gone = np.where(ok, row, np.float32(0)), np.where(was, old, np.float32(0))
    state.low[:] = np.minimum(state.low, np.where(ok, row + 0, np.inf))
    state.high[:] = np.maximum(state.high, np.where(ok, row + 0, -np.inf))
    state.peak[:] = np.maximum(state.peak, np.abs(new))
    state.count += ok
    state.count -= was
    _change(state.sums, new.astype(np.float64), gone.astype(np.float64), slice(None))
    state.ring[place] = row


def _change(sums: NDArray[np.float64], new: Any, gone: Any, at: Any) -> None:
    high, low, squares, rest = sums[:, at]
    sums[0, at], sums[1, at] = moved(high, low, new, gone)
    sums[2, at], sums[3, at] = moved(squares, rest, new * new, gone * gone)


def _anew(state: State, least: NDArray[np.float32], most: NDArray[np.float32]) -> None:
    """The sums of tags whose largest reading has left, and was far larger than what is left."""
    size = np.maximum(np.abs(least), np.abs(most))
    size = np.where(state.count > 0, size, np.float32(0))
    for tag in np.flatnonzero(state.peak > WILD * size):
        column = state.ring[:, tag]
        column = column[np.abs(column) <= LARGEST].astype(np.float64)
        state.sums[:, tag], state.peak[tag] = 0, size[tag]
        for number in column:
            _change(state.sums, number, np.float64(0), tag)


def _tell(
    state: State, least: NDArray[np.float32], most: NDArray[np.float32], mean: Out, low: Out, high: Out, std: Out
) -> None:
    count = state.count.astype(np.float64)
    some = state.count > 0
    mean[:] = state.sums[0] / count
    low[:], high[:] = np.where(some, least, np.nan), np.where(some, most, np.nan)
    std[:] = np.sqrt(np.maximum(spread(count, *state.sums), 0.0)) / count
