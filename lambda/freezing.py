"""A site as it stands at one moment, as a folder beside it: what a backup copies while the site goes on.

    sinks' cursors ─► views ─► models, runs, files ─► journal ─► archive at one commit ─► tag registry

In that order, as each may know of what the ones behind it hold, and never the other way round: what was said does not
lie behind the journal's end, no cursor ahead of what was said, and every tag that the journal has is registered. The
commit is the one from which a stream that goes on with the copied view would build its rings; the journal begins at it
or before. What never changes is linked, not copied, so that the moment is short. A folder that a kill left goes at the
next.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.data.archive import Archive, Head
from penstock.data.archive.cloning import clone, cut_down, is_repository, linked
from penstock.data.archive.committer import uncollected
from penstock.data.archive.retention import needed_from
from penstock.data.durable import locked
from penstock.data.journal import Journal, Totals
from penstock.data.journal.copying import copy_journal
from penstock.data.views.speed_view import SpeedView
from penstock.errors import SiteError
from penstock.pruning import LOCK, alone

if TYPE_CHECKING:
    from penstock.site import Site

IMAGE = ".backup"
"""Of the site's folder: on the same file system, so that links are possible."""
TRIES = 5
LOCK_S = 60.0
LEFT_OUT = ("triton", "logs", "records", "up.json", "up.lock", LOCK, IMAGE)
"""What runs, or is made anew from the rest."""
LAST = ("journal", "archive", "tags.sqlite")
"""Copied at the end, one by one."""
SQLITE = ".sqlite"
LEDGER = "ledger.sqlite"
PASSING = ("-wal", "-shm", "-journal", ".new", ".lock")
"""Ends of names of files that belong to a process, or are being written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A frozen site."""

    folder: Path
    head: Head
    """The commit of the archive."""
    tail: int
    """Journal sequences below are in."""
    totals: Mapping[str, Totals]
    """Of each source: what was acknowledged, up to there."""
    secrets: tuple[str, ...]
    """Files that site.toml names and that are not in it: keys, certificates, passwords."""


@contextmanager
def frozen(site: Site) -> Iterator[Image]:
    """The site now, until the block ends; all that was acknowledged before is in it.

    Raises SiteError where another process prunes or copies, ArchiveError, JournalError.
    """
    image = site.folder / IMAGE
    with alone(site.folder, LOCK_S):
        try:
            for _ in range(TRIES):
                shutil.rmtree(image, ignore_errors=True)
                image.mkdir()
                made = _freeze(site, image)
                if made is not None:
                    yield made
                    return
            raise SiteError(f"{site.folder}: its journal is trimmed faster than it can be copied; try again")
        finally:
            shutil.rmtree(image, ignore_errors=True)


def secrets_of(site: Site) -> list[Path]:
    """The files below the site that site.toml names: what they hold stays where it is."""
    said = [site.settings.dask, *site.settings.sources.values(), *site.settings.sinks.values()]
    names = [getattr(each, key) for each in said for key in type(each).model_fields if key.endswith("_file")]
    return sorted({(site.folder / name).resolve() for name in names if name is not None})


def _freeze(site: Site, image: Path) -> Image | None:
    """None where the journal was trimmed beyond the commit meanwhile."""
    secrets = secrets_of(site)
    for source in _in_order(site.folder):
        _copy(source, image / source.name, secrets, links=source.name == "models")
    with uncollected(site.readings.folder):
        head = site.readings.at(_needed(image, site.journal))
        ledger = site.folder / "journal" / LEDGER
        if ledger.exists():
            _copy_sqlite(ledger, image / LEDGER)
        first, _ = copy_journal(site.journal, image / "journal")
        if first > head.position:
            return None
        clone(site.readings.folder, image / "archive")
    if ledger.exists():
        (image / LEDGER).rename(image / "journal" / LEDGER)
    _copy_sqlite(site.folder / "tags.sqlite", image / "tags.sqlite")
    cut_down(image / "archive", head.snapshot)
    for each in _repositories(image / "views"):
        cut_down(each)
    return _checked(site, image, head, secrets)


def _in_order(folder: Path) -> list[Path]:
    """Cursors, then views, then the rest."""
    names = sorted(p.name for p in folder.iterdir() if p.name not in (*LEFT_OUT, *LAST) and not _passing(p.name))
    ranks = {"speed": 0, "views": 1}
    return [folder / name for name in sorted(names, key=lambda name: ranks.get(name, 2))]


def _passing(name: str) -> bool:
    return name.startswith(".") or name == "lock" or name.endswith(PASSING)


def _copy(source: Path, target: Path, secrets: list[Path], *, links: bool) -> None:
    """A file, a database, a repository or a folder of them.

    `links`: its files are whole and replaced by renaming; all others may be written in place.
    """
    if source.resolve() in secrets:
        return
    if source.suffix == SQLITE:
        _copy_sqlite(source, target)
    elif source.is_file():
        (linked if links else shutil.copy2)(source, target)
    elif is_repository(source):
        with locked(source.parent / "lock", deadline_s=LOCK_S):
            clone(source, target)
    elif source.is_dir():
        target.mkdir()
        inside = [p for p in source.iterdir() if not _passing(p.name)]
        if source.name == "speed":
            inside = [p for p in inside if p.name == "sinks"]
        for each in sorted(inside, key=lambda p: (p.suffix != SQLITE, p.name)):
            _copy(each, target / each.name, secrets, links=links)


def _copy_sqlite(source: Path, target: Path) -> None:
    """As of one transaction, beside writers. Raises SiteError."""
    try:
        with closing(sqlite3.connect(source, timeout=LOCK_S)) as of, closing(sqlite3.connect(target)) as to:
            of.backup(to)
            to.execute("PRAGMA journal_mode = DELETE")  # one file; who writes it turns its log on again
    except sqlite3.Error as error:
        raise SiteError(f"{source}: cannot be copied: {error}; check disk and file") from error


def _needed(image: Path, journal: Journal) -> int:
    """Journal position from which a stream on the copy goes on."""
    path = image / "views" / "speed.sqlite"
    if not path.exists():
        return needed_from(journal, None)
    view = SpeedView.open(path)
    try:
        return needed_from(journal, view.last_position())
    finally:
        view.close()


def _repositories(folder: Path) -> list[Path]:
    return sorted(p.parent for p in folder.rglob("refs") if is_repository(p.parent))


def _checked(site: Site, image: Path, head: Head, secrets: list[Path]) -> Image:
    """Both logs open, and fit together."""
    journal = Journal.open(image / "journal", segment_bytes=site.settings.journal.segment_mb << 20)
    try:
        found = Archive.open(image / "archive").head()
        if found.snapshot != head.snapshot or not journal.first <= head.position <= journal.tail:
            raise SiteError(f"{site.folder}: the copy of journal and archive do not fit together; try again")
        tail, totals = journal.tail, journal.totals()
    finally:
        journal.close()
    (image / "journal" / "lock").unlink(missing_ok=True)
    inside = [p.relative_to(site.folder) for p in secrets if p.is_relative_to(site.folder) and p.exists()]
    return Image(folder=image, head=head, tail=tail, totals=totals, secrets=tuple(map(str, inside)))
