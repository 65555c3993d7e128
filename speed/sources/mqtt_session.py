"""A persistent session with an MQTT broker, driven by the event loop: what came, and what may be acknowledged.

paho speaks MQTT; we say when it reads and writes, through its interface for loops of others. In a thread of its own it
would give the interpreter away at each of the four to five calls that it makes to the system per message, and wait to
get it back while others compute: for frames of megabytes that was most of the time. Only connecting, which blocks, is
done in a thread. Knows nothing of what messages hold, and of journals.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from penstock.speed.broker import KEEPALIVE_S
from penstock.speed.link import Link
from penstock.speed.source import Access

PAUSE_S = (1, 10)
"""Between two tries to connect: first and longest."""
LOOK_S = 1.0
"""How often it is seen to that the broker is there."""
WAITING, WAITING_BYTES = 4096, 64 << 20
"""Messages that wait to be taken, and their bytes; more: the socket is not read."""
TURN = 256
"""Messages that are read before others have their turn in the event loop."""
REFUSED = 0x80


@dataclass(slots=True, eq=False)
class Heard:
    """Messages of one connection, in the order in which they came."""

    connection: int
    messages: list[tuple[paho.MQTTMessage, int]] = field(default_factory=list)
    """Each with its arrival, ns UTC."""
    size: int = 0
    """Bytes of what they hold."""

    @property
    def full(self) -> bool:
        """Whether no more should come before these are taken."""
        return len(self.messages) >= WAITING or self.size >= WAITING_BYTES


class Session:
    """One client's session. All of it belongs to the event loop's thread."""

    def __init__(
        self, client_id: str, access: Access, address: tuple[str, int], topics: Sequence[str],
        tls: ssl.SSLContext | None, link: Link,
    ) -> None:  # fmt: skip
        """Connects once `run` runs."""
        self._address, self._topics, self.link = address, topics, link
        self._client = self._made(client_id, access, tls)
        self._client.connect_async(*address, keepalive=KEEPALIVE_S)
        self._loop = asyncio.get_running_loop()
        self._connecting: asyncio.Future[Any] | None = None
        self._sock: socket.socket | None = None
        """Looked at by the event loop."""
        self._ended = asyncio.Event()
        """Set while there is no connection."""
        self._heard = Heard(0)
        self._lost: str | None = None
        self._refused: str | None = None
        self._pause_s = PAUSE_S[0]
        self.arrived = asyncio.Event()
        """Set when something came; whoever takes it clears it."""

    async def run(self) -> None:
        """Connects, and again whenever it was lost. Never ends."""
        while True:
            self._ended.clear()
            self._connecting = asyncio.ensure_future(asyncio.to_thread(self._client.reconnect))
            try:
                await asyncio.shield(self._connecting)
            except OSError:
                self.link.went_down(f"{self._address[0]}:{self._address[1]} cannot be reached")
            else:
                await self._connection()
            await asyncio.sleep(self._pause_s)
            self._pause_s = min(2 * self._pause_s, PAUSE_S[1])

    def take(self) -> Heard:
        """What waits; the socket is read again."""
        heard, self._heard = self._heard, Heard(self._heard.connection)
        if heard.full and self._sock is not None:
            self._loop.add_reader(self._sock, self._read)
            self._loop.call_soon(self._read)
        return heard

    def acknowledge(self, heard: Heard) -> None:
        """Messages of a connection that has ended come again: their numbers may mean others by now."""
        if heard.connection == self._heard.connection and self._sock is not None:
            for message, _ in heard.messages:
                if message.qos:
                    self._client.ack(message.mid, message.qos)
            self._write()

    async def close(self) -> None:
        """Leaves the broker, which keeps what comes meanwhile. After `run` was cancelled."""
        if self._connecting is not None:
            with suppress(OSError):
                await self._connecting
        self._client.disconnect()
        if self._socket() is not None:
            self._client.loop_write()
        sock = self._socket()
        if sock is not None:  # it takes nothing now; what was acknowledged last comes again
            self._unwatch()
            sock.close()
        self.link.went_down("the stream has ended")

    async def _connection(self) -> None:
        """One, to its end."""
        while not self._ended.is_set():
            self._watch()
            self._write()
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._ended.wait()
            except TimeoutError:
                self._client.loop_misc()

    def _watch(self) -> None:
        """Look at paho's socket; it takes another one where a broker wants an older MQTT."""
        sock = self._socket()
        if sock is not None and sock is not self._sock:
            self._sock = sock
            self._loop.add_reader(sock, self._read)
            self._loop.call_soon(self._read)  # TLS may hold what the system no longer tells of

    def _read(self) -> None:
        """All that the socket has, but no more than has its turn."""
        sock, messages = self._sock, self._heard.messages
        until = len(messages) + TURN
        while self._sock is sock is not None and not self._heard.full:
            before = len(messages)
            self._client.loop_read()
            messages = self._heard.messages
            if len(messages) == before and not _pending(self._sock):
                break
            if len(messages) >= until:
                self._loop.call_soon(self._read)
                break
        if self._sock is not None and self._heard.full:
            self._loop.remove_reader(self._sock)
        self._write()

    def _write(self) -> None:
        """What paho has to say; later, where the socket takes no more now."""
        if self._sock is not None and self._client.want_write():
            self._client.loop_write()
        if self._sock is not None:
            if self._client.want_write():
                self._loop.add_writer(self._sock, self._write)
            else:
                self._loop.remove_writer(self._sock)

    def _socket(self) -> socket.socket | None:
        sock = self._client.socket()
        return sock if isinstance(sock, socket.socket) else None

    def _unwatch(self) -> None:
        sock, self._sock = self._sock, None
        if sock is not None:
            self._loop.remove_reader(sock)
            self._loop.remove_writer(sock)

    # What paho calls back

    def _made(self, client_id: str, access: Access, tls: ssl.SSLContext | None) -> paho.Client:
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id=client_id, clean_session=False, manual_ack=True)
        if access.user is not None:
            client.username_pw_set(access.user, access.password)
        if tls is not None:
            client.tls_set_context(tls)
        client.on_connect, client.on_disconnect = self._connected, self._disconnected
        client.on_subscribe, client.on_message = self._subscribed, self._came
        client.on_socket_close = lambda *_: self._unwatch()
        client.on_socket_register_write = lambda *_: None  # it would write each acknowledgement at once
        return client

    def _connected(self, client: paho.Client, data: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        if reason.is_failure:
            self._refused = f"the broker refuses: {reason}"
            return
        self._refused = None
        self._pause_s = PAUSE_S[0]
        self._heard = Heard(self._heard.connection + 1)  # what was read before and not delivered comes again
        if self.link.connects and not flags.session_present:
            self._lost = "the broker has forgotten our session: what came while we were away is lost"
        client.subscribe([(topic, 1) for topic in self._topics])

    def _subscribed(self, client: Any, data: Any, mid: int, reasons: list[ReasonCode], properties: Any) -> None:
        self.link.came_up()
        self.link.trouble, self._lost = self._lost, None
        refused = [t for t, reason in zip(self._topics, reasons, strict=False) if reason.value >= REFUSED]
        if refused:
            self.link.trouble = f"the broker refuses a subscription to {', '.join(refused)}"

    def _disconnected(self, client: Any, data: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        self._ended.set()
        self.link.went_down(self._refused or f"the connection ended: {reason}")

    def _came(self, client: Any, data: Any, message: paho.MQTTMessage) -> None:
        arrival_ns = self.link.heard_ns = self.link.now()
        self._heard.messages.append((message, arrival_ns))
        self._heard.size += len(message.payload)
        self.arrived.set()


def _pending(sock: socket.socket | None) -> bool:
    """Whether TLS holds bytes that the system no longer tells of."""
    return isinstance(sock, ssl.SSLSocket) and sock.pending() > 0
