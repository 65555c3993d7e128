"""An event loop in a thread of its own: one asynchronous body serves synchronous callers and any other loop.

Knows nothing of what runs on it.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

from penstock.errors import DeadlineExceeded, Unavailable

R = TypeVar("R")

GRACE_S = 5.0
"""A body keeps its own deadline; whoever waits for it gives up so much later, should it not."""


class Loop:
    """Ends with its owner, or when told to."""

    def __init__(self, name: str, closing: Callable[[], Awaitable[object]]) -> None:
        """`closing` is awaited on the loop at the end; it must not hold the owner."""
        self._loop = asyncio.new_event_loop()
        thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        thread.start()
        self._finalizer = weakref.finalize(self, _end, self._loop, thread, closing)

    def close(self) -> None:
        """Bodies under way are cancelled. Again: nothing happens."""
        self._finalizer()

    def submit(self, body: Coroutine[Any, Any, R]) -> Future[R]:
        """Begin a body. Raises Unavailable once it is closed."""
        if not self._finalizer.alive:
            body.close()
            raise Unavailable("this pool was closed: make a new one")
        return asyncio.run_coroutine_threadsafe(body, self._loop)

    def wait(self, body: Coroutine[Any, Any, R], deadline_s: float) -> R:
        """Its result. Raises what it raises, DeadlineExceeded when it overstays its deadline."""
        future = self.submit(body)
        try:
            return future.result(deadline_s + GRACE_S)
        except TimeoutError:
            future.cancel()
            raise DeadlineExceeded(f"no answer within {deadline_s} s, nor a word why") from None
        except CancelledError:
            raise Unavailable("this pool was closed while the call was under way") from None

    async def join(self, body: Coroutine[Any, Any, R]) -> R:
        """Its result, awaited on another loop."""
        return await asyncio.wrap_future(self.submit(body))


def _end(loop: asyncio.AbstractEventLoop, thread: threading.Thread, closing: Callable[[], Awaitable[object]]) -> None:
    async def close_all() -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, closing(), return_exceptions=True)

    asyncio.run_coroutine_threadsafe(close_all(), loop).result(GRACE_S)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(GRACE_S)
    loop.close()
