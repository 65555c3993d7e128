"""A connection that a thread reads as a file, while the event loop receives.

Arrow's reader pulls: it says how many bytes it wants and waits. The loop then receives right into the place where they
are wanted, so a frame of megabytes is copied once, by the system. One thread per connection: a gateway that is silent
keeps nobody else waiting. Knows nothing of Arrow, gateways and readings.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import Any, TypeVar

import numpy as np

from penstock.errors import SourceError

T = TypeVar("T")
LARGEST = 256 << 20
"""Bytes of one read; more is garbage."""
AHEAD = 1 << 16
"""Small reads take so much at once: each costs a way to the loop and back."""


class Pipe(asyncio.BufferedProtocol):
    """One connection, plain or TLS."""

    closed = False
    """As a file says it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, begun: Callable[[Pipe], None]) -> None:
        """`begun` is called, in the loop, once it stands."""
        self._loop, self._begun = loop, begun
        self.transport: asyncio.Transport
        self._place = memoryview(bytearray(AHEAD))
        """Where the loop puts what comes."""
        self._least, self._got = 1, 0
        self._filled: Future[int] = Future()
        """How many bytes came: at least as many as were wanted, or the connection has ended."""
        self._ended = False
        """Nothing more comes; what has come is still taken."""
        self._closed = False
        """Nothing more is wanted."""
        self._ahead: memoryview | None = None
        """Received, and not asked for yet."""
        self._waits: set[Future[Any]] = set()

    # As a file, in the thread

    def readable(self) -> bool:
        """A file to read from."""
        return True

    def read(self, size: int) -> memoryview:
        """Exactly `size` bytes, fewer at the end. Raises SourceError for more than any message may have."""
        if size > LARGEST:
            raise SourceError(f"a message of {size} bytes; at most {LARGEST} are taken")
        if self._ahead is None:
            self._ahead = self._place[: self._filled.result()]
        have, self._ahead = self._ahead[:size], self._ahead[size:]
        missing = size - len(have)
        if not missing:
            return have
        # Memory that is not zeroed first: all of it is received into.
        whole = np.empty(len(have) + max(missing, AHEAD if missing < AHEAD else 0), np.uint8).data
        whole[: len(have)] = have
        end = len(have) + self._fill(whole[len(have) :], missing)
        self._ahead = whole[size:end]
        return whole[: min(size, end)]

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, which runs in the loop. Raises EOFError where the connection is ended meanwhile."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        self._waits.add(future)
        if self._closed:
            future.cancel()
        try:
            return future.result()
        except CancelledError:
            raise EOFError("the connection has ended") from None
        finally:
            self._waits.discard(future)

    def _fill(self, place: memoryview, least: int) -> int:
        filled: Future[int] = Future()
        self._loop.call_soon_threadsafe(self._ask, place, least, filled)
        return filled.result()

    # In the loop

    async def in_thread(self, work: Callable[[], None]) -> None:
        """Run `work` in a thread of its own, to its end. Raises what it raises; cancelled, it ends the connection."""
        done: asyncio.Future[None] = self._loop.create_future()

        def tell(error: BaseException | None) -> None:
            if done.done():
                return
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)

        def run() -> None:
            error: BaseException | None = None
            try:
                work()
            except BaseException as raised:
                error = raised
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(tell, error)

        threading.Thread(target=run, daemon=True, name="gateway").start()
        try:
            await asyncio.shield(done)
        except asyncio.CancelledError:
            self.end()
            await asyncio.wait([done])
            done.exception()  # nobody else asks for it
            raise

    def end(self) -> None:
        """Close the connection; whoever waits in the thread is told."""
        self._closed = True
        self.transport.close()
        self._end(None)
        for wait in list(self._waits):
            wait.cancel()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As a protocol."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._begun(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """As a protocol."""
        return self._place[self._got :]

    def buffer_updated(self, nbytes: int) -> None:
        """As a protocol."""
        self._got += nbytes
        if self._got >= self._least and not self._filled.done():
            self.transport.pause_reading()
            self._filled.set_result(self._got)

    def eof_received(self) -> bool:
        """As a protocol; a gateway that has said its last may still want its counts."""
        self._end(None)
        return self.transport.get_extra_info("sslcontext") is None

    def connection_lost(self, error: Exception | None) -> None:
        """As a protocol."""
        self._end(error)

    def _ask(self, place: memoryview, least: int, filled: Future[int]) -> None:
        self._place, self._least, self._got, self._filled = place, least, 0, filled
        if self._ended:
            filled.set_result(0)
        else:
            self.transport.resume_reading()

    def _end(self, error: Exception | None) -> None:
        self._ended = True
        if self._filled.done():
            return
        if error is None:
            self._filled.set_result(self._got)
        else:
            self._filled.set_exception(error)
