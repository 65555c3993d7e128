"""The supervisor: one loop that looks at all parts, ten times a second; nothing in it waits.

Until every part has been up once, a part that ends by itself ends all: whoever is starting the site is
there to read why. From then on it is started again, as often as it takes.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from penstock.errors import PenstockError, SiteError, Unavailable
from penstock.up.part import Part, Plan
from penstock.up.processes import wait_gone
from penstock.up.record import PartRecord, Record, State, forget, held, read, write

log = logging.getLogger(__name__)

LOOK_S = 0.1
ORPHANS_S = 60.0
"""How long the parts of a supervisor that was killed may take to end by themselves."""


class Supervisor:
    """The parts of the site in `folder`; `run` once."""

    def __init__(
        self,
        folder: Path,
        plans: Sequence[Plan],
        *,
        told: Callable[[PartRecord], None],
        now_ns: Callable[[], int] = time.time_ns,
        plant: Callable[[], int] = lambda: 0,
        planned: Callable[[], Sequence[Plan]] | None = None,
    ) -> None:
        """`plans` in the order in which they are to end. `told` hears of each change of a part's state.

        `plant`: the number of the plant that holds; when it moves, `planned` says what is to run from then on.
        """
        self._folder, self._told, self._now_ns = folder, told, now_ns
        self._parts = {plan.name: Part(plan, folder / "logs" / f"{plan.name}.log") for plan in plans}
        self._ready, self._started_ns = False, now_ns()
        self._written: Record | None = None
        self._number, self._planned, self._plant = plant, planned, plant()
        self._over = self._plant

    def run(self, stop: threading.Event, ready: Callable[[Record], None]) -> None:
        """Until `stop` is set; `ready` hears once that all parts are up. Whatever happens, all are ended.

        Raises SiteError where another supervisor runs here, Unavailable, with the reason, when a part does not
        come up.
        """
        with held(self._folder):
            clear(self._folder)
            try:
                while not stop.is_set():
                    self._look(time.monotonic())
                    if not self._ready and all(part.been_up for part in self._parts.values()):
                        self._ready = True
                        ready(self._write())
                    stop.wait(LOOK_S)
            finally:
                self._end()
                forget(self._folder)

    def _renew(self, now: float) -> None:
        """Parts come and go with the plant, where another one was applied."""
        if self._planned is None or (number := self._number()) == self._plant:
            return
        try:
            plans = {plan.name: plan for plan in self._planned()}
        except PenstockError as error:  # it was checked before it was applied, so this is the disk's; tried again
            log.error("plant %d cannot be taken over: %s", number, error)
            return
        self._plant = number
        left = {name: part for name, part in self._parts.items() if name not in plans}
        for part in left.values():
            part.leave(now)
        fresh = {n: Part(p, self._folder / "logs" / f"{n}.log") for n, p in plans.items() if n not in self._parts}
        self._parts = left | {name: fresh.get(name) or self._parts[name] for name in plans}

    def _look(self, now: float) -> None:
        self._renew(now)
        for part in [*self._parts.values()]:
            before = part.told.state
            part.look(now, self._now_ns(), self._needs(part.plan))
            if part.told.state is not before:
                self._told(part.told)
            if not self._ready and part.told.state is State.RESTING:
                raise Unavailable(f"{part.plan.name} did not come up: {part.told.why}; see {part.told.log}")
            if part.gone:
                del self._parts[part.plan.name]
        if all((needs := self._needs(p.plan)) is not None and p.runs_with(needs) for p in self._parts.values()):
            self._over = self._plant
        self._write()

    def _needs(self, plan: Plan) -> dict[str, str] | None:
        """What a part is started with: addresses, and the plant where it does not look for that itself."""
        found = self._addresses(plan.needs)
        return {**found, "plant": str(self._plant)} if plan.anew and found is not None else found

    def _addresses(self, names: Sequence[str]) -> dict[str, str] | None:
        """Of the parts of these names; None unless all are up."""
        parts = [self._parts[name].told for name in names]
        return {p.name: p.address or "" for p in parts} if all(p.state is State.UP for p in parts) else None

    def _write(self) -> Record:
        told = tuple(part.told for part in self._parts.values())
        record = Record(pid=os.getpid(), started_ns=self._started_ns, ready=self._ready, parts=told, plant=self._over)
        if record != self._written:
            try:
                write(self._folder, record)
                self._written = record
            except SiteError as error:  # a full disk must not end what runs; it is tried again at the next look
                log.error("%s", error)
        return record

    def _end(self) -> None:
        for part in self._parts.values():
            running = part.told.pid is not None
            part.end()
            if running:
                self._told(part.told)
            self._write()


def clear(folder: Path) -> None:
    """Wait for what a supervisor that was killed has left, which ends by itself, and forget it.

    Raises SiteError where some of it does not end.
    """
    before = read(folder)
    forget(folder)
    left = wait_gone([part.pid for part in before.parts if part.pid] if before else [], ORPHANS_S)
    if left:
        pids = " ".join(map(str, left))
        raise SiteError(f"{folder}: parts of an earlier supervisor still run; end them: kill -9 {pids}")
