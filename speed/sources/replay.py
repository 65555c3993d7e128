"""Readings of the past, delivered again at any rate.

Rows come from a factory of dense blocks, so that a replay can begin again at
any row. Offsets are row numbers. Knows nothing of where the blocks lie.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator

import numpy as np

from penstock.data.frame import Dense
from penstock.errors import SourceError
from penstock.speed.source import Delivery

CELLS = 1 << 21
"""Most values in one delivery: the journal takes a delivery whole or not at all."""
NAP_S = 0.5
"""Longest single sleep: a cancelled replay ends this soon."""


class Replay:
    """Dense blocks in order of time, cut into deliveries."""

    patient = True

    def __init__(
        self,
        name: str,
        blocks: Callable[[], Iterable[Dense]],
        *,
        rate: float | None = None,
        group: int = 64,
        rows: int | None = None,
    ) -> None:
        """`rate`: event seconds per wall second, None: flat out. `group`: most rows per delivery.

        `rows`: the replay ends after this many rows; None: after the last.
        """
        if rate is not None and not rate > 0:
            raise SourceError(f"replay {name}: rate is {rate}; give a number above 0, or none to replay flat out")
        if group < 1:
            raise SourceError(f"replay {name}: group is {group}; give at least 1 row")
        self.name = name
        self._blocks, self._rate, self._group, self._rows = blocks, rate, group, rows

    async def deliveries(self, resume_at: int) -> AsyncIterator[Delivery]:
        """Rows from number `resume_at` on. At a rate, a row is never delivered before its turn."""
        start: tuple[int, float] | None = None
        for offset, block in self._cut(resume_at):
            if self._rate is not None:
                if start is None:
                    start = int(block.times[0]), time.monotonic()
                due = start[1] + (int(block.times[-1]) - start[0]) / 1e9 / self._rate
                await _until(due)
            yield Delivery(offset=offset, readings=block)
            await asyncio.sleep(0)  # flat out, others must have their turn too

    def _cut(self, resume_at: int) -> Iterator[tuple[int, Dense]]:
        """(row number after, rows): groups whose bounds do not depend on where the replay resumes."""
        row, newest = 0, None
        for block in self._blocks():
            if newest is not None and len(block.times) and int(block.times[0]) < newest:
                raise SourceError(f"replay {self.name}: row {row} is older than the row before it; sort it by time")
            newest = int(block.times[-1]) if len(block.times) else newest
            last = len(block.times) if self._rows is None else min(len(block.times), self._rows - row)
            for at in range(0, last, self._step(block)):
                stop = min(at + self._step(block), last)
                begin = max(at, resume_at - row)
                if begin < stop:
                    yield row + stop, _rows(block, begin, stop)
            row += len(block.times)
            if self._rows is not None and row >= self._rows:
                return

    def _step(self, block: Dense) -> int:
        """Rows per delivery: at a rate, about ten deliveries a second, so that rows come as they fall due."""
        most = max(1, min(self._group, CELLS // max(1, len(block.tags))))
        if self._rate is None or len(block.times) < 2:
            return most
        spacing_s = float(np.median(np.diff(block.times))) / 1e9 / self._rate
        return max(1, min(most, int(0.1 / max(spacing_s, 1e-9))))


def _rows(block: Dense, start: int, stop: int) -> Dense:
    cut = slice(start, stop)
    return Dense(times=block.times[cut], tags=block.tags, values=block.values[cut], quality=block.quality[cut])


async def _until(due: float) -> None:
    while (left := due - time.monotonic()) > 0:
        await asyncio.sleep(min(left, NAP_S))
