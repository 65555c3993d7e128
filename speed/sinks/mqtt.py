"""MQTT: QoS 1, and nothing counts as sent before the broker has acknowledged it.

The session is clean: what a broker has not acknowledged is sent again by whoever asked, from the speed view, and
not by paho from memory. The client's name is always the same, so a broker that comes back to life hears the old
connection no more once the new one is there, and a topic's retained message never goes back in time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.reasoncodes import ReasonCode

from penstock.data.plant import SinkSpec
from penstock.errors import SinkError
from penstock.speed.broker import KEEPALIVE_S, address_of, context_of, encrypted
from penstock.speed.link import Link
from penstock.speed.sink import Message
from penstock.speed.source import Access

CONNECT_S = 5.0
ANSWER_S = 10.0
"""Within which a broker says something more: that we may come in, that it has a message."""
INFLIGHT = 1000


def make(spec: SinkSpec, access: Access, link: Link) -> Mqtt:
    """As plant.toml and site.toml say. Raises SinkError."""
    return Mqtt(spec, access, link)


class Mqtt:
    """One broker."""

    def __init__(self, spec: SinkSpec, access: Access, link: Link, *, answer_s: float = ANSWER_S) -> None:
        """Raises SinkError for an address or certificates that cannot be used."""
        address = address_of(access.url)
        if address is None:
            raise SinkError(f"sink {spec.name}: url is {access.url}; give mqtt://HOST:PORT or mqtts://HOST:PORT")
        self.name, self.link, self._address = spec.name, link, address
        self._access, self._retain, self._answer_s = access, spec.retain, answer_s
        self._tls = context_of(f"sink {spec.name}", access, SinkError) if encrypted(access.url) else None
        self._changed = threading.Condition()
        self._client: paho.Client | None = None
        self._up = False
        self._ended: str | None = None
        """Why the connection that was there is no more."""
        self._acknowledged: set[int] = set()

    def connect(self) -> None:
        """Wait for the broker's welcome. Raises SinkError."""
        if self._client is not None:
            return
        client = self._made()
        with self._changed:
            self._client, self._up, self._ended = client, False, None
        try:
            client.connect(*self._address, keepalive=KEEPALIVE_S)
        except (OSError, ValueError) as error:
            raise self._lost(f"{self._address[0]}:{self._address[1]} cannot be reached: {error}") from error
        client.loop_start()
        self._await(lambda: self._up, "let us in")

    def send(self, messages: Sequence[Message]) -> None:
        """See `Sink`."""
        client = self._client
        if client is None:
            raise SinkError(f"sink {self.name}: not connected")
        with self._changed:
            self._acknowledged.clear()
        wanted = set()
        for message in messages:
            told = client.publish(message.topic, message.payload, qos=1, retain=self._retain)
            if told.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
                raise self._lost(f"a message was not taken: {paho.error_string(told.rc)}")
            wanted.add(told.mid)
        self._await(lambda: wanted <= self._acknowledged, "acknowledged anything")
        self.link.heard()

    def close(self) -> None:
        """See `Sink`."""
        with self._changed:
            self._ended = self._ended or "the stream has ended"
            self._changed.notify_all()
        if self._client is not None:
            self._drop("the stream has ended")

    def _await(self, done: Callable[[], bool], what: str) -> None:
        """Until `done`, as long as there is progress. Raises SinkError."""
        seen = 0

        def moved() -> bool:
            return done() or self._ended is not None or len(self._acknowledged) > seen

        with self._changed:
            while not done() and self._ended is None:
                seen = len(self._acknowledged)
                if not self._changed.wait_for(moved, self._answer_s):
                    self._ended = f"the broker has not {what} for {self._answer_s:g} s"
            ended = None if done() else self._ended
        if ended is not None:
            raise self._lost(ended)

    def _lost(self, why: str) -> SinkError:
        """The connection is given up, and with it all that paho still holds."""
        self._drop(why)
        return SinkError(f"sink {self.name}: {self._access.url}: {why}")

    def _drop(self, why: str) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.on_disconnect = None
            client.disconnect()
            client.loop_stop()
        self.link.went_down(why)

    # In paho's thread

    def _made(self) -> paho.Client:
        access = self._access
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=access.options.get("client_id", f"{access.client}/{self.name}"),
            clean_session=True,
        )
        client.connect_timeout = CONNECT_S
        client.max_inflight_messages_set(INFLIGHT)
        client.reconnect_delay_set(1, 10)
        if access.user is not None:
            client.username_pw_set(access.user, access.password)
        if self._tls is not None:
            client.tls_set_context(self._tls)
        client.on_connect, client.on_disconnect, client.on_publish = self._connected, self._disconnected, self._heard
        return client

    def _connected(self, client: Any, data: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        with self._changed:
            if reason.is_failure:
                self._ended = f"the broker refuses: {reason}"
            else:
                self._up, self._ended = True, None
                self.link.came_up()
            self._changed.notify_all()

    def _disconnected(self, client: Any, data: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        with self._changed:
            self._up, self._ended = False, f"the connection ended: {reason}"
            self.link.went_down(self._ended)
            self._changed.notify_all()

    def _heard(self, client: Any, data: Any, mid: int, reason: ReasonCode, properties: Any) -> None:
        with self._changed:
            self._acknowledged.add(mid)
            self._changed.notify_all()
