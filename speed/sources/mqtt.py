"""MQTT: a persistent session, QoS 1, and nothing acknowledged to the broker before the journal has it.

What comes while this source is away waits at the broker, as long and as much as that is configured to keep
(`deploy/mosquitto.conf` says how). paho's thread connects, reads and decodes; it stops reading while much waits.
"""

from __future__ import annotations

import asyncio
import itertools
import ssl
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.reasoncodes import ReasonCode

from penstock.data.frame import Readings
from penstock.data.plant import SourceSpec
from penstock.errors import SourceError
from penstock.speed.formats.arrow import Frames, batches
from penstock.speed.formats.json_text import Messages, TopicTag
from penstock.speed.formats.names import Names
from penstock.speed.source import Access, Delivery, no_ack

PORTS = {"mqtt": 1883, "mqtts": 8883}
KEEPALIVE_S = 10
"""A broker that is silent for twice as long is given up, and connected to again."""
PAUSE_S = (1, 10)
"""Between two tries to connect: first and longest."""
WAITING = 4096
"""Messages that wait to be taken; more: the socket is not read."""
REFUSED = 0x80


def make(spec: SourceSpec, access: Access, names: Names, zone: ZoneInfo) -> Mqtt:
    """As plant.toml and site.toml say. Raises SourceError, PlantError."""
    return Mqtt(spec, access, names, zone)


@dataclass(slots=True, eq=False)
class _Batch:
    """Messages read since the last delivery, all of one connection."""

    connection: int
    ids: list[int] = field(default_factory=list)
    """Of those that want an acknowledgement."""
    messages: int = 0
    frames: list[tuple[Readings, int]] = field(default_factory=list)
    """(readings, rejected) of Arrow messages."""


class Mqtt:
    """One broker's topics."""

    patient = False

    def __init__(self, spec: SourceSpec, access: Access, names: Names, zone: ZoneInfo) -> None:
        """Raises SourceError for an address or certificates that cannot be used, PlantError for a wrong `tag`."""
        parts = urlsplit(access.url)
        if parts.scheme not in PORTS or not parts.hostname:
            raise SourceError(f"source {spec.name}: url is {access.url}; give mqtt://HOST:PORT or mqtts://HOST:PORT")
        self.name, self.link = spec.name, names.link
        self._address = parts.hostname, parts.port or PORTS[parts.scheme]
        self._access, self._topics = access, spec.topics
        self._tls = tls_context(spec.name, access) if parts.scheme == "mqtts" else None
        self._tag = TopicTag(spec.tag, f"sources.{spec.name}.tag")
        self._frames = Frames(names) if spec.format == "arrow" else None
        self._messages = Messages(names, zone)
        self._changed = threading.Condition()
        self._connections = itertools.count(1)
        self._batch = _Batch(0)
        self._closing = False
        self._lost: str | None = None

    async def deliveries(self, offsets: Mapping[str, int]) -> AsyncIterator[Delivery]:
        """What the broker sends, a few milliseconds' worth at a time; never ends. The offset counts messages."""
        loop, arrived = asyncio.get_running_loop(), asyncio.Event()
        self._closing, self._batch = False, _Batch(0)
        client = self._client(partial(loop.call_soon_threadsafe, arrived.set))
        client.connect_async(*self._address, keepalive=KEEPALIVE_S)
        client.loop_start()
        count = offsets.get("", 0)
        try:
            while True:
                await arrived.wait()
                arrived.clear()
                batch, readings = self._taken()
                count += batch.messages
                ack = partial(self._acknowledge, client, batch)
                for i, (frame, rejected) in enumerate(readings, 1 - len(readings)):
                    last = i == 0  # what comes before it is durable with it
                    yield Delivery(offset=count, readings=frame, rejected=rejected, ack=ack if last else no_ack)
        finally:
            await asyncio.to_thread(self._close, client)

    def _taken(self) -> tuple[_Batch, Sequence[tuple[Readings, int]]]:
        """What waits; the socket is read again."""
        with self._changed:
            batch, self._batch = self._batch, _Batch(self._batch.connection)
            readings = [*batch.frames, *([self._messages.take()] if len(self._messages) else [])]
            self._changed.notify_all()
        if batch.messages and not readings:
            readings = [self._messages.take()]  # nothing in them; they are acknowledged all the same
        return batch, readings

    async def _acknowledge(self, client: paho.Client, batch: _Batch) -> None:
        """Messages of a connection that has ended come again: their numbers may mean others by now."""
        if batch.connection == self._batch.connection:
            for mid in batch.ids:
                client.ack(mid, 1)

    # In paho's thread

    def _client(self, told: Any) -> paho.Client:
        """A client that calls `told` whenever something waits."""
        access = self._access
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=access.options.get("client_id", f"{access.client}-{self.name}"),
            clean_session=False,
            manual_ack=True,
        )
        if access.user is not None:
            client.username_pw_set(access.user, access.password)
        if self._tls is not None:
            client.tls_set_context(self._tls)
        client.reconnect_delay_set(*PAUSE_S)
        client.on_connect, client.on_connect_fail = self._connected, self._failed
        client.on_disconnect, client.on_subscribe = self._disconnected, self._subscribed
        client.on_message = partial(self._heard, told)
        return client

    def _connected(self, client: paho.Client, data: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        if reason.is_failure:
            self.link.went_down(f"the broker refuses: {reason}")
            return
        with self._changed:  # what was read before and not delivered comes again
            self._batch = _Batch(next(self._connections))
            self._messages.take()
        if self.link.connects and not flags.session_present:
            self._lost = "the broker has forgotten our session: what came while we were away is lost"
        client.subscribe([(topic, 1) for topic in self._topics])

    def _subscribed(self, client: Any, data: Any, mid: int, reasons: list[ReasonCode], properties: Any) -> None:
        self.link.came_up()
        self.link.trouble, self._lost = self._lost, None
        refused = [t for t, reason in zip(self._topics, reasons, strict=False) if reason.value >= REFUSED]
        if refused:
            self.link.trouble = f"the broker refuses a subscription to {', '.join(refused)}"

    def _failed(self, client: Any, data: Any) -> None:
        self.link.went_down(f"{self._address[0]}:{self._address[1]} cannot be reached")

    def _disconnected(self, client: Any, data: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        self.link.went_down(f"the connection ended: {reason}")

    def _heard(self, told: Any, client: Any, data: Any, message: paho.MQTTMessage) -> None:
        arrival_ns = self.link.now()
        self.link.heard_ns = arrival_ns
        with self._changed:
            while self._batch.messages >= WAITING and not self._closing:
                self._changed.wait()
            self._read(message, arrival_ns)
            batch = self._batch
            batch.messages += 1
            if message.qos:
                batch.ids.append(message.mid)
            first = batch.messages == 1
        if first:
            with suppress(RuntimeError):  # the loop has ended: nobody takes it, nothing is acknowledged
                told()

    def _read(self, message: paho.MQTTMessage, arrival_ns: int) -> None:
        """What cannot be read is counted, and acknowledged: it would come for ever."""
        try:
            topic = message.topic
        except UnicodeDecodeError:
            self.link.refuse("a topic that is no UTF-8")
            return
        if self._frames is None:
            # A retained message is of whenever it was sent: only its own time says when.
            self._messages.add(message.payload, self._tag.of(topic), None if message.retain else arrival_ns)
            return
        try:
            self._batch.frames += [self._frames.read(batch) for batch in batches(message.payload)]
        except SourceError as error:
            self.link.refuse(f"{topic}: {error}")

    def _close(self, client: paho.Client) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if client.disconnect() not in (MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_NO_CONN):
            self.link.trouble = "the broker was left without a farewell"
        client.loop_stop()
        self.link.went_down("the stream has ended")


def tls_context(name: str, access: Access) -> ssl.SSLContext:
    """TLS that checks the broker, and shows our certificate where we have one."""
    try:
        context = ssl.create_default_context(cafile=access.ca_file)
        if access.cert_file is not None:
            context.load_cert_chain(access.cert_file, access.key_file)
    except (OSError, ssl.SSLError) as error:
        raise SourceError(f"source {name}: its certificates cannot be read ({error})") from error
    return context
