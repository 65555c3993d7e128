"""The icechunk repository in which a derived view lies: found, made, shortened.

One process at a time writes a view (`locked` on its ``lock``); whoever reads opens the newest commit. Knows nothing of
what a view holds.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import icechunk
import zarr
from zarr.errors import GroupNotFoundError

from penstock.data.archive.repository import BRANCH, bounded, translated
from penstock.data.durable import locked
from penstock.errors import ArchiveBusy, ArchiveError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
OPEN = 16
"""Views that stay opened for readers: to open one costs ten times what asking it does."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Opened:
    """A repository, and the root of the newest commit seen in it."""

    stamp: tuple[int, int]
    repository: icechunk.Repository
    snapshot: str = ""
    root: zarr.Group | None = None

    def still(self, folder: Path) -> bool:
        """Whether that repository lies there."""
        return _stamp(folder) == self.stamp


_opened: dict[Path, _Opened] = {}


def _stamp(folder: Path) -> tuple[int, int] | None:
    """Of the repository's folder, which gets other contents only when it is made; None where there is none."""
    try:
        found = (folder / "repository").stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def newest(folder: Path) -> zarr.Group | None:
    """The root of the view in `folder`, of its newest commit; None where there is none. Raises ArchiveError.

    The same object as long as there is no newer one: who keeps what was read from it can tell.
    """
    try:
        return _newest(folder)
    except ArchiveError:  # it was removed and made again, perhaps
        if _opened.pop(folder, None) is None:
            raise
        return _newest(folder)


def _newest(folder: Path) -> zarr.Group | None:
    known = _opened.get(folder)
    if known is None or not known.still(folder):
        _opened.pop(folder, None)
        stamp = _stamp(folder)
        repository = _existing(folder)
        if repository is None or stamp is None:
            return None
        known = _Opened(stamp=stamp, repository=repository)
    with translated(folder):
        snapshot = known.repository.lookup_branch(BRANCH)
        if known.snapshot != snapshot or known.root is None:
            try:
                root = zarr.open_group(known.repository.readonly_session(snapshot_id=snapshot).store, mode="r")
            except GroupNotFoundError:  # killed between making the repository and its first commit
                return None
            known = replace(known, snapshot=snapshot, root=root)
    while len(_opened) >= OPEN and folder not in _opened:
        _opened.pop(next(iter(_opened), folder), None)
    _opened[folder] = known
    return known.root


@contextmanager
def written(folder: Path, *, deadline_s: float) -> Iterator[icechunk.Repository]:
    """The repository of the view in `folder`, made where there is none, for its one writer.

    Raises ArchiveBusy when another one has it for longer than `deadline_s`, ArchiveError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with locked(folder / "lock", deadline_s=deadline_s):
            yield _existing(folder) or _made(folder)
    except TimeoutError as error:
        raise ArchiveBusy(f"{error}; wait for the other computation to end") from error


def let_go(repository: icechunk.Repository, older_than_ns: int) -> None:
    """Of commits made before (UTC), and of what only they hold; the newest stays."""
    limit = EPOCH + timedelta(microseconds=older_than_ns // 1000)
    repository.expire_snapshots(older_than=limit)
    repository.garbage_collect(delete_object_older_than=limit)


def _storage(folder: Path) -> icechunk.Storage:
    icechunk.set_logs_filter("error")  # it warns of two committers at once; the lock sees to that
    return icechunk.local_filesystem_storage(str(folder / "repository"))


def _existing(folder: Path) -> icechunk.Repository | None:
    with translated(folder):
        if not (folder / "repository").is_dir() or not icechunk.Repository.exists(_storage(folder)):
            return None
        return icechunk.Repository.open(_storage(folder), config=bounded())


def _made(folder: Path) -> icechunk.Repository:
    with translated(folder):
        shutil.rmtree(folder / "repository", ignore_errors=True)  # what a kill left of its making
        return icechunk.Repository.create(_storage(folder), config=bounded())
