"""MQTT: a persistent session, QoS 1, and nothing acknowledged to the broker before the journal has it.

What comes while this source is away waits at the broker, as long and as much as that is configured to keep
(`deploy/mosquitto.conf` says how). While the journal writes, what comes is gathered; the socket is not read while much
waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import suppress
from functools import partial
from zoneinfo import ZoneInfo

from penstock.data.frame import Readings
from penstock.data.plant import SourceSpec
from penstock.errors import SourceError
from penstock.speed.broker import address_of, context_of, encrypted
from penstock.speed.formats.arrow import Frames, batches
from penstock.speed.formats.json_text import Messages, TopicTag
from penstock.speed.formats.names import Names
from penstock.speed.source import Access, Delivery, no_ack
from penstock.speed.sources.mqtt_session import Heard, Session

GATHER_S = 0.01
"""What comes is gathered until what came before it is durable, but no longer than this."""


def make(spec: SourceSpec, access: Access, names: Names, zone: ZoneInfo) -> Mqtt:
    """As plant.toml and site.toml say. Raises SourceError, PlantError."""
    return Mqtt(spec, access, names, zone)


class Mqtt:
    """One broker's topics."""

    patient = False

    def __init__(self, spec: SourceSpec, access: Access, names: Names, zone: ZoneInfo) -> None:
        """Raises SourceError for an address or certificates that cannot be used, PlantError for a wrong `tag`."""
        address = address_of(access.url)
        if address is None:
            raise SourceError(f"source {spec.name}: url is {access.url}; give mqtt://HOST:PORT or mqtts://HOST:PORT")
        self.name, self.link = spec.name, names.link
        tls = context_of(f"source {spec.name}", access, SourceError) if encrypted(access.url) else None
        client_id = access.options.get("client_id", f"{access.client}-{self.name}")
        self._session = partial(Session, client_id, access, address, spec.topics, tls, self.link)
        self._tag = TopicTag(spec.tag, f"sources.{spec.name}.tag")
        self._frames = Frames(names) if spec.format == "arrow" else None
        self._messages = Messages(names, zone)

    async def deliveries(self, offsets: Mapping[str, int]) -> AsyncIterator[Delivery]:
        """What the broker sends, a few milliseconds' worth at a time; never ends. The offset counts messages."""
        session, durable, count = self._session(), asyncio.Event(), offsets.get("", 0)
        running = asyncio.create_task(session.run())
        running.add_done_callback(lambda _: session.arrived.set())
        durable.set()
        try:
            while True:
                await session.arrived.wait()
                if running.done():
                    running.result()
                with suppress(TimeoutError):
                    async with asyncio.timeout(GATHER_S):  # `wait_for` may swallow that we are cancelled (Python 3.11)
                        await durable.wait()
                session.arrived.clear()
                heard = session.take()
                durable.clear()
                count += len(heard.messages)
                for readings, rejected, last in _with_last(self._read(heard)):
                    ack = partial(_acknowledge, session, heard, durable) if last else no_ack
                    yield Delivery(offset=count, readings=readings, rejected=rejected, ack=ack)
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
            await session.close()

    def _read(self, heard: Heard) -> Iterator[tuple[Readings, int]]:
        """(readings, rejected), at least once. What cannot be read is counted: it would come for ever."""
        frames, some = self._frames, False
        for message, arrival_ns in heard.messages:
            try:
                topic = message.topic
            except UnicodeDecodeError:
                self.link.refuse("a topic that is no UTF-8")
                continue
            if frames is None:
                # A retained message is of whenever it was sent: only its own time says when.
                self._messages.add(message.payload, self._tag.of(topic), None if message.retain else arrival_ns)
                continue
            found = self._batches(frames, topic, message.payload)
            some = some or bool(found)
            yield from found
        if not some:
            yield self._messages.take()

    def _batches(self, frames: Frames, topic: str, payload: bytes) -> list[tuple[Readings, int]]:
        try:
            return [frames.read(batch) for batch in batches(payload)]
        except SourceError as error:
            self.link.refuse(f"{topic}: {error}")
            return []


async def _acknowledge(session: Session, heard: Heard, durable: asyncio.Event) -> None:
    durable.set()
    session.acknowledge(heard)


def _with_last(parts: Iterator[tuple[Readings, int]]) -> Iterator[tuple[Readings, int, bool]]:
    """Each with whether it is the last: what comes before that is durable with it."""
    before = next(parts)
    for part in parts:
        yield *before, False
        before = part
    yield *before, True
