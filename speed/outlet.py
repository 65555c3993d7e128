"""What feeds one sink: it follows the speed view, from a durable cursor on, and keeps nothing else.

    speed view ──rows behind the cursor──► messages ──► sink ──acknowledged──► cursor

A thread of its own, so that a sink that is slow, silent or broken holds up nobody: not the scoring, not the other
sinks. It falls behind then, and its backlog is the view. Killed anywhere, the next one sends again what was not
known to be acknowledged: the same bytes, as the view never changes what was said.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from penstock.data.views.speed_view import SpeedView, Spoken
from penstock.errors import SinkError
from penstock.speed.cursor import BEFORE, Cursor
from penstock.speed.link import LinkTold
from penstock.speed.sink import Message, Sink

log = logging.getLogger(__name__)

TICKS, PREDICTIONS = 64, 4096
"""Of one sending, at most; a single tick may have more predictions."""
POLL_S = 0.5
"""The view is looked at so often even when nobody rings."""
KEEP_S = 1.0
"""Between two writings of the cursor: so much is sent twice after a kill, at most."""
PAUSE_S = (0.5, 30.0)
"""Before a sink that failed is tried again: first and longest."""


class OutletTold(LinkTold):
    """A sink: its link, and how far it is behind."""

    behind_ticks: int
    """Ticks that are said and not acknowledged."""
    behind_ns: int | None
    """Since when there are any, ns UTC; None while there are none."""
    sent: int
    """Messages acknowledged in this run."""
    failures: int
    """Times that it failed in this run: each was tried again."""
    skipped: int
    """Ticks of this run that were not sent since newer ones were there."""


class Outlet:
    """Of one sink. `start` once, `end` once."""

    def __init__(
        self, sink: Sink, site: Path, messages: Callable[[Spoken], Sequence[Message]],
        *, catch_up: Literal["all", "newest"] = "all", pause_s: tuple[float, float] = PAUSE_S,
    ) -> None:  # fmt: skip
        self.name, self._sink, self._site, self._messages = sink.name, sink, site, messages
        self._catch_up, self._pauses_s, self._pause_s = catch_up, pause_s, pause_s[0]
        self._rung, self._stop, self._ending = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"sink {sink.name}", daemon=True)
        self._newest: int | None = None
        self._behind_ns: int | None = None
        self._kept_s = time.monotonic()
        self._sent = self._failures = self._skipped = 0

    def start(self) -> None:
        """Begin behind the cursor; a new sink begins with what is said from now on. Raises SiteError."""
        self._view = SpeedView.open(self._site / "views" / "speed.sqlite")
        self._cursor = Cursor(self._site / "speed" / "sinks", self.name)
        self._newest = self._view.last_tick()
        if self._cursor.tick is None:
            self._cursor.move(BEFORE if self._newest is None else self._newest)
            self._cursor.keep()
        if self._behind():
            self._behind_ns = self._sink.link.now()
        self._thread.start()

    def ring(self, tick: int) -> None:
        """`tick` is said, and all before it."""
        self._newest = tick
        if self._behind_ns is None:
            self._behind_ns = self._sink.link.now()
        self._rung.set()

    def last(self) -> None:
        """Nothing more will be said: it ends when it has sent all, or its line is down."""
        self._ending.set()
        self._rung.set()

    def end(self, deadline_s: float) -> None:
        """Wait so long for the last; then let go. A sink that hangs is left to itself."""
        if self._thread.ident is None:  # never started
            return
        self._thread.join(deadline_s)
        self._stop.set()
        self._rung.set()
        self._sink.close()
        self._thread.join(POLL_S)

    def told(self) -> OutletTold:
        """For the status."""
        return OutletTold(
            **self._sink.link.told(), behind_ticks=self._behind(), behind_ns=self._behind_ns,
            sent=self._sent, failures=self._failures, skipped=self._skipped,
        )  # fmt: skip

    # In its thread

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._sink.connect()
                self._follow()
            except Exception as error:  # whatever a sink does wrong, nobody else suffers
                self._failed(error)
            if self._ending.is_set() and (not self._sink.link.up or not self._behind()):
                break
            self._stop.wait(self._pause_s)
            self._pause_s = min(2 * self._pause_s, self._pauses_s[1])
        self._leave()

    def _follow(self) -> None:
        """Send until it fails, or there is nothing left and nothing more comes."""
        while not self._stop.is_set():
            ending = self._ending.is_set()
            self._rung.clear()
            rows = self._waiting()
            if rows:
                self._send(rows)
            elif ending:
                return
            else:
                self._keep(0.0)
                self._rung.wait(POLL_S)

    def _waiting(self) -> Sequence[Spoken]:
        """What comes next, some of it."""
        after = self._cursor.tick
        assert after is not None
        rows = self._view.newest_each(after) if self._catch_up == "newest" else self._view.after(after, TICKS)
        if rows and after == BEFORE:
            self._cursor.move(rows[0].tick - 1)
        return rows

    def _send(self, rows: Sequence[Spoken]) -> None:
        before = self._cursor.tick
        assert before is not None
        for some in _groups(rows):
            messages = [message for spoken in some for message in self._messages(spoken)]
            if messages:
                self._sink.send(messages)
            self._sent += len(messages)
            self._cursor.move(some[-1].tick)
            self._keep(KEEP_S)
        if self._pause_s > self._pauses_s[0]:  # it had failed
            self._pause_s, self._sink.link.trouble = self._pauses_s[0], None
        if self._catch_up == "newest":
            self._skipped += rows[-1].tick - before - len(rows)
        if not self._behind():
            self._behind_ns = None

    def _keep(self, after_s: float) -> None:
        if time.monotonic() - self._kept_s >= after_s:
            self._cursor.keep()
            self._kept_s = time.monotonic()

    def _behind(self) -> int:
        tick, newest = self._cursor.tick, self._newest
        return 0 if newest is None or tick is None or tick == BEFORE else max(0, newest - tick)

    def _failed(self, error: Exception) -> None:
        if self._stop.is_set():
            return
        self._failures += 1
        self._sink.link.trouble = str(error)
        if isinstance(error, SinkError):
            log.warning("%s; tried again in %.1f s", error, self._pause_s)
        else:
            log.exception("sink %s: tried again in %.1f s", self.name, self._pause_s)

    def _leave(self) -> None:
        try:
            self._cursor.keep()
        except Exception:
            log.exception("sink %s: what was acknowledged last will be sent again", self.name)
        self._sink.close()
        self._view.close()


def end_all(outlets: Sequence[Outlet], deadline_s: float) -> None:
    """Give each the time to send what is said, all together no longer than `deadline_s`."""
    until = time.monotonic() + deadline_s
    for outlet in outlets:
        outlet.last()
    for outlet in outlets:
        outlet.end(max(0.0, until - time.monotonic()))


def _groups(rows: Sequence[Spoken]) -> Iterator[Sequence[Spoken]]:
    """`rows` in order, so many at a time that a sending stays small."""
    first, size = 0, 0
    for at, row in enumerate(rows):
        if at > first and size + len(row.members) > PREDICTIONS:
            yield rows[first:at]
            first, size = at, 0
        size += len(row.members)
    if first < len(rows):
        yield rows[first:]
