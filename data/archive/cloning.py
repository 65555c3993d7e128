"""A copy of an icechunk repository as of one commit, beside its writers: hard links of what never changes.

Chunks, manifests and transactions are written once and never changed, so a link to each is a copy that costs nothing;
what may be replaced - branches, tags, snapshots whose parents are expired - is copied. The copy is then cut down to the
commit that is wanted and to those with tags, by icechunk itself, which removes links and no data of the original.
"""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

from penstock.data.archive.repository import BRANCH, repository, translated

LINKED = ("chunks", "manifests", "transactions")
COPIED = ("refs", "snapshots")
CONFIG = "config.yaml"


def clone(folder: Path, into: Path) -> None:
    """Link and copy the repository in `folder` into the new folder `into`, all of its commits.

    Nobody may collect old commits of it meanwhile. Raises ArchiveError.
    """
    with translated(folder):
        into.mkdir(parents=True)
        for name in COPIED:  # in this order, and first: what is named is there by then, and stays
            if (folder / name).is_dir():
                shutil.copytree(folder / name, into / name, ignore=_being_written)
        for name in LINKED:
            if (folder / name).is_dir():
                _link_all(folder / name, into / name)
        if (folder / CONFIG).exists():
            shutil.copyfile(folder / CONFIG, into / CONFIG)


def cut_down(into: Path, snapshot: str | None = None) -> None:
    """Leave of a clone what its newest commit, or `snapshot`, and its tags need. Raises ArchiveError."""
    repo = repository(into, create=False)
    with translated(into):
        if snapshot is not None:
            repo.reset_branch(BRANCH, snapshot)
        now = datetime.now(UTC)
        repo.expire_snapshots(older_than=now)
        repo.garbage_collect(delete_object_older_than=now)


def is_repository(folder: Path) -> bool:
    """Whether icechunk keeps one there."""
    return (folder / "refs").is_dir() and (folder / "snapshots").is_dir()


def linked(source: Path, target: Path) -> None:
    """A hard link, or a copy where the file system has none. FileNotFoundError where it has gone."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copy2(source, target)


def _being_written(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if "#" in name]


def _link_all(source: Path, target: Path) -> None:
    target.mkdir()
    with os.scandir(source) as entries:
        for entry in entries:
            if entry.is_file(follow_symlinks=False) and "#" not in entry.name:
                linked(Path(entry.path), target / entry.name)
