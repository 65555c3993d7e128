"""Publishes the hydraulic rig's first seconds to a broker, as its gateway would: a message per reading, QoS 1.

    python rig_publisher.py PORT SECONDS RATE

Ends when the broker has acknowledged all of them, however often it went away meanwhile. mosquitto acknowledges a
message some moments before it lies on disk, so what it acknowledged last before a connection broke is sent once more: a
reading that comes twice costs nothing.
"""

from __future__ import annotations

import json
import sys
import time

import paho.mqtt.client as paho
import pyarrow as pa
from paho.mqtt.enums import CallbackAPIVersion

from penstock.data.plants.hydraulic_rig import SENSORS, START_NS, hydraulic_rig
from penstock.data.plants.spans import parse_span

AGAIN = 1000
"""Messages that are sent once more when the connection breaks: more than the broker acknowledges in a second."""


class Gateway:
    """A publisher that loses nothing when its broker dies."""

    def __init__(self, port: int) -> None:
        self._sent: dict[int, tuple[str, bytes]] = {}
        """By number; numbers repeat after 65,535: far more than are sent here."""
        self._acknowledged: list[int] = []
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id="rig-gateway", clean_session=False)
        self._client.max_queued_messages_set(0)
        self._client.reconnect_delay_set(1, 2)
        self._client.on_publish, self._client.on_disconnect = self._published, self._disconnected
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def send(self, topic: str, body: bytes) -> None:
        self._sent[self._client.publish(topic, body, qos=1).mid] = (topic, body)

    def waiting(self) -> int:
        """Messages without an acknowledgement."""
        return len(self._sent) - len(self._acknowledged)

    def close(self) -> None:
        self._client.on_disconnect = None
        self._client.disconnect()
        self._client.loop_stop()

    def _published(self, client: object, data: object, mid: int, reason: object, properties: object) -> None:
        self._acknowledged.append(mid)  # no lock here: paho holds its own, which `publish` wants

    def _disconnected(self, client: object, data: object, flags: object, reason: object, properties: object) -> None:
        for mid in self._acknowledged[-AGAIN:]:
            while mid not in self._sent:  # acknowledged before `publish` has returned
                time.sleep(0.001)
            self.send(*self._sent[mid])


def main(port: int, seconds: int, rate: float) -> None:
    table = hydraulic_rig(parse_span(f"0s..{seconds}s", "hydraulic-rig"))
    times = table["time"].cast(pa.int64()).to_pylist()
    columns = {name: table[name].to_pylist() for name in SENSORS}
    gateway = Gateway(port)
    begun = time.monotonic()
    for i, at in enumerate(times):
        while (left := begun + (at - START_NS) / 1e9 / rate - time.monotonic()) > 0:
            time.sleep(left)
        for name, values in columns.items():
            gateway.send(f"rig/{name}", json.dumps({"value": values[i], "time": at}).encode())
    until = time.monotonic() + 60
    while waiting := gateway.waiting():
        if time.monotonic() > until:
            sys.exit(f"the broker has not acknowledged {waiting} messages")
        time.sleep(0.05)
    gateway.close()
    print(len(times) * len(columns))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
