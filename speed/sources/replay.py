"""Readings of the past, delivered again at any rate.

They come from a factory of blocks, so that a replay can begin again at any
row: a row is a row of a `Dense`, or one reading of a `Frame`. Offsets are row
numbers. Knows nothing of where the blocks lie.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from penstock.data.frame import Dense, Float, Frame, Readings
from penstock.errors import SourceError
from penstock.speed.source import Delivery

CELLS = 1 << 19
"""Most values in one delivery."""
NAP_S = 0.5
"""Longest single sleep: a cancelled replay ends this soon."""


class Replay:
    """Blocks of readings in order of time, cut into deliveries."""

    patient = True
    link = None

    def __init__(
        self,
        name: str,
        blocks: Callable[[], Iterable[Readings]],
        *,
        rate: float | None = None,
        group: int = 64,
        moments: int | None = None,
        brisk: int = 0,
    ) -> None:
        """`rate`: event seconds per wall second, None: flat out. `group`: most event times per delivery.

        `moments`: the replay ends after this many distinct event times, None: after the last. `brisk`: so many
        go flat out before the rate counts. Both are counted from the very beginning, wherever it resumes.
        `blocks` must give the same rows each time.
        """
        if rate is not None and not rate > 0:
            raise SourceError(f"replay {name}: rate is {rate}; give a number above 0, or none to replay flat out")
        if group < 1:
            raise SourceError(f"replay {name}: group is {group}; give at least 1 event time")
        self.name = name
        self._blocks, self._rate, self._group, self._moments, self._brisk = blocks, rate, group, moments, brisk

    async def deliveries(self, offsets: Mapping[str, int]) -> AsyncIterator[Delivery]:
        """Rows from number `offsets` [""] on. At a rate, a row is never delivered before its turn.

        Raises SourceError where a row is older than the one before it.
        """
        start: tuple[int, float] | None = None
        for offset, block, paced in self._cut(offsets.get("", 0)):
            if self._rate is not None and paced:
                if start is None:
                    start = int(block.times[0]), time.monotonic()
                due = start[1] + (int(block.times[-1]) - start[0]) / 1e9 / self._rate
                await _until(due)
            yield Delivery(offset=offset, readings=block)
            await asyncio.sleep(0)  # flat out, others must have their turn too

    def _cut(self, resume_at: int) -> Iterator[tuple[int, Readings, bool]]:
        """(row number after, rows, at the rate): groups whose bounds do not depend on where the replay resumes."""
        row, moments, newest = 0, 0, None
        for block in self._blocks():
            if not len(block.times):
                continue
            self._check_order(block.times, newest, row)
            starts = _moments(block.times)
            known = int(newest is not None and block.times[0] == newest)  # its first moment was counted before
            left = len(starts) if self._moments is None else self._moments - moments + known
            last = len(block.times) if left >= len(starts) else int(starts[max(left, 0)])
            brisk = max(self._brisk - moments + known, 0)
            for begin, end, paced in self._bounds(block, starts, last, brisk):
                begin = max(begin, resume_at - row)
                if begin < end:
                    yield row + end, block.rows(slice(begin, end)), paced
            if last < len(block.times):
                return
            row, moments, newest = row + len(block.times), moments + len(starts) - known, int(block.times[-1])

    def _check_order(self, times: NDArray[np.int64], newest: int | None, row: int) -> None:
        """What is behind the newest event time would be late from the start."""
        back = np.diff(times, prepend=times[0] if newest is None else newest) < 0
        if back.any():
            raise SourceError(
                f"replay {self.name}: row {row + int(np.argmax(back))} is older than the row before it; sort it by time"
            )

    def _bounds(
        self, block: Readings, starts: NDArray[np.int64], last: int, brisk: int
    ) -> Iterator[tuple[int, int, bool]]:
        """First and last row (not included) of each delivery: so many moments, but never too many values.

        True: it goes at the rate; the block's first `brisk` moments do not.
        """
        most = max(1, CELLS // max(1, len(block.tags) if isinstance(block, Dense) else 1))
        slow = starts[brisk:]
        begins = np.concatenate([starts[: brisk : self._group], slow[:: self._step(block.times[slow])]])
        for begin, after in zip(begins, [*begins[1:], len(block.times)], strict=True):
            for at in range(int(begin), min(int(after), last), most):
                yield at, min(at + most, int(after), last), bool(len(slow)) and begin >= slow[0]

    def _step(self, times: NDArray[np.int64]) -> int:
        """Event times per delivery: at a rate, about ten deliveries a second, so that they come as they fall due."""
        if self._rate is None or len(times) < 2:
            return self._group
        spacing_s = float(np.median(np.diff(times))) / 1e9 / self._rate
        return max(1, min(self._group, int(0.1 / max(spacing_s, 1e-9))))


def together(parts: Sequence[Readings]) -> Readings:
    """Parts that were read at once (float32 and float64 tags apart) as one block, in order of time.

    float64 where the parts differ: every float32 is one, so that a shard gets its own bits back. Parts
    that are not in order of time stay so. No part: an empty frame.
    """
    if len(parts) == 1:
        return parts[0]
    if parts and all(isinstance(p, Dense) and np.array_equal(p.times, parts[0].times) for p in parts):
        return Dense(
            times=parts[0].times,
            tags=np.concatenate([p.tags for p in parts]),
            values=_widest([p.values for p in parts], axis=1),
            quality=np.concatenate([p.quality for p in parts], axis=1),
        )
    frames = [p.long() if isinstance(p, Dense) else p for p in parts]
    joined = Frame(
        times=np.concatenate([np.empty(0, np.int64), *(f.times for f in frames)]),
        tags=np.concatenate([np.empty(0, np.int32), *(f.tags for f in frames)]),
        values=_widest([np.empty(0, np.float32), *(f.values for f in frames)], axis=0),
        quality=np.concatenate([np.empty(0, np.uint8), *(f.quality for f in frames)]),
    )
    if any((np.diff(f.times) < 0).any() for f in frames):
        return joined
    return joined.rows(np.argsort(joined.times, kind="stable"))


def _widest(values: Sequence[Float], axis: int) -> Float:
    if any(v.dtype == np.float64 for v in values):
        return np.concatenate(values, axis=axis, dtype=np.float64)
    return np.concatenate(values, axis=axis, dtype=np.float32)


def _moments(times: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows at which a new event time begins; `times` rise."""
    return np.flatnonzero(np.diff(times, prepend=times[0] - 1)).astype(np.int64)


async def _until(due: float) -> None:
    while (left := due - time.monotonic()) > 0:
        await asyncio.sleep(min(left, NAP_S))
