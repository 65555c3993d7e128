"""A copy of a journal while others append to it and trim it: the log up to one moment, as files of its own.

No lock is taken: what lies before the tail never changes, and a segment that was trimmed meanwhile says so itself. A
copy that was overtaken by a trim is begun again.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from penstock.data.durable import write_durably
from penstock.data.journal import segment as files
from penstock.data.journal.files import TAIL, Tail
from penstock.data.journal.journal import Journal
from penstock.errors import JournalError

TRIES = 20
CHECKPOINT = "checkpoint.json"


def copy_journal(journal: Journal, into: Path) -> tuple[int, int]:
    """Copy the log as it stands into the new folder `into`; its sequences [first, tail).

    All that was acknowledged before the call is in it. Raises JournalError.
    """
    for _ in range(TRIES):
        shutil.rmtree(into, ignore_errors=True)
        into.mkdir(parents=True)
        tail = _copied(journal.folder, into)
        if tail is not None:
            return tail.first, tail.sequence
    raise JournalError(f"{journal.folder}: is trimmed faster than it can be copied; try again")


def _copied(folder: Path, into: Path) -> Tail | None:
    """None where a trim came between."""
    tail = _tail(folder)
    checkpoint = folder / CHECKPOINT
    raw = checkpoint.read_bytes() if checkpoint.exists() else None
    if tail is None or _oldest(folder) != tail.oldest:
        return None  # the checkpoint may be of another beginning
    for stamp in range(tail.oldest, tail.newest + 1):
        if not _copy_segment(folder, into, stamp, tail.at if stamp == tail.newest else None):
            return None
    if raw is not None:
        write_durably(into / CHECKPOINT, raw)
    write_durably(into / "tail", tail.pack())
    return tail


def _tail(folder: Path) -> Tail | None:
    try:
        return Tail.unpack((folder / "tail").read_bytes()[: TAIL.size])
    except OSError:
        return None


def _oldest(folder: Path) -> int | None:
    tail = _tail(folder)
    return None if tail is None else tail.oldest


def _copy_segment(folder: Path, into: Path, stamp: int, size: int | None) -> bool:
    """One segment, whole or its first `size` bytes; False where it was trimmed meanwhile."""
    path = folder / files.name_of(stamp)
    try:
        with path.open("rb") as source, (into / path.name).open("wb") as target:
            left = os.fstat(source.fileno()).st_size if size is None else size
            while left and (block := source.read(min(left, len(files.BLOCK)))):
                left -= target.write(block)
        with path.open("rb") as source:
            head = files.read_head(source.read(files.HEAD.size))
    except FileNotFoundError:
        return False
    with (into / path.name).open("rb") as copy:
        copied = files.read_head(copy.read(files.HEAD.size))
    return left == 0 and head is not None and head == copied and head[0] == stamp
