"""What drives one sink: it follows a view, from a durable cursor on, and keeps nothing else.

    view ──what is behind the cursor──► messages ──► sink ──acknowledged──► cursor          (view and cursor: `feed.py`)

A thread of its own, so that a sink that is slow, silent or broken holds up nobody: not the scoring, not the other
sinks. It falls behind then, and its backlog is the view. Killed anywhere, the next one sends again what was not
known to be acknowledged: the same bytes, as they are a function of the view.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

from penstock.errors import SinkError
from penstock.speed.feed import Content, Feed
from penstock.speed.link import LinkTold
from penstock.speed.sink import Sink

log = logging.getLogger(__name__)

GRACE_S = 0.5
"""For a sink that has been closed to notice it."""
KEEP_S = 1.0
"""Between two writings of the cursor: so much is sent twice after a kill, at most."""
PAUSE_S = (0.5, 30.0)
"""Before a sink that failed is tried again: first and longest."""


class OutletTold(LinkTold):
    """A sink: its link, and how far it is behind."""

    behind_ticks: int
    """Ticks that are said, or aggregated, and not acknowledged."""
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

    def __init__(self, sink: Sink, feed: Feed, *, pause_s: tuple[float, float] = PAUSE_S) -> None:
        self.name, self._sink, self._feed = sink.name, sink, feed
        self._pauses_s, self._pause_s = pause_s, pause_s[0]
        self._rung, self._stop, self._ending = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"sink {sink.name}", daemon=True)
        self._behind_ns: int | None = None
        self._kept_s = time.monotonic()
        self._sent = self._failures = 0

    @property
    def content(self) -> Content:
        """What it sends."""
        return self._feed.content

    def start(self) -> None:
        """Begin behind the cursor; a new sink begins with what is said from now on. Raises SiteError, ArchiveError."""
        self._feed.open()
        if self._feed.behind():
            self._behind_ns = self._sink.link.now()
        self._thread.start()

    def ring(self, tick: int) -> None:
        """`tick` is said (or aggregated), and all before it."""
        self._feed.ring(tick)
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
        self._thread.join(GRACE_S)

    def told(self) -> OutletTold:
        """For the status."""
        return OutletTold(
            **self._sink.link.told(), behind_ticks=self._feed.behind(), behind_ns=self._behind_ns,
            sent=self._sent, failures=self._failures, skipped=self._feed.skipped,
        )  # fmt: skip

    # In its thread

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._sink.connect()
                self._follow()
            except Exception as error:  # whatever a sink does wrong, nobody else suffers
                self._failed(error)
            if self._ending.is_set() and (not self._sink.link.up or not self._feed.behind()):
                break
            self._stop.wait(self._pause_s)
            self._pause_s = min(2 * self._pause_s, self._pauses_s[1])
        self._leave()

    def _follow(self) -> None:
        """Send until it fails, or there is nothing left and nothing more comes."""
        while not self._stop.is_set():
            ending = self._ending.is_set()
            self._rung.clear()
            if self._send():
                continue
            if ending:
                return
            self._keep(0.0)
            self._rung.wait(self._feed.poll_s)

    def _send(self) -> bool:
        """What comes next, some of it; whether there was any."""
        any_came = False
        for messages in self._feed.pieces():
            any_came = True
            self._keep(KEEP_S)
            if messages:
                self._sink.send(messages)
            self._sent += len(messages)
            if self._pause_s > self._pauses_s[0]:  # it had failed
                self._pause_s, self._sink.link.trouble = self._pauses_s[0], None
        if not self._feed.behind():
            self._behind_ns = None
        return any_came

    def _keep(self, after_s: float) -> None:
        if time.monotonic() - self._kept_s >= after_s:
            self._feed.keep()
            self._kept_s = time.monotonic()

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
            self._feed.keep()
        except Exception:
            log.exception("sink %s: what was acknowledged last will be sent again", self.name)
        self._sink.close()
        self._feed.close()


def end_all(outlets: Sequence[Outlet], deadline_s: float) -> None:
    """Give each the time to send what is said, all together no longer than `deadline_s`."""
    until = time.monotonic() + deadline_s
    for outlet in outlets:
        outlet.last()
    for outlet in outlets:
        outlet.end(max(0.0, until - time.monotonic()))
