"""The scorer that `pipeline.py` hands to the speed layer: members and answers, from whichever endpoint answers.

    asks ── rosters: who is where? ── one request to one endpoint ── is it whom we asked? ── said
                  ▲                                                          │ no: look there again
                  └──────────────────────────────────────────────────────────┘

An answer is believed only when the engine says that it came from the member that was asked (crc32 of its name) in
the version that is listed there. A slot means nothing to another endpoint, so a request has slots for each.
While answers tell that nothing moved, no request is made for the list alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np

from penstock.data.scoring import Ask, Member, Said
from penstock.errors import ServingError
from penstock.serving.lineup import Lineup, Verdict, judge, line_up, sort_in
from penstock.serving.outcomes import kind_of
from penstock.serving.pool import Pool
from penstock.serving.roster import Roster
from penstock.serving.rosters import Rosters
from penstock.serving.streaming import Stream
from penstock.serving.wire import TickAnswer

ROUNDS = 3
"""Requests for one set of asks at most: whoever moved between list and request is asked again."""


class Score:
    """Follows `data.scoring.Scoring`; for one thread at a time."""

    def __init__(self, pool: Pool) -> None:
        """The pool stays the caller's to close; its tally counts every ask."""
        self._pool = pool
        self._rosters = Rosters(pool)
        self.stream = Stream(pool)
        """What goes to the engine as rows, and what as windows."""
        self._heard = False
        """Whether an answer has told since that the list is right."""

    def members(self) -> tuple[Member, ...]:
        """The models that answer now: asked for, unless the newest answer told that nothing moved."""
        if not self._heard:
            self._rosters.ask_all()
        self._rosters.all()
        return self._rosters.members

    def score(self, asks: Sequence[Ask]) -> Sequence[Said]:
        """One request for all asks; members that moved meanwhile cost another one.

        Raises ServingError when no answer came at all.
        """
        said: list[Said | None] = [None] * len(asks)
        left = [i for i, a in enumerate(asks) if len(a.windows)]
        raised: dict[int, str] = {}
        self._heard = False
        if left and not self._rosters.all():
            self._rosters.ask_all()
        for number in range(ROUNDS):
            ask = self._tick if number else self._tick_streamed
            self._round(asks, [i for i in left if said[i] is None and i not in raised], said, raised, ask)
        self._elsewhere(asks, said, raised)
        self._pool.tally.failed(self._counters(asks, [i for i in left if said[i] is None]), "no_answer")
        self._rosters.look_after(len(self._rosters.members))
        return [_nothing(a) if s is None else s for a, s in zip(asks, said, strict=True)]

    def _round(
        self,
        asks: Sequence[Ask],
        wanted: Sequence[int],
        said: list[Said | None],
        raised: dict[int, str],
        ask: Callable[[Lineup], TickAnswer],
        besides: str = "",
    ) -> None:
        """One request, to an endpoint other than `besides`; `raised` gets whose model raised, and where."""
        rosters = [r for r in self._rosters.all() if r.endpoint != besides]
        line = line_up(asks, wanted, rosters)
        if line is None:
            return
        answer = self._counted(line, ask)
        self._heard = True
        known = next(r for r in rosters if r.endpoint == answer.endpoint)
        verdict = self._judged(line, answer, known)
        sort_in(line, answer, verdict.good, said)
        raised.update(dict.fromkeys(line.at[verdict.raised].tolist(), answer.endpoint))

    def _judged(self, line: Lineup, answer: TickAnswer, known: Roster) -> Verdict:
        """By the roster, looked at again where the answer tells that it is stale."""
        verdict = judge(line, answer, known)
        if answer.generation == known.generation and not verdict.strange:
            return verdict
        for other in self._pool.endpoints:
            if other != answer.endpoint:
                self._rosters.begin(other)  # a deploy goes to all of them
        with suppress(ServingError):  # it has gone since: what it said before stands, the rest is asked elsewhere
            self._rosters.ask(answer.endpoint, afresh=verdict.strange)
        now = next((r for r in self._rosters.all() if r.endpoint == answer.endpoint), known)
        return judge(line, answer, now)

    def _elsewhere(self, asks: Sequence[Ask], said: list[Said | None], raised: dict[int, str]) -> None:
        """A model that raises at one endpoint, its own process being down there, may be well at another one."""
        for endpoint in sorted(set(raised.values())):
            wanted = [i for i, e in raised.items() if e == endpoint]
            with suppress(ServingError):  # the others are answered: their tick is not given up for these
                self._round(asks, wanted, said, {}, self._tick, besides=endpoint)

    def _tick(self, line: Lineup) -> TickAnswer:
        return self._pool.tick(line.slots, line.bundle)

    def _tick_streamed(self, line: Lineup) -> TickAnswer:
        """By rows where one tick is asked for; several at once go by windows."""
        if (line.counts != 1).any():
            return self._tick(line)
        return self.stream.tick([m.name for m in line.members], line.slots, line.bundle)

    def _counted(self, line: Lineup, ask: Callable[[Lineup], TickAnswer]) -> TickAnswer:
        counters = self._pool.tally.rows([m.name for m in line.members])
        begun = time.monotonic()
        try:
            answer = ask(line)
        except ServingError as error:
            self._pool.tally.failed(counters, kind_of(error))
            raise
        now = time.monotonic()
        versions = answer.versions[np.cumsum(line.counts) - 1]
        self._pool.tally.answered(counters[versions >= 0], now - begun, now)
        return answer

    def _counters(self, asks: Sequence[Ask], at: Sequence[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return self._pool.tally.rows([asks[i].member.name for i in at])


def _nothing(ask: Ask) -> Said:
    shape = (len(ask.windows), len(ask.member.spec.targets))
    return Said(values=np.full(shape, np.nan, np.float32), version=-1)
