"""When a part that ended by itself is started again: arithmetic, time is an argument.

    fall 1     fall 2       fall 3 ...             fall 7 and later
    1 s        2 s          4 s                    60 s             steady for a minute: fall 1 again

It never gives up: a plant's disk may be full for a day, and nobody may be there to start the part by hand.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

BACKOFF_S = (1.0, 60.0)
"""Before the first restart, and at most; doubled each time."""
STEADY_S = 60.0
"""Up for so long, and the next fall is a first one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """Where the restarts of one part stand. Times are monotonic seconds."""

    falls: int = 0
    """In a row, without `STEADY_S` of being up between them."""
    up_since: float | None = None
    not_before: float = 0.0
    """The next start."""

    def rose(self, now: float) -> Course:
        """It has come up."""
        return replace(self, up_since=now)

    def fell(self, now: float) -> Course:
        """It has ended by itself; `not_before` is when it may be started again."""
        steady = self.up_since is not None and now - self.up_since >= STEADY_S
        falls = 1 if steady else self.falls + 1
        first_s, most_s = BACKOFF_S
        pause_s = min(most_s, first_s * 2.0 ** min(falls - 1, 16))  # a float's exponent ends; a part's falls do not
        return Course(falls=falls, up_since=None, not_before=now + pause_s)
