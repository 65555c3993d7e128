"""A stock tritonclient, to measure beside: every model by its own name, all calls in flight."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferInput, aio

DEADLINE_S = 60.0


class Stock:
    """One connection, as a person would write it who knows only the address."""

    def __init__(self, endpoint: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._client = self._loop.run_until_complete(_connected(endpoint))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._loop.run_until_complete(self._client.close())
        self._loop.close()

    def at_once(self, names: Sequence[str], windows: NDArray[np.float32]) -> list[Any]:
        """Ask each name for its window of windows [M, T, F]; the answers in that order."""
        return self._loop.run_until_complete(self._gathered(names, windows))

    async def _gathered(self, names: Sequence[str], windows: NDArray[np.float32]) -> list[Any]:
        calls = []
        for name, x in zip(names, windows, strict=True):
            tensor = InferInput("window", [1, *x.shape], "FP32")
            tensor.set_data_from_numpy(x[None])
            calls.append(self._client.infer(name, [tensor], client_timeout=DEADLINE_S))
        return await asyncio.gather(*calls)


async def _connected(endpoint: str) -> aio.InferenceServerClient:
    return aio.InferenceServerClient(endpoint)
