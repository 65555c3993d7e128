"""Arrow over TCP: gateways connect and send; penstock answers with what is durable.

A gateway opens a connection and writes one Arrow IPC stream, in any language (`penstock.speed.formats.arrow` says what
the batches hold). The metadata of its schema name it under ``sender``. Back come signed 64-bit little-endian numbers:
first how many batches of this sender are durable since the site began, so that it goes on with the next one; then,
whenever more are on disk, the new count. Who does not read them is not kept from sending. Batches without rows keep the
link alive and do not count. A sender that connects again takes the place of its older connection, which may be half
dead.
"""

from __future__ import annotations

import asyncio
import ssl
import struct
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import pyarrow as pa

from penstock.data.frame import Readings
from penstock.data.plant import SourceSpec
from penstock.errors import SourceError
from penstock.speed.formats.arrow import Frames
from penstock.speed.formats.names import Names
from penstock.speed.source import Access, Delivery
from penstock.speed.sources.pipe import Pipe

SENDER = b"sender"
"""Key of the schema's metadata that names a gateway."""
COUNT = struct.Struct("<q")
WAITING = 8
"""Batches that wait for the journal, of all senders; more: they are not read from their sockets."""
UNREAD = 1 << 16
"""Bytes of counts that a gateway has not read; beyond, it is told of none until it reads."""
PORT = 7400
Put = Callable[[Delivery], Awaitable[None]]


def make(spec: SourceSpec, access: Access, names: Names, zone: ZoneInfo) -> Tcp:
    """As plant.toml and site.toml say. Raises SourceError."""
    return Tcp(spec.name, access, names)


@dataclass(slots=True, eq=False)
class _Peer:
    """One gateway's connection."""

    pipe: Pipe
    sender: str = ""


class Tcp:
    """Listens for gateways; their batches are deliveries, counted per sender."""

    patient = False

    def __init__(self, name: str, access: Access, names: Names) -> None:
        """Raises SourceError for an address that is none, or certificates that cannot be read."""
        parts = urlsplit(access.url)
        if parts.scheme not in ("tcp", "tls") or not parts.hostname:
            raise SourceError(f"source {name}: url is {access.url}; give tcp://HOST:PORT or tls://HOST:PORT")
        self.name, self.link = name, names.link
        self.address = (parts.hostname, PORT if parts.port is None else parts.port)
        """Host and port; port 0 takes a free one, which stands here while it listens."""
        self._tls = _context(name, access) if parts.scheme == "tls" else None
        self._names = names
        self._decoding = threading.Lock()
        """Connections read their bytes at the same time, but know the names together."""
        self._durable: dict[str, int] = {}
        self._taken: dict[str, int] = {}
        self._peers: dict[str, _Peer] = {}
        self._moved = asyncio.Event()

    async def deliveries(self, offsets: Mapping[str, int]) -> AsyncIterator[Delivery]:
        """Batches of every gateway, as they come; never ends. Raises SourceError where the port cannot be had."""
        self._durable, self._taken, self._peers = dict(offsets), dict(offsets), {}
        self._moved = asyncio.Event()
        arrived: asyncio.Queue[Delivery] = asyncio.Queue(WAITING)
        loop, tasks = asyncio.get_running_loop(), set[asyncio.Task[None]]()

        def connected(pipe: Pipe) -> None:
            task = asyncio.create_task(self._serve(pipe, arrived.put))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        host, port = self.address
        try:
            server = await loop.create_server(lambda: Pipe(loop, connected), host, port, ssl=self._tls)
        except OSError as error:
            raise SourceError(
                f"source {self.name}: cannot listen on {host}:{port} ({error.strerror or error})"
            ) from None
        self.address = (host, server.sockets[0].getsockname()[1])
        try:
            while True:
                yield await arrived.get()
        finally:
            server.close()
            for task in list(tasks):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, pipe: Pipe, put: Put) -> None:
        """One connection, to its end: what it does wrong costs only itself."""
        peer = _Peer(pipe)
        try:
            await pipe.in_thread(partial(self._read, peer, put))
        except (SourceError, pa.ArrowException, OSError, EOFError, ssl.SSLError) as error:
            if not isinstance(error, EOFError | ConnectionError):
                self.link.refuse(f"{peer.sender or 'a gateway'}: {(str(error).splitlines() or [repr(error)])[0]}")
        finally:
            if self._peers.get(peer.sender) is peer:
                del self._peers[peer.sender]
            if not self._peers:
                self.link.went_down("no gateway is connected")
            pipe.end()

    def _read(self, peer: _Peer, put: Put) -> None:
        """In the connection's own thread."""
        stream = pa.ipc.open_stream(peer.pipe)
        peer.sender = (stream.schema.metadata or {}).get(SENDER, b"").decode("utf-8", "replace")[:128]
        peer.pipe.wait(self._take_place(peer))
        frames = Frames(self._names)
        with self._decoding:
            names = frames.names(stream.schema)
        while (batch := next(stream, None)) is not None:
            self.link.heard()
            if not batch.num_rows:
                continue
            with self._decoding:
                readings, rejected = frames.read(batch, names)
            if not peer.pipe.wait(self._deliver(peer, readings, rejected, put)):
                return

    async def _deliver(self, peer: _Peer, readings: Readings, rejected: int, put: Put) -> bool:
        """False where a newer connection has taken the sender's place."""
        if self._peers.get(peer.sender) is not peer:
            return False
        count = self._taken[peer.sender] = self._taken[peer.sender] + 1
        await put(
            Delivery(
                offset=count, readings=readings, rejected=rejected, part=peer.sender,
                ack=partial(self._written, peer.sender, count),
            )
        )  # fmt: skip
        return True

    async def _take_place(self, peer: _Peer) -> None:
        """Say where the sender goes on, once all that its older connection brought is on disk."""
        old = self._peers.get(peer.sender)
        self._peers[peer.sender] = peer
        if old is not None:
            old.pipe.end()
        while self._durable.get(peer.sender, 0) < self._taken.setdefault(peer.sender, 0):
            self._moved.clear()
            await self._moved.wait()
        self.link.came_up()
        peer.pipe.transport.write(COUNT.pack(self._durable.get(peer.sender, 0)))

    async def _written(self, sender: str, count: int) -> None:
        """So many batches of a sender are durable."""
        self._durable[sender] = count
        self._moved.set()
        peer = self._peers.get(sender)
        if peer is None or peer.pipe.transport.is_closing() or peer.pipe.transport.get_write_buffer_size() > UNREAD:
            return
        peer.pipe.transport.write(COUNT.pack(count))


def _context(name: str, access: Access) -> ssl.SSLContext:
    """TLS with our certificate; where `ca_file` is given, gateways must show one of its."""
    if access.cert_file is None:
        raise SourceError(f"source {name}: tls:// needs cert_file and key_file in site.toml")
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=access.ca_file)
        context.load_cert_chain(access.cert_file, access.key_file)
    except (OSError, ssl.SSLError) as error:
        raise SourceError(f"source {name}: its certificates cannot be read ({error})") from error
    if access.ca_file is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context
