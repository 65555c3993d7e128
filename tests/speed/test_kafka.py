"""What is Kafka's own beside the contract of all sources (`test_sources.py`), against librdkafka's mock cluster.

It has no disk: what a broker's death costs cannot be seen with it, nor log retention, TLS and passwords of a real one.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
import small_site as small
from confluent_kafka import Consumer, TopicPartition
from kafka_peer import QUICK, SECOND, TOPIC, KafkaBroker, access, spec
from source_peers import DEADLINE_S, names_of, take

from penstock.data.frame import Frame
from penstock.data.registry import Registry
from penstock.errors import PlantError, SourceError
from penstock.speed.formats.arrow import dense_batch, dense_schema
from penstock.speed.formats.names import Names
from penstock.speed.source import Access, Delivery
from penstock.speed.sources.kafka import Kafka
from penstock.speed.sources.kafka_log import Log
from penstock.speed.sources.kafka_settings import settings

UTC = ZoneInfo("UTC")
AT = 1_700_000_000


@pytest.fixture(scope="module")
def broker() -> Iterator[KafkaBroker]:
    made = KafkaBroker()
    yield made
    made.close()


@pytest.fixture
def names(tmp_path: Path) -> Names:
    registry = Registry.open(tmp_path / "tags.sqlite")
    registry.register(list(small.TAGS.values()))
    return names_of(registry)


def values(deliveries: list[Delivery]) -> dict[tuple[str, int], float]:
    """{(tag, time in s): value}"""
    found = {}
    for d in deliveries:
        assert isinstance(d.readings, Frame)
        for tag, at, value in zip(d.readings.tags, d.readings.times, d.readings.values, strict=True):
            found[small.NAMES[tag], int(at) // SECOND] = float(value)
    return found


def test_a_message_without_tag_and_time_is_of_its_key_and_its_own_time(broker: KafkaBroker, names: Names) -> None:
    """So that the same message read again is the same reading."""
    broker.publish([{"key": "A", "value": b"21.5", "timestamp": AT * 1000}], "own")
    source = Kafka(spec(topics=("own",)), access(broker), names, UTC)
    for _ in range(2):
        assert values(asyncio.run(take(source, 1))) == {("A", AT): 21.5}


@pytest.mark.parametrize(
    ("topic", "key", "template", "tag"),
    [
        ("site.A.value", None, "{2}", "A"),
        ("site.u1", "B", "{key}", "B"),
        ("C", None, "", "C"),
        ("D", "A", "{1}", "D"),
        ("one.two", "x", "{-1}/{key}", "two/x"),
    ],
)
def test_what_names_the_tag(
    broker: KafkaBroker, names: Names, topic: str, key: str | None, template: str, tag: str
) -> None:
    broker.publish([{"key": key, "value": b"1.5", "timestamp": AT * 1000}], topic)
    broker.publish([{"value": b'{"tag": "E", "value": 3}', "timestamp": AT * 1000}], topic)  # it names one itself
    source = Kafka(spec(topics=(topic,), tag=template), access(broker), names, UTC)
    found = values(asyncio.run(take(source, 1 + (tag in small.NAMES))))
    assert found == {("E", AT): 3.0} | ({(tag, AT): 1.5} if tag in small.NAMES else {})
    assert source.link is not None
    assert source.link.unmapped == ({} if tag in small.NAMES else {tag: 1})


def test_a_topic_that_is_made_later_is_found(broker: KafkaBroker, names: Names) -> None:
    source = Kafka(spec(topics=("early", "later")), access(broker), names, UTC)
    broker.publish([{"key": "A", "value": b"1", "timestamp": AT * 1000}], "early")

    async def main() -> None:
        link = source.link
        assert link is not None
        async with asyncio.timeout(DEADLINE_S), aclosing(source.deliveries({})) as deliveries:  # type: ignore[type-var]
            assert values([await anext(deliveries)]) == {("A", AT): 1.0}
            assert "topic later" in str(link.trouble)
            await asyncio.to_thread(broker.publish, [{"key": "B", "value": b"2", "timestamp": AT * 1000}], "later")
            assert values([await anext(deliveries)]) == {("B", AT): 2.0}
            assert link.trouble is None

    asyncio.run(main())


def test_what_the_broker_no_longer_has_is_told_and_the_rest_is_read(
    broker: KafkaBroker, names: Names, caplog: pytest.LogCaptureFixture
) -> None:
    """As after an absence that was longer than the topic's retention, or where the topic was made anew."""
    messages = [{"key": "A", "value": b"%d" % i, "timestamp": (AT + i) * 1000, "partition": 1} for i in range(5)]
    broker.publish(messages, "short")
    source = Kafka(spec(topics=("short",)), access(broker), names, UTC)
    nothing = Frame(
        times=np.empty(0, np.int64), tags=np.empty(0, np.int32), values=np.empty(0, np.float32),
        quality=np.empty(0, np.uint8),
    )  # fmt: skip
    found = asyncio.run(take(source, 5, [Delivery(part="short/1", offset=99, readings=nothing)]))
    assert values(found) == {("A", AT + i): float(i) for i in range(5)}
    assert "short/1: the broker no longer has offset 99" in caplog.text


def test_the_group_is_told_how_far_we_are_once_it_is_durable(broker: KafkaBroker, names: Names) -> None:
    broker.publish(
        [{"key": "A", "value": b"%d" % i, "timestamp": (AT + i) * 1000, "partition": 2} for i in range(7)], "told"
    )
    group = Consumer({"bootstrap.servers": broker.address, "group.id": "penstock-plc", "log_level": 0})

    def known() -> int:
        return int(group.committed([TopicPartition("told", 2)], timeout=10)[0].offset)

    source = Kafka(spec(topics=("told",)), access(broker), names, UTC)
    asyncio.run(take(source, 7, ack=False))
    assert known() < 0
    asyncio.run(take(source, 7))
    assert known() == 7
    group.close()


def test_a_broker_that_hangs_keeps_nobody_from_leaving(broker: KafkaBroker, names: Names) -> None:
    """Also where it owes the answer to a commit; the client library's own `close` would wait for ever."""
    broker.publish([{"key": "A", "value": b"1", "timestamp": AT * 1000}], "hang")
    source = Kafka(spec(topics=("hang",)), access(broker), names, UTC)

    async def main() -> None:
        async with asyncio.timeout(DEADLINE_S), aclosing(source.deliveries({})) as deliveries:  # type: ignore[type-var]
            delivery = await anext(deliveries)
            broker.halt()
            await delivery.ack()

    try:
        asyncio.run(main())
    finally:
        broker.go_on()


def test_after_an_absence_partitions_are_read_in_the_order_of_time(broker: KafkaBroker, names: Names) -> None:
    """Fetched in small portions, with little room to wait: one partition would else be far ahead of the other."""
    count, slice_ms = 1500, 500
    broker.publish(
        (
            {"key": "A", "value": b" " * 200, "timestamp": (AT + i) * 1000, "partition": i % 2}
            for i in [*range(0, count, 2), *range(1, count, 2)]
        ),
        "past",
    )
    small_portions = QUICK | {"fetch.message.max.bytes": "10000", "queued.max.messages.kbytes": "64"}
    config = settings("plc", access(broker, small_portions))
    log = Log(config, ("past",), {}, names.link, slice_ms=slice_ms, held_bytes=20_000)
    seen: dict[int, list[int]] = {0: [], 1: []}
    newest, until = 0, time.monotonic() + DEADLINE_S
    while sum(map(len, seen.values())) < count:
        assert time.monotonic() < until, {p: len(offsets) for p, offsets in seen.items()}
        for (_, partition), messages in log.read().items():
            for message in messages:
                at_ms = message.timestamp()[1]
                assert at_ms >= newest - 2 * slice_ms
                newest = max(newest, at_ms)
                seen[partition].append(int(message.offset() or 0))
    log.leave()
    assert seen == {0: list(range(count // 2)), 1: list(range(count // 2))}  # also those that were held back


def test_of_large_messages_none_is_left_out(broker: KafkaBroker, names: Names) -> None:
    """More than is taken at once, and more than may wait: what was fetched beyond comes with the next."""
    each, size = 22, 200_000  # the mock cluster keeps 5 MB of a partition
    messages = [{"value": bytes(size), "timestamp": (AT + i) * 1000, "partition": i % 4} for i in range(4 * each)]
    broker.publish(messages, "large")
    log = Log(settings("plc", access(broker)), ("large",), {}, names.link, slice_ms=500, taken_bytes=size)
    seen: dict[int, list[int]] = {partition: [] for partition in range(4)}
    until = time.monotonic() + DEADLINE_S
    while not all(offsets and offsets[-1] == each - 1 for offsets in seen.values()):
        assert time.monotonic() < until, seen
        for (_, partition), read in log.read().items():
            seen[partition] += [int(message.offset() or 0) for message in read]
    log.leave()
    assert seen == {partition: list(range(each)) for partition in range(4)}


def test_nobody_there(names: Names) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        source = Kafka(spec(), Access(url=f"kafka://127.0.0.1:{held.getsockname()[1]}"), names, UTC)

        async def main() -> str:
            async with asyncio.timeout(DEADLINE_S):
                waiting = asyncio.ensure_future(take(source, 1))
                while "refused" not in (said := str(names.link.trouble)):
                    await asyncio.sleep(0.02)
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)
                return said

        assert "Connect to" in asyncio.run(main())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"url": "kafka:///x"}, "give kafka://HOST:PORT"),
        ({"options": {"no.such": "1"}}, 'No such configuration property: "no.such"'),
        ({"options": {"enable.auto.commit": "true"}}, "enable.auto.commit is penstock's own"),
        ({"options": {"socket.timeout.ms": "soon"}}, "socket.timeout.ms"),
        ({"ca_file": Path("/none.pem")}, "its certificates cannot be read"),
        ({"user": "u", "password": "p", "options": {"sasl.mechanism": "TELEPATHY"}}, "TELEPATHY"),
    ],
)
def test_what_cannot_be_used_is_said_before_anything_runs(names: Names, words: dict[str, object], said: str) -> None:
    where = Access(**({"url": "kafka://127.0.0.1:1"} | words))  # type: ignore[arg-type]
    with pytest.raises(SourceError, match=said.replace("(", r"\(")):
        Kafka(spec(), where, names, UTC)
    with pytest.raises(PlantError, match=r"sources\.plc\.tag"):
        Kafka(spec(tag="{keys}"), Access(url="kafka://127.0.0.1:1"), names, UTC)


def test_addresses_users_and_certificates(tmp_path: Path) -> None:
    plain = settings("plc", Access(url="kafka://a:9093,b,c:1"))
    assert plain["bootstrap.servers"] == "a:9093,b:9092,c:1"
    assert (plain["security.protocol"], plain["group.id"]) == ("PLAINTEXT", "penstock-plc")
    known = settings(
        "plc", Access(url="kafka://a", user="u", password="p", options={"sasl.mechanism": "SCRAM-SHA-512"})
    )
    assert known["security.protocol"] == "SASL_PLAINTEXT"
    assert (known["sasl.username"], known["sasl.password"], known["sasl.mechanism"]) == ("u", "p", "SCRAM-SHA-512")
    files = certificates(tmp_path)
    assert settings("plc", Access(url="kafka://a", user="u", password="p", **files))["security.protocol"] == "SASL_SSL"


def test_tls_checks_the_broker_and_shows_our_certificate(names: Names, tmp_path: Path) -> None:
    """The handshake with a real TLS listener; what speaks Kafka behind it is not to be had here."""
    files = certificates(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(files["ca_file"]))
    context.load_cert_chain(files["cert_file"], files["key_file"])
    context.verify_mode = ssl.CERT_REQUIRED
    shown: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(DEADLINE_S)

        def listen() -> None:
            connection, _ = server.accept()
            with context.wrap_socket(connection, server_side=True) as tls:
                shown.append(tls.getpeercert())
                shown.append(tls.recv(4096))

        listening = threading.Thread(target=listen)
        listening.start()
        where = Access(url=f"kafka://127.0.0.1:{server.getsockname()[1]}", **files)
        log = Log(settings("plc", where), (TOPIC,), {}, names.link, slice_ms=10)
        log.read()
        listening.join(DEADLINE_S)
        log.leave()
    certificate, request = shown
    assert certificate["subject"] == ((("commonName", "127.0.0.1"),),)  # type: ignore[index]
    assert b"penstock-plc" in request  # type: ignore[operator]


def certificates(folder: Path) -> dict[str, Path]:
    """A certificate that is its own authority, for both sides."""
    program = shutil.which("openssl")
    if program is None:
        why = "openssl is not installed: apt-get install openssl"
        pytest.fail(why) if os.environ.get("CI") == "true" else pytest.skip(why)
    key, cert = folder / "key.pem", folder / "cert.pem"
    words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([program, *words.split(), "-keyout", key, "-out", cert], check=True, capture_output=True)
    return {"ca_file": cert, "cert_file": cert, "key_file": key}


def test_an_arrow_message_of_several_batches_comes_again_whole(broker: KafkaBroker, names: Names) -> None:
    """A kill between its batches: only the last one's offset is beyond the message."""
    schema, sink = dense_schema(["A"]), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        for i in range(3):
            at = np.array([(AT + i) * SECOND])
            writer.write_batch(dense_batch(schema, at, np.array([[float(i)]], np.float32)))
    garbage = {"value": b"rubbish", "partition": 0}
    broker.publish([garbage, {"value": bytes(sink.getvalue()), "partition": 0}, garbage], "batches")
    source = Kafka(spec("arrow", ("batches",)), access(broker), names, UTC)

    async def main() -> list[Delivery]:
        async with asyncio.timeout(DEADLINE_S), aclosing(source.deliveries({})) as deliveries:  # type: ignore[type-var]
            found = []
            async for delivery in deliveries:
                found.append(delivery)
                if delivery.offset == 3:
                    return found
        raise AssertionError

    found = asyncio.run(main())
    with_readings = [d for d in found if len(d.readings)]
    assert [d.offset for d in with_readings] == [1, 1, 2]
    assert names.link.garbage == 2
