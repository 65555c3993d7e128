"""A subscription: what a server says of variables from now on, column by column, until it is taken.

The server queues what changes between two publishings. Here much may wait too; when it does, the server is not asked
for more, and its queues must hold. Knows nothing of tags and of what was said before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from asyncua import ua
from asyncua.client.ua_session import UaSession

from penstock.errors import SourceError
from penstock.speed.opcua.nodes import in_calls
from penstock.speed.opcua.values import Columns, has_lost, is_silent, time_of

QUEUE = 1000
"""Readings of a variable that the server is asked to keep between two publishings; it may grant fewer, and say so."""
WAITING = 1 << 16
"""Readings that wait here to be taken; more: the server is not asked for more."""
ALIVE_S = 5.0
"""A server that has nothing to say says at least so, this often."""
SILENT = 3
"""So many times in a row it may fail to."""


class Subscription:
    """Listens to variables; begin once."""

    def __init__(self, session: UaSession, interval_s: float, now: Callable[[], int], lost: asyncio.Event) -> None:
        """`now`: wall clock, ns. `lost`: set from outside when the connection ends."""
        self._session, self._interval_ms, self._now, self._lost = session, interval_s * 1000, now, lost
        self._columns, self._silent, self._holes = Columns(), set[int](), set[int]()
        self._known: Sequence[int] = ()
        self._first: set[int] = set()
        self._room, self._arrived = asyncio.Event(), asyncio.Event()
        self._alive_s = ALIVE_S
        self._why = "the connection is lost"

    async def begin(self, nodes: Sequence[ua.NodeId], known: Sequence[int]) -> dict[int, str]:
        """Listen. `known`: ns [n], what a variable said first is left out up to here. Those refused, and why."""
        self._known, self._first = known, set(range(len(nodes)))
        alive = max(1, round(ALIVE_S * 1000 / self._interval_ms))
        asked = ua.CreateSubscriptionParameters()
        asked.RequestedPublishingInterval = self._interval_ms
        asked.RequestedMaxKeepAliveCount = ua.UInt32(alive)
        asked.RequestedLifetimeCount = ua.UInt32(10 * alive)
        asked.MaxNotificationsPerPublish = ua.UInt32(0)
        asked.PublishingEnabled = True
        granted = await self._session.create_subscription(asked, self._published)
        self._alive_s = max(ALIVE_S, granted.RevisedMaxKeepAliveCount * granted.RevisedPublishingInterval / 1000)
        refused: dict[int, str] = {}
        for group in in_calls(range(len(nodes))):
            items = ua.CreateMonitoredItemsParameters()
            items.SubscriptionId = granted.SubscriptionId
            items.TimestampsToReturn = ua.TimestampsToReturn.Both
            items.ItemsToCreate = [self._item(at, nodes[at]) for at in group]
            results = await self._session.create_monitored_items(items)
            refused |= {
                at: r.StatusCode.name for at, r in zip(group, results, strict=True) if not r.StatusCode.is_good()
            }
        return refused

    async def taken(self) -> tuple[Columns, set[int], set[int]]:
        """(readings, variables without a value yet, those of which the server dropped some); waits until there are.

        Raises SourceError when the connection is lost, or the server is silent for too long.
        """
        while not (len(self._columns) or self._silent):
            await self._something()
        taken = self._columns, self._silent, self._holes
        self._columns, self._silent, self._holes = Columns(), set(), set()
        self._room.set()
        return taken

    async def _something(self) -> None:
        waits = [asyncio.ensure_future(event.wait()) for event in (self._arrived, self._lost)]
        try:
            done, _ = await asyncio.wait(waits, timeout=SILENT * self._alive_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        self._arrived.clear()
        if self._lost.is_set():
            raise SourceError(self._why)
        if not done:
            raise SourceError(f"the server has said nothing for {SILENT * self._alive_s:.0f} s")

    def _item(self, at: int, node: ua.NodeId) -> ua.MonitoredItemCreateRequest:
        """Every new time stamp is a reading, the same value too."""
        item = ua.MonitoredItemCreateRequest()
        item.ItemToMonitor.NodeId = node
        item.ItemToMonitor.AttributeId = ua.AttributeIds.Value
        item.MonitoringMode = ua.MonitoringMode.Reporting
        item.RequestedParameters.ClientHandle = ua.UInt32(at)
        item.RequestedParameters.SamplingInterval = self._interval_ms
        item.RequestedParameters.QueueSize = ua.UInt32(QUEUE)
        item.RequestedParameters.DiscardOldest = True
        item.RequestedParameters.Filter = ua.DataChangeFilter(Trigger=ua.DataChangeTrigger.StatusValueTimestamp)
        return item

    async def _published(self, result: ua.PublishResult) -> None:
        """asyncua asks for the next only when this has returned."""
        while len(self._columns) >= WAITING:
            self._room.clear()
            await self._room.wait()
        arrival_ns = self._now()
        for said in result.NotificationMessage.NotificationData or ():
            if isinstance(said, ua.DataChangeNotification):
                for item in said.MonitoredItems:
                    self._hear(int(item.ClientHandle), item.Value, arrival_ns)
            elif isinstance(said, ua.StatusChangeNotification) and not said.Status.is_good():
                self._why = f"the server has ended the subscription ({said.Status.name})"
                self._lost.set()
        self._arrived.set()  # an empty one too: the server is alive

    def _hear(self, at: int, said: ua.DataValue, arrival_ns: int) -> None:
        time_ns, first = time_of(said, arrival_ns), at in self._first
        self._first.discard(at)
        if is_silent(said):
            self._silent.add(at)
            return
        if first and time_ns <= self._known[at]:
            return
        if has_lost(said):
            self._holes.add(at)
        self._columns.add(at, said, time_ns)
