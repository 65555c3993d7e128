"""Who runs on a Triton's folder: `server.json` says it, the lock proves it.

The keeper and the server inherit the lock, so the kernel lets go of it when the last of them has gone.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from penstock.errors import SiteError


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What ``server.json`` says about a server that runs."""

    endpoint: str
    keeper: int
    """Pids."""
    server: int
    parent: int

    @property
    def wanted(self) -> bool:
        """Whether whoever started it lives; else it is ending, and nobody should begin to use it."""
        return _exists(self.parent) and _exists(self.keeper)


def running(folder: Path) -> Running | None:
    """Who runs on `folder`, from whichever process asks; None where nobody does."""
    folder = folder.absolute()
    try:
        told = json.loads((folder / "server.json").read_text())
        with open(folder / "lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:  # held by the keeper or its server: it runs
        return Running(**told)
    except (OSError, ValueError):
        return None
    return None


def locked(folder: Path, until: float) -> int:
    """The folder's lock; waits for a server whose parent or keeper has died and that is ending.

    Raises SiteError when a server runs that somebody still wants.
    """
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except BlockingIOError:
            runs = running(folder)
            if (runs and runs.wanted) or time.monotonic() > until:
                os.close(lock)
                who = f"at {runs.endpoint} (pid {runs.server})" if runs else "or is just starting"
                raise SiteError(f"{folder}: a Triton runs here already, {who}: use it, or stop it first") from None
        time.sleep(0.1)


def _exists(pid: int) -> bool:
    """A zombie does not: its parent has only not been told yet."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
