"""The breaker of one endpoint: after failures in a row it is left alone for a while, then asked once.

    closed ── PATIENCE failures ──► open ── the wait is over ──► one probe ── answered ──► closed
                                     ▲                               │
                                     └──── failed: twice the wait ◄──┘

Arithmetic alone, time is an argument; who is asked instead is `balance.py`'s.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

PATIENCE = 3
"""Failures in a row of an endpoint that then is left alone."""
BACKOFF_S = (0.5, 30.0)
"""The first wait and the longest; doubled each time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """Where one endpoint stands. Times are monotonic seconds."""

    failures: int = 0
    """In a row; they are counted until it is left alone."""
    probes: int = 0
    """That failed since then."""
    not_before: float = 0.0
    """The next probe."""
    probing: bool = False
    """A probe is under way."""

    @property
    def closed(self) -> bool:
        """Whether it is asked like any other."""
        return self.failures < PATIENCE

    def due(self, now: float) -> bool:
        """Whether it is time for a probe, and nobody makes one."""
        return not self.closed and not self.probing and now >= self.not_before

    def probed(self) -> Breaker:
        """After a probe has begun."""
        return replace(self, probing=True)

    def answered(self) -> Breaker:
        """After an answer, whoever had asked."""
        return Breaker()

    def failed(self, now: float) -> Breaker:
        """After a call failed that was no probe.

        Many fail at once when a server dies: those that end after it was left alone say nothing new.
        """
        if not self.closed:
            return self
        return replace(self, failures=self.failures + 1, not_before=now + BACKOFF_S[0])

    def probe_failed(self, now: float) -> Breaker:
        """After a probe failed."""
        probes = self.probes + 1
        wait_s = min(BACKOFF_S[1], BACKOFF_S[0] * 2.0 ** min(probes, 30))
        return replace(self, probes=probes, not_before=now + wait_s, probing=False)
