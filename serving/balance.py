"""Which endpoint is asked next: the least loaded of those that answer, then those that are left alone.

Arithmetic alone: opens no connection, time is an argument.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from penstock.serving.breaker import Breaker

FIRST_SHARE = 0.6
"""Of the time that is left, what an endpoint gets while others could still be asked: a hung server costs no more."""


@dataclass(slots=True, kw_only=True, eq=False)
class Station:
    """One endpoint of a pool, as the pool's loop sees it."""

    endpoint: str
    """host:port"""
    breaker: Breaker = field(default_factory=Breaker)
    in_flight: int = 0
    """Calls that it has not answered yet."""
    answered_at: float = 0.0
    """Monotonic seconds."""
    asked: int = 0
    failed: int = 0
    """Calls that it gave no answer to."""
    trouble: str = ""
    """Why it did not answer the newest call that it did not answer; empty once it has answered again."""

    def begin(self) -> None:
        """A call goes out to it."""
        self.in_flight += 1
        self.asked += 1

    def answer(self, now: float) -> None:
        """It has answered, yes or no."""
        self.in_flight -= 1
        self.answered_at, self.breaker, self.trouble = now, self.breaker.answered(), ""

    def fail(self, now: float, why: str) -> None:
        """It has not answered."""
        self.in_flight -= 1
        self.failed += 1
        breaker = self.breaker
        self.breaker = breaker.probe_failed(now) if breaker.due(now) else breaker.failed(now)
        self.trouble = why

    def drop(self) -> None:
        """The caller has gone: nothing is known of it."""
        self.in_flight -= 1

    def healed(self) -> None:
        """A probe was answered."""
        self.breaker, self.trouble = self.breaker.answered(), ""

    def probe_failed(self, now: float, why: str) -> None:
        """A probe was not; a call that was answered meanwhile knows better."""
        if not self.breaker.closed:
            self.breaker, self.trouble = self.breaker.probe_failed(now), why


def next_of(stations: Sequence[Station]) -> Station:
    """The one to ask; `stations` are those that this call has not asked yet, one at least.

    Least loaded first; of equals the one that answered last, as its connection is warm and its slots are known.
    One that is left alone is asked when no other is left: a pool never refuses a call by its own guess.
    """

    def rank(station: Station) -> tuple[float, ...]:
        if station.breaker.closed:
            return (0, station.in_flight, -station.answered_at)
        return (1, station.breaker.not_before, station.in_flight)

    return min(stations, key=rank)


def due(stations: Sequence[Station], now: float) -> list[Station]:
    """Those to be probed beside the calls: none while none of the others answers, as the calls themselves go there."""
    if not any(s.breaker.closed for s in stations):
        return []
    return [s for s in stations if s.breaker.due(now)]


def share_s(left_s: float, station: Station, others: Sequence[Station]) -> float:
    """How long `station` may take, of `left_s`, when `others` are left to be asked after it.

    All of it where the others are known to fail and it is not: time kept for them would be lost.
    """
    doubtful = bool(others) and not station.breaker.closed
    return left_s * FIRST_SHARE if doubtful or any(s.breaker.closed for s in others) else left_s
