"""How fast a stream makes event time: event seconds per wall second, over the last seconds. Time is an argument."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

WINDOW_S = 5.0
"""The rate is smoothed over so long; over longer where ticks are rarer than that."""


@dataclass(slots=True)
class Rate:
    """Moves of the next tick to be said, each with its wall time; a rate between the first and the last of them.

    wall s   0    1    2    3 ...        period 1 h
    tick     5    7    9    11           2 ticks/s: 7,200 event seconds per second
    """

    period_s: float
    moves: deque[tuple[float, int]] = field(default_factory=deque)
    """(wall seconds, tick): the newest ones that cover WINDOW_S, at least two."""

    def see(self, wall_s: float, tick: int) -> None:
        """`tick` is the next one to be said from `wall_s` on."""
        self.moves.append((wall_s, tick))
        while len(self.moves) > 2 and self.moves[-1][0] - self.moves[1][0] >= WINDOW_S:
            self.moves.popleft()

    def end(self) -> None:
        """Nothing more is said: the rate is not known any more."""
        self.moves.clear()

    def at(self, wall_s: float) -> float | None:
        """The rate at `wall_s`; None until two moves were seen.

        A stream that says nothing becomes slower only when a tick stays out longer than usual.
        """
        if len(self.moves) < 2:
            return None
        (begun, first), (newest, last) = self.moves[0], self.moves[-1]
        usual_s = (newest - begun) / (len(self.moves) - 1)
        overdue_s = max(wall_s - newest - usual_s, 0.0)
        return (last - first) * self.period_s / max(newest - begun + overdue_s, 1e-3)
