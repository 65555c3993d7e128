"""Room, endpoints, retries: how one call of a pool finds an answer. Asynchronous; belongs to one event loop.

call ── room (bounded) ── the least loaded endpoint ── answered
                               ▲        │ not answered: within the same deadline
                               └────────┘ one that keeps failing is left alone (breaker.py) and probed beside
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

from penstock.errors import Overloaded, ServingError, Unavailable
from penstock.serving.balance import Station, due, next_of, share_s
from penstock.serving.channel import Channel
from penstock.serving.outcomes import final, joined, silent

R = TypeVar("R")
Asking = Callable[[Channel, float], Awaitable[R]]
"""A call to one endpoint, within so many seconds."""

PROBE_S = 2.0
"""Deadline of the question to an endpoint that was left alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a pool may take and how long it may wait."""

    deadline_s: float = 1.0
    """Of one call, its wait for room and its retries included."""
    in_flight: int = 64
    """Calls under way at once."""
    waiting: int = 256
    """Calls that wait for room; one more is Overloaded at once."""


class Exchange:
    """Calls to some endpoints."""

    def __init__(self, endpoints: Sequence[str], limits: Limits) -> None:
        self.limits = limits
        self.stations = [Station(endpoint=e) for e in endpoints]
        self._channels: dict[str, Channel] = {}
        self._probes: set[asyncio.Task[None]] = set()
        self._held = 0
        self._room = asyncio.Semaphore(limits.in_flight)

    async def each(self, call: Asking[R], among: Collection[str] | None = None) -> R:
        """`call` with room, within the deadline, on the next endpoint (of `among`) where one does not answer.

        Raises Overloaded without room, else what the endpoints said.
        """
        until = time.monotonic() + self.limits.deadline_s
        if self._held >= self.limits.in_flight + self.limits.waiting:
            raise Overloaded(f"{self._held} calls are under way or waiting: the pool takes no more, try later")
        self._held += 1
        try:
            await self._enter()
            try:
                return await self._attempts(call, among, until)
            finally:
                self._room.release()
        finally:
            self._held -= 1

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.gather(*(c.close() for c in self._channels.values()), return_exceptions=True)

    async def _enter(self) -> None:
        try:
            async with asyncio.timeout(self.limits.deadline_s):
                await self._room.acquire()
        except TimeoutError:
            raise Overloaded(f"no room within {self.limits.deadline_s} s: {self._held} calls held") from None

    async def _attempts(self, call: Asking[R], among: Collection[str] | None, until: float) -> R:
        left = [s for s in self.stations if among is None or s.endpoint in among]
        if not left:
            raise Unavailable(f"{', '.join(among or ())}: no endpoint of this pool")
        self._probe_due()
        errors: list[ServingError] = []
        while left and (left_s := until - time.monotonic()) > 0:
            station = next_of(left)
            left.remove(station)
            try:
                return await self._ask(station, call, share_s(left_s, station, left))
            except ServingError as error:
                if final(error):
                    raise
                errors.append(error)
        raise joined(errors, [s.endpoint for s in self.stations])

    async def _ask(self, station: Station, call: Asking[R], most_s: float) -> R:
        station.begin()
        try:
            answer = await call(self._channel(station.endpoint), most_s)
        except ServingError as error:
            if silent(error):
                station.fail(time.monotonic(), str(error))
            else:
                station.answer(time.monotonic())
            raise
        except BaseException:
            station.drop()
            raise
        station.answer(time.monotonic())
        return answer

    def _probe_due(self) -> None:
        """Beside the calls, so that none of them waits for an endpoint that may still be away."""
        for station in due(self.stations, time.monotonic()):
            station.breaker = station.breaker.probed()
            task = asyncio.get_running_loop().create_task(self._probe(station))
            self._probes.add(task)
            task.add_done_callback(self._probes.discard)

    async def _probe(self, station: Station) -> None:
        try:
            await self._channel(station.endpoint).admin({"do": "health"}, None, PROBE_S)
        except ServingError as error:
            station.probe_failed(time.monotonic(), str(error))
        else:
            station.healed()

    def _channel(self, endpoint: str) -> Channel:
        if endpoint not in self._channels:
            self._channels[endpoint] = Channel(endpoint)
        return self._channels[endpoint]
