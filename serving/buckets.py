"""Many values as few: the smallest and the largest of each bucket, in the order in which they came.

A line through both looks like the line through all, and no spike is lost;
a mean would hide what an operator zooms in for. Pure arithmetic.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def bucket_ticks(ticks: int, buckets: int) -> int:
    """Ticks per bucket so that `ticks` ticks make at most `buckets` of them; at least 1."""
    return max(-(-ticks // buckets), 1)


def extremes(values: NDArray[np.float32], size: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Positions [2k] and values [2k] of each bucket's extremes; the last bucket may be shorter.

    A bucket without a finite value gives its first position twice, and NaN.

        values   3 1 2 | 5 - 9 | - - -      size 3
        returns  3 1   | 5   9 | -   -
    """
    count = -(-len(values) // size)
    padded = np.full(count * size, np.nan, values.dtype)
    padded[: len(values)] = values
    table = padded.reshape(count, size)
    low = np.where(np.isnan(table), np.inf, table).argmin(axis=1)
    high = np.where(np.isnan(table), -np.inf, table).argmax(axis=1)
    pairs = np.sort(np.stack([low, high], axis=1), axis=1)
    positions = (pairs + (np.arange(count) * size)[:, None]).reshape(-1)
    return positions, padded[positions]


def any_in(marks: NDArray[np.bool_], size: int) -> NDArray[np.int64]:
    """First positions of the buckets that hold a mark."""
    return np.unique(np.flatnonzero(marks) // size) * size
