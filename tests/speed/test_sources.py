"""The contract that every live source keeps, against real other sides that go away, repeat themselves, talk rubbish."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest
import small_site as small
from kafka_peer import ArrowKafkaPeer, KafkaPeer
from mqtt_peer import ArrowMqttPeer, MqttPeer
from opcua_peer import OpcUaPeer
from source_peers import DEADLINE_S, Peer, TcpPeer, assert_same, take

from penstock.data.frame import Dense
from penstock.data.registry import Registry
from penstock.speed.source import Delivery, Source

TICKS = 40
KINDS: dict[str, Callable[[Registry, Path], Peer]] = {
    "tcp": lambda registry, folder: TcpPeer(registry),
    "mqtt json": MqttPeer,
    "mqtt arrow": ArrowMqttPeer,
    "kafka json": KafkaPeer,
    "kafka arrow": ArrowKafkaPeer,
    "opcua": OpcUaPeer,
}


@pytest.fixture(params=KINDS)
def peer(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Peer]:
    registry = Registry.open(tmp_path / "tags.sqlite")
    registry.register(list(small.TAGS.values()))
    made = KINDS[request.param](registry, tmp_path / "peer")
    yield made
    made.close()


def part(first: int, last: int) -> Dense:
    """Times in whole microseconds: OPC UA's are no finer."""
    rows = small.rows(first, last, 3)
    return replace(rows, times=rows.times // 1000 * 1000)


def count(*sent: Dense) -> int:
    """Different readings."""
    frames = [rows.long() for rows in sent]
    return len({pair for f in frames for pair in zip(f.times.tolist(), f.tags.tolist(), strict=True)})


async def until(said: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not said():
            await asyncio.sleep(0.02)


async def met(peer: Peer, source: Source) -> None:
    """The peer comes up, and the source has found it."""
    link = source.link
    assert link is not None
    await asyncio.to_thread(peer.start)
    await until(lambda: link.up)


async def takes(
    source: Source, wanted: int, meanwhile: Callable[[], Awaitable[None]], begin: Sequence[Delivery] = (),
    *, ack: bool = True,
) -> list[Delivery]:  # fmt: skip
    """Deliveries from where those of `begin` end, while something happens on the other side."""
    taking = asyncio.create_task(take(source, wanted, begin, ack=ack))
    try:
        done, _ = await asyncio.wait(
            {taking, asyncio.ensure_future(meanwhile())}, return_when=asyncio.FIRST_EXCEPTION, timeout=2 * DEADLINE_S
        )
        for task in done:
            task.result()
        return await taking
    finally:
        taking.cancel()


async def sends(peer: Peer, *sent: Dense) -> None:
    for rows in sent:
        await asyncio.to_thread(peer.send, rows)


def first_contact(peer: Peer) -> list[Delivery]:
    """A first row, so that the other side knows us: from then on it keeps what we have not acknowledged."""
    source = peer.source()

    async def meanwhile() -> None:
        await met(peer, source)
        await sends(peer, part(0, 1))

    return asyncio.run(takes(source, count(part(0, 1)), meanwhile))


def test_it_brings_what_is_sent(peer: Peer) -> None:
    sent = [part(t, t + 4) for t in range(0, TICKS, 4)]
    source = peer.source()

    async def meanwhile() -> None:
        await met(peer, source)
        await sends(peer, *sent)

    found = asyncio.run(takes(source, count(*sent), meanwhile))
    assert_same(found, sent, TICKS)
    assert source.link is not None
    assert source.link.connects == 1
    assert source.link.heard_ns is not None


def test_who_comes_late_gets_what_was_sent_before(peer: Peer) -> None:
    found = first_contact(peer)
    peer.send(part(1, 20))
    found += asyncio.run(take(peer.source(), count(part(1, 20)), found))
    assert_same(found, [part(0, 20)], 20)


def test_it_waits_for_a_peer_that_is_not_there_yet(peer: Peer) -> None:
    found = first_contact(peer)
    peer.stop()
    source = peer.source()

    async def meanwhile() -> None:
        await asyncio.sleep(1.0)
        assert source.link is not None
        assert not source.link.up
        await met(peer, source)
        await sends(peer, part(1, 9))

    found += asyncio.run(takes(source, count(part(1, 9)), meanwhile, found))
    assert_same(found, [part(0, 9)], 9)
    assert source.link is not None
    assert source.link.connects == 1


def test_a_peer_that_goes_and_comes_back_costs_nothing(peer: Peer) -> None:
    source, sent = peer.source(), [part(0, 10), part(10, 20), part(20, 30)]

    async def meanwhile() -> None:
        link = source.link
        assert link is not None
        await met(peer, source)
        await sends(peer, sent[0])
        await until(lambda: link.heard_ns is not None)
        await asyncio.to_thread(peer.stop)
        await until(lambda: not link.up)
        assert link.trouble
        await asyncio.sleep(2.0)
        await met(peer, source)
        await sends(peer, *sent[1:])

    assert_same(asyncio.run(takes(source, count(*sent), meanwhile)), sent, 30)
    assert source.link is not None
    assert source.link.connects >= 2


def test_what_was_not_acknowledged_comes_again_and_what_was_does_not(peer: Peer) -> None:
    found = first_contact(peer)
    unheard = asyncio.run(takes(peer.source(), count(part(1, 5)), lambda: sends(peer, part(1, 5)), found, ack=False))
    assert_same([*found, *unheard], [part(0, 5)], 5)
    again = asyncio.run(takes(peer.source(), count(part(1, 5)), lambda: sends(peer), found))
    assert_same([*found, *again], [part(0, 5)], 5)
    found += again
    time.sleep(1.5)  # a broker may still be writing down what we acknowledged before we left
    more = asyncio.run(takes(peer.source(), count(part(5, 9)), lambda: sends(peer, part(5, 9)), found))
    assert_same([*found, *more] if peer.repeats else more, [part(0 if peer.repeats else 5, 9)], 9)


def test_what_comes_twice_changes_nothing(peer: Peer) -> None:
    source, sent = peer.source(), [part(0, 10), part(0, 10), part(5, 15)]

    async def meanwhile() -> None:
        await met(peer, source)
        await sends(peer, *sent)

    assert_same(asyncio.run(takes(source, count(*sent), meanwhile)), [part(0, 15)], 15)


def test_rubbish_is_counted_and_costs_nothing_else(peer: Peer) -> None:
    source, sent = peer.source(), [part(0, 10), part(10, 20)]

    async def meanwhile() -> None:
        link = source.link
        assert link is not None
        await met(peer, source)
        await sends(peer, sent[0])
        await until(lambda: link.heard_ns is not None)
        await asyncio.to_thread(peer.garbage)
        await until(lambda: link.garbage > 0)
        assert link.trouble
        await sends(peer, sent[1])

    assert_same(asyncio.run(takes(source, count(*sent), meanwhile)), sent, 20)


def test_a_quiet_plant_is_no_lost_link(peer: Peer) -> None:
    source = peer.source()

    async def main() -> None:
        async with aclosing(source.deliveries({})) as deliveries:  # type: ignore[type-var]
            link, waiting = source.link, asyncio.ensure_future(anext(deliveries))
            assert link is not None
            await met(peer, source)
            await sends(peer, part(0, 1))
            await (await waiting).ack()
            waiting = asyncio.ensure_future(anext(deliveries))
            await asyncio.sleep(1.5)
            assert link.up
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

    asyncio.run(main())
