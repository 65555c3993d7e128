"""What others may know of a site's supervisor: ``up.json`` says it, the lock on ``up.lock`` proves it.

The file is replaced in one go whenever something changes, so that `status` reads it, and `train` and
`deploy` find the addresses of what runs. Only the supervisor holds the lock; its parts do not inherit it, so the
kernel lets go of it when the supervisor dies, whatever way.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from penstock.errors import SiteError, Unavailable

FILE, LOCK = "up.json", "up.lock"
POLL_S = 0.1


class State(StrEnum):
    """How a part is."""

    WAITING = "waiting"
    """For the parts that it needs."""
    STARTING = "starting"
    UP = "up"
    RESTING = "resting"
    """It has ended by itself; a pause before it is started again."""
    ENDED = "ended"
    """With its work: a replay that is over."""
    STOPPED = "stopped"
    """Because it was told to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartRecord:
    """One part. Times are ns UTC."""

    name: str
    state: State
    pid: int | None
    address: str | None
    """Where it answers; kept over a restart."""
    what: str
    """What it says of itself."""
    restarts: int
    """Times it was started again after it had ended by itself."""
    last_ns: int | None
    """When it last ended by itself."""
    why: str
    """Why it did."""
    again_ns: int | None
    """When it is started again, while it rests."""
    log: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A supervisor and its parts."""

    pid: int
    started_ns: int
    ready: bool
    """All parts have been up (or ended with their work) once."""
    parts: tuple[PartRecord, ...]
    plant: int = 0
    """Number of the plant that all parts have gone over to."""

    def part(self, name: str) -> PartRecord | None:
        """The part of that name, None where this supervisor has none."""
        return next((part for part in self.parts if part.name == name), None)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Be the one supervisor of the site in `folder`. Raises SiteError, with its pid, where there is one."""
    with (folder / LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise occupied(folder) from None
        yield


def occupied(folder: Path) -> SiteError:
    """The error for a second supervisor."""
    told = read(folder)
    who = f"pid {told.pid}" if told else "it is just starting"
    return SiteError(
        f"{folder}: is up already ({who}); see: penstock status --site {folder}; "
        f"end it with: penstock down --site {folder}"
    )


def alive(folder: Path) -> bool:
    """Whether a supervisor runs on the site in `folder`; sure, whatever became of its pid."""
    try:
        with (folder / LOCK).open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def write(folder: Path, record: Record) -> None:
    """Replace the file in one go; not made durable: a dead machine has no parts. Raises SiteError."""
    aside = folder / f".{FILE}.{os.getpid()}"
    try:
        aside.write_text(json.dumps(asdict(record)))
        aside.replace(folder / FILE)
    except OSError as error:
        raise SiteError(f"{folder / FILE}: cannot be written: {error}; check disk and rights") from error


def read(folder: Path) -> Record | None:
    """What the newest supervisor wrote, alive or not; None where there is nothing to read."""
    try:
        told = json.loads((folder / FILE).read_text())
        parts = tuple(PartRecord(**{**part, "state": State(part["state"])}) for part in told.pop("parts"))
        return Record(**told, parts=parts)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def forget(folder: Path) -> None:
    """Nothing is up any more."""
    (folder / FILE).unlink(missing_ok=True)


def address(folder: Path, name: str, deadline_s: float) -> str | None:
    """Where that part of a living supervisor answers; None where none lives or has no such part.

    Waits while it starts or rests. Raises Unavailable when it is not up in time.
    """
    until = time.monotonic() + deadline_s
    while True:
        told = read(folder) if alive(folder) else None
        part = told.part(name) if told else None
        if part is None:
            return None
        if part.state is State.UP and part.address is not None:
            return part.address
        if time.monotonic() > until:
            raise Unavailable(
                f"{name} of {folder} is not up after {deadline_s:g} s: {part.why or part.state}; see {part.log}"
            )
        time.sleep(POLL_S)
