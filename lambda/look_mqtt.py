"""What can be heard at an MQTT broker: it is listened to for a while, and what carries numbers becomes tags.

The broker keeps nothing of it: the session is a clean one.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from penstock.data.durations import duration_text
from penstock.errors import SourceError
from penstock.guess_text import quoted
from penstock.listening import Address, Found, settings_of
from penstock.overheard import Message, overheard
from penstock.sources import access
from penstock.speed.broker import address_of, context_of, encrypted
from penstock.speed.source import Access
from penstock.speed.sources.mqtt_session import REFUSED

NAME = "mqtt"
ALL = "#"
CONNECT_S = 10.0
MOST = 200_000
"""Messages; more are not waited for."""


def look(address: Address) -> Found:
    """Raises SourceError where the broker cannot be reached or does not let us in, or nothing is heard."""
    topics = address.topics or (ALL,)
    where = access(NAME, settings_of(address), Path(), "init")
    messages = _heard(where, topics, address.listen_ns / 1e9)
    whiles = duration_text(address.listen_ns)
    if not messages:
        listed = ", ".join(topics)
        raise SourceError(
            f"{address.url}: nothing came on {listed} within {whiles}; give other --topics, or --listen longer"
        )
    found = overheard(messages)
    keys = {"topics": f"[{', '.join(quoted(topic) for topic in topics)}]"}
    keys |= {"format": quoted(found.format)} if found.format != "json" else {}
    keys |= {"tag": f"{quoted(found.template)} # levels of the topic"} if found.template else {}
    said = f"{len(messages):,} messages were heard within {whiles}; what is sent more rarely is missing"
    return Found(kind=NAME, keys=keys, tags=found.tags, period_ns=found.period_ns, notes=(said, *found.notes))


def _heard(where: Access, topics: tuple[str, ...], listen_s: float) -> list[Message]:
    """What comes until the time is over."""
    messages: Queue[Message] = Queue(MOST)
    with _connected(where, topics, messages):
        until = time.monotonic() + listen_s
        found: list[Message] = []
        while (left := until - time.monotonic()) > 0 and len(found) < MOST:
            try:
                found.append(messages.get(timeout=left))
            except Empty:
                break
    return found


@contextmanager
def _connected(where: Access, topics: tuple[str, ...], messages: Queue[Message]) -> Iterator[None]:
    """Subscribed, from a thread that puts what comes into `messages`."""
    address, answers = address_of(where.url), Queue[str]()
    if address is None:
        raise SourceError(f"{where.url}: give mqtt://HOST:PORT or mqtts://HOST:PORT")
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=f"{where.client}-{uuid.uuid4().hex[:8]}")
    if where.user is not None:
        client.username_pw_set(where.user, where.password)
    if encrypted(where.url):
        client.tls_set_context(context_of(where.url, where, SourceError))

    def connected(client: paho.Client, data: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        if reason.is_failure:
            answers.put(f"refuses: {reason}")
        else:
            client.subscribe([(topic, 0) for topic in topics])

    def subscribed(client: Any, data: Any, mid: int, reasons: list[ReasonCode], properties: Any) -> None:
        refused = [t for t, reason in zip(topics, reasons, strict=False) if reason.value >= REFUSED]
        answers.put(f"refuses a subscription to {', '.join(refused)}" if refused else "")

    def came(client: Any, data: Any, message: paho.MQTTMessage) -> None:
        if not messages.full():
            messages.put(Message(topic=message.topic, body=bytes(message.payload), arrival_ns=time.time_ns()))

    client.on_connect, client.on_subscribe, client.on_message = connected, subscribed, came
    try:
        client.connect(*address)
    except (OSError, ValueError) as error:
        raise SourceError(f"{where.url}: cannot be reached ({error})") from error
    client.loop_start()
    try:
        if trouble := answers.get(timeout=CONNECT_S):
            raise SourceError(f"{where.url}: the broker {trouble}")
        yield
    except Empty:
        raise SourceError(f"{where.url}: the broker does not answer within {CONNECT_S:.0f} s") from None
    finally:
        client.disconnect()
        client.loop_stop()
