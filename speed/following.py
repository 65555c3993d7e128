"""Reading the log from one position under one plan: references out, rows in, ticks said.

Everything here can be thrown away and begun again from what the speed view
says: that is how a restart, a failed step and a new model's tags are handled,
all the same way.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from distributed import Client

from penstock.data.hatch import Hatch
from penstock.data.journal import Journal
from penstock.data.views.speed_view import Spoken
from penstock.errors import JournalError, ServingError
from penstock.speed.graph import Answer, Graph
from penstock.speed.plan import ReadPlan
from penstock.speed.rows import Newest
from penstock.speed.scorer import PlanTooSmall, Scorer
from penstock.speed.shard import Failure, Result, Step

SPAN = 64
"""Most waiting sequences that go out as one reference."""
POLL_S = 0.2
"""The log is looked at this often even when nobody rings: another process may have appended."""
LOOK_S = 0.25
"""Between two looks at whether the graph lives."""
BACKLOG_VALUES = 1 << 24
"""Values that may wait for the scorer (64 MB); above, the shards wait too."""
PAUSE_S = (0.05, 2.0)
"""Between two tries of a failed request: first and longest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a reading of the log begins."""

    tick: int
    """The first tick to be said."""
    position: int
    """Sequence of the decision that closed the tick before it (or, at the very start, the first decision)."""


@dataclass(frozen=True, slots=True)
class Broken:
    """A part of the graph has died: what it held is read again."""

    reason: str


class Following:
    """One reading of the log."""

    def __init__(
        self, client: Client, site: Path, journal: Journal, scorer: Scorer, plan: ReadPlan, place: Place, *,
        hatch: Hatch | None = None, closed: Callable[[], int | None] = lambda: None,
    ) -> None:  # fmt: skip
        """`client`: asynchronous. `hatch`: for workers that cannot read the site. `closed`: ticks below are closed.

        Raises SiteError when the read plan cannot be written.
        """
        self._site, self._journal, self._scorer, self._plan = site, journal, scorer, plan
        self._place, self._hatch, self._closed = place, hatch, closed
        self._names = {s.shard: s.save(site / "speed") for s in plan.shards}
        self._newest = Newest(plan)
        self._inbox: list[Result] = []
        self._arrived = asyncio.Event()
        self._appended = {shard: asyncio.Event() for shard in self._names}
        self._failure: str | None = None
        self._graph = Graph(client, list(self._names), self._take)
        self._pause_s = PAUSE_S[0]
        self._looked_s = 0.0
        self._feeds: list[asyncio.Task[None]] = []
        self.tick = place.tick
        """The next tick to be said."""
        self.failed_requests = 0
        self.trouble: str | None = None
        """Why the newest request failed; None when it did not."""

    def ring(self) -> None:
        """Something was appended."""
        for event in self._appended.values():
            event.set()

    async def run(
        self, tell: Callable[[tuple[Spoken, ...]], None], done: Callable[[int], bool]
    ) -> PlanTooSmall | Broken | str | None:
        """Say tick after tick; `done` is asked with `due` whenever nothing can be said.

        Ends with None when it says yes, or with what makes a new reading necessary: a larger plan, a part
        of the graph that has died, or the reason of a failure. Raises SiteError when the view cannot be written.
        """
        self._feeds = feeds = [asyncio.create_task(self._feed(shard)) for shard in self._names]
        try:
            while self._failure is None:
                if (why := self._broken()) is not None:
                    return Broken(why)
                self._sort_in()
                spoken = await self._publish() if self._newest.ready(self.tick) else ()
                if isinstance(spoken, PlanTooSmall):
                    return spoken
                if spoken:
                    self.tick = spoken[-1].tick + 1
                    tell(spoken)
                elif done(self.due):
                    return None
                elif self.trouble is None:
                    await _rung(self._arrived)
                for feed in feeds:
                    if feed.cancelled():  # nobody here does that
                        return Broken("a task that sends references has ended")
                    if feed.done():  # they end only by an error
                        feed.result()
            return self._failure
        except JournalError as error:
            return str(error)
        finally:
            for feed in feeds:
                feed.cancel()
            await asyncio.gather(*feeds, return_exceptions=True)
            self._graph.close()

    @property
    def wait(self) -> int:
        """Ticks that must close behind a tick before it is said."""
        return self._plan.wait

    @property
    def due(self) -> int:
        """The tick with whose close the next one can be said."""
        return self.tick + self.wait

    @property
    def resubmitted(self) -> int:
        """Steps that were submitted again, because no worker answered in time."""
        return self._graph.resubmitted

    def backlog(self) -> int:
        """Values that wait for the scorer."""
        return self._newest.backlog() + sum(r.block.values.size for a in self._inbox for r in a.rows)

    def _broken(self) -> str | None:
        """A look at the graph, where one is due."""
        now_s = time.monotonic()
        if now_s - self._looked_s < LOOK_S:
            return None
        self._looked_s = now_s
        return self._graph.broken()

    async def _publish(self) -> tuple[Spoken, ...] | PlanTooSmall:
        """What was said; nothing after a failed request, which is made again after a pause."""
        try:
            closed = self._closed()
            spoken = await asyncio.to_thread(self._scorer.publish, self._plan, self._newest, self.tick, closed)
        except ServingError as error:
            self.failed_requests += 1
            self.trouble = str(error)
            await asyncio.sleep(self._pause_s)
            self._pause_s = min(2 * self._pause_s, PAUSE_S[1])
            return ()
        self.trouble, self._pause_s = None, PAUSE_S[0]
        return spoken

    async def _feed(self, shard: int) -> None:
        """References to whatever the log has beyond the last one sent."""
        position, appended = self._place.position, self._appended[shard]
        want: int | None = self._place.tick - self._plan.depth + 1
        while True:
            appended.clear()
            stop = min(self._journal.tail, position + SPAN)
            if stop <= position or self._is_ahead(shard):
                await _rung(appended)
                continue
            name = self._names[shard]
            step = Step(
                site=str(self._site), shard=shard, start=position, stop=stop, want=want, plan=name, hatch=self._hatch
            )
            await self._graph.send(step)
            position, want = stop, None

    def _is_ahead(self, shard: int) -> bool:
        """Whether much waits and none of it waits for this shard; one that the others wait for is never held."""
        return self.backlog() > BACKLOG_VALUES and self._newest.shards[shard].reaches(self.tick)

    def _take(self, answer: Answer) -> None:
        if isinstance(answer, Failure):
            self._failure = answer.reason
        else:
            self._inbox.append(answer)
        self._arrived.set()

    def _sort_in(self) -> None:
        """Between two requests only: the scorer's thread has the rows while it works."""
        self._arrived.clear()
        inbox, self._inbox = self._inbox, []
        for result in inbox:
            self._newest.add(result.step.shard, result.rows)


async def _rung(event: asyncio.Event) -> None:
    """Until the event is set, or it is time to look anyway."""
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), POLL_S)
