"""The speed layer's process: sources -> journal -> shards -> scorer -> speed view, and the archiver beside it.

Wiring. It follows the log and the view, not its own memory: killed at any
moment, a new one goes on where those two say.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from distributed import Client

from penstock.data.journal import Journal, Kind
from penstock.data.journal.ledger import REVISED, late_count
from penstock.data.scoring import Member
from penstock.data.views.speed_view import SpeedView, Spoken
from penstock.data.window_spec import WindowSpec
from penstock.data.windows import Reason
from penstock.errors import PenstockError, ServingError, SiteError
from penstock.speed.beside import Beside
from penstock.speed.clock import begin_of
from penstock.speed.delays import Closes
from penstock.speed.following import POLL_S, Broken, Following, Place
from penstock.speed.intake import Intake
from penstock.speed.link import Link
from penstock.speed.outlet import end_all
from penstock.speed.overload import ALL
from penstock.speed.plan import ReadPlan, forget_plans
from penstock.speed.process import alone, connected, signals_to
from penstock.speed.rate import Rate
from penstock.speed.scorer import PlanTooSmall, Scorer
from penstock.speed.setup import Setup
from penstock.speed.status import Report, SourceTold, Status, write_status
from penstock.speed.upkeep import Upkeep

__all__ = ["Report", "Service", "Setup"]

log = logging.getLogger(__name__)

STATUS_S = 1.0
"""Between two writings of the status, and between two looks at whether the archive is due."""
LEAD = 1024
"""Sequences by which patient sources may run ahead of what is said."""
SINKS_S = 10.0
"""At the end: how long sinks may take to send what is said; what is left is sent by the next run."""
DRAIN_S = 30.0
"""After a stop: how long closed ticks may take to be said."""
FAILURES = 8
"""Readings of the log in a row that may fail without a tick being said."""


@dataclass(slots=True)
class _Counts:
    """The run so far."""

    ticks: int = 0
    predictions: int = 0
    failed_requests: int = 0
    passed_ticks: int = 0
    passed: int = 0
    first_prediction_ns: int | None = None
    rereadings: int = 0
    resubmitted: int = 0
    repairs: int = 0
    repaired: str | None = None
    repaired_ns: int | None = None
    said_ns: int | None = None
    members: dict[str, int] = field(default_factory=dict)


class Service:
    """One run: `run` once, `stop` from the same loop."""

    def __init__(self, setup: Setup) -> None:
        """Opens journal, archive and view. Raises JournalError, ArchiveError, SiteError."""
        self._setup = setup
        self._journal = Journal.open(setup.site / "journal", segment_bytes=setup.segment_bytes)
        self._upkeep = Upkeep(setup, self._journal)
        self._view = SpeedView.open(setup.site / "views" / "speed.sqlite")
        live = any(not source.patient for source, _ in setup.sources)
        self._overload = setup.overload if live else ALL
        self._beside = Beside(setup.live, setup.site, self._view, setup.resolve, setup.layout) if setup.live else None
        self._scorer = Scorer(setup.scoring, self._view, self._overload, self._beside)
        self._stop = asyncio.Event()
        self._stopped_at: float | None = None
        self._superseded = False
        self._counts = _Counts()
        self._rate = Rate(period_s=setup.grid.period_ns / 1e9)
        self._closes = Closes()
        self._workers: set[str] = set()
        self._started_workers = 0
        self._following: Following | None = None
        self._intake_done = False
        self._ended = False
        self._next_tick: int | None = None
        """To be said next, while nothing follows the log."""
        self.told: Status | None = None
        """How it stood a second ago; None before that."""
        self._said_position = self._view.last_position()
        self._begun_at = self._journal.tail
        self._intake = Intake(
            self._journal, setup.grid, setup.layout, setup.sources,
            now=setup.now, may_read=self._may_read, appended=self._appended,
        )  # fmt: skip

    def stop(self) -> None:
        """Stop reading; what is closed is still said and archived, then `run` returns."""
        self._superseded = False  # who was told to stop does not begin again
        self._stop.set()

    def _give_way(self) -> None:
        """Stop likewise, where another plant holds by now."""
        if not self._stop.is_set() and self._setup.superseded():
            self._superseded = True
            self._stop.set()

    async def run(self, *, signals: bool = True) -> Report:
        """Until every source has ended and all of it is said and archived, or until stopped.

        `signals`: SIGINT and SIGTERM stop it. Raises SourceError, JournalError, ArchiveError, SiteError.
        """
        with signals_to(self.stop) if signals else contextlib.nullcontext(), alone(self._setup.site / "speed"):
            try:
                forget_plans(self._setup.site / "speed")
                await self._run()
            finally:
                await self._upkeep.close()
                self._upkeep.let_go()
                self._journal.close()
                if self._beside is not None:
                    self._beside.close()
                self._view.close()
        return self.report()

    async def _run(self) -> None:
        async with connected(self._setup.scheduler, self._setup.connect_s, self._setup.security) as client:
            self._note_workers(client)
            self._started_workers = len(self._workers)
            try:
                for outlet in self._setup.outlets:
                    outlet.start()
                async with asyncio.TaskGroup() as group:
                    beside = [group.create_task(self._keep_up()), group.create_task(self._keep_told(client))]
                    work = [group.create_task(self._take_in()), group.create_task(self._say(client))]
                    await asyncio.gather(*work)
                    for task in beside:
                        task.cancel()
                await self._upkeep.at_the_end(self._said_position)  # before the sinks end: they send what it aggregates
            except* PenstockError as errors:
                # One cause is enough: the others were only cancelled because of it.
                raise errors.exceptions[0] from None
            finally:
                await asyncio.to_thread(end_all, self._setup.outlets, SINKS_S)
            self._rate.end()
            self._write_status()

    def report(self) -> Report:
        """The run so far."""
        taken, counts = self._intake.counts, self._counts
        following = self._following
        return Report(
            readings=taken.accepted,
            rejected=taken.rejected,
            quarantined=taken.quarantined,
            late=late_count(self._setup.site / "journal", self._begun_at),
            revised=late_count(self._setup.site / "journal", self._begun_at, table=REVISED),
            ticks=counts.ticks,
            predictions=counts.predictions,
            failed_requests=counts.failed_requests + (following.failed_requests if following else 0),
            first_prediction_ns=counts.first_prediction_ns,
            worker_restarts=max(0, len(self._workers) - self._started_workers),
            rereadings=counts.rereadings,
            resubmitted=counts.resubmitted + (following.resubmitted if following else 0),
            repairs=counts.repairs,
            ended=self._ended,
            tick_ms=self._scorer.delays.told(),
            said_ms=self._closes.delays.told(),
            passed_ticks=counts.passed_ticks,
            passed=counts.passed,
            superseded=self._superseded,
        )

    # Into the journal

    async def _take_in(self) -> None:
        try:
            self._ended = await self._intake.run(self._stop)
        finally:
            self._stopped_at = None if self._ended else time.monotonic()
            self._intake_done = True

    def _appended(self) -> None:
        if (closed := self._sayable()) is not None:
            self._closes.close(closed, time.monotonic())
        if self._following is not None:
            self._following.ring()

    def _may_read(self, patient: bool) -> bool:
        """No, while too many ticks wait; of a patient source, while any do and the log has grown long meanwhile."""
        if self._overload.blocks(self._waiting()):
            return False
        if not patient:
            return True
        closed, following = self._intake.clock.closed, self._following
        if closed is None or (following is not None and following.due >= closed):
            return True
        said = self._begun_at if self._said_position is None else self._said_position
        return self._journal.tail - said < LEAD

    def _sayable(self) -> int | None:
        """Ticks below can be said, as far as the log goes."""
        closed, following = self._intake.clock.closed, self._following
        return closed if closed is None or following is None else closed - following.wait

    def _waiting(self) -> int:
        """Ticks that could be said and are not."""
        sayable, following = self._sayable(), self._following
        tick = following.tick if following is not None else self._next_tick
        return 0 if sayable is None or tick is None else max(0, sayable - tick)

    # Out of the journal

    async def _say(self, client: Client) -> None:
        place = await self._place()
        specs, failures = list(self._setup.expected), 0
        while place is not None:
            specs = _joined(specs, await self._members())
            plan = ReadPlan.of(specs, self._setup.resolve, self._setup.layout(), self._setup.grid)
            setup = self._setup
            self._next_tick = place.tick
            self._following = Following(
                client, setup.site, self._journal, self._scorer, plan, place,
                hatch=setup.hatch, closed=lambda: self._intake.clock.closed,
            )  # fmt: skip
            outcome = await self._following.run(self._tell, self._done)
            self._counts.failed_requests += self._following.failed_requests
            self._counts.resubmitted += self._following.resubmitted
            self._next_tick = self._following.tick
            progressed, self._following = self._following.tick > place.tick, None
            if outcome is None:
                return
            self._counts.rereadings += 1
            failures = 0 if progressed else failures + 1
            if isinstance(outcome, Broken):
                outcome = self._note_repair(outcome.reason)
            if isinstance(outcome, PlanTooSmall):
                specs = _joined(specs, outcome.members)
            elif failures >= FAILURES:
                raise SiteError(f"the shards make no progress at tick {place.tick}: {outcome}")
            else:
                await asyncio.sleep(min(2.0, 0.1 * 2**failures))
            place = await self._place()

    def _note_repair(self, reason: str) -> str:
        log.warning("%s; it is made anew, and reads again from the last tick said", reason)
        counts = self._counts
        counts.repairs += 1
        counts.repaired, counts.repaired_ns = reason, self._setup.now()
        return reason

    async def _place(self) -> Place | None:
        """Where to go on: behind the newest tick said, or at the first decision of the log."""
        while True:
            tick, position = self._view.last_tick(), self._view.last_position()
            if tick is not None and position is not None:
                return Place(tick=tick + 1, position=position)
            records = self._journal.read(self._journal.first, self._journal.tail, -1)
            for record in records:
                if record.kind is Kind.CLOCK and record.clock is not None:
                    return Place(tick=begin_of(record.clock), position=record.sequence)
            if self._intake_done:
                return None
            await asyncio.sleep(POLL_S)

    async def _members(self) -> tuple[Member, ...]:
        """The members now; none while nothing answers: their plan is then made when they do."""
        try:
            return await asyncio.to_thread(self._setup.scoring.members)
        except ServingError:
            self._counts.failed_requests += 1
            return ()

    def _tell(self, spoken: tuple[Spoken, ...]) -> None:
        counts = self._counts
        self._said_position = spoken[-1].position
        counts.ticks += len(spoken)
        counts.said_ns = self._setup.now()
        for outlet in self._setup.outlets:
            if outlet.content == "predictions":
                outlet.ring(spoken[-1].tick)
        self._rate.see(self._setup.now() / 1e9, spoken[-1].tick + 1)
        counts.passed_ticks += sum(bool((s.reasons == Reason.OVERLOAD).any()) for s in spoken)
        counts.passed += sum(int((s.reasons == Reason.OVERLOAD).sum()) for s in spoken)
        said = sum(int((s.reasons == Reason.OK).sum()) for s in spoken)
        if said and counts.first_prediction_ns is None:
            counts.first_prediction_ns = self._setup.now()
        counts.predictions += said
        now_s = time.monotonic()
        for s in spoken:
            self._closes.say(s.tick, now_s)
            names = (name for name, _ in s.members)
            counts.members.update(zip(names, s.versions.tolist(), strict=True))
            self._setup.on_tick(s)

    def _done(self, due: int) -> bool:
        if not self._intake_done:
            return False
        if self._stopped_at is not None and time.monotonic() - self._stopped_at > DRAIN_S:
            return True
        decision = self._journal.clock()
        return decision is None or due >= decision.closed

    # Beside it

    async def _keep_up(self) -> None:
        while True:
            await asyncio.sleep(min(STATUS_S, self._setup.commit_every_s))
            await self._upkeep.now_and_then(self._said_position)

    async def _keep_told(self, client: Client) -> None:
        while True:
            await asyncio.sleep(min(STATUS_S, self._setup.commit_every_s))
            self._note_workers(client)
            await asyncio.to_thread(self._write_status)
            self._give_way()

    def _note_workers(self, client: Client) -> None:
        self._workers |= set(client.scheduler_info(n_workers=-1)["workers"])

    def _write_status(self) -> None:
        following, now_ns, counts = self._following, self._setup.now(), self._counts
        self.told = status = Status(
            pid=os.getpid(),
            written_ns=now_ns,
            tail=self._journal.tail,
            archived=self._upkeep.archived,
            closed=self._sayable(),
            next_tick=None if following is None else following.tick,
            members=dict(counts.members),
            backlog=0 if following is None else following.backlog(),
            rate=self._rate.at(now_ns / 1e9),
            replay=all(source.patient for source, _ in self._setup.sources),
            trouble=None if following is None else following.trouble,
            sources={s.name: self._told(s.name, s.link) for s, _ in self._setup.sources if s.link is not None},
            sinks={outlet.name: outlet.told() for outlet in self._setup.outlets},
            said=self._said_position,
            said_ns=counts.said_ns,
            held=self._overload.blocks(self._waiting()),
            overdue_s=self._closes.overdue_s(time.monotonic()),
            journal_bytes=self._journal.kept_bytes,
            archived_ns=self._upkeep.archived_ns,
            repaired=counts.repaired,
            repaired_ns=counts.repaired_ns,
            beside=self._beside.told() if self._beside else {},
            plant=self._setup.plant,
            report=self.report(),
        )
        write_status(self._setup.site / "speed", status)

    def _told(self, name: str, link: Link) -> SourceTold:
        newest_ns, idle = self._intake.clock.heard(name)
        return SourceTold(**link.told(), newest_ns=newest_ns, idle=idle)


def _joined(specs: Sequence[WindowSpec], members: Sequence[Member]) -> list[WindowSpec]:
    return [*specs, *(m.spec for m in members if m.spec not in specs)]
