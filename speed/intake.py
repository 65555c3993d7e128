"""From the sources into the journal: the only way in, and the only place where ticks are closed.

Deliveries that wait are made durable together, each with the clock decision it
causes, and only then acknowledged. Knows nothing of shards' work or models.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.data.early import admitted, parted
from penstock.data.frame import Dense, Frame, Readings
from penstock.data.grid import Grid
from penstock.data.journal import Entry, Journal, Kind
from penstock.data.layout import Layout
from penstock.speed.clock import Clock, SourceClock, quarantine, span_of
from penstock.speed.source import PART, Delivery, Source, journal_name, offsets_of

log = logging.getLogger(__name__)

GROUP = 64
"""Deliveries made durable together at most; so many may wait."""
LOOK_S = 0.2
"""How often the clock is looked at while nothing arrives, and a held source asks again."""
CELLS = 1 << 19
"""Most values of one entry: the journal takes it whole or not at all, and its segments may be of 16 MB."""
AGAIN_S = (0.2, 10.0)
"""Before a live source that failed is asked again: first and longest."""


@dataclass(slots=True)
class Counts:
    """Readings of this run, by what became of them."""

    accepted: int = 0
    rejected: int = 0
    quarantined: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A delivery, or a source's end."""

    source: Source
    delivery: Delivery | None


class Intake:
    """Sources -> journal."""

    def __init__(
        self,
        journal: Journal,
        grid: Grid,
        layout: Callable[[], Layout],
        sources: Sequence[tuple[Source, SourceClock]],
        *,
        now: Callable[[], int],
        may_read: Callable[[bool], bool] = lambda patient: True,
        appended: Callable[[], None] = lambda: None,
    ) -> None:
        """`now`: arrival time, ns UTC.

        `may_read`: false holds sources back, patient ones or others. `appended` is called after each group is
        durable.
        """
        self._journal, self._grid, self._layout, self._now = journal, grid, layout, now
        self._sources = [s for s, _ in sources]
        self._skew_ns = {s.name: rule.skew_ns for s, rule in sources}
        self._may_read, self._appended = may_read, appended
        self._offsets: dict[str, int] = {}
        self._arrivals: asyncio.Queue[Arrival] = asyncio.Queue(GROUP)
        self.clock = Clock(grid, {s.name: rule for s, rule in sources})
        self.counts = Counts()

    async def run(self, stop: asyncio.Event) -> bool:
        """Until every source has ended, or `stop` is set: true where all ended.

        Raises SourceError, JournalError. What was acknowledged is durable, whatever happens.
        """
        self._offsets = await asyncio.to_thread(self._journal.offsets)
        await asyncio.to_thread(resume, self.clock, self._journal, self._layout().ahead_of())
        readers = [asyncio.create_task(self._read(s, stop)) for s in self._sources]
        try:
            return await self._write(readers, stop)
        finally:
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)

    async def _read(self, source: Source, stop: asyncio.Event) -> None:
        """A file's error ends the run; a live source's costs only itself: it is asked again, as often as it takes."""
        pause_s, failed = AGAIN_S[0], True
        while failed and not stop.is_set():
            try:
                async for delivery in source.deliveries(offsets_of(source.name, self._offsets)):
                    pause_s = AGAIN_S[0]
                    await self._take(source, delivery, stop)
                failed = False
            except Exception as error:
                if source.link is None:
                    raise
                log.exception("source %s failed; it is asked again", source.name)
                source.link.went_down(f"{type(error).__name__}: {error}")
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, AGAIN_S[1])
        await self._arrivals.put(Arrival(source=source, delivery=None))

    async def _take(self, source: Source, delivery: Delivery, stop: asyncio.Event) -> None:
        """Waits while much waits: that is how a source is held back."""
        await self._arrivals.put(Arrival(source=source, delivery=delivery))
        while not self._may_read(source.patient) and not stop.is_set():
            await asyncio.sleep(LOOK_S / 4)

    async def _write(self, readers: Sequence[asyncio.Task[None]], stop: asyncio.Event) -> bool:
        running = len(self._sources)
        while running and not stop.is_set():
            arrivals = await self._waiting()
            for reader in readers:
                if reader.done() and (error := reader.exception()) is not None:
                    raise error
            entries = [entry for a in arrivals for entry in self._entries(a)]
            if not self._may_read(False):
                self.clock.hold(self._now())
            elif (decision := self.clock.wait(self._now())) is not None:
                entries.append(Entry(source="clock", source_offset=0, parts={}, clock=decision))
            if entries:
                await asyncio.to_thread(self._journal.append, entries)
                self._appended()
            for arrival in arrivals:
                if arrival.delivery is not None:
                    await arrival.delivery.ack()
            running -= sum(a.delivery is None for a in arrivals)
        return running == 0

    async def _waiting(self) -> list[Arrival]:
        """All that wait, or nothing after a while."""
        try:
            arrivals = [await asyncio.wait_for(self._arrivals.get(), LOOK_S)]
        except TimeoutError:
            return []
        while len(arrivals) < GROUP and not self._arrivals.empty():
            arrivals.append(self._arrivals.get_nowait())
        return arrivals

    def _entries(self, arrival: Arrival) -> Iterator[Entry]:
        """Only the last entry of a large delivery has its offset: after a kill between them, all of it comes again."""
        name, delivery = arrival.source.name, arrival.delivery
        if delivery is None:
            ended = self.clock.end(name)
            yield Entry(source=name, source_offset=self._offsets.get(name, 0), parts={}, clock=ended)
            return
        key, skew_ns = journal_name(name, delivery.part), self._skew_ns[name]
        readings, early, quarantined = self._admitted(delivery.readings, skew_ns)
        if early is not None:  # before the decision that the others may cause: a closing tick looks ahead
            for piece in _pieces(early):
                yield self._entry(name, key, self._offsets.get(key, 0), piece, tells_time=False)
        pieces = list(_pieces(readings))
        for piece in pieces[:-1]:
            yield self._entry(name, key, self._offsets.get(key, 0), piece)
        self._offsets[key] = delivery.offset
        yield self._entry(name, key, delivery.offset, pieces[-1], delivery.rejected, quarantined)

    def _admitted(self, readings: Readings, skew_ns: int | None) -> tuple[Readings, Frame | None, int]:
        """What is of its time, what may be ahead of it, and how many readings are too far ahead."""
        ahead = self._layout().ahead_of()
        readings, early = parted(readings, ahead)
        if skew_ns is None:  # a recording: it is not known when its readings arrived
            return readings, early, 0
        now_ns = self._now()
        readings, quarantined = quarantine(readings, now_ns + skew_ns)
        if early is None:
            return readings, None, quarantined
        early, more = admitted(early, ahead, self._grid, now_ns, skew_ns)
        return readings, early, quarantined + more

    def _entry(
        self, name: str, key: str, offset: int, readings: Readings, rejected: int = 0, quarantined: int = 0,
        *, tells_time: bool = True,
    ) -> Entry:  # fmt: skip
        span, decision = span_of(readings) if tells_time else None, None
        if span is not None:
            decision = self.clock.observe(name, span[1], self._now(), span[0])
        self.counts.accepted += len(readings)
        self.counts.rejected += rejected
        self.counts.quarantined += quarantined
        return Entry(
            source=key, source_offset=offset, parts=self._layout().split(readings),
            rejected=rejected, quarantined=quarantined, clock=decision,
        )  # fmt: skip


def _pieces(readings: Readings) -> Iterator[Readings]:
    """Rows in pieces of at most CELLS values; at least one piece."""
    most = max(1, CELLS // max(1, len(readings.tags) if isinstance(readings, Dense) else 1))
    if len(readings.times) <= most:
        yield readings
        return
    for begin in range(0, len(readings.times), most):
        yield readings.rows(slice(begin, begin + most))


def resume(clock: Clock, journal: Journal, ahead: NDArray[np.int64]) -> None:
    """Bring the clock to where the log has it: the newest decision's state, then the rows behind it.

    `ahead` [tags]: what may be ahead of its time tells none.
    """
    newest = journal.clock()
    if newest is not None:
        clock.resume(newest.state)
    first, tail = journal.first, journal.tail
    decided = [r.sequence for r in journal.read(first, tail, -1) if r.kind is Kind.CLOCK]
    for record in journal.read(decided[-1] + 1 if decided else first, tail):
        if record.readings is None:
            continue
        if (span := span_of(parted(record.readings, ahead)[0])) is not None:
            clock.note(owner(record.source, clock.sources), span[1], span[0])


def owner(name: str, sources: Sequence[str]) -> str:
    """The source that a name in the journal belongs to: its own, or that of one of its parts."""
    return name if name in sources else name.partition(PART)[0]
