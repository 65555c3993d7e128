"""An MQTT subscriber that only counts, and ours that also makes every reading durable: the same broker, one run."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

from penstock.bench.broker import publisher
from penstock.bench.publisher import ROWS, TAGS, names
from penstock.data.grid import Grid
from penstock.data.importing.source_tags import SourceTags
from penstock.data.journal import Journal
from penstock.data.layout import Layout
from penstock.data.plant import Plant, SourceSpec, Tag
from penstock.data.registry import Registry
from penstock.errors import Unavailable
from penstock.speed.clock import SourceClock
from penstock.speed.formats.names import Names
from penstock.speed.intake import Intake
from penstock.speed.link import Link
from penstock.speed.source import Access
from penstock.speed.sources.mqtt import Mqtt

Kind = Literal["json", "arrow"]
SECOND = 10**9
FILTER = "bench/+/value"
FIRST_S = 30.0
"""Longest wait for the first message."""


def counted(port: int, kind: Kind, seconds: float) -> float:
    """Messages a second of a client that counts and acknowledges, one by one, by hand."""
    import paho.mqtt.client as paho
    from paho.mqtt.enums import CallbackAPIVersion

    count = 0

    def heard(client: paho.Client, data: Any, message: paho.MQTTMessage) -> None:
        nonlocal count
        count += 1
        client.ack(message.mid, message.qos)

    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="bench-counts", manual_ack=True)
    client.on_message = heard
    client.on_connect = lambda client, *_: client.subscribe(FILTER, 1)
    client.connect("127.0.0.1", port)
    client.loop_start()
    try:
        with publisher(port, kind):
            _await(lambda: count > 0)
            begun, before = time.monotonic(), count
            time.sleep(seconds)
            return (count - before) / (time.monotonic() - begun)
    finally:
        client.disconnect()
        client.loop_stop()


def ours(folder: Path, port: int, kind: Kind, seconds: float) -> float:
    """Readings a second that are in the journal, durable, and then acknowledged."""
    return asyncio.run(_ours(folder, port, kind, seconds))


async def _ours(folder: Path, port: int, kind: Kind, seconds: float) -> float:
    registry = Registry.open(folder / "tags.sqlite")
    tags = {name: Tag(name=name) for name in names()}
    registry.register(list(tags.values()))
    plant = Plant(name="bench", period_ns=SECOND, tags=tags, models={})
    spec = SourceSpec(
        name="broker", kind="mqtt", lateness_ns=SECOND, idle_ns=60 * SECOND, skew_ns=60 * SECOND, topics=(FILTER,),
        tag="{2}", format=kind,
    )  # fmt: skip
    names_ = Names(SourceTags(plant, registry, {}), Link())
    source = Mqtt(spec, Access(url=f"mqtt://127.0.0.1:{port}", client=f"bench-{kind}"), names_, ZoneInfo("UTC"))
    journal, layout = Journal.open(folder / "journal"), Layout(registry.dtypes(), 2)

    def trim() -> None:
        journal.trim(journal.tail - 64)  # the disk is not what is measured

    intake = Intake(
        journal, Grid(period_ns=SECOND), lambda: layout, [(source, SourceClock(lateness_ns=SECOND))], now=time.time_ns,
        appended=trim,
    )  # fmt: skip
    stop = asyncio.Event()
    running = asyncio.create_task(intake.run(stop))
    try:
        with publisher(port, kind):
            until = time.monotonic() + FIRST_S
            while not intake.counts.accepted:
                if running.done() or time.monotonic() > until:
                    raise Unavailable(f"no MQTT message became durable: {source.link.trouble}")
                await asyncio.sleep(0.02)
            begun, before = time.monotonic(), intake.counts.accepted
            await asyncio.sleep(seconds)
            return (intake.counts.accepted - before) / (time.monotonic() - begun)
    finally:
        stop.set()
        await running
        journal.close()


def _await(there: Any) -> None:
    until = time.monotonic() + FIRST_S
    while not there():
        if time.monotonic() > until:
            raise Unavailable("no MQTT message came")
        time.sleep(0.01)


READINGS = {"json": 1, "arrow": TAGS * ROWS}
"""Of a message."""
