"""OPC UA: what a server says of its variables, and after an outage what its history says of the time between.

OPC UA has no acknowledgement: a server does not wait until we have written its readings down. So the journal keeps how
far all variables were delivered, and after any break that part of the server's history is read. What the server keeps
no history of is lost for the time in which we are away. Nothing is ever written to the server, and no method called.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from zoneinfo import ZoneInfo

import numpy as np
from asyncua import Client, ua
from asyncua.client.ua_session import UaSession
from numpy.typing import NDArray

from penstock.data.plant import SourceSpec
from penstock.errors import Mistake, PlantError, SourceError
from penstock.speed.formats.names import Names
from penstock.speed.opcua.history import History
from penstock.speed.opcua.marks import UNKNOWN, Marks
from penstock.speed.opcua.matching import matched
from penstock.speed.opcua.nodes import keep_history, node_id, variables
from penstock.speed.opcua.session import door, entered
from penstock.speed.opcua.subscription import Subscription
from penstock.speed.opcua.values import Columns
from penstock.speed.source import Access, Delivery

PAUSE_S = (0.5, 10.0)
"""Between two tries to connect: first and longest."""
LEAST_NS = 1_000_000
"""Shortest interval."""
SHOWN = 3
"""Nodes that a message names."""


def make(spec: SourceSpec, access: Access, names: Names, zone: ZoneInfo) -> OpcUa:
    """As plant.toml and site.toml say. Raises SourceError, PlantError."""
    return OpcUa(spec, access, names)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """The variables of one connection that are tags, by number."""

    nodes: Sequence[ua.NodeId]
    names: Sequence[str]
    """What each is called, where its tag is looked for."""
    rows: NDArray[np.intp]
    """Of the marks."""
    history: Sequence[bool]


class OpcUa:
    """One server's variables."""

    patient = False

    def __init__(self, spec: SourceSpec, access: Access, names: Names) -> None:
        """Raises SourceError for an address or certificates that cannot be used, PlantError for a wrong node id."""
        self.name, self.link = spec.name, names.link
        self._door, self._names, self._nodes = door(spec.name, access), names, _node_ids(spec)
        self._interval_ns, self._skew_ns = max(spec.interval_ns, LEAST_NS), spec.skew_ns or 0

    async def deliveries(self, offsets: Mapping[str, int]) -> AsyncIterator[Delivery]:
        """What the server says, and has said since `offsets`; never ends. The offset is a time: see `opcua.marks`."""
        marks, pause_s = Marks(offsets.get(""), 2 * self._interval_ns), PAUSE_S[0]
        try:
            while True:
                try:
                    async with entered(self._door) as met, aclosing(self._hear(*met, marks)) as heard:
                        async for delivery in heard:
                            pause_s = PAUSE_S[0]
                            yield delivery
                except (SourceError, OSError, TimeoutError, ua.UaError) as error:
                    self.link.went_down(str(error) or type(error).__name__)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, PAUSE_S[1])
        finally:
            self.link.went_down("the stream has ended")

    async def _hear(self, client: Client, lost: asyncio.Event, marks: Marks) -> AsyncGenerator[Delivery, None]:
        """One connection, to its end: first what lies before its subscription, then what that brings."""
        session = client.uaclient.session
        wanted, troubles = await self._wanted(session, marks)
        subscription = Subscription(session, self._interval_ns / 1e9, self.link.now, lost)
        refused = await subscription.begin(wanted.nodes, marks.newest[wanted.rows].tolist())
        if refused:
            troubles.append(f"the server refuses {_few(refused, wanted)}")
        self.link.came_up()
        history = History(session, wanted.nodes)
        since = {at: ns for at, ns in enumerate(marks.since().tolist()) if ns != UNKNOWN}
        async with aclosing(self._filled(history, since, wanted, marks)) as filled:
            async for delivery in filled:
                yield delivery
        marks.filled(time.monotonic())
        troubles += _holes(since, history, wanted)
        self.link.trouble = "; ".join(troubles) or None
        while True:
            columns, silent, holes = await subscription.taken()
            self.link.heard()
            marks.silent(wanted.rows[list(silent)])
            since = dict(zip(holes, marks.newest[wanted.rows[list(holes)]].tolist(), strict=True))
            async with aclosing(self._filled(history, since, wanted, marks)) as filled:
                async for delivery in filled:
                    yield delivery
            if len(columns):
                yield self._delivery(columns, wanted, marks)

    async def _wanted(self, session: UaSession, marks: Marks) -> tuple[_Wanted, list[str]]:
        """The variables that are tags, and what is wrong with the others."""
        found, missing = await variables(session, self._nodes)
        kept, others = matched(found, self._names)
        for variable in others:
            self.link.note_unmapped(variable.text, 0)
        if not kept:
            raise SourceError(f"none of the {len(found)} variables below its nodes is a tag")
        nodes = [variable.id for variable, _ in kept]
        wanted = _Wanted(
            nodes=nodes, names=[name for _, name in kept], history=await keep_history(session, nodes),
            rows=marks.connect([variable.text for variable, _ in kept], time.monotonic()),
        )  # fmt: skip
        unknown = ", ".join(node.to_string() for node in missing[:SHOWN])
        return wanted, [f"the server knows no node {unknown}"] if missing else []

    async def _filled(
        self, history: History, since: Mapping[int, int], wanted: _Wanted, marks: Marks
    ) -> AsyncGenerator[Delivery, None]:
        """What the server's history has of variables, where it keeps one."""
        kept = {at: ns for at, ns in since.items() if wanted.history[at] and ns != UNKNOWN}
        async with aclosing(history.since(kept, self.link.now())) as read:
            async for columns in read:
                self.link.heard()
                yield self._delivery(columns, wanted, marks)

    def _delivery(self, columns: Columns, wanted: _Wanted, marks: Marks) -> Delivery:
        for which, what in columns.strange:
            self.link.refuse(f"{wanted.names[which]}: {what} is no number")
        times, at, values, quality = columns.arrays()
        readings, rejected = self._names.long(times, at, wanted.names, values, quality)
        now_s, latest_ns = time.monotonic(), self.link.now() + self._skew_ns
        marks.see(wanted.rows[at], times, now_s)
        return Delivery(
            offset=marks.offset(now_s, latest_ns), readings=readings, rejected=rejected + len(columns.strange)
        )


def _node_ids(spec: SourceSpec) -> list[ua.NodeId]:
    mistakes, found = [], []
    for i, text in enumerate(spec.nodes):
        try:
            found.append(node_id(text))
        except ValueError:
            place, allowed = f"sources.{spec.name}.nodes[{i}]", 'a node id, such as "ns=2;s=Line1" or "i=85"'
            mistakes.append(Mistake(file="plant.toml", key=place, found=f'"{text}"', allowed=allowed))
    if mistakes:
        raise PlantError(mistakes)
    return found


def _holes(since: Mapping[int, int], history: History, wanted: _Wanted) -> list[str]:
    """What is said of variables that have a gap and no history."""
    without = [at for at in since if not wanted.history[at] or at in history.refused]
    if not without:
        return []
    return [f"no history of {_few(without, wanted)}: what they said while we were away is lost"]


def _few(numbers: Iterable[int], wanted: _Wanted) -> str:
    names = [wanted.names[at] for at in numbers]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
