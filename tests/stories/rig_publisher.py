"""Publishes the hydraulic rig's first seconds to a broker, as its gateway would: a message per reading, QoS 1.

    python rig_publisher.py PORT SECONDS RATE

Ends when the broker has acknowledged all of them, however often it went away meanwhile.
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


def main(port: int, seconds: int, rate: float) -> None:
    table = hydraulic_rig(parse_span(f"0s..{seconds}s", "hydraulic-rig"))
    times = table["time"].cast(pa.int64()).to_pylist()
    columns = {name: table[name].to_pylist() for name in SENSORS}
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="rig-gateway", clean_session=False)
    client.max_queued_messages_set(0)
    client.reconnect_delay_set(1, 2)
    client.connect("127.0.0.1", port)
    client.loop_start()
    acknowledged: set[int] = set()
    client.on_publish = lambda client, data, mid, reason, properties: acknowledged.add(mid)
    begun, sent = time.monotonic(), 0
    for i, at in enumerate(times):
        while (left := begun + (at - START_NS) / 1e9 / rate - time.monotonic()) > 0:
            time.sleep(left)
        for name, values in columns.items():
            body = json.dumps({"value": values[i], "time": at}).encode()
            client.publish(f"rig/{name}", body, qos=1)
            sent += 1
    until = time.monotonic() + 60
    while len(acknowledged) < sent:  # message numbers repeat after 65,535: far more than are sent here
        if time.monotonic() > until:
            sys.exit(f"the broker has acknowledged {len(acknowledged)} of {sent}")
        time.sleep(0.05)
    client.disconnect()
    client.loop_stop()
    print(sent)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
