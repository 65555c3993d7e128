"""A source that knows when each of its ticks is due, and how long after that each was said."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Mapping

import numpy as np
from numpy.typing import NDArray

from penstock.data.grid import Grid
from penstock.data.views.speed_view import Spoken
from penstock.speed.source import Delivery
from penstock.speed.sources.replay import Replay


class Beat:
    """A replay at one event second per second.

    A tick is due when the reading that closes it, the next tick's first, falls due; it is said when it
    stands in the speed view. The time in between is the stream's own delay.
    """

    patient = True
    link = None

    def __init__(self, replay: Replay, grid: Grid, *, skip: int) -> None:
        """The replay's first `skip` ticks go flat out and are not measured."""
        self.name = replay.name
        self.begin: tuple[int, float] | None = None
        """(tick, moment) of the first reading that kept time; moments are seconds of the monotonic clock."""
        self.over = threading.Event()
        """Set: the source ends."""
        self._replay, self._grid, self._skip = replay, grid, skip
        self._said: list[tuple[float, float]] = []

    async def deliveries(self, offsets: Mapping[str, int]) -> AsyncIterator[Delivery]:
        """Those of the replay."""
        first: int | None = None
        async for delivery in self._replay.deliveries(offsets):
            if self.over.is_set():
                return
            tick = self._grid.tick_of(int(delivery.readings.times[-1]))
            first = self._grid.tick_of(int(delivery.readings.times[0])) if first is None else first
            if self.begin is None and tick >= first + self._skip:
                self.begin = tick, time.monotonic()
            yield delivery

    def said(self, spoken: Spoken) -> None:
        """A tick was said just now."""
        if self.begin is not None and spoken.tick >= self.begin[0]:
            now = time.monotonic()
            due = self.begin[1] + (spoken.tick + 1 - self.begin[0]) * self._grid.period_ns / 1e9
            self._said.append((due, now - due))

    def delays_ms(self, begin: float, end: float) -> NDArray[np.float64]:
        """[n] ms of the ticks that fell due in [begin, end)."""
        return np.array([1000 * delay for due, delay in self._said if begin <= due < end])
