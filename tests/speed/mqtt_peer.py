"""A real mosquitto with the settings that penstock ships, which can be killed and started again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo

import numpy as np
import paho.mqtt.client as paho
import pytest
import small_site as small
from paho.mqtt.enums import CallbackAPIVersion
from source_peers import DEADLINE_S, free_port, names_of

from penstock.data.frame import Dense
from penstock.data.plant import SourceSpec
from penstock.data.registry import Registry
from penstock.speed.formats.arrow import long_batch, payload
from penstock.speed.source import Access, Source
from penstock.speed.sources.mqtt import Mqtt

CONF = Path(__file__).parents[2] / "deploy" / "mosquitto.conf"
SECOND = 10**9


def needs_mosquitto() -> str:
    """The program; without it the test is skipped, in CI it fails."""
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        why = "mosquitto is not installed: apt-get install mosquitto"
        pytest.fail(why) if os.environ.get("CI") == "true" else pytest.skip(why)
    return found


class Broker:
    """mosquitto in a folder, on a port of its own."""

    def __init__(self, folder: Path, settings: str = "") -> None:
        self._program, self._folder = needs_mosquitto(), folder
        self.port = free_port()
        folder.mkdir(parents=True, exist_ok=True)
        conf = CONF.read_text().replace("listener 1883", f"listener {self.port}")
        conf = conf.replace("persistence_location ./", f"persistence_location {folder}/")
        (folder / "mosquitto.conf").write_text(f"user root\n{conf}\n{settings}\n")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Until it answers."""
        command = [self._program, "-c", str(self._folder / "mosquitto.conf")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        until = time.monotonic() + DEADLINE_S
        while time.monotonic() < until:
            try:
                self.publisher().disconnect()
                return
            except OSError:
                time.sleep(0.05)
        raise TimeoutError((self._folder / "log").read_text())

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(10)
            self._process = None

    def publisher(self) -> paho.Client:
        """A connected client that publishes."""
        client = paho.Client(CallbackAPIVersion.VERSION2)
        client.connect("127.0.0.1", self.port)
        client.loop_start()
        return client

    def publish(self, messages: list[tuple[str, bytes]]) -> None:
        """Send; returns when the broker has acknowledged all of them and has them on disk.

        It acknowledges a message when it has read it, and writes to disk each time before it reads on: what was
        acknowledged before another message was sent lies there when that other one is acknowledged.
        """
        client = self.publisher()
        try:
            for group in (messages, [("broker/written", b"")]):
                sent = [client.publish(topic, body, qos=1) for topic, body in group]
                for one in sent:
                    one.wait_for_publish(DEADLINE_S)
                    assert one.is_published()
        finally:
            client.disconnect()
            client.loop_stop()


class MqttPeer:
    """JSON messages of one reading each."""

    keeps = True
    repeats = False
    format: Literal["json", "arrow"] = "json"

    def __init__(self, registry: Registry, folder: Path) -> None:
        self._registry, self.broker = registry, Broker(folder)

    def source(self) -> Source:
        spec = SourceSpec(
            name="plc", kind="mqtt", lateness_ns=0, idle_ns=60 * SECOND, skew_ns=60 * SECOND, topics=("small/+/value",),
            tag="{2}", format=self.format,
        )  # fmt: skip
        access = Access(url=f"mqtt://127.0.0.1:{self.broker.port}")
        return Mqtt(spec, access, names_of(self._registry), ZoneInfo("UTC"))

    def start(self) -> None:
        self.broker.start()

    def stop(self) -> None:
        self.broker.kill()

    def send(self, rows: Dense) -> None:
        frame = rows.long()
        self.broker.publish(
            [
                (
                    f"small/{small.NAMES[frame.tags[i]]}/value",
                    json.dumps(
                        {
                            "value": float(frame.values[i]),
                            "time": f"{np.datetime64(int(frame.times[i]), 'ns')}Z",
                            "quality": int(frame.quality[i]),
                        }
                    ).encode(),
                )
                for i in range(len(frame))
            ]
        )

    def garbage(self) -> None:
        self.broker.publish([("small/A/value", b"\xff not a number"), ("small/A/value", b'{"value": "off"}')])

    def close(self) -> None:
        self.broker.kill()


class ArrowMqttPeer(MqttPeer):
    """Arrow messages of many readings."""

    format = "arrow"

    def send(self, rows: Dense) -> None:
        frame = rows.long()
        batch = long_batch(frame.times, frame.tags, small.NAMES, frame.values, frame.quality)
        self.broker.publish([("small/all/value", payload(batch))])
