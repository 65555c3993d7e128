"""A host whose model runs in a process of its own: it may hang or crash, and only its own slot goes without an answer.

    start ── open ── golden check ──► up ──(no answer in time, death)──► down ── wait 1, 2, 4 ... 60 s ──► start

One thread per member owns the process from its start to its end (it dies with that thread, see child.py); requests
only ask. While it is down every request fails at once. Imports neither TensorFlow nor penstock.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .child import Child, Down, Failed, Guest
from .host import F32, Cancelled, Stopped

CALL_S = 0.5
"""A model that needs longer for up to `PIECE` windows is taken for hung: every other model waits for its tick."""
START_S = 60.0
"""Its imports, and the golden check."""
FIRST_S = 20.0
"""Of these for the golden check: the first answer of a graph is traced."""
BACKOFF_S = (1.0, 60.0)
"""Before the second start in a row, and at most; doubled each time."""
STEADY_S = 60.0
"""Up for so long, and the next start is a first one again."""
LOOK_S = 0.5
"""How soon the death of an idle process is noticed."""
TRIES = 3
"""At one window, before it is called too slow."""
PIECE = 64
"""Windows in one question; between two the caller may have gone."""

log = logging.getLogger("engine")


class Isolated:
    """One member alone. `check` judges a started process by what it says to the golden windows."""

    def __init__(self, guest: Guest, folder: Path, outputs: int, check: Callable[[F32], str], golden: F32) -> None:
        """Begins to start it in `folder`; `check` [g, O] -> why not, or "". `golden` [g, T, F]: the windows for it."""
        self._guest, self._folder, self._outputs, self._check, self._golden = guest, folder, outputs, check, golden
        self._up: Child | None = None
        self._process: Child | None = None
        self._why = f"{guest.name}: is being started"
        self._tried, self._down, self._dropped = threading.Event(), threading.Event(), threading.Event()
        self._guard = threading.Lock()
        """Of `_process`: nothing is started once it was dropped."""
        self._thread = threading.Thread(target=self._keep, name=f"isolated {guest.name}", daemon=True)
        self._thread.start()

    @property
    def trouble(self) -> str:
        """Why it does not answer at the moment; "" when it does."""
        return self._why

    def wait(self, within_s: float) -> str:
        """Until its first start has come to an end; why it does not answer, "" when it does."""
        if not self._tried.wait(within_s):
            return f"{self._guest.name}: was not ready within {within_s:g} s"
        return self._why

    def begin(self, windows: F32) -> Asked:
        """Ask for windows [n, T, F], and go on with other things. Raises Down."""
        child = self._up
        if child is None:
            raise Down(self._why)
        asked = Asked(self, child, windows)
        asked.next()
        return asked

    def run(self, rows: object, windows: F32, cancelled: Cancelled) -> F32:
        """windows [m, T, F] -> [m, O]; there is one row only."""
        return self.begin(windows).collect(cancelled)

    def run_one(self, row: int, windows: F32, cancelled: Cancelled) -> F32:
        """windows [n, T, F] -> [n, O]. Raises Down, Failed, Stopped."""
        return self.begin(windows).collect(cancelled)

    def drop(self, row: int) -> None:
        """End the process; nothing stays of it."""
        with self._guard:
            self._dropped.set()
            self._down.set()
            self._up, self._why = None, f"{self._guest.name}: was withdrawn"
            if self._process is not None:
                self._process.kill()
        self._thread.join(START_S)

    def judged(self, values: F32, count: int) -> F32:
        """`values` where they are `count` finite answers. Raises Failed."""
        if values.shape != (count, self._outputs):
            raise Failed(f"{self._guest.name}: gives {values.shape} for {count} windows, not {(count, self._outputs)}")
        if not np.isfinite(values).all():
            raise Failed(f"{self._guest.name}: gives values that are not finite")
        return values

    def fall(self, child: Child, why: str) -> None:
        """`child` is of no use any more: kill it, and let the thread start another one."""
        if self._up is child:
            self._up, self._why = None, why
            child.kill()
            self._down.set()

    def _keep(self) -> None:
        starts = 0
        while not self._dropped.is_set():
            try:
                self._start()
            except (Down, Failed, OSError) as error:
                self._why = str(error)
                log.error("%s", error)
            begun = time.monotonic()
            self._tried.set()
            self._watch()
            self._end()
            starts = 1 if time.monotonic() - begun > STEADY_S else starts + 1
            first_s, most_s = BACKOFF_S
            self._dropped.wait(min(most_s, first_s * 2.0 ** min(starts - 1, 16)))

    def _start(self) -> None:
        """Raises Down, Failed with why it cannot be used."""
        until = time.monotonic() + START_S
        with self._guard:
            if self._dropped.is_set():
                return
            self._down.clear()
            child = self._process = Child(self._guest, self._folder)
        child.open(until)
        said = self.judged(child.say(self._golden, min(until, time.monotonic() + FIRST_S)), len(self._golden))
        if reason := self._check(said):
            raise Failed(f"{self._guest.name}: {reason}")
        self._be_quick(child, until)
        with self._guard:
            if not self._dropped.is_set():
                self._up, self._why = child, ""

    def _be_quick(self, child: Child, until: float) -> None:
        """Raises Failed where no try at one window is as fast as a tick wants it: the machine may be busy once."""
        took_s = []
        for _ in range(TRIES):
            begun = time.monotonic()
            child.say(self._golden[:1], until)
            took_s.append(time.monotonic() - begun)
            if took_s[-1] <= CALL_S:
                return
        least = f"one window takes {min(took_s):.2f} s; allowed: {CALL_S} s, as every other model waits for it"
        raise Failed(f"{self._guest.name}: {least}")

    def _watch(self) -> None:
        """Until the process is down."""
        while (child := self._up) is not None and not self._down.wait(LOOK_S):
            if not child.alive():
                self.fall(child, f"{self._guest.name}: its process has ended by itself")

    def _end(self) -> None:
        with self._guard:
            if self._process is not None:
                self._process.close()
            self._process = self._up = None


class Asked:
    """A question under way: `PIECE` windows at a time, each with `CALL_S`."""

    def __init__(self, host: Isolated, child: Child, windows: F32) -> None:
        self._host, self._child, self._windows = host, child, windows
        self._at, self._until = 0, 0.0

    def next(self) -> None:
        """Send the next piece. Raises Down."""
        self._until = time.monotonic() + CALL_S
        try:
            self._child.ask(self._windows[self._at : self._at + PIECE], self._until)
        except Down as down:
            self._host.fall(self._child, str(down))
            raise

    def collect(self, cancelled: Cancelled) -> F32:
        """[n, O], and the pieces that are still to be sent. Raises Down, Failed; Stopped when the caller has gone."""
        pieces = []
        while True:
            pieces.append(self._answer())
            self._at += PIECE
            if self._at >= len(self._windows):
                return np.concatenate(pieces)
            if cancelled():
                raise Stopped
            self.next()

    def _answer(self) -> F32:
        try:
            values = self._child.answer(self._until)
        except Down as down:
            self._host.fall(self._child, str(down))
            raise
        return self._host.judged(values, len(self._windows[self._at : self._at + PIECE]))
