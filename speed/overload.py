"""What happens when scoring cannot keep up: who waits, and what is passed over. Plain values, no I/O.

    all      nobody: the journal takes what comes, and every tick is said, late
    block    the sources, while more than so many closed ticks are not said
    newest   nobody: each model is asked for its newest tick, the ones before are withheld with the reason OVERLOAD

Whichever it is, the archive gets every reading.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from penstock.data.scoring import Member
from penstock.data.windows import Reason, answers_at
from penstock.speed.cutting import Answers

Policy = Literal["all", "block", "newest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overload:
    """What site.toml says."""

    policy: Policy = "all"
    behind_ticks: int = 1
    """Closed ticks that may wait to be said; more is an overload."""

    def blocks(self, waiting_ticks: int) -> bool:
        """Whether sources are to be held back."""
        return self.policy == "block" and waiting_ticks > self.behind_ticks

    def passes(self, waiting_ticks: int) -> bool:
        """Whether ticks are to be passed over."""
        return self.policy == "newest" and waiting_ticks > self.behind_ticks


ALL = Overload()
"""Nobody is held back, nothing is passed over."""


def newest_at(member: Member, until: int) -> int:
    """The newest tick below `until` that the member answers at."""
    return (until - 1) // member.spec.every * member.spec.every


def reaches(members: tuple[Member, ...], tick: int, until: int) -> int:
    """One past the ticks from `tick` on that are said together, where models are asked for their newest below `until`.

    Either nobody is asked for any of them, or they are one tick that somebody is asked for.

    until 31    every 1: newest 30    every 10: 30       ticks ..29 are passed over, 30 is asked for
    until 39    every 1: newest 38    every 10: 30       ..29 passed over; 30 asked of one; 31..37 passed over; 38
    """
    asked = [at for at in {newest_at(m, until) for m in members} if at >= tick]
    first = min(asked, default=until)
    return tick + 1 if first == tick else first


def passed_over(member: Member, first: int, last: int) -> Answers:
    """What is said of ticks first..last-1 for a member that is not asked."""
    ticks = np.arange(first, last, dtype=np.int64)
    ticks = ticks[answers_at(member.spec, ticks)]
    n = len(ticks)
    return Answers(
        member=member, ticks=ticks, ask=None, reasons=np.full(n, Reason.OVERLOAD, np.uint8),
        filled=np.zeros(n, np.bool_), hashes=np.zeros(n, np.uint64),
    )  # fmt: skip
