"""What a service does for its site's disk while it runs: archive, aggregate, trim, pack what was said, expire.

Wiring, beside the loop: while ticks are said, archive and aggregates are written by a process of their own, and in a
thread once there are none. It knows nothing of models and ticks but the position up to which all is said.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from penstock.data.archive import Archive
from penstock.data.archive.retention import needed_from
from penstock.data.archiving import Aggregates, ArchivingProcess, Done, Gone, Work, carry_out
from penstock.data.journal import Journal
from penstock.data.views.speed_view import SpeedView
from penstock.errors import ArchiveBusy
from penstock.speed.setup import Setup

log = logging.getLogger(__name__)

LOCK_S = 30.0
"""At the end: how long the archiver may wait for its lock."""
POLL_S = 0.2
PIECES = 4
"""Of aggregates at a time, so that the archive is never held up for long; what is left is due the next time."""
DEATHS = 5
"""In a row that the archiver's process may end before it has done anything."""
BLOCKS = 8
"""Of closed ticks at a time that the view brings into its second form."""
EXPIRE_S = 3600.0
"""Between two looks at old commits of the aggregates."""


class Upkeep:
    """Archive and journal of a running service."""

    def __init__(self, setup: Setup, journal: Journal) -> None:
        """Raises ArchiveError."""
        self._setup, self._journal = setup, journal
        self._archive = Archive.open(setup.site / "archive")
        self._view = SpeedView.open(setup.site / "views" / "speed.sqlite")
        self._process, self._deaths = ArchivingProcess(), 0
        self._due = self._expire_due = time.monotonic() + setup.commit_every_s

        self.archived_ns: int | None = None
        """When the archive last had all that the journal had; None: not yet in this run."""

    @property
    def archived(self) -> int:
        """Journal position of the newest commit."""
        return self._archive.head().position

    async def now_and_then(self, said: int | None) -> None:
        """All of it, if it is time; `said` is the position of the newest tick said, None before the first.

        Raises ArchiveError, JournalError.
        """
        if time.monotonic() >= self._due:
            try:
                await asyncio.to_thread(self._do, said, PIECES, self._process.carry_out)
                self._deaths = 0
            except ArchiveBusy:
                pass  # an import commits: it drains for us
            except Gone as gone:
                self._deaths += 1
                if self._deaths >= DEATHS:
                    raise
                log.warning("%s; another one goes on from the last commit", gone)
            self._due = time.monotonic() + self._setup.commit_every_s

    async def at_the_end(self, said: int | None) -> None:
        """All of it, once more. Raises ArchiveBusy when another process commits for too long."""
        await self.close()
        deadline = time.monotonic() + LOCK_S
        while True:
            try:
                return await asyncio.to_thread(self._do, said, None, carry_out)
            except ArchiveBusy:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(POLL_S)

    async def close(self) -> None:
        """End the process, whatever happens; its work is waited for as long as for a lock."""
        await asyncio.to_thread(self._process.end, LOCK_S)

    def let_go(self) -> None:
        """Of the view's file, when nothing is done any more."""
        self._view.close()

    def _do(self, said: int | None, pieces: int | None, carry_out: Callable[[Work], Done]) -> None:
        setup, journal, archive = self._setup, self._journal, self._archive
        tail = journal.tail  # before the tags: another process may register some and then append to them
        work = self._work(tail, pieces)
        done = carry_out(work)
        if done.until is not None and work.aggregates is not None and work.aggregates.older_than_ns is not None:
            self._expire_due = time.monotonic() + EXPIRE_S
        self.archived_ns = setup.now()
        for outlet in setup.outlets:
            if outlet.content == "aggregates" and done.until is not None:
                outlet.ring(done.until - 1)
        if said is not None:
            # A ring at the last tick said is built from a commit at or before it and the journal from there.
            position = archive.at(said).position
            journal.trim(position if done.aggregated is None else min(position, done.aggregated))
        self._view.pack(BLOCKS)
        if setup.retention is not None:
            setup.retention.apply(archive, needed_from(journal, said), setup.now())
        if pieces is not None:
            setup.tidy()

    def _work(self, tail: int, pieces: int | None) -> Work:
        layout = self._setup.layout()
        return Work(
            site=self._setup.site, segment_bytes=self._setup.segment_bytes, stop=tail, double=layout.double(),
            ahead=layout.ahead_of(), shards=layout.shards, aggregates=self._aggregates(pieces),
        )  # fmt: skip

    def _aggregates(self, pieces: int | None) -> Aggregates | None:
        """What is to be aggregated; now and then, old commits of it go too."""
        setup = self._setup
        if setup.aggregates is None:
            return None
        old_ns = None if setup.retention is None else setup.retention.snapshots_ns
        expires = old_ns is not None and time.monotonic() >= self._expire_due
        return Aggregates(
            folder=setup.site / "views" / "aggregates", wanted=setup.aggregates(), pieces=pieces,
            older_than_ns=setup.now() - old_ns if old_ns is not None and expires else None,
            lock_s=LOCK_S if pieces is None else 0.0,
        )  # fmt: skip
