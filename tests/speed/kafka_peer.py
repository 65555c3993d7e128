"""A Kafka broker that can be stopped and continued, and what sends to it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo

import numpy as np
import small_site as small
from confluent_kafka import Producer
from source_peers import DEADLINE_S, names_of

from penstock.data.frame import Dense
from penstock.data.plant import SourceSpec
from penstock.data.registry import Registry
from penstock.speed.formats.arrow import long_batch, payload
from penstock.speed.source import Access, Source
from penstock.speed.sources.kafka import Kafka

SECOND = 10**9
TOPIC = "plant.small"
QUICK = {"socket.timeout.ms": "1000", "api.version.request.timeout.ms": "1000", "reconnect.backoff.max.ms": "500"}
"""So that a broker that hangs is noticed within a second or two."""


class KafkaBroker:
    """librdkafka's mock cluster: four partitions a topic, made when something is sent to it."""

    def __init__(self) -> None:
        command = [sys.executable, str(Path(__file__).with_name("kafka_broker.py"))]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert select.select([self._process.stdout], [], [], DEADLINE_S)[0]
        self.address = self._process.stdout.readline().strip()
        assert self.address, "the mock cluster does not start"

    def halt(self) -> None:
        """From now on it answers nothing."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)

    def go_on(self) -> None:
        """It answers again, and knows all that it knew."""
        self._process.send_signal(signal.SIGCONT)

    def make(self, topic: str) -> None:
        """A topic without messages."""
        producer = Producer({"bootstrap.servers": self.address, "log_level": 0})
        until = time.monotonic() + DEADLINE_S
        while not producer.list_topics(topic, timeout=DEADLINE_S).topics[topic].partitions:
            assert time.monotonic() < until, f"{topic} is not made"
            time.sleep(0.02)

    def publish(self, messages: Iterable[Mapping[str, object]], topic: str = TOPIC) -> None:
        """Send messages (key, value, partition, timestamp); returns when the broker has acknowledged all of them."""
        producer = Producer({"bootstrap.servers": self.address, "linger.ms": 0, "log_level": 0})
        refused: list[object] = []
        for message in messages:
            producer.produce(topic, on_delivery=lambda error, _: error and refused.append(error), **message)
        assert producer.flush(DEADLINE_S) == 0
        assert not refused, refused

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def access(broker: KafkaBroker, options: Mapping[str, str] = QUICK) -> Access:
    return Access(url=f"kafka://{broker.address}", options=dict(options))


def spec(format: Literal["json", "arrow"] = "json", topics: tuple[str, ...] = (TOPIC,), tag: str = "") -> SourceSpec:
    return SourceSpec(
        name="plc", kind="kafka", lateness_ns=SECOND, idle_ns=60 * SECOND, skew_ns=60 * SECOND, topics=topics,
        format=format, tag=tag,
    )  # fmt: skip


def body(value: float, time_ns: int, quality: int = 0) -> bytes:
    return json.dumps({"value": value, "time": f"{np.datetime64(time_ns, 'ns')}Z", "quality": quality}).encode()


class KafkaPeer:
    """JSON messages of one reading each; the key is the tag."""

    keeps = True
    repeats = False
    format: Literal["json", "arrow"] = "json"

    def __init__(self, registry: Registry, folder: Path) -> None:
        self._registry, self.broker = registry, KafkaBroker()
        self.broker.make(TOPIC)
        self.broker.halt()

    def source(self) -> Source:
        return Kafka(spec(self.format), access(self.broker), names_of(self._registry), ZoneInfo("UTC"))

    def start(self) -> None:
        self.broker.go_on()

    def stop(self) -> None:
        """It cannot be killed, as it has no disk: it hangs."""
        self.broker.halt()

    def send(self, rows: Dense) -> None:
        frame = rows.long()
        tags, times = frame.tags.tolist(), frame.times.tolist()
        self.broker.publish(
            {"key": small.NAMES[tag], "value": body(value, time_ns, quality)}
            for tag, time_ns, value, quality in zip(
                tags, times, frame.values.tolist(), frame.quality.tolist(), strict=True
            )
        )

    def garbage(self) -> None:
        self.broker.publish([{"key": "A", "value": b"\xff not a number"}, {"key": "B", "value": b'{"value": "off"}'}])

    def close(self) -> None:
        self.broker.close()


class ArrowKafkaPeer(KafkaPeer):
    """Arrow messages of several readings."""

    format = "arrow"

    def send(self, rows: Dense) -> None:
        frame = rows.long()
        self.broker.publish(
            {"value": payload(long_batch(part.times, part.tags, small.NAMES, part.values, part.quality))}
            for begin in range(0, len(frame), 20)
            if len(part := frame.rows(slice(begin, begin + 20)))
        )
