"""Solos get a faster way to be executed after they went live, on a thread beside requests and deploys.

    penstock optimize ─► optimize(name) ──► trials ──► worker thread: the slot's host is replaced, the choice kept
    a start, a new version ─► later(name) ─► as was chosen before, once its golden check has passed ─┘

A solo begins as the graph that it is, so that neither a deploy nor a start waits for a compiler. Whoever asks while
the host is replaced is answered by the one or the other. Runs inside Triton, imports nothing of penstock.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import Any

from .child import Guest
from .choices import chosen
from .framing import unpack
from .golden import Refusal, mismatch
from .slots import Slots
from .solo import Solo
from .solo_trials import optimized, ready, rehearsal
from .trials import entry_of
from .view import Resident

TAKE_S = 180.0
"""The worker may be at a deploy: a solo's trial takes up to a minute."""
END_S = 3.0
"""What a trial gets to end when the engine does."""

log = logging.getLogger("engine")


class Tuner:
    """One thread, which takes what it is asked for in turn."""

    def __init__(self, slots: Slots, worker: Executor) -> None:
        """`worker` is the one thread that changes `slots`. What was chosen before is taken up at once."""
        self._slots, self._worker = slots, worker
        self._asked: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="tuner", daemon=True)
        self._thread.start()
        for name in slots.view.published:
            self.later(name)

    def submit(self, work: Callable[..., object], *given: Any) -> None:
        """Have `work` done on this thread, after what was asked before."""
        self._asked.put(partial(work, *given))

    def later(self, name: str) -> None:
        """Execute `name` as was chosen for it, or for the version before it; nothing where nothing was."""
        if self._solo(name) is not None:
            self.submit(self._again, name)

    def names(self) -> list[str]:
        """The published solos of this process."""
        return [name for name in self._slots.view.published if self._solo(name) is not None]

    def optimize(self, name: str, tolerance: float) -> dict[str, Any]:
        """Try, check and measure the ways to execute `name`, on this thread; what was chosen, by `key_of`.

        Nothing where it is no solo of this process any more, or was deployed anew meanwhile.
        """
        found = self._solo(name)
        if found is None:
            return {}
        resident, solo = found
        best, trials = optimized(solo, resident.golden, tolerance, partial(self._rehearsed, resident))
        entry = entry_of(best.variant, best.tolerance, 1, trials)
        try:
            return {key_of(name): self._take(resident, best, entry) | {"live": {name: resident.version}}}
        except Refusal:
            return {}

    def close(self) -> None:
        """What waits is not done; what is under way may end within END_S, and ends with the process else."""
        while not self._asked.empty():
            self._asked.get()
        self._asked.put(None)
        self._thread.join(END_S)

    def _work(self) -> None:
        while (work := self._asked.get()) is not None:
            try:
                work()
            except Exception:  # a solo stays what it was; the next one is not to suffer from it
                log.exception("a solo keeps its way")

    def _again(self, name: str) -> None:
        """Nothing is measured: only the golden check, and of another version first in a process of its own."""
        found = self._solo(name)
        entry = chosen(self._slots.folder, key_of(name))
        if found is None or entry is None or entry["variant"] == found[1].variant:
            return
        resident, solo = found
        if entry["digest"] != resident.digest and (why := self._rehearsed(resident, entry["tolerance"])):
            raise Refusal(why)
        candidate = ready(solo, entry["variant"], resident.golden, entry["tolerance"])
        if why := mismatch(candidate, 0, resident.golden, entry["tolerance"]):
            raise Refusal(f"{name}@{resident.version}: {why}")
        self._take(resident, candidate, entry)

    def _take(self, resident: Resident, solo: Solo, entry: dict[str, Any]) -> dict[str, Any]:
        told = entry | {"digest": resident.digest}
        return self._worker.submit(self._slots.execute, resident, solo, key_of(resident.name), told).result(TAKE_S)

    def _rehearsed(self, resident: Resident, tolerance: float) -> str:
        try:
            frame = (self._slots.folder / f"{resident.slot}.slot").read_bytes()
        except FileNotFoundError:
            return f"{resident.name}@{resident.version}: was undeployed meanwhile"
        content = unpack(frame)[1]["saved_model"]
        guest = Guest(f"{resident.name}@{resident.version}", "compiled solo", content)
        return rehearsal(guest, self._slots.folder, resident.golden, tolerance)

    def _solo(self, name: str) -> tuple[Resident, Solo] | None:
        view = self._slots.view
        slot = view.published.get(name)
        if slot is None:
            return None
        resident = view.residents[slot]
        host = view.hosts[resident.host]
        return (resident, host) if isinstance(host, Solo) else None


def key_of(name: str) -> str:
    """Of a solo's entry among the choices."""
    return f"solo {name}"
