"""One reader of the site for all open pages.

A thread polls; sessions take its newest snapshots, which never change. A
session that stalls therefore holds nothing up and nothing back, and ten pages
cost the site what one does. Only models that somebody looks at are read.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from penstock.errors import PenstockError
from penstock.serving.questions import Entry, Questions, Standing, Trace

ROWS = 600
"""Rows on the live page."""
POLL_S = 0.5
UNSEEN_S = 10.0
"""A model that no session has asked for so long is read no more."""
TRUTH_S = 5.0
"""Rows are read again so often although nothing new was said: a late truth may have come."""
PACE_S = 10.0
"""The pace of the stream is measured over this long."""
STALE_FLOOR_S = 2.0
"""Nothing is called stale before: a fast replay's two ticks are shorter than the poll and the commit."""
SILENT_S = 10.0
"""A running stream tells of itself every second: one that has not for so long hangs."""
STOP_S = 10.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """How the site stands, as of `wall_s` (seconds UTC)."""

    wall_s: float
    standing: Standing
    data_age_s: float | None
    """Since the newest tick was said; None: nothing was."""
    link_age_s: float | None
    """Since the stream told of itself."""
    ticks_per_s: float
    readings_per_s: float
    stale: bool
    trouble: str | None
    """Why the site cannot be read, or why the stream says nothing."""

    @property
    def silent(self) -> bool:
        """Nothing is heard of the stream."""
        return not self.standing.running or self.link_age_s is None or self.link_age_s > SILENT_S


@dataclass(slots=True)
class Pace:
    """What the wall clock saw: when the tick moved, and how fast. Time is an argument."""

    period_s: float
    replay: bool
    moves: deque[tuple[float, int, int]] = field(default_factory=deque)
    """(wall seconds, tick, readings) of each poll that found a new tick."""
    told: float | None = None
    """The rate that the stream told when its newest tick came: later it only tells how slow it has become."""
    recorded: bool = False
    """Whether the stream reads files, whatever the plant's clock."""

    def see(self, wall_s: float, standing: Standing) -> None:
        """Take one poll in."""
        self.recorded = standing.replay
        if standing.tick is None or (self.moves and standing.tick == self.moves[-1][1]):
            return
        if not self.moves and not standing.running and standing.heard_ns is not None:
            wall_s = standing.heard_ns / 1e9  # it cannot be younger than the stream's last word
        self.moves.append((wall_s, standing.tick, standing.readings))
        self.told = standing.rate
        while len(self.moves) > 2 and self.moves[-1][0] - self.moves[1][0] > PACE_S:
            self.moves.popleft()

    def rates(self) -> tuple[float, float]:
        """(ticks, readings) per second; 0 before two moves were seen."""
        if len(self.moves) < 2:
            return 0.0, 0.0
        (begin, tick, readings), (end, last, count) = self.moves[0], self.moves[-1]
        took = max(end - begin, 1e-3)
        return (last - tick) / took, max(count - readings, 0) / took

    def tick_s(self) -> float:
        """How long a tick takes on the wall clock."""
        if not (self.replay or self.recorded):
            return self.period_s
        if self.told:
            return self.period_s / self.told
        measured = self.rates()[0]
        return 1 / measured if measured else self.period_s

    def moment(self, wall_s: float, standing: Standing, trouble: str | None) -> Moment:
        """Everything there is to say at `wall_s`."""
        age = wall_s - self.moves[-1][0] if self.moves else None
        heard = None if standing.heard_ns is None else wall_s - standing.heard_ns / 1e9
        silent = age is None or age > max(2 * self.tick_s(), STALE_FLOOR_S)
        moving = standing.running and age is not None and age <= max(2 * self.tick_s(), PACE_S)
        ticks, readings = self.rates() if moving else (0.0, 0.0)
        return Moment(
            wall_s=wall_s, standing=standing, data_age_s=age, link_age_s=heard, ticks_per_s=ticks,
            readings_per_s=readings, stale=silent or not standing.running, trouble=trouble or standing.trouble,
        )  # fmt: skip


class Feed:
    """The thread and its snapshots. `start`, then read from any thread, then `stop`."""

    def __init__(self, questions: Questions) -> None:
        self.questions = questions
        self._pace = Pace(period_s=questions.face.period_s, replay=questions.face.replay)
        self._lock = threading.Lock()
        self._wanted: dict[str, float] = {}
        self._traces: dict[str, tuple[float, int | None, Trace]] = {}
        self._sheet: Sequence[Entry] = ()
        self._standing: Standing = questions.standing()
        self._trouble: str | None = None
        self._told: tuple[object, ...] = ()
        self.edition = 0
        """Rises whenever there is something new to show: what was made of an edition holds until then."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)

    def start(self) -> None:
        """Begin to poll."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join(STOP_S)

    def trace(self, model: str) -> Trace | None:
        """The newest rows of a model; None until the next poll has read them."""
        with self._lock:
            self._wanted[model] = time.monotonic()
            found = self._traces.get(model)
        return None if found is None else found[2]

    def sheet(self) -> Sequence[Entry]:
        """All models at the newest tick."""
        return self._sheet

    def moment(self) -> Moment:
        """How the site stands now."""
        with self._lock:
            return self._pace.moment(time.time(), self._standing, self._trouble)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._poll()
                self._trouble = None
            except PenstockError as error:  # shown on the page; the next poll tries again
                self._trouble = str(error)
            except Exception as error:  # a page that says so is better than one that silently stands still
                log.exception("the site cannot be read")
                self._trouble = f"the site cannot be read: {error}"
            self._publish()
            self._stop.wait(POLL_S)

    def _publish(self) -> None:
        """A new edition, where something but the time has changed."""
        now = self.moment()
        told = now.standing, now.stale, now.silent, now.ticks_per_s, now.trouble
        if told != self._told:
            self._told = told
            self.edition += 1

    def _poll(self) -> None:
        standing = self.questions.standing()
        with self._lock:
            moved = standing.tick != self._standing.tick or not self._sheet
            self._standing = standing
            self._pace.see(time.time(), standing)
        for model in self._watched():
            self._read(model, standing.tick)
        if moved:
            self._sheet = self.questions.sheet()
            self.edition += 1

    def _watched(self) -> list[str]:
        now = time.monotonic()
        with self._lock:
            for model in [m for m, asked in self._wanted.items() if now - asked > UNSEEN_S]:
                del self._wanted[model]
                self._traces.pop(model, None)
            return list(self._wanted)

    def _read(self, model: str, tick: int | None) -> None:
        now = time.monotonic()
        read_at, seen, _ = self._traces.get(model, (0.0, None, None))
        if model in self._traces and seen == tick and now - read_at < TRUTH_S:
            return
        trace = self.questions.trace(model, ROWS)
        with self._lock:
            self._traces[model] = (now, tick, trace)
        self.edition += 1
