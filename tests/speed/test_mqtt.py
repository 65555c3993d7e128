"""What is MQTT's own about that source: TLS, much that waits, a broker that does not let us in."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import small_site as small
from certificates import Authority
from mqtt_peer import Broker
from source_peers import DEADLINE_S, free_port, names_of

from penstock.data.plant import SourceSpec
from penstock.data.registry import Registry
from penstock.speed.source import Access
from penstock.speed.sources.mqtt import Mqtt
from penstock.speed.sources.mqtt_session import WAITING

SECOND = 10**9
QUIET_NS = 300_000_000


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    made = Registry.open(tmp_path / "tags.sqlite")
    made.register(list(small.TAGS.values()))
    return made


def reads(registry: Registry, access: Access) -> Mqtt:
    spec = SourceSpec(
        name="plc", kind="mqtt", lateness_ns=0, idle_ns=SECOND, skew_ns=SECOND, topics=("small/+/value",), tag="{2}"
    )
    return Mqtt(spec, access, names_of(registry), ZoneInfo("UTC"))


@pytest.fixture
def secret(tmp_path: Path) -> Iterator[tuple[Broker, Access]]:
    """A broker that also listens for TLS, and the way there."""
    authority, port = Authority(tmp_path / "papers"), free_port()
    cert, key = authority.certificate("localhost")
    broker = Broker(tmp_path / "broker", f"listener {port} 127.0.0.1\ncertfile {cert}\nkeyfile {key}\n")
    broker.start()
    yield broker, Access(url=f"mqtts://localhost:{port}", ca_file=authority.ca)
    broker.kill()


def test_more_than_may_wait_comes_over_tls_in_order(registry: Registry, secret: tuple[Broker, Access]) -> None:
    broker, access = secret
    source, many = reads(registry, access), WAITING + 1000

    def publish() -> None:
        client = broker.publisher()
        for i in range(many):
            client.publish("small/A/value", f'{{"value": {i}, "time": {i + 1}}}')
        client.publish("small/A/value", "-1", qos=1).wait_for_publish(DEADLINE_S)
        client.disconnect()
        client.loop_stop()

    async def main() -> list[float]:
        found: list[float] = []
        async with asyncio.timeout(2 * DEADLINE_S), aclosing(source.deliveries({})) as deliveries:  # type: ignore[type-var]
            waiting = asyncio.ensure_future(anext(deliveries))
            while not source.link.up:
                await asyncio.sleep(0.02)
            await asyncio.to_thread(publish)
            while source.link.now() - (source.link.heard_ns or 0) < QUIET_NS:  # until it reads no more
                await asyncio.sleep(0.02)
            delivery = await waiting
            while True:
                found += delivery.readings.values.tolist()
                await delivery.ack()
                if found[-1] == -1:
                    return found
                delivery = await anext(deliveries)

    assert asyncio.run(main()) == [*range(many), -1]


def test_a_broker_that_does_not_let_us_in_is_what_the_link_says(registry: Registry, tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    passwords.write_text("")
    passwords.chmod(0o700)
    broker = Broker(tmp_path / "broker", f"password_file {passwords}")
    broker.start()
    source = reads(registry, Access(url=f"mqtt://127.0.0.1:{broker.port}", user="who", password="what"))

    async def main() -> None:
        async with asyncio.timeout(DEADLINE_S), aclosing(source.deliveries({})) as deliveries:  # type: ignore[type-var]
            waiting = asyncio.ensure_future(anext(deliveries))
            while not source.link.trouble:
                await asyncio.sleep(0.02)
            assert "the broker refuses" in source.link.trouble
            assert not source.link.up
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

    try:
        asyncio.run(main())
    finally:
        broker.kill()
