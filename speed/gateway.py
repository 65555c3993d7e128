"""The other end of a TCP source: sends Arrow batches, and keeps each until it is durable.

For gateways written in Python, and for tests and benchmarks. Needs pyarrow alone; what it says on the wire is told in
`penstock.speed.sources.tcp`, so any language with Arrow can do the same.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import BinaryIO, Self

import pyarrow as pa

from penstock.errors import Unavailable
from penstock.speed.sources.tcp import COUNT, SENDER

PAUSE_S = (0.1, 5.0)
"""Between two tries to connect: first and longest."""
CONNECT_S = 5.0
COUNT_S = 30.0
"""How long the first count may take: it waits for what an older connection brought."""


class Gateway:
    """One sender; a thread of its own connects, sends, and sends again after a break."""

    def __init__(
        self, address: tuple[str, int], sender: str, schema: pa.Schema, *, tls: ssl.SSLContext | None = None,
        most: int = 64,
    ) -> None:  # fmt: skip
        """`most`: batches kept until they are durable; `send` waits while there are so many."""
        self._address, self._tls, self._most = address, tls, most
        self.schema = schema.with_metadata({**(schema.metadata or {}), SENDER: sender.encode()})
        """Of all batches."""
        self._kept: deque[pa.RecordBatch] = deque()
        self._written = 0
        self._changed = threading.Condition()
        self._link: _Link | None = None
        self._closed = False
        self.durable: int | None = None
        """Batches of this sender on the site's disk since it began; None before the first connection."""
        self.connects = 0
        self.trouble: str | None = None
        """Why there is no connection; None while there is one."""
        self._thread = threading.Thread(target=self._run, daemon=True, name=f"gateway-{sender}")
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def send(self, batch: pa.RecordBatch, deadline_s: float = 60.0) -> None:
        """Take a batch, to be sent until it is durable. Raises Unavailable where no room comes in time."""
        self._wait(lambda: len(self._kept) < self._most, deadline_s)
        with self._changed:
            self._kept.append(batch)
            self._changed.notify_all()

    def flush(self, deadline_s: float = 60.0) -> int:
        """Wait until all that was sent is durable; how many batches of this sender are. Raises Unavailable."""
        self._wait(lambda: not self._kept and self.durable is not None, deadline_s)
        return self.durable or 0

    def unsaid(self) -> list[pa.RecordBatch]:
        """Batches not known to be durable, oldest first; a gateway that must not lose them keeps them on disk itself.

        Sent again by a later `Gateway` of the same sender they change nothing where they were durable after all.
        """
        with self._changed:
            return list(self._kept)

    def close(self) -> None:
        """End; what is not durable yet is only in `unsaid`: `flush` before."""
        with self._changed:
            self._closed = True
            if self._link is not None:
                self._link.drop()
            self._changed.notify_all()
        self._thread.join()

    def _wait(self, enough: Callable[[], bool], deadline_s: float) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: enough() or self._closed, deadline_s):
                host, port = self._address
                why = f" ({self.trouble})" if self.trouble else ""
                raise Unavailable(
                    f"{host}:{port}: {len(self._kept)} batches are not durable after {deadline_s:g} s{why}; "
                    "is the stream running?"
                )
            if self._closed:
                raise Unavailable("this gateway is closed")

    def _run(self) -> None:
        pause_s = PAUSE_S[0]
        while not self._closed:
            try:
                self._serve()
                pause_s = PAUSE_S[0]
            except (OSError, EOFError, pa.ArrowException) as error:
                self.trouble = str(error) or type(error).__name__
            with self._changed:
                self._changed.wait_for(lambda: self._closed, pause_s)
            pause_s = min(2 * pause_s, PAUSE_S[1])

    def _serve(self) -> None:
        """One connection, until it breaks."""
        link = _Link(self._address, self._tls, self.schema)
        try:
            with self._changed:
                self._link = link
                if self._closed:
                    return
            self._count(link.count(), first=self.durable is None)
            self._written, self.trouble, self.connects = 0, None, self.connects + 1
            link.listen(self._count, self._wake)
            while (batch := self._next(link)) is not None:
                link.write(batch)
        finally:
            link.drop()

    def _next(self, link: _Link) -> pa.RecordBatch | None:
        """The next batch that this connection has not brought; None once it is broken."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or link.broken or self._written < len(self._kept))
            if self._closed or link.broken:
                return None
            self._written += 1
            return self._kept[self._written - 1]

    def _count(self, count: int, first: bool = False) -> None:
        """So many batches are durable: these need not be kept."""
        with self._changed:
            gone = 0 if first or self.durable is None else max(0, min(count - self.durable, len(self._kept)))
            for _ in range(gone):
                self._kept.popleft()
            self._written = max(0, self._written - gone)
            self.durable = count
            self._changed.notify_all()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()


class _Link:
    """One connection."""

    def __init__(self, address: tuple[str, int], tls: ssl.SSLContext | None, schema: pa.Schema) -> None:
        self.broken = False
        self._socket = socket.create_connection(address, CONNECT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            self._socket = tls.wrap_socket(self._socket, server_hostname=address[0])
        self._socket.settimeout(COUNT_S)
        self._file: BinaryIO = self._socket.makefile("wb")
        self._writer = pa.ipc.new_stream(pa.PythonFile(self._file, "w"), schema)
        self.write(_nothing(schema))  # pyarrow sends the schema with the first batch

    def write(self, batch: pa.RecordBatch) -> None:
        """Send a batch. Raises OSError, ArrowException."""
        self._writer.write_batch(batch)
        self._file.flush()

    def count(self) -> int:
        """The next count. Raises OSError, EOFError."""
        found = b""
        while len(found) < COUNT.size:
            more = self._socket.recv(COUNT.size - len(found))
            if not more:
                raise EOFError("the other side has closed the connection")
            found += more
        count: int = COUNT.unpack(found)[0]
        return count

    def listen(self, told: Callable[[int], None], ended: Callable[[], None]) -> None:
        """Counts from now on, in a thread."""
        self._socket.settimeout(None)

        def run() -> None:
            with contextlib.suppress(OSError, EOFError, ValueError):
                while True:
                    told(self.count())
            self.broken = True
            ended()

        threading.Thread(target=run, daemon=True).start()

    def drop(self) -> None:
        """End it."""
        self.broken = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def _nothing(schema: pa.Schema) -> pa.RecordBatch:
    """A batch without rows."""
    return pa.RecordBatch.from_arrays([pa.nulls(0, kind) for kind in schema.types], schema=schema)
