"""Gateways that are connected and say nothing keep nobody waiting: neither each other nor the process' threads."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack, aclosing
from pathlib import Path

import small_site as small
from source_peers import TcpPeer

from penstock.data.registry import Registry
from penstock.speed.sources.tcp import Tcp

IDLE = 40
"""More than a process has threads for blocking work."""


def test_silent_gateways_hold_up_nobody(tmp_path: Path) -> None:
    registry = Registry.open(tmp_path / "tags.sqlite")
    registry.register(list(small.TAGS.values()))
    peer = TcpPeer(registry)

    async def main() -> None:
        source = peer.source()
        assert isinstance(source, Tcp)
        with ExitStack() as held:
            async with aclosing(source.deliveries({})) as deliveries, asyncio.timeout(60):  # type: ignore[type-var]
                first = asyncio.ensure_future(anext(deliveries))  # type: ignore[arg-type]
                await asyncio.sleep(0)
                for _ in range(IDLE):
                    held.enter_context(await connected(source.address))
                await asyncio.wait_for(asyncio.to_thread(sum, [1, 2]), 20)  # the journal works in such a thread
                peer.start()
                peer.send(small.rows(0, 3, 1))
                assert len((await first).readings.times) == 3

    try:
        asyncio.run(main())
    finally:
        peer.close()


async def connected(address: tuple[str, int]) -> socket.socket:
    """A connection as soon as somebody listens."""
    while True:
        try:
            return socket.create_connection(address, 5)
        except ConnectionRefusedError:
            await asyncio.sleep(0.02)
