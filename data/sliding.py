"""Sliding statistics of all tags: mean, min, max and std over the last W rows, at any stride, row by row or in blocks.

    row        0 1 2 3 4 5 6 7        window 4
    block      [ block ] [ now
    at row 5       [ - - - - ]        min = min(least of rows 2..3, kept when the block ended; least of rows 4..5)

Sums are exact (`exact_sums`), so what leaves a window is subtracted without a trace: an answer depends on its own W
rows alone, bit for bit, wherever the rows began and however they were cut into blocks. A reading so large that later
ones no longer fit beside it in 106 bits is noticed when it has left, and the sums of its tag are taken anew. NaN
and infinities are no readings.

No I/O, no clock, no quality: rows in, statistics out. With numba the loops are machine code over a few hundred tags
at a time, which stay in the processor's cache; without it numpy does the same with the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.data import machine_code, sliding_arrays, sliding_loops


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Slid:
    """What was answered at n rows; all arrays but `rows` are [n, m]."""

    rows: NDArray[np.int64]
    """[n] number of each window's last row, counted from `Sliding`'s `first`."""
    count: NDArray[np.int32]
    """Readings among the window's rows; fewer than W rows before the W-th."""
    mean: NDArray[np.floating]
    """NaN where there is none; so are the others."""
    low: NDArray[np.floating]
    high: NDArray[np.floating]
    std: NDArray[np.floating]
    """Of the population (ddof 0)."""


@dataclass(slots=True, eq=False)
class State:
    """What is kept per tag [m], and per row of a window and tag [W, m]: 12 bytes of each of these."""

    ring: NDArray[np.float32]
    """[W, m] the last W rows, each at its number modulo W."""
    least: NDArray[np.float32]
    """[W, m] least of the rows of the block before behind this one; inf where there is none."""
    most: NDArray[np.float32]
    low: NDArray[np.float32]
    """[m] least of the block's rows so far."""
    high: NDArray[np.float32]
    peak: NDArray[np.float32]
    """[m] largest magnitude since the sums were taken anew."""
    count: NDArray[np.int32]
    sums: NDArray[np.float64]
    """[4, m] high and low part of the sum, and of the sum of squares."""

    @classmethod
    def empty(cls, window: int, tags: int) -> State:
        """Of no rows."""
        return cls(
            ring=np.full((window, tags), np.nan, np.float32),
            least=np.full((window, tags), np.inf, np.float32),
            most=np.full((window, tags), -np.inf, np.float32),
            low=np.full(tags, np.inf, np.float32),
            high=np.full(tags, -np.inf, np.float32),
            peak=np.zeros(tags, np.float32),
            count=np.zeros(tags, np.int32),
            sums=np.zeros((4, tags)),
        )


class Sliding:
    """The last `window` rows of `tags` columns, and what they come to."""

    def __init__(
        self, window: int, tags: int, *, stride: int = 1, first: int = 0, dtype: str = "float64",
        compiled: bool | None = None, threads: int = 1,
    ) -> None:  # fmt: skip
        """Answers at the rows whose number is a multiple of `stride`; the first row has the number `first`.

        `dtype` is that of the answers. `compiled`: None, by machine code where there is any, on up to `threads`
        threads; the first rows then wait some ten seconds for the compiler. Raises ValueError.
        """
        if window < 1 or stride < 1 or threads < 1:
            raise ValueError(f"window {window}, stride {stride}, threads {threads}: each is at least 1")
        self._stride, self._dtype, self._next = stride, np.dtype(dtype), first
        use = machine_code.available() if compiled is None else compiled
        self._slide: Callable[..., None] = sliding_loops.slide if use else sliding_arrays.slide
        # Threads share no tag, and each has at least a thousand.
        cuts = np.linspace(0, tags, min(threads, max(1, tags // 1024)) + 1).astype(int).tolist() if use else [0, tags]
        self._parts, self._state = list(pairwise(cuts)), State.empty(window, tags)
        self._pool = ThreadPoolExecutor(len(self._parts)) if len(self._parts) > 1 else None

    def push(self, rows: NDArray[np.float32], into: Slid | None = None) -> Slid:
        """Take in rows [k, m], oldest first; the answers at those of them that the stride picks.

        `into`: a former answer of as many rows, whose arrays are used again. Raises ValueError for other columns.
        """
        numbers = np.arange(self._next, self._next + len(rows))
        answered = numbers % self._stride == 0
        shape = (int(answered.sum()), len(self._state.count))
        if rows.ndim != 2 or rows.shape[1] != shape[1]:
            raise ValueError(f"rows of shape {rows.shape}: [rows, {shape[1]}] are wanted")
        out: tuple[Any, ...]
        if into is not None and into.mean.shape == shape:
            out = (into.count, into.mean, into.low, into.high, into.std)
        else:
            out = (np.empty(shape, np.int32), *(np.empty(shape, self._dtype) for _ in range(4)))

        def slide(part: tuple[int, int]) -> None:
            self._slide(self._state, rows, self._next, answered, *out, *part)

        if self._pool is None:
            slide(self._parts[0])
        else:
            list(self._pool.map(slide, self._parts))
        self._next += len(rows)
        return Slid(rows=numbers[answered], count=out[0], mean=out[1], low=out[2], high=out[3], std=out[4])
