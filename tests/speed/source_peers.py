"""The other sides of live sources, for the contract that all sources keep: real ones, that go away and come back."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from contextlib import aclosing
from typing import Protocol

import numpy as np
import pyarrow as pa
import small_site as small

from penstock.data.frame import Dense, Readings
from penstock.data.grid import Cells
from penstock.data.importing.source_tags import SourceTags
from penstock.data.registry import Registry
from penstock.speed.formats.arrow import dense_batch, dense_schema
from penstock.speed.formats.names import Names
from penstock.speed.gateway import Gateway
from penstock.speed.link import Link
from penstock.speed.source import Access, Delivery, Source
from penstock.speed.sources.tcp import Tcp

DEADLINE_S = 30.0


def names_of(registry: Registry) -> Names:
    """The small plant's tags under their own names."""
    return Names(SourceTags(small.PLANT, registry, {}), Link())


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
        return port


class Peer(Protocol):
    """The other side of one kind of source. Its methods block; none is called from an event loop's thread."""

    keeps: bool
    """Whether what is sent while the source is away still comes."""
    repeats: bool
    """Whether what was acknowledged may come again: the other side keeps no account of it."""

    def source(self) -> Source:
        """A new source that connects to this peer, as after a restart of the stream."""

    def start(self) -> None:
        """Be there."""

    def stop(self) -> None:
        """Go away, as a server that dies; what it has promised to keep stays."""

    def send(self, rows: Dense) -> None:
        """Send readings; returns when they are the peer's business."""

    def garbage(self) -> None:
        """Send something that cannot be read."""

    def close(self) -> None:
        """End everything."""


async def take(
    source: Source, wanted: int, begin: Sequence[Delivery] = (), *, ack: bool = True, deadline_s: float = DEADLINE_S
) -> list[Delivery]:
    """Deliveries from where those of `begin` end, acknowledged or not; then the source is closed.

    Until they hold `wanted` different readings that `begin` does not have.
    """
    found: list[Delivery] = []
    known = {pair for delivery in begin for pair in pairs(delivery)}
    seen: set[tuple[int, int]] = set()
    offsets = {delivery.part: delivery.offset for delivery in begin}
    async with asyncio.timeout(deadline_s), aclosing(source.deliveries(offsets)) as deliveries:  # type: ignore[type-var]
        async for delivery in deliveries:
            found.append(delivery)
            if ack:
                await delivery.ack()
            seen.update(pair for pair in pairs(delivery) if pair not in known)
            if len(seen) >= wanted:
                break
    return found


def pairs(delivery: Delivery) -> set[tuple[int, int]]:
    """(time, tag) of its readings."""
    frame = delivery.readings.long() if isinstance(delivery.readings, Dense) else delivery.readings
    return set(zip(frame.times.tolist(), frame.tags.tolist(), strict=True))


def cells_of(readings: list[Readings], ticks: int) -> Cells:
    """What an archive would hold of them."""
    cells = Cells.empty(0, ticks, len(small.NAMES))
    for part in readings:
        cells.put(part, small.GRID, np.arange(len(small.NAMES), dtype=np.int32), None)
    return cells


def assert_same(found: list[Delivery], sent: list[Dense], ticks: int) -> None:
    """Cell by cell, bit by bit."""
    got, wanted = cells_of([d.readings for d in found], ticks), cells_of(list(sent), ticks)
    assert got.values.tobytes() == wanted.values.tobytes()
    assert got.quality.tobytes() == wanted.quality.tobytes()
    assert got.offset.tobytes() == wanted.offset.tobytes()


class TcpPeer:
    """A gateway. It keeps what is not durable yet, so going away loses nothing that it was given."""

    keeps = True
    repeats = False

    def __init__(self, registry: Registry) -> None:
        self._registry, self._port = registry, free_port()
        self._gateway: Gateway | None = None
        self._waiting: list[Dense] = []
        self._spool: list[pa.RecordBatch] = []

    def source(self) -> Source:
        return Tcp("plc", Access(url=f"tcp://127.0.0.1:{self._port}"), names_of(self._registry))

    def start(self) -> None:
        self._gateway = Gateway(("127.0.0.1", self._port), "line", dense_schema(small.NAMES, quality=True))
        for batch in self._spool:
            self._gateway.send(batch, DEADLINE_S)
        waiting, self._waiting, self._spool = self._waiting, [], []
        for rows in waiting:
            self.send(rows)

    def stop(self) -> None:
        if self._gateway is not None:
            self._gateway.close()
            self._spool, self._gateway = self._gateway.unsaid(), None

    def send(self, rows: Dense) -> None:
        if self._gateway is None:
            self._waiting.append(rows)
            return
        self._gateway.send(dense_batch(self._gateway.schema, rows.times, rows.values, rows.quality), DEADLINE_S)

    def garbage(self) -> None:
        with socket.create_connection(("127.0.0.1", self._port), 5) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: plant\r\n\r\n" + bytes(64))
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(10)
            while connection.recv(4096):
                pass

    def close(self) -> None:
        if self._gateway is not None:
            self._gateway.close()
