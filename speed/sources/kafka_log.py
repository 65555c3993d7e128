"""Topics as a log: every partition of them, each from its own offset on, read by one consumer.

Nobody assigns partitions to us: a group would take them away and begin elsewhere, while our journal knows where each
one goes on. The group is only told how far we are, for tools that watch lag. Knows nothing of what messages hold.
All of it blocks and belongs to one thread, but for `durable`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from penstock.errors import SourceError
from penstock.speed.link import Link
from penstock.speed.sources.kafka_order import Order

log = logging.getLogger(__name__)

Part = tuple[str, int]
"""Topic and partition."""
POLL_S = 0.2
"""So long it waits for a first message."""
ROUND = 32
"""Messages taken at once after it."""
TAKEN, HELD = 4 << 20, 16 << 20
"""Bytes of messages: taken before they are handed on; waiting for older ones of other partitions."""
LOOK_S, AWAY_S = 5.0, 1.0
"""How often brokers are asked for partitions, and how long an answer may take: while the line is up, and while not."""
TELL_S = 1.0
"""How often the group is told."""
LEAVE_S = 1.0
"""How long it may take to tell it once more."""


class _Heard:
    """What librdkafka calls back with. Apart from `Log`, so that a consumer that is left is gone at once."""

    def __init__(self, link: Link) -> None:
        self.link, self.why, self.untold = link, "", 0

    def error(self, error: KafkaError) -> None:
        """One broker's trouble is remembered; all of them: the line is down."""
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self.link.went_down(self.why or error.str())
        else:
            self.why = error.str()

    def committed(self, error: KafkaError | None, parts: Sequence[TopicPartition]) -> None:
        """The group was told, or could not be."""
        self.untold -= 1
        error = error or next((part.error for part in parts if part.error is not None), None)
        if error is not None and self.link.up:
            self.link.trouble = f"the group cannot be told how far we are: {error.str()}"


class Log:
    """Read from `offsets` on, partition by partition; one that has none there from the oldest message on."""

    def __init__(
        self, settings: Mapping[str, str], topics: Sequence[str], offsets: Mapping[Part, int], link: Link,
        *, slice_ms: int, taken_bytes: int = TAKEN, held_bytes: int = HELD,
    ) -> None:  # fmt: skip
        """`slice_ms`: messages so close to each other may come in any order. Connects in the background."""
        self._heard = _Heard(link)
        calls = {"error_cb": self._heard.error, "on_commit": self._heard.committed}
        self._consumer: Consumer | None = Consumer({**settings, **calls}, logger=log)
        self._servers, self._topics, self._link = settings["bootstrap.servers"], topics, link
        self._patience_s = min(LOOK_S, int(settings["socket.timeout.ms"]) / 1000)
        self._offsets, self._taken_bytes = dict(offsets), taken_bytes
        self._order: Order[Part, Message] = Order(slice_ms, held_bytes)
        self._at: dict[Part, int] = {}
        self._ended: set[Part] = set()
        self._paused: set[Part] = set()
        self._durable: dict[Part, int] = {}
        self._told: dict[Part, int] = {}
        self._missing: str | None = None
        self._look_at = self._tell_at = 0.0
        self._polled_s = 0.0

    def durable(self, part: Part, offset: int) -> None:
        """A partition's messages below `offset` are on disk. From any thread."""
        self._durable[part] = offset

    def read(self) -> dict[Part, list[Message]]:
        """What may be handed on, oldest first over all calls; nothing after a while. Raises SourceError."""
        consumer, now = self._open(), time.monotonic()
        if now >= self._look_at:
            self._look(consumer)
        if now >= self._tell_at:
            self._tell_at = now + TELL_S
            self._tell(consumer)
        if not (found := self._order.take(self._polled_s)):
            self._hold_back(consumer)
            self._fill(consumer)
            found = self._order.take(self._polled_s)
        return found

    def leave(self) -> None:
        """Tell the group once more, where it listens, and go.

        Without `close`: after a commit that a hanging broker does not answer, that waits for ever. What is left then is
        a consumer that waits for that answer as it is forgotten: in a thread of its own, for which nobody waits.
        """
        left, self._consumer = [self._consumer], None
        if left[0] is not None and self._link.up:
            self._tell(left[0])
            until = time.monotonic() + LEAVE_S
            while self._heard.untold > 0 and time.monotonic() < until:
                left[0].poll(0.02)
        self._link.went_down("the stream has ended")
        threading.Thread(target=left.clear, name="kafka left", daemon=True).start()

    def _open(self) -> Consumer:
        if self._consumer is None:
            raise SourceError(f"{self._servers}: was left; read it anew")
        return self._consumer

    # Partitions, and whether the brokers answer

    def _look(self, consumer: Consumer) -> None:
        """New partitions; an answer says that the line is up, none that it is down."""
        try:
            found, missing = self._partitions(consumer)
        except KafkaException as error:
            self._link.went_down(f"{self._servers}: {self._heard.why or error.args[0].str()}")
            self._look_at = time.monotonic() + AWAY_S
            return
        self._look_at = time.monotonic() + self._patience_s
        self._came_up()
        self._heard.why = ""
        if missing != self._missing:
            self._missing = self._link.trouble = missing
        self._assign(consumer, [part for part in found if part not in self._at])

    def _partitions(self, consumer: Consumer) -> tuple[list[Part], str | None]:
        """(all that the topics have, what is wrong with some)."""
        found, missing = [], []
        for name in self._topics:
            told = consumer.list_topics(name, timeout=self._patience_s if self._link.up else AWAY_S).topics[name]
            found += [(name, partition) for partition in told.partitions]
            if told.error is not None:
                missing.append(f"topic {name}: {told.error.str()}")
        return found, "; ".join(missing) or None

    def _assign(self, consumer: Consumer, parts: Sequence[Part]) -> None:
        for part in parts:
            self._at[part] = self._offsets.get(part, OFFSET_BEGINNING)
            self._order.add(part, self._polled_s)
        if parts:
            consumer.incremental_assign([TopicPartition(*part, self._at[part]) for part in parts])

    def _came_up(self) -> None:
        if not self._link.up:
            self._link.came_up()
            self._missing = None

    # Messages

    def _fill(self, consumer: Consumer) -> None:
        """What waits at the client, up to a limit."""
        begun, size = time.monotonic(), 0
        first = consumer.poll(POLL_S)
        messages = [] if first is None else [first]
        while messages:
            size += sum(self._put(consumer, message) for message in messages)
            messages = consumer.consume(ROUND, 0) if size < self._taken_bytes else []
        for part in self._at:
            self._order.tell(part, more=self._has_more(consumer, part))
        if self._link.up:  # a broker that is away makes no partition a stalled one
            self._polled_s += time.monotonic() - begun

    def _put(self, consumer: Consumer, message: Message) -> int:
        """Its bytes. What is no message says something of its partition."""
        part = (str(message.topic()), int(message.partition() or 0))
        if (error := message.error()) is not None:
            self._erred(consumer, part, error)
            return 0
        self._came_up()
        self._link.heard()
        self._ended.discard(part)
        self._at[part] = int(message.offset() or 0) + 1
        size = len(message)
        self._order.put(part, message.timestamp()[1], size, message, self._polled_s)
        return size

    def _erred(self, consumer: Consumer, part: Part, error: KafkaError) -> None:
        if error.code() == KafkaError._PARTITION_EOF:
            self._ended.add(part)
        elif error.code() == KafkaError._AUTO_OFFSET_RESET:
            self._begin_again(consumer, part)
        elif part in self._at:
            self._link.trouble = f"{part[0]}/{part[1]}: {error.str()}"
            log.warning("%s", self._link.trouble)
        elif error.fatal():
            raise SourceError(f"{self._servers}: {error.str()}")

    def _begin_again(self, consumer: Consumer, part: Part) -> None:
        """Where the journal goes on, the broker has nothing: it was away for longer than messages are kept."""
        why = f"{part[0]}/{part[1]}: the broker no longer has offset {self._at[part]}: what lay between is lost"
        self._link.trouble = why
        log.warning("%s", why)
        self._at[part] = OFFSET_BEGINNING
        consumer.incremental_unassign([TopicPartition(*part)])
        consumer.incremental_assign([TopicPartition(*part, OFFSET_BEGINNING)])

    def _has_more(self, consumer: Consumer, part: Part) -> bool:
        """Whether the broker has more than came; until it has answered, it may."""
        if part in self._ended:
            return False
        _, high = consumer.get_watermark_offsets(TopicPartition(*part), cached=True)
        return bool(high < 0 or max(0, self._at[part]) < high)

    def _hold_back(self, consumer: Consumer) -> None:
        """Partitions that are far ahead of others bring no more until theirs is taken."""
        waiting = self._order.waiting()
        ahead = waiting - self._paused if self._order.full else set()
        again = self._paused - waiting
        if ahead:
            consumer.pause([TopicPartition(*part) for part in ahead])
        if again:
            consumer.resume([TopicPartition(*part) for part in again])
        self._paused = (self._paused | ahead) - again

    # The group

    def _tell(self, consumer: Consumer) -> None:
        """What has become durable since it was told last."""
        durable = dict(self._durable)
        news = [TopicPartition(*part, offset) for part, offset in durable.items() if self._told.get(part) != offset]
        if news and self._link.up:
            self._heard.untold += 1
            consumer.commit(offsets=news, asynchronous=True)
            self._told = durable
