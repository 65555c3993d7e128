"""Kafka: all partitions of some topics, each resumed where our journal has it.

What comes while the stream is away waits in the brokers' log, as long as that is kept. A reading without a time of its
own is of its message's, so that a message read twice is the same reading. A thread of its own reads; it does not while
deliveries wait, and librdkafka stops fetching then.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from zoneinfo import ZoneInfo

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Message

from penstock.data.frame import Readings
from penstock.data.plant import SourceSpec
from penstock.errors import SourceError
from penstock.speed.formats.arrow import Frames, batches
from penstock.speed.formats.json_text import Messages, TopicTag
from penstock.speed.formats.names import Names
from penstock.speed.source import Access, Delivery
from penstock.speed.sources.kafka_log import Log, Part
from penstock.speed.sources.kafka_settings import settings

KEY = "{key}"
"""In `tag`: the message's key."""
LEAST_SLICE_MS = 10


def make(spec: SourceSpec, access: Access, names: Names, zone: ZoneInfo) -> Kafka:
    """As plant.toml and site.toml say. Raises SourceError, PlantError."""
    return Kafka(spec, access, names, zone)


class Kafka:
    """One cluster's topics. A part is a partition, "topic/3"."""

    patient = False

    def __init__(self, spec: SourceSpec, access: Access, names: Names, zone: ZoneInfo) -> None:
        """Raises SourceError for an address, certificates or options that cannot be used, PlantError for a `tag`."""
        self.name, self.link = spec.name, names.link
        self._settings, self._topics = settings(spec.name, access), spec.topics
        self._slice_ms = max(LEAST_SLICE_MS, spec.lateness_ns // 2_000_000)
        self._tag = MessageTag(spec.tag, f"sources.{spec.name}.tag")
        self._frames = Frames(names) if spec.format == "arrow" else None
        self._messages = Messages(names, zone)

    async def deliveries(self, offsets: Mapping[str, int]) -> AsyncIterator[Delivery]:
        """What the topics hold, oldest first, a few milliseconds' worth at a time; never ends."""
        loop, thread = asyncio.get_running_loop(), ThreadPoolExecutor(1, f"kafka-{self.name}")
        begin = {part: offset for name, offset in offsets.items() if (part := _part(name)) is not None}
        log = Log(self._settings, self._topics, begin, self.link, slice_ms=self._slice_ms)
        try:
            while True:
                for delivery in await loop.run_in_executor(thread, self._read, log):
                    yield delivery
        finally:
            await loop.run_in_executor(thread, log.leave)
            thread.shutdown(wait=False)

    # In the thread

    def _read(self, log: Log) -> list[Delivery]:
        read = self._json if self._frames is None else self._arrow
        return [
            Delivery(
                offset=offset, readings=readings, rejected=rejected, part=f"{part[0]}/{part[1]}",
                ack=partial(_written, log, part, offset),
            )
            for part, messages in log.read().items()
            for offset, readings, rejected in read(messages)
        ]  # fmt: skip

    def _json(self, messages: Sequence[Message]) -> Iterator[tuple[int, Readings, int]]:
        """(offset after them, readings, rejected) of a partition's messages."""
        for message in messages:
            kind, at_ms = message.timestamp()
            of_ns = None if kind == TIMESTAMP_NOT_AVAILABLE else at_ms * 1_000_000
            self._messages.add(message.value() or b"", self._tag.of(message), of_ns)
        yield int(messages[-1].offset() or 0) + 1, *self._messages.take()

    def _arrow(self, messages: Sequence[Message]) -> Iterator[tuple[int, Readings, int]]:
        """One for each batch; only the last one of a message is beyond it: after a kill all of it comes again."""
        after = 0
        for message in messages:
            offset = int(message.offset() or 0)
            frames = self._batches(message)
            yield from ((offset, *frame) for frame in frames[:-1])
            yield from ((offset + 1, *frame) for frame in frames[-1:])
            after = 0 if frames else offset + 1
        if after:  # the last ones hold nothing; they need not come again all the same
            yield after, *self._messages.take()

    def _batches(self, message: Message) -> list[tuple[Readings, int]]:
        assert self._frames is not None
        try:
            return [self._frames.read(batch) for batch in batches(message.value() or b"")]
        except SourceError as error:
            self.link.refuse(f"{message.topic()}/{message.partition()}, offset {message.offset()}: {error}")
            return []


class MessageTag:
    """The tag of a message that names none: its key, else its topic; or as a template of both says."""

    def __init__(self, template: str, place: str) -> None:
        """`template`: levels of the topic, parted by dots, in braces as for MQTT; `{key}` is the message's key.

        Raises PlantError, naming `place`, for braces that hold neither.
        """
        self._plain = not template
        self._levels = TopicTag(template.replace(KEY, "\0"), place)

    def of(self, message: Message) -> str:
        """The tag; what the message does not have is empty."""
        topic, key = str(message.topic()), (message.key() or b"").decode("utf-8", "replace")
        if self._plain:
            return key or topic
        return self._levels.of(topic.replace(".", "/")).replace("\0", key)


async def _written(log: Log, part: Part, offset: int) -> None:
    log.durable(part, offset)


def _part(name: str) -> Part | None:
    """The partition that a part of the journal names; None for what is none."""
    topic, _, number = name.rpartition("/")
    return (topic, int(number)) if topic and number.isdecimal() else None
