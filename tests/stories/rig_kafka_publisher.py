"""Publishes the hydraulic rig's first seconds to a Kafka broker: a message per reading, its key the sensor.

    python rig_kafka_publisher.py HOST:PORT SECONDS RATE

Ends when the broker has acknowledged all of them, however long it was silent meanwhile.
"""

from __future__ import annotations

import json
import sys
import time

import pyarrow as pa
from confluent_kafka import KafkaError, Message, Producer

from penstock.data.plants.hydraulic_rig import SENSORS, START_NS, hydraulic_rig
from penstock.data.plants.spans import parse_span


def main(address: str, seconds: int, rate: float) -> None:
    table = hydraulic_rig(parse_span(f"0s..{seconds}s", "hydraulic-rig"))
    times = table["time"].cast(pa.int64()).to_pylist()
    columns = {name: table[name].to_pylist() for name in SENSORS}
    refused: list[str] = []

    def told(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            refused.append(error.str())

    producer = Producer({"bootstrap.servers": address, "enable.idempotence": True, "linger.ms": 20})
    begun, sent = time.monotonic(), 0
    for i, at in enumerate(times):
        while (left := begun + (at - START_NS) / 1e9 / rate - time.monotonic()) > 0:
            producer.poll(left)
        for name, values in columns.items():
            body = json.dumps({"value": values[i], "time": at}).encode()
            producer.produce("rig", key=name, value=body, on_delivery=told)
            sent += 1
    waiting = producer.flush(60)
    if waiting or refused:
        sys.exit(f"the broker has not acknowledged {waiting} of {sent}, and refused {refused[:3]}")
    print(sent)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
