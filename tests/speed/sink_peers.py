"""A speed view to send from, and who listens at the other end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import paho.mqtt.client as paho
import small_site as small
from mqtt_peer import Broker
from paho.mqtt.enums import CallbackAPIVersion

from penstock.data.plant import SinkSpec
from penstock.data.views.speed_view import SpeedView, Spoken
from penstock.data.window_spec import WindowSpec
from penstock.data.windows import Reason
from penstock.speed.feed_said import SaidFeed
from penstock.speed.formats.predictions import Predictions
from penstock.speed.link import Link
from penstock.speed.outlet import Outlet
from penstock.speed.sink import Message, Sink
from penstock.speed.sinks.mqtt import Mqtt
from penstock.speed.source import Access

DEADLINE_S = 60.0
TOPIC = "out/{plant}/{model}/{target}"


def spec_of(name: str, version: int) -> WindowSpec | None:
    return next((m.spec for m in small.MEMBERS if m.name == name), None)


def spoken(tick: int) -> Spoken:
    """Of two models; the second one answers at even ticks, and now and then one is withheld."""
    members = (("near", 1), ("far", 1))[: 2 - tick % 2]
    rng = np.random.default_rng(tick)
    reasons = np.where(rng.random(len(members)) < 0.2, Reason.BAD_INPUT, Reason.OK).astype(np.uint8)
    values = np.where(reasons == Reason.OK, rng.normal(0, 1e3, len(members)), np.nan).astype(np.float32)
    return Spoken(
        tick=tick, members=members, values=values, versions=np.array([3, 4], np.int32)[: len(members)], reasons=reasons,
        filled=rng.random(len(members)) < 0.3, hashes=np.zeros(len(members), np.uint64), position=tick,
    )  # fmt: skip


def say(site: Path, first: int, last: int) -> None:
    """Ticks first..last-1, durably, as a scorer does."""
    view = SpeedView.open(site / "views" / "speed.sqlite")
    view.write([spoken(tick) for tick in range(first, last)])
    view.close()


def sink_spec(name: str = "out", **more: Any) -> SinkSpec:
    return SinkSpec(name=name, kind="mqtt", **{"topic": TOPIC, **more})


def predictions(spec: SinkSpec) -> Predictions:
    return Predictions(spec, "small", small.GRID, spec_of, lambda why: None)


def said(site: Path, spec: SinkSpec) -> list[Message]:
    """All messages that a sink must send, from the view."""
    view = SpeedView.open(site / "views" / "speed.sqlite")
    rows = view.after(-(2**63), 10**6)
    view.close()
    return [m for row in rows for m in predictions(spec).messages(row)]


def mqtt(broker: Broker, spec: SinkSpec, answer_s: float = 10.0) -> Mqtt:
    return Mqtt(spec, Access(url=f"mqtt://127.0.0.1:{broker.port}"), Link(), answer_s=answer_s)


def outlet(sink: Sink, site: Path, spec: SinkSpec, catch_up: Literal["all", "newest"] = "all") -> Outlet:
    return Outlet(sink, SaidFeed(site, sink.name, predictions(spec).messages, catch_up), pause_s=(0.05, 0.5))


class Reader:
    """Subscribes with a session that the broker keeps, so that it hears what comes while it is cut off."""

    def __init__(self, broker: Broker, topic: str = "out/#", client: str = "reader") -> None:
        self._topic = topic
        self._changed = threading.Condition()
        self._subscribed = False
        self.heard: list[Message] = []
        self.retained: list[Message] = []
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id=client, clean_session=False)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda c, *_: c.subscribe(self._topic, 1)
        self._client.on_subscribe, self._client.on_message = self._came, self._message
        self._client.connect("127.0.0.1", broker.port)
        self._client.loop_start()
        self._until(lambda: self._subscribed)

    def until(self, wanted: Sequence[Message]) -> None:
        """All of these have come."""
        self._until(lambda: set(wanted) <= set(self.heard))

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _until(self, done: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(done, DEADLINE_S)

    def _came(self, *_: Any) -> None:
        with self._changed:
            self._subscribed = True
            self._changed.notify_all()

    def _message(self, client: Any, data: Any, message: paho.MQTTMessage) -> None:
        with self._changed:
            kept = self.retained if message.retain else self.heard
            kept.append(Message(message.topic, bytes(message.payload)))
            self._changed.notify_all()


@contextmanager
def running(*outlets: Outlet, last_s: float = 10.0) -> Iterator[None]:
    """Started, and ended with time for the last."""
    for each in outlets:
        each.start()
    try:
        yield
    finally:
        for each in outlets:
            each.last()
            each.end(last_s)


def wait(done: Callable[[], bool]) -> None:
    until = time.monotonic() + DEADLINE_S
    while not done():
        assert time.monotonic() < until
        time.sleep(0.02)
