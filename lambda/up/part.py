"""One part under the supervisor: its process, what it said, and what becomes of it.

                 needs are up              says up
    WAITING ───────────────► STARTING ───────────► UP ──── ends with its work ───► ENDED
       ▲                         │                  │
       └──── the pause is over ──┴──── RESTING ◄────┘ ends by itself: `restarts.Course`

`look` never waits; time is an argument.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from penstock.up.processes import COMMAND, Process, reason
from penstock.up.record import PartRecord, State
from penstock.up.restarts import Course


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A part that is to run."""

    name: str
    order: Mapping[str, Any]
    """What its process is told beside its addresses."""
    needs: tuple[str, ...] = ()
    """Parts that must be up before it starts; one that has moved to another address makes it start anew."""
    start_s: float = 300.0
    """Longest start."""
    stop_s: float = 30.0
    """What it gets to end in order."""
    command: tuple[str, ...] = COMMAND
    anew: bool = False
    """Starts anew when another plant was applied: it does not look for one itself."""


class Part:
    """A part; its process lives between `look`s."""

    def __init__(self, plan: Plan, log: Path) -> None:
        self.plan, self._log = plan, log
        self.told = PartRecord(
            name=plan.name, state=State.WAITING, pid=None, address=None, what="", restarts=0,
            last_ns=None, why="", again_ns=None, log=str(log),
        )  # fmt: skip
        """What the record says of it."""
        self.been_up = False
        """Whether it has been up, or ended with its work, once."""
        self._course = Course()
        self._process: Process | None = None
        self._given: Mapping[str, str] = {}
        """Addresses that the process was started with."""
        self._since = 0.0
        """Monotonic seconds: when the process was started, or asked to end because a need has moved."""
        self._moving, self._done, self._why = False, False, ""
        self._leaving = False

    def leave(self, now: float) -> None:
        """It is wanted no more: ends in order, while others go on; `gone` says when."""
        self._leaving = True
        if self._process is not None:
            self._moving, self._since = True, now
            self._process.ask()
        else:
            self._tell(state=State.STOPPED)

    @property
    def gone(self) -> bool:
        """Whether it was told to leave and has."""
        return self._leaving and self._process is None

    def runs_with(self, needs: Mapping[str, str]) -> bool:
        """Whether it is up with these addresses, or has ended with its work."""
        return self.told.state is State.ENDED or (self.told.state is State.UP and self._given == needs)

    def look(self, now: float, now_ns: int, needs: Mapping[str, str] | None) -> None:
        """Hear the process and do what is due; `needs`: addresses by name, None while not all are up."""
        if self._process is not None:
            code = self._process.code()  # before the words: what it said last is heard too
            self._hear(self._process, now)
            if code is None:
                self._keep(self._process, now, needs)
            else:
                self._process.close()
                self._ended(self._process, code, now, now_ns)
        elif self._leaving:
            return
        elif self.told.state is State.RESTING and now >= self._course.not_before:
            self._tell(state=State.WAITING, again_ns=None, restarts=self.told.restarts + 1)
        elif self.told.state is State.WAITING and needs is not None:
            self._start(now, now_ns, needs)

    def end(self) -> None:
        """End it in order, killed where it takes longer than its `stop_s`."""
        what = self.told.what
        if self._process is not None:
            if not self._process.end(self.plan.stop_s):
                what = f"killed: it did not end within {self.plan.stop_s:g} s"
            self._process.close()
        self._process = None
        if self.told.state is not State.ENDED:
            self._tell(state=State.STOPPED, pid=None, what=what)

    def _start(self, now: float, now_ns: int, needs: Mapping[str, str]) -> None:
        order = {**self.plan.order, "part": self.plan.name, "before": self.told.address, "needs": needs}
        self._moving, self._done, self._why = False, False, ""
        self._given, self._since = needs, now
        try:
            self._process = Process(order, self._log, self.plan.command)
        except OSError as error:
            self._fall(f"cannot be started: {error}", now, now_ns)
        else:
            self._tell(state=State.STARTING, pid=self._process.pid)

    def _hear(self, process: Process, now: float) -> None:
        for words in process.words():
            if "up" in words:
                self._course, self.been_up = self._course.rose(now), True
                self._tell(state=State.UP, address=words["up"])
            self._tell(what=words.get("what", self.told.what))
            self._done = self._done or words.get("ended", False)
            self._why = words.get("why", self._why)

    def _keep(self, process: Process, now: float, needs: Mapping[str, str] | None) -> None:
        """A process that runs: is it still on time, and are its addresses still right?"""
        if self._moving:
            if now - self._since > self.plan.stop_s:
                process.kill()
        elif needs is not None and needs != self._given:
            self._moving, self._since = True, now
            process.ask()
        elif self.told.state is State.STARTING and now - self._since > self.plan.start_s:
            self._why = f"not up within {self.plan.start_s:g} s"
            process.kill()

    def _ended(self, process: Process, code: int, now: float, now_ns: int) -> None:
        self._process = None
        if self._done and code == 0:
            self.been_up = True
            self._tell(state=State.ENDED, pid=None)
        elif self._leaving:
            self._tell(state=State.STOPPED, pid=None)
        elif self._moving:
            self._tell(state=State.WAITING, pid=None)
        else:
            self._fall(self._why or reason(code, process.last_line()), now, now_ns)

    def _fall(self, why: str, now: float, now_ns: int) -> None:
        self._course = self._course.fell(now)
        again_ns = now_ns + int((self._course.not_before - now) * 1e9)
        self._tell(state=State.RESTING, pid=None, what="", why=why, last_ns=now_ns, again_ns=again_ns)

    def _tell(self, **changes: Any) -> None:
        self.told = replace(self.told, **changes)
