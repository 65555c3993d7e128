"""Publishes to an MQTT broker as fast as it takes, in as few instructions as can be: a process of a benchmark.

    python -m penstock.bench.publisher PORT json|arrow

Plain MQTT 3.1.1 over a socket, QoS 1, up to WINDOW messages not yet acknowledged: a client library would need more of
the processor than the subscribers that are measured. Runs until it is killed.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Callable

import numpy as np

from penstock.speed.formats.arrow import dense_batch, dense_schema, payload

WINDOW = 2000
TAGS = 1000
ROWS = 10
"""Of an Arrow frame: with TAGS values each, 10,000 readings."""
MADE = 64
"""Different messages; they go round, each time with other times."""
TOPIC = "bench/{}/value"
ACK = 4
"""Bytes of an acknowledgement."""
START_NS = 1_750_000_000_000_000_000


def names() -> list[str]:
    """The tags that are published."""
    return [f"T{i:04d}" for i in range(TAGS)]


def json_message(number: int) -> tuple[str, bytes]:
    """(topic, payload): one reading."""
    tag = names_[number % TAGS]
    time_ms = START_NS // 10**6 + number // TAGS * 1000
    return TOPIC.format(tag), json.dumps({"value": 20 + number % 977 / 8, "time": time_ms}).encode()


def arrow_message(number: int) -> tuple[str, bytes]:
    """(topic, payload): ROWS rows of TAGS readings."""
    times = START_NS + (number * ROWS + np.arange(ROWS, dtype=np.int64)) * 10**8
    values = (np.arange(TAGS, dtype=np.float32)[None] + np.float32(number % 31)).repeat(ROWS, 0)
    return TOPIC.format("all"), payload(dense_batch(schema, times, values))


def packet(topic: str, body: bytes, number: int) -> bytes:
    """A PUBLISH of QoS 1."""
    rest = len(topic).to_bytes(2, "big") + topic.encode() + number.to_bytes(2, "big") + body
    length, left = b"", len(rest)
    while True:
        left, low = divmod(left, 128)
        length += bytes([low | 0x80 if left else low])
        if not left:
            return b"\x32" + length + rest


def connect(port: int) -> socket.socket:
    """A connection that the broker has accepted."""
    held = socket.create_connection(("127.0.0.1", port))
    held.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    name = b"bench-publisher"
    body = b"\x00\x04MQTT\x04\x02\x00\x00" + len(name).to_bytes(2, "big") + name
    held.sendall(b"\x10" + bytes([len(body)]) + body)
    assert len(held.recv(4)) == 4
    return held


def publish(port: int, made: Callable[[int], tuple[str, bytes]], at_once: int) -> None:
    """For ever."""
    held, acknowledged = connect(port), 0

    def listen() -> None:
        nonlocal acknowledged
        size = 0
        while got := held.recv(1 << 16):
            size += len(got)
            acknowledged = size // ACK

    threading.Thread(target=listen, daemon=True).start()
    number = 0
    while True:
        while number - acknowledged > WINDOW:
            time.sleep(0.0005)
        parts = [packet(*made(i), i % 65535 + 1) for i in range(number, number + at_once)]
        held.sendall(b"".join(parts))
        number += at_once


names_ = names()
schema = dense_schema(names_)

if __name__ == "__main__":
    if sys.argv[2] == "json":
        publish(int(sys.argv[1]), json_message, 50)
    else:
        publish(int(sys.argv[1]), arrow_message, 2)
