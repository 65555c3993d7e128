"""The watch over the Triton that this process started: look, decide, mend, say so.

    look ── Finding ──► Course.next ── Act ──► repair (the engine) | restart (the server)

`Course` is arithmetic and `Watch` the loop around it. Only a server of our own
is watched: one that was given by address is somebody else's to mend.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

from penstock.errors import ServingError, SiteError
from penstock.serving.triton import Triton

EVERY_S = 1.0
"""Between two looks."""
PATIENCE = 5
"""Looks in a row at living processes that may go wrong before the engine is loaded anew: a busy machine is late."""
LIMIT = 8
"""Mendings in a row; after the last one somebody has to look."""
BACKOFF_S = (1.0, 60.0)
"""Before the second mending in a row, and at most; doubled each time."""
STEADY_S = 60.0
"""Right for so long, and the next mending is a first one again."""
FILE = "watch.json"

log = logging.getLogger(__name__)


class Finding(Enum):
    """What a look found."""

    RIGHT = "right"
    BUSY = "busy"
    """A mending or a deploy is under way: its outcome is waited for."""
    WRONG = "wrong"
    """The processes live, but a golden window is not answered right."""
    ENGINE_GONE = "the engine's process has gone"
    SERVER_GONE = "tritonserver has gone"


class Act(Enum):
    """What is done about it."""

    NOTHING = "nothing"
    REPAIR = "loading the engine anew"
    RESTART = "starting the server anew"


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """Where the watch stands. Times are monotonic seconds."""

    wrong: int = 0
    """Looks in a row that found living processes and no right answer."""
    mendings: int = 0
    """In a row, without `STEADY_S` of rest between them."""
    not_before: float = 0.0
    """The next mending."""
    right_since: float | None = None

    def next(self, finding: Finding, now: float) -> tuple[Course, Act]:
        """The course after a look, and what to do."""
        match finding:
            case Finding.BUSY:
                return self, Act.NOTHING
            case Finding.RIGHT:
                since = now if self.right_since is None else self.right_since
                rested = now - since >= STEADY_S
                return replace(self, wrong=0, right_since=since, mendings=0 if rested else self.mendings), Act.NOTHING
            case Finding.WRONG:
                course = replace(self, wrong=self.wrong + 1, right_since=None)
                return course._mend(finding, now) if course.wrong >= PATIENCE else (course, Act.NOTHING)
        return replace(self, right_since=None)._mend(finding, now)

    @property
    def given_up(self) -> bool:
        """Whether nothing more is tried."""
        return self.mendings >= LIMIT

    def _mend(self, finding: Finding, now: float) -> tuple[Course, Act]:
        """A first mending is the small one; what needs a second one in a row needs more."""
        if self.given_up or now < self.not_before:
            return self, Act.NOTHING
        small = finding is not Finding.SERVER_GONE and self.mendings == 0
        return replace(self, wrong=0, mendings=self.mendings + 1), Act.REPAIR if small else Act.RESTART

    def mended(self, now: float) -> Course:
        """After a mending, well or not."""
        first_s, most_s = BACKOFF_S
        return replace(self, not_before=now + min(most_s, first_s * 2.0 ** max(0, self.mendings - 1)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What ``triton/watch.json`` says."""

    endpoint: str
    """Of the server that is meant."""
    repaired: int = 0
    """Times the engine was loaded anew, since the watch began."""
    restarted: int = 0
    """Times the server was started anew."""
    last_ns: int | None = None
    """Wall-clock time of the newest mending; ns UTC."""
    trouble: str | None = None
    """Why it does not answer right at the moment; None when it does."""
    silent: dict[str, str] = field(default_factory=dict)
    """Isolated models whose own process is down at the moment, with the reason; the engine starts them again."""


class Watch:
    """Looks after one server, from the thread that calls `run`."""

    def __init__(self, server: Triton, *, now_ns: Callable[[], int] = time.time_ns) -> None:
        """`server` has come up."""
        self._server, self._now_ns = server, now_ns
        self._course = Course()
        self._silent: dict[str, str] = {}
        self._told = Watched(endpoint=server.endpoint)

    def run(self, stop: threading.Event, every_s: float = EVERY_S) -> None:
        """Look every `every_s` until `stop` is set. Ending the server ends a mending under way."""
        write_watched(self._server.folder, self._told)
        while not stop.is_set():
            finding, why = self._look()
            if stop.is_set():
                return
            self._course, act = self._course.next(finding, time.monotonic())
            if act is not Act.NOTHING:
                self._mend(act, why, stop)
            elif finding is Finding.RIGHT:
                self._tell(trouble=None, silent=self._silent)
            elif self._course.given_up and why:
                self._tell(trouble=f"given up after {LIMIT} mendings in a row: {_first(why)}")
            stop.wait(every_s)

    def _look(self) -> tuple[Finding, str]:
        server = self._server
        if server.mending():
            return Finding.BUSY, ""
        try:
            self._silent = server.canary().waiting
            return Finding.RIGHT, ""
        except ServingError as error:
            why = str(error)
        if not server.alive():
            return Finding.SERVER_GONE, why
        if server.engine_gone():
            return Finding.ENGINE_GONE, why
        # A golden window that is asked for while its slot is exchanged may miss; a deploy ends within its claim.
        return (Finding.BUSY if server.deploying() else Finding.WRONG), why

    def _mend(self, act: Act, why: str, stop: threading.Event) -> None:
        first = _first(why)
        log.warning("%s: %s; %s", self._server.endpoint, first, act.value)
        self._tell(trouble=f"{first}; {act.value}")
        begun = time.monotonic()
        try:
            if act is Act.REPAIR:
                self._server.repair()
            else:
                self._server.restart()
        except (ServingError, SiteError, OSError) as error:
            if not stop.is_set():
                log.error("%s: %s failed: %s", self._server.endpoint, act.value, error)
                self._tell(trouble=_first(str(error)))
        else:
            log.warning("%s: answers again after %.1f s", self._server.endpoint, time.monotonic() - begun)
            self._count(act)
        self._course = self._course.mended(time.monotonic())

    def _count(self, act: Act) -> None:
        told = self._told
        if act is Act.REPAIR:
            self._tell(trouble=None, repaired=told.repaired + 1, last_ns=self._now_ns())
        else:
            self._tell(trouble=None, restarted=told.restarted + 1, last_ns=self._now_ns())

    def _tell(self, **changes: Any) -> None:
        told = replace(self._told, **changes)
        if told != self._told:
            self._told = told
            write_watched(self._server.folder, told)


def write_watched(folder: Path, watched: Watched) -> None:
    """Replace the file in one go; a disk that refuses it is logged: the watch is worth more than its report."""
    aside = folder / f".{FILE}.{os.getpid()}"
    try:
        aside.write_text(json.dumps(asdict(watched)))
        aside.replace(folder / FILE)
    except OSError as error:
        log.error("%s: cannot be written: %s; check disk and rights", folder / FILE, error)


def read_watched(folder: Path, endpoint: str) -> Watched | None:
    """What the watch over the server at `endpoint` last said; None where nobody watches it."""
    try:
        told = Watched(**json.loads((folder / FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return told if told.endpoint == endpoint else None


def _first(text: str) -> str:
    """Its first line: the others are the end of a log."""
    return text.splitlines()[0] if text else ""
