"""The pool: bounded, deadlined calls to one or several Triton endpoints, for many callers.

Usable alone, with nothing but addresses. There is one body, asynchronous, on
an event loop of its own; the synchronous calls wait for it and the async twins
await it, so both have the same deadlines, bounds and retries (`exchange.py`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from penstock.errors import BadAnswer, ServingError, Unavailable
from penstock.serving import wire
from penstock.serving.bundle import Bundle, Windows
from penstock.serving.channel import Channel, ModelInfo
from penstock.serving.exchange import Asking, Exchange, Limits
from penstock.serving.loop import Loop
from penstock.serving.outcomes import kind_of
from penstock.serving.stats import EndpointStats, Stats
from penstock.serving.tally import Tally
from penstock.serving.wire import Call, Prediction, Streamed, TickAnswer

R = TypeVar("R")
Slots = NDArray[np.int32] | Mapping[str, NDArray[np.int32]]
"""[M]; or one such array per endpoint that may be asked, as a slot means nothing to another one."""


class Pool:
    """Calls to Triton: the least loaded endpoint is asked, the next one where it does not answer."""

    def __init__(
        self, endpoints: Sequence[str] | str, *, deadline_s: float = 1.0, in_flight: int = 64, waiting: int = 256
    ) -> None:
        """`endpoints`: ``host:port`` of gRPC, one or several. Connects on the first call."""
        self.endpoints = (endpoints,) if isinstance(endpoints, str) else tuple(dict.fromkeys(endpoints))
        if not self.endpoints:
            raise Unavailable("a pool without endpoints: give at least one host:port")
        self.limits = Limits(deadline_s=deadline_s, in_flight=in_flight, waiting=waiting)
        self.tally = Tally()
        """Where `predict` counts by model; whoever makes ticks counts their members there."""
        self._exchange = Exchange(self.endpoints, self.limits)
        self._loop = Loop("penstock-pool", self._exchange.close)

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.endpoints, self.limits)

    def close(self) -> None:
        """Close the connections; calls under way fail."""
        self._loop.close()

    def predict(self, model: str, window: NDArray[np.float32], version: int | None = None) -> Prediction:
        """One model by name: window [n, T, F] or [T, F] -> values [n, O] and the version that spoke.

        Raises Unavailable, DeadlineExceeded, Overloaded, BadRequest, BadAnswer.
        """
        return self._loop.wait(self._predict(model, window, version), self.limits.deadline_s)

    async def apredict(self, model: str, window: NDArray[np.float32], version: int | None = None) -> Prediction:
        """`predict`, awaited from any event loop."""
        return await self._loop.join(self._predict(model, window, version))

    def tick(self, slots: Slots, windows: Windows | Bundle, streamed: Streamed | None = None) -> TickAnswer:
        """All models in one request: slots [M] and M windows, each [T, F]; or slots by endpoint.

        `streamed`: of one stream, by the rules of `Stream`, which most callers want.
        """
        return self._loop.wait(self._tick(slots, windows, streamed), self.limits.deadline_s)

    async def atick(self, slots: Slots, windows: Windows | Bundle, streamed: Streamed | None = None) -> TickAnswer:
        """`tick`, awaited from any event loop."""
        return await self._loop.join(self._tick(slots, windows, streamed))

    def admin(
        self, command: dict[str, Any], blob: dict[str, bytes] | None = None, *, at: str | None = None
    ) -> dict[str, Any]:
        """An admin request to the engine: JSON in, JSON out; `blob` are named parts of bytes; `at`: there only."""
        return self._loop.wait(self._admin(command, blob, at), self.limits.deadline_s)

    def begin_admin(self, command: dict[str, Any], *, at: str) -> Future[dict[str, Any]]:
        """`admin`, not waited for."""
        return self._loop.submit(self._admin(command, None, at))

    def models(self) -> list[ModelInfo]:
        """The deployed models, from the server's index and their configs alone."""
        return self._any(lambda c, s: c.models(s))

    def versions(self) -> dict[str, int]:
        """The newest ready version of every model on the server, from its index alone."""
        return self._any(lambda c, s: c.versions(s))

    def load(self, name: str, config: str | None = None, files: dict[str, bytes] | None = None) -> None:
        """Load or replace a model on the server."""
        self._any(lambda c, s: c.load(name, config, files, s))

    def unload(self, name: str) -> None:
        """Take a model off the server."""
        self._any(lambda c, s: c.unload(name, s))

    def ready(self, model: str, version: int | None = None) -> bool:
        """Whether some endpoint says that `model` is loaded, in that version if given (a dead engine says so too: see
        `canary`)."""
        try:
            return self._any(lambda c, s: c.ready(model, version, s))
        except ServingError:
            return False

    def server_version(self) -> str:
        """Version of the Triton behind the first endpoint that answers."""
        return self._any(lambda c, s: c.server_version(s))

    def stats(self) -> Stats:
        """How models and endpoints are answered, as plain values."""
        models = self.tally.counted(time.monotonic())
        return Stats(models=models, endpoints={s.endpoint: EndpointStats.of(s) for s in self._exchange.stations})

    def _any(self, call: Asking[R]) -> R:
        return self._loop.wait(self._exchange.each(call), self.limits.deadline_s)

    async def _predict(self, model: str, window: NDArray[np.float32], version: int | None) -> Prediction:
        begun, row = time.monotonic(), self.tally.rows([model])
        try:
            said = await self._by_name(model, np.asarray(window, np.float32), version)
        except ServingError as error:
            self.tally.failed(row, kind_of(error))
            raise
        now = time.monotonic()
        self.tally.answered(row, now - begun, now)
        return said

    async def _by_name(self, model: str, window: NDArray[np.float32], version: int | None) -> Prediction:
        call = Call(
            model=model,
            version="" if version is None else str(version),
            inputs={"window": window if window.ndim == 3 else window[None]},
            outputs=("prediction", "version"),
        )
        arrays, endpoint = await self._infer(dict.fromkeys(self.endpoints, call))
        if len(arrays["prediction"]) != len(call.inputs["window"]):
            raise BadAnswer(f"{endpoint}: {model}: {arrays['prediction'].shape} for {call.inputs['window'].shape}")
        return Prediction(values=arrays["prediction"], version=int(arrays["version"][0]))

    async def _tick(self, slots: Slots, windows: Windows | Bundle, streamed: Streamed | None) -> TickAnswer:
        bundle = windows if isinstance(windows, Bundle) else Bundle.of(windows)
        if isinstance(slots, Mapping):
            calls = {endpoint: wire.tick_call(there, bundle, streamed) for endpoint, there in slots.items()}
        else:
            calls = dict.fromkeys(self.endpoints, wire.tick_call(slots, bundle, streamed))
        arrays, endpoint = await self._infer(calls)
        return wire.tick_answer(arrays, len(bundle), endpoint)

    async def _admin(self, command: dict[str, Any], blob: dict[str, bytes] | None, at: str | None) -> dict[str, Any]:
        return await self._exchange.each(lambda c, s: c.admin(command, blob, s), None if at is None else {at})

    async def _infer(self, calls: Mapping[str, Call]) -> tuple[dict[str, NDArray[Any]], str]:
        """The answer, and the endpoint that gave it; `calls` by the endpoints that may be asked."""

        async def one(channel: Channel, left_s: float) -> tuple[dict[str, NDArray[Any]], str]:
            return await channel.infer(calls[channel.endpoint], left_s), channel.endpoint

        return await self._exchange.each(one, calls.keys())


def _rebuild(endpoints: tuple[str, ...], limits: Limits) -> Pool:
    return Pool(endpoints, deadline_s=limits.deadline_s, in_flight=limits.in_flight, waiting=limits.waiting)
