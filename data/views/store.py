"""The icechunk repository in which a derived view lies: found, made, shortened.

One process at a time writes a view (`locked` on its ``lock``); whoever reads opens the newest commit. Knows nothing of
what a view holds.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import icechunk
import zarr
from zarr.errors import GroupNotFoundError

from penstock.data.archive.repository import BRANCH, translated
from penstock.data.durable import locked
from penstock.errors import ArchiveBusy

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def newest(folder: Path) -> zarr.Group | None:
    """The root of the view in `folder`, of its newest commit; None where there is none. Raises ArchiveError."""
    repository = _existing(folder)
    if repository is None:
        return None
    with translated(folder):
        try:
            return zarr.open_group(repository.readonly_session(BRANCH).store, mode="r")
        except GroupNotFoundError:  # killed between making the repository and its first commit
            return None


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
        return icechunk.Repository.open(_storage(folder))


def _made(folder: Path) -> icechunk.Repository:
    with translated(folder):
        shutil.rmtree(folder / "repository", ignore_errors=True)  # what a kill left of its making
        return icechunk.Repository.create(_storage(folder))
