"""One process at a time decides what becomes of a site's versions: a retrain, a trial's begin or end."""

from __future__ import annotations

import getpass
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from penstock.data.durable import locked
from penstock.errors import RetrainBusy

LOCK = "retrain.lock"
"""In the folder `runs/`; who holds it stands in it."""


def now() -> str:
    """UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@contextmanager
def alone(folder: Path, now: str) -> Iterator[None]:
    """One retrain of a site at a time; a killed one lets go. Raises RetrainBusy, naming who is at it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    try:
        with locked(path, deadline_s=0.0):
            mine = {"pid": os.getpid(), "host": socket.gethostname(), "who": getpass.getuser(), "since": now}
            path.write_text(json.dumps(mine))
            yield
            path.write_text("")
    except TimeoutError:
        raise RetrainBusy(f"{folder.parent}: is being retrained already, by {_holder(path)}; wait for it") from None


def _holder(path: Path) -> str:
    try:
        held = json.loads(path.read_text())
        return (
            f"process {held['pid']} on {held['host']} ({held['who']}), since {held['since'][:19].replace('T', ' ')} UTC"
        )
    except (OSError, ValueError, KeyError):
        return "a process that has just begun"
