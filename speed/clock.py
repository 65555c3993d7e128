"""Event time: which ticks are closed, decided once and written into the journal.

A plain object. It reads no clock and touches no file: arrival times come in as
arguments, decisions go out as values that the caller makes durable together
with the readings that caused them. A restart takes the state from the newest
decision (`resume`), folds the rows behind it in (`note`) and goes on; it never
decides a second time what the journal already says.

    watermark = min over active sources of (newest event time - lateness)
    closed    = grid.tick_of(watermark): every tick k < closed has time(k + 1) <= watermark
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from penstock.data.frame import Frame, Readings
from penstock.data.grid import Grid
from penstock.data.journal import ClockDecision

Why = Literal["watermark", "idle", "end"]
BEGIN_TICKS = 1024
"""How far the first decision may reach back for the first tick to be said: a stale reading must not open a year."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceClock:
    """What is allowed of one source."""

    lateness_ns: int = 0
    """How far behind its newest event time a reading may be and still be on time."""
    idle_ns: int | None = None
    """Silent for this long (arrival time), it no longer holds the watermark; None: it always does."""
    skew_ns: int | None = None
    """Readings further ahead of their arrival are quarantined; None: none is (a replay)."""


@dataclass(slots=True)
class _Heard:
    """What is known of one source: newest event time, newest arrival (both ns), whether it holds the others."""

    newest: int | None = None
    arrival: int | None = None
    idle: bool = False
    ended: bool = False


class Clock:
    """The fold. Sources that are not named at construction (imports) take no part."""

    def __init__(self, grid: Grid, sources: Mapping[str, SourceClock]) -> None:
        self._grid = grid
        self._rules = dict(sources)
        self._heard = {name: _Heard() for name in sources}
        self.closed: int | None = None
        """Ticks below are closed; None before the first decision."""
        self.begin: int | None = None
        """The first tick that a source of the clock ever touched, as far back as the first decision reaches."""

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources that it waits for."""
        return tuple(self._heard)

    def heard(self, source: str) -> tuple[int | None, bool]:
        """(newest event time, whether it holds the others no more) of a source."""
        heard = self._heard[source]
        return heard.newest, heard.idle

    def state(self) -> dict[str, Any]:
        """JSON-able; `resume` of it is this clock again."""
        sources = {n: [h.newest, h.idle, h.ended] for n, h in self._heard.items()}
        return {"closed": self.closed, "begin": self.begin, "sources": sources}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Take over a decision's state. Sources that have left the settings are forgotten.

        Silence is counted anew: while this process was away, nobody could be heard.
        """
        self.closed, self.begin = state["closed"], state["begin"]
        for name, (newest, idle, ended) in state["sources"].items():
            if name in self._heard:
                self._heard[name] = _Heard(newest, None, idle, ended)

    def note(self, source: str, newest_ns: int, oldest_ns: int | None = None) -> None:
        """Fold in a journal row that came without a decision, deciding nothing."""
        heard = self._heard.get(source)
        if heard is not None:
            if self.closed is None:
                tick = self._grid.tick_of(newest_ns if oldest_ns is None else oldest_ns)
                self.begin = tick if self.begin is None else min(self.begin, tick)
            heard.newest = newest_ns if heard.newest is None else max(heard.newest, newest_ns)
            heard.idle = heard.ended = False

    def observe(
        self, source: str, newest_ns: int, arrival_ns: int, oldest_ns: int | None = None
    ) -> ClockDecision | None:
        """Readings of `source` arrived, of event times up to `newest_ns`. The decision, if ticks close."""
        if source not in self._heard:
            return None
        self.note(source, newest_ns, oldest_ns)
        self._heard[source].arrival = arrival_ns
        return self._advance("watermark")

    def wait(self, arrival_ns: int) -> ClockDecision | None:
        """Nothing arrived until `arrival_ns`: silent sources become idle. The decision, if ticks close."""
        for name, heard in self._heard.items():
            if heard.arrival is None:  # never heard: its silence counts from the first look at the clock
                heard.arrival = arrival_ns
            limit = self._rules[name].idle_ns
            if limit is not None and arrival_ns - heard.arrival >= limit:
                heard.idle = True
        return self._advance("idle")

    def hold(self, arrival_ns: int) -> None:
        """Nobody was listened to until `arrival_ns`: nobody has fallen silent by that."""
        for heard in self._heard.values():
            heard.arrival = arrival_ns

    def end(self, source: str) -> ClockDecision | None:
        """`source` has said its last: it no longer waits for late readings. The decision, if ticks close."""
        if source not in self._heard:
            return None
        self._heard[source].ended = True
        return self._advance("end")

    def _advance(self, why: Why) -> ClockDecision | None:
        watermark = self._watermark()
        if watermark is None:
            return None
        closed = self._grid.tick_of(watermark)
        if self.closed is not None and closed <= self.closed:
            return None
        if self.closed is None and self.begin is not None:
            self.begin = min(closed, max(self.begin, closed - BEGIN_TICKS))
        self.closed = closed
        return ClockDecision(closed=closed, reason=why, state=self.state())

    def _watermark(self) -> int | None:
        """ns; None while a source that holds the others has said nothing yet."""
        active = [n for n, h in self._heard.items() if not (h.idle or h.ended)]
        if active:
            marks = [self._mark(n) for n in active]
            known = [m for m in marks if m is not None]
            return min(known) if len(known) == len(marks) else None
        # Nobody is left to wait for: the furthest mark stands, whichever source fell silent first.
        known = [m for m in map(self._mark, self._heard) if m is not None]
        return max(known, default=None)

    def _mark(self, source: str) -> int | None:
        heard = self._heard[source]
        if heard.newest is None:
            return None
        if heard.ended:  # the tick of its last reading closes too
            return self._grid.time(self._grid.tick_of(heard.newest) + 1)
        return heard.newest - self._rules[source].lateness_ns


def begin_of(decision: ClockDecision) -> int:
    """The first tick to be said, where `decision` is the first of its log."""
    begin = decision.state.get("begin")
    return decision.closed if begin is None else int(begin)


def span_of(readings: Readings) -> tuple[int, int] | None:
    """Oldest and newest event time among the readings, ns; None where there are none."""
    times = readings.times if isinstance(readings, Frame) else readings.times[readings.counts() > 0]
    return (int(times.min()), int(times.max())) if len(times) else None


def quarantine(readings: Readings, limit_ns: int | None) -> tuple[Readings, int]:
    """The readings up to event time `limit_ns`, and how many lie beyond it.

    One reading dated a year ahead would close a year of ticks: it must not reach the clock.
    """
    if limit_ns is None or not len(readings.times) or int(readings.times.max()) <= limit_ns:
        return readings, 0
    kept = readings.rows(np.flatnonzero(readings.times <= limit_ns))
    return kept, len(readings) - len(kept)
