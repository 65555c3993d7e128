"""Files that survive a crash: durable writes, and locks between processes.

flock and not a lock file: the kernel lets go of it when its holder is killed.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_POLL_S = 0.02


def write_durably(path: Path, content: bytes) -> None:
    """Write a new file and wait until its bytes are on the disk; the folder is not synced."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the folder's entries (new names, renames) are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path, *, deadline_s: float, poll_s: float = _POLL_S) -> Iterator[None]:
    """Hold the exclusive flock on `path` (made if missing).

    Raises TimeoutError when another process still holds it after `deadline_s`.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        end = time.monotonic() + deadline_s
        while not _taken(descriptor):
            if time.monotonic() > end:
                raise TimeoutError(f"{path}: locked by another process for more than {deadline_s:g} s")
            time.sleep(poll_s)
        yield
    finally:
        os.close(descriptor)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
