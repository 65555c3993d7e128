"""The hatch itself: a TLS listener in a thread of its own, beside whatever its process does.

Who has no certificate of the authority that `tls` names is refused before anything is read. Every wait has a deadline,
every size and number a bound; a question that fails costs only its answer. What is answered is in `answers`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from penstock.data.hatch.answers import Answers
from penstock.data.hatch.message import LARGEST_REQUEST, PREFIX, Buffer, Head, head_of, lengths, packed
from penstock.data.hatch.place import Hatch, marked
from penstock.errors import BadAnswer, BadRequest, PenstockError, SiteError

log = logging.getLogger(__name__)

IDLE_S = 600.0
"""A wire that asks nothing for so long is let go of; the worker makes another one."""
REQUEST_S = 30.0
"""From a question's first byte to its last, and for the handshake."""
ANSWER_S = 60.0
"""How long an answer may take to be taken."""
WIRES = 256
AT_ONCE = 4
"""Questions answered at the same time; the others wait for their turn."""
SLICE = 1 << 20
START_S = 30.0
PORTS = 8
"""Tried from the one that is named: several commands of a site may each have a hatch."""


@contextmanager
def opened(site: Path, address: str, tls: ssl.SSLContext) -> Iterator[Hatch]:
    """The hatch of a site at `address` (host:port), while the block runs.

    Where the port is taken one of the seven behind it; port 0: any.
    Raises SiteError when nobody can listen there, or the site cannot be written.
    """
    with marked(site) as mark:
        server = _Server(Answers(site), address, tls)
        try:
            yield Hatch(address=server.start(), mark=mark)
        finally:
            server.stop()


class _Server:
    """The thread."""

    def __init__(self, answers: Answers, address: str, tls: ssl.SSLContext) -> None:
        self._answers, self._address, self._tls = answers, address, tls
        self._at: Future[str] = Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Event | None = None
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._wires: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="hatch", daemon=True)

    def start(self) -> str:
        """Its address, once it listens. Raises SiteError."""
        self._thread.start()
        return self._at.result(START_S)

    def stop(self) -> None:
        """Hang up on everybody."""
        if self._loop is not None and self._end is not None:
            with contextlib.suppress(RuntimeError):  # its loop has ended
                self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(START_S)
        self._answers.close()

    async def _run(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        try:
            server, host = await self._listening()
        except (OSError, ValueError) as error:
            why = f"records cannot be given at {self._address}: {getattr(error, 'strerror', None) or error}"
            self._at.set_exception(
                SiteError(f"{why}; name an address of this machine that workers reach: dask.records in site.toml")
            )
            return
        self._at.set_result(f"{host}:{server.sockets[0].getsockname()[1]}")
        await self._end.wait()
        server.close()
        for wire in list(self._wires):
            wire.cancel()
        await asyncio.gather(*self._wires, return_exceptions=True)

    async def _listening(self) -> tuple[asyncio.Server, str]:
        """And its host as an address has it. Raises OSError, ValueError."""
        parts = urlsplit(f"//{self._address}")
        host, first = parts.hostname or "", parts.port or 0
        last = first + PORTS - 1 if first else 0
        for port in range(first, last + 1):
            try:
                server = await asyncio.start_server(
                    self._connected, host, port, ssl=self._tls, ssl_handshake_timeout=REQUEST_S
                )
            except OSError as error:
                if error.errno != errno.EADDRINUSE or port == last:
                    raise
            else:
                return server, f"[{host}]" if ":" in host else host
        raise AssertionError("the last port returns or raises")

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._wires.add(task)
        task.add_done_callback(self._wires.discard)
        try:
            while len(self._wires) <= WIRES:
                await self._serve(reader, writer)
        except (OSError, EOFError, TimeoutError) as error:
            log.debug("a wire ended: %r", error)
        except BadAnswer as error:
            log.warning("records: %s sent %s", writer.get_extra_info("peername"), error)
        except asyncio.CancelledError:  # the server ends
            pass
        finally:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One question. Raises what ends the wire."""
        async with asyncio.timeout(IDLE_S):
            prefix = await reader.readexactly(PREFIX.size)
        told, length = lengths(prefix, LARGEST_REQUEST)
        async with asyncio.timeout(REQUEST_S):
            text, body = await reader.readexactly(told), await reader.readexactly(length)
        async with self._turn:
            answer = await asyncio.to_thread(self._answered, head_of(text), body)
            async with asyncio.timeout(ANSWER_S):
                for part in answer:
                    for at in range(0, len(part), SLICE):
                        writer.write(part[at : at + SLICE])
                        await writer.drain()

    def _answered(self, head: Head, body: bytes) -> list[Buffer]:
        """A message in any case: what is wrong with a question is its asker's to hear."""
        try:
            return packed(*self._answers.answer(head, body))
        except PenstockError as error:
            return packed({"error": type(error).__name__, "text": str(error)})
        except Exception as error:
            log.exception("a question of the kind %r failed", head.get("ask"))
            return packed({"error": BadRequest.__name__, "text": f"{type(error).__name__}: {error}"})
