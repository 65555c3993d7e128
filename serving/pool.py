"""The pool: bounded, deadlined calls to one or several Triton endpoints.

Usable alone, with nothing but addresses. There is one body, asynchronous, on
an event loop of its own; the synchronous calls wait for it and the async twins
await it, so both have the same deadlines, bounds and retries.
"""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from penstock.errors import BadAnswer, DeadlineExceeded, Overloaded, ServingError, Unavailable
from penstock.serving import wire
from penstock.serving.channel import Channel, ModelInfo
from penstock.serving.wire import Call, Prediction, Rows, TickAnswer

R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a pool may take and how long it may wait."""

    deadline_s: float = 1.0
    """Of one call, its wait for room and its retries included."""
    in_flight: int = 64
    """Calls under way at once."""
    waiting: int = 256
    """Calls that wait for room; one more is Overloaded at once."""


class Pool:
    """Calls to Triton; the endpoint that answered last is asked first."""

    def __init__(
        self, endpoints: Sequence[str] | str, *, deadline_s: float = 1.0, in_flight: int = 64, waiting: int = 256
    ) -> None:
        """`endpoints`: ``host:port`` of gRPC, one or several. Connects on the first call."""
        self.endpoints = (endpoints,) if isinstance(endpoints, str) else tuple(endpoints)
        if not self.endpoints:
            raise Unavailable("a pool without endpoints: give at least one host:port")
        self.limits = Limits(deadline_s=deadline_s, in_flight=in_flight, waiting=waiting)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="penstock-pool", daemon=True)
        self._channels: dict[str, Channel] = {}
        self._first = 0
        self._held = 0
        self._room = asyncio.Semaphore(in_flight)
        self._thread.start()
        self._finalizer = weakref.finalize(self, _end, self._loop, self._thread, self._channels)

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.endpoints, self.limits)

    def close(self) -> None:
        """Close the connections; calls under way fail."""
        self._finalizer()

    def predict(self, model: str, window: NDArray[np.float32], version: int | None = None) -> Prediction:
        """One model by name: window [n, T, F] or [T, F] -> values [n, O] and the version that spoke.

        Raises Unavailable, DeadlineExceeded, Overloaded, BadRequest, BadAnswer.
        """
        return self._wait(self._predict(model, window, version))

    async def apredict(self, model: str, window: NDArray[np.float32], version: int | None = None) -> Prediction:
        """`predict`, awaited from any event loop."""
        return await self._join(self._predict(model, window, version))

    def tick(self, slots: NDArray[np.int32], rows: Rows) -> TickAnswer:
        """All models in one request: slots [M] and their windows, each [T, F]."""
        return self._wait(self._tick(slots, rows))

    async def atick(self, slots: NDArray[np.int32], rows: Rows) -> TickAnswer:
        """`tick`, awaited from any event loop."""
        return await self._join(self._tick(slots, rows))

    def admin(self, command: dict[str, Any], blob: dict[str, bytes] | None = None) -> dict[str, Any]:
        """An admin request to the engine: JSON in, JSON out; `blob` are named parts of bytes."""
        return self._wait(self._each(lambda c, s: c.admin(command, blob, s)))

    def models(self) -> list[ModelInfo]:
        """The deployed models, from the server's index and their configs alone."""
        return self._wait(self._each(lambda c, s: c.models(s)))

    def load(self, name: str, config: str | None = None, files: dict[str, bytes] | None = None) -> None:
        """Load or replace a model on the server."""
        self._wait(self._each(lambda c, s: c.load(name, config, files, s)))

    def unload(self, name: str) -> None:
        """Take a model off the server."""
        self._wait(self._each(lambda c, s: c.unload(name, s)))

    def ready(self, model: str) -> bool:
        """Whether some endpoint says that `model` is loaded (a dead engine says so too: see `canary`)."""
        try:
            return self._wait(self._each(lambda c, s: c.ready(model, s)))
        except ServingError:
            return False

    def server_version(self) -> str:
        """Version of the Triton behind the first endpoint that answers."""
        return self._wait(self._each(lambda c, s: c.server_version(s)))

    async def _predict(self, model: str, window: NDArray[np.float32], version: int | None) -> Prediction:
        window = np.asarray(window, np.float32)
        call = Call(
            model=model,
            version="" if version is None else str(version),
            inputs={"window": window if window.ndim == 3 else window[None]},
            outputs=("prediction", "version"),
        )
        arrays, endpoint = await self._infer(call)
        if len(arrays["prediction"]) != len(call.inputs["window"]):
            raise BadAnswer(f"{endpoint}: {model}: {arrays['prediction'].shape} for {call.inputs['window'].shape}")
        return Prediction(values=arrays["prediction"], version=int(arrays["version"][0]))

    async def _tick(self, slots: NDArray[np.int32], rows: Rows) -> TickAnswer:
        arrays, endpoint = await self._infer(wire.tick_call(slots, rows))
        return wire.tick_answer(arrays, len(slots), endpoint)

    async def _infer(self, call: Call) -> tuple[dict[str, NDArray[Any]], str]:
        async def one(channel: Channel, left_s: float) -> tuple[dict[str, NDArray[Any]], str]:
            return await channel.infer(call, left_s), channel.endpoint

        return await self._each(one)

    async def _each(self, call: Callable[[Channel, float], Awaitable[R]]) -> R:
        """`call` with room, within the deadline, on the next endpoint while one is Unavailable."""
        until = time.monotonic() + self.limits.deadline_s
        if self._held >= self.limits.in_flight + self.limits.waiting:
            raise Overloaded(f"{self._held} calls are under way or waiting: the pool takes no more, try later")
        self._held += 1
        try:
            try:
                await asyncio.wait_for(self._room.acquire(), self.limits.deadline_s)
            except TimeoutError:
                raise Overloaded(f"no room within {self.limits.deadline_s} s: {self._held} calls held") from None
            try:
                return await self._attempts(call, until)
            finally:
                self._room.release()
        finally:
            self._held -= 1

    async def _attempts(self, call: Callable[[Channel, float], Awaitable[R]], until: float) -> R:
        failures = []
        for turn in range(len(self.endpoints)):
            number = (self._first + turn) % len(self.endpoints)
            left_s = until - time.monotonic()
            if left_s <= 0:
                break
            try:
                answer = await call(self._channel(self.endpoints[number]), left_s)
            except Unavailable as failure:
                failures.append(str(failure))
                continue
            self._first = number
            return answer
        raise Unavailable("; ".join(failures) or f"no endpoint of {', '.join(self.endpoints)} answered in time")

    def _channel(self, endpoint: str) -> Channel:
        if endpoint not in self._channels:
            self._channels[endpoint] = Channel(endpoint)
        return self._channels[endpoint]

    def _submit(self, body: Coroutine[Any, Any, R]) -> Future[R]:
        if not self._finalizer.alive:
            body.close()
            raise Unavailable("this pool was closed: make a new one")
        return asyncio.run_coroutine_threadsafe(body, self._loop)

    def _wait(self, body: Coroutine[Any, Any, R]) -> R:
        future = self._submit(body)
        try:
            return future.result(self.limits.deadline_s + 5.0)
        except TimeoutError:
            future.cancel()
            raise DeadlineExceeded(f"no answer within {self.limits.deadline_s} s, nor a word why") from None
        except CancelledError:
            raise Unavailable("this pool was closed while the call was under way") from None

    async def _join(self, body: Coroutine[Any, Any, R]) -> R:
        return await asyncio.wrap_future(self._submit(body))


def _rebuild(endpoints: tuple[str, ...], limits: Limits) -> Pool:
    return Pool(endpoints, deadline_s=limits.deadline_s, in_flight=limits.in_flight, waiting=limits.waiting)


def _end(loop: asyncio.AbstractEventLoop, thread: threading.Thread, channels: dict[str, Channel]) -> None:
    async def close_all() -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, *(c.close() for c in channels.values()), return_exceptions=True)

    asyncio.run_coroutine_threadsafe(close_all(), loop).result(5.0)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5.0)
    loop.close()
