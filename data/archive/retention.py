"""Which old commits of the archive go, and when: those that nobody can ask for any more.

Kept are all younger ones, those that models name (`card["trained"]["snapshot"]`), and what a shard needs
to build its ring. Time is an argument; the time of the last look lies in `archive/expired`, so that a
site that is started often does not look each time.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass

from penstock.data.archive.archive import Archive
from penstock.data.archive.repository import translated
from penstock.data.journal import Journal

EVERY_NS = 3_600_000_000_000
"""Between two looks; at a shorter retention, as long as that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long a site keeps commits that are no longer the newest."""

    snapshots_ns: int
    """At least so long, by their wall clock; longer than a training, or it loses what it reads."""
    named: Callable[[], Set[str]]
    """Ids of the snapshots that stay as long as they are named."""

    def due(self, archive: Archive, now_ns: int) -> bool:
        """Whether it is time to look; reads one small file. Raises ArchiveError."""
        path = archive.folder / "expired"
        with translated(archive.folder):
            looked = int(path.read_text() or 0) if path.exists() else 0
        return not 0 <= now_ns - looked < min(EVERY_NS, self.snapshots_ns)

    def apply(self, archive: Archive, needed: int, now_ns: int) -> int:
        """Expire and collect, if it is due; how many commits went.

        Readers from journal position `needed` on find their commits. Raises ArchiveBusy when another process
        is writing, ArchiveError.
        """
        if not self.due(archive, now_ns):
            return 0
        with archive.committer() as committer:
            gone = committer.expire(set(self.named()), needed, older_than_ns=now_ns - self.snapshots_ns)
        with translated(archive.folder):
            (archive.folder / "expired").write_text(str(now_ns))
        return gone


def needed_from(journal: Journal, said: int | None) -> int:
    """The lowest position from which a shard may still read the log.

    `said`: position of the newest tick in the speed view, None: nothing was ever said. Raises JournalError.
    """
    if said is not None:
        return said
    tail = journal.tail  # first: a decision that comes after this look lies at or behind it
    return tail if journal.clock() is None else journal.first
