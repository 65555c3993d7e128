"""What a service does for its site's disk while it runs: archive, aggregate, trim, expire.

Wiring, in threads beside the loop. It knows nothing of models and ticks but the position up to which all
is said.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

from penstock.data.aggregating import bring_up, standing_of
from penstock.data.archive import Archive
from penstock.data.archive.archiver import drain
from penstock.data.archive.retention import needed_from
from penstock.data.journal import Journal
from penstock.errors import ArchiveBusy
from penstock.speed.setup import Setup

LOCK_S = 30.0
"""At the end: how long the archiver may wait for its lock."""
POLL_S = 0.2
PIECES = 4
"""Of aggregates at a time, so that the archive is never held up for long; what is left is due the next time."""
EXPIRE_S = 3600.0
"""Between two looks at old commits of the aggregates."""


class Upkeep:
    """Archive and journal of a running service."""

    def __init__(self, setup: Setup, journal: Journal) -> None:
        """Raises ArchiveError."""
        self._setup, self._journal = setup, journal
        self._archive = Archive.open(setup.site / "archive")
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
            with contextlib.suppress(ArchiveBusy):  # an import commits: it drains for us
                await asyncio.to_thread(self._do, said, PIECES)
            self._due = time.monotonic() + self._setup.commit_every_s

    async def at_the_end(self, said: int | None) -> None:
        """All of it, once more. Raises ArchiveBusy when another process commits for too long."""
        deadline = time.monotonic() + LOCK_S
        while True:
            try:
                return await asyncio.to_thread(self._do, said, None)
            except ArchiveBusy:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(POLL_S)

    def _do(self, said: int | None, pieces: int | None) -> None:
        setup, journal, archive = self._setup, self._journal, self._archive
        tail = journal.tail  # before the tags: another process may register some and then append to them
        if archive.head().position < tail:
            drain(journal, archive, setup.layout(), stop=tail)
        aggregated = self._aggregate(pieces)
        self.archived_ns = setup.now()
        if said is not None:
            # A ring at the last tick said is built from a commit at or before it and the journal from there.
            position = archive.at(said).position
            journal.trim(position if aggregated is None else min(position, aggregated))
        if setup.retention is not None:
            setup.retention.apply(archive, needed_from(journal, said), setup.now())

    def _aggregate(self, pieces: int | None) -> int | None:
        """The journal position that the aggregates have seen; None where there are none to keep.

        Another process that is at it is left alone: what it does not see is due the next time.
        """
        setup, folder = self._setup, self._setup.site / "views" / "aggregates"
        if setup.aggregates is None:
            return None
        old_ns = None if setup.retention is None else setup.retention.snapshots_ns
        now = time.monotonic()
        expires = old_ns is not None and now >= self._expire_due
        try:
            mark = bring_up(
                folder, self._archive, self._journal, setup.aggregates(), pieces=pieces,
                older_than_ns=setup.now() - old_ns if old_ns is not None and expires else None,
                lock_s=LOCK_S if pieces is None else 0.0,
            )  # fmt: skip
        except ArchiveBusy:
            if pieces is None:
                raise
            return standing_of(folder) or 0
        if expires:
            self._expire_due = now + EXPIRE_S
        for outlet in setup.outlets:
            if outlet.content == "aggregates":
                outlet.ring(mark.until - 1)
        return mark.position
