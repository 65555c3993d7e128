"""From rows to what is said: windows for every model that answers, one request, one row per tick.

Synchronous and without a queue of its own; the service decides when it runs and
what a failed request means. What comes out is durable before it is told.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.data.scoring import Ask, Member, Said, Scoring
from penstock.data.views.speed_view import SpeedView, Spoken
from penstock.errors import ServingError
from penstock.speed.beside import Beside
from penstock.speed.cutting import Answers, cut_all
from penstock.speed.delays import Delays
from penstock.speed.overload import ALL, Overload, newest_at, passed_over, reaches
from penstock.speed.plan import ReadPlan
from penstock.speed.rows import Newest

GROUP_TICKS = 256
"""Waiting ticks that go out in one request at most."""
GROUP_BYTES = 16 << 20
"""Windows of one request, roughly at most; a single tick may be larger."""
MOVES = 3
"""Members that came, or changed, while a tick was asked for are asked for it too, so often at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanTooSmall:
    """A member reads tags, or further back, than the plan returns: nothing was said."""

    members: tuple[Member, ...]


class Scorer:
    """Says each tick once, in order."""

    def __init__(
        self, scoring: Scoring, view: SpeedView, overload: Overload = ALL, beside: Beside | None = None
    ) -> None:  # fmt: skip
        """`beside`: what corrects, and says intervals; None: no model wants that."""
        self._scoring, self._view, self._overload, self._beside = scoring, view, overload, beside
        self._until: int | None = None
        """Ticks below are said for the newest alone, since scoring was behind; None: it never was."""
        self._known: tuple[Member, ...] | None = None
        """The members as last heard of."""
        self.delays = Delays()
        """From each tick's request to its answer."""
        self._covered: tuple[ReadPlan, tuple[Member, ...]] | None = None
        self._most = GROUP_TICKS
        """Ticks of one request; what is too much for a busy server would else be asked for ever."""

    def publish(
        self, plan: ReadPlan, newest: Newest, tick: int, closed: int | None = None
    ) -> tuple[Spoken, ...] | PlanTooSmall:  # fmt: skip
        """Score `tick`, which must be ready, and the closed ticks behind it; write them; what was said.

        `closed`: ticks below are closed, whether they are ready or not: so far scoring is behind.

        Raises ServingError when no answer came: nothing was said then, and the same call may be made again.
        Raises SiteError when the view cannot be written, JournalError and ArchiveError where truths cannot be read.
        """
        until = self._overloaded(newest, tick, closed)
        members, last = self._members(tick, until), 0
        told: dict[str, tuple[Answers, Said | None]] = {}
        for _ in range(MOVES):
            if not self._covers(plan, members):
                return PlanTooSmall(members=members)
            last = last or self._last(members, newest, tick, until)
            kept = {m.name: k for m in members if (k := _kept(told.get(m.name), m)) is not None}
            cut = _cut([m for m in members if m.name not in kept], newest, (tick, last), until)
            told = {m.name: kept.get(m.name) or (cut[m.name], None) for m in members}
            if until is not None and all(a.ask is None for a, _ in told.values()):
                break  # nobody is asked: not even whether anybody is there
            self._ask(told, last - tick)
            asked, members = members, self._scoring.members()
            if members is asked:
                break
        spoken = tuple(speak(list(told.values()), newest, tick, last))
        state = None
        if self._beside is not None:
            spoken, state = self._beside.adjust([a.member for a, _ in told.values()], spoken)
        self._view.write(spoken, state)
        return spoken

    def _overloaded(self, newest: Newest, tick: int, closed: int | None) -> int | None:
        """One past the newest tick at hand where scoring is behind, or was so when that tick was at hand."""
        ready = newest.closed()
        if self._overload.passes(max(ready, closed or ready) - tick):
            self._until = ready
        return self._until if self._until is not None and tick < self._until else None

    def _members(self, tick: int, until: int | None) -> tuple[Member, ...]:
        """As they are now; for ticks that nobody is asked for, as they were last heard of. Raises ServingError."""
        try:
            self._known = self._scoring.members()
        except ServingError:
            if until is None or self._known is None or reaches(self._known, tick, until) == tick + 1:
                raise
        return self._known

    def _last(self, members: tuple[Member, ...], newest: Newest, tick: int, until: int | None) -> int:
        """One past the ticks that are said now."""
        ready = newest.bring_up(tick)
        if until is None:
            return min(ready, tick + min(self._most, _group(members)))
        return min(ready, tick + GROUP_TICKS, reaches(members, tick, until))

    def _ask(self, told: dict[str, tuple[Answers, Said | None]], ticks: int) -> None:
        """One request for the members that have windows and no answer yet. Raises ServingError."""
        waiting = [(name, a, a.ask) for name, (a, said) in told.items() if said is None and a.ask is not None]
        answers = self._answers([ask for _, _, ask in waiting], ticks)
        told |= {name: (a, said) for (name, a, _), said in zip(waiting, answers, strict=True)}

    def _answers(self, asks: Sequence[Ask], ticks: int) -> Sequence[Said]:
        """The next request is half as large after a failure, a little larger after an answer. Raises ServingError."""
        begun = time.perf_counter()
        try:
            said = self._scoring.score(asks)
        except ServingError:
            self._most = max(1, ticks // 2)
            raise
        if asks:
            self.delays.see(1000 * (time.perf_counter() - begun), ticks)
            self._most = min(GROUP_TICKS, self._most + max(1, self._most // 8))
        return said

    def _covers(self, plan: ReadPlan, members: tuple[Member, ...]) -> bool:
        """Comparing hundreds of models' rules takes milliseconds: the same list is judged once."""
        known = self._covered
        if known is not None and known[0] is plan and known[1] is members:
            return True
        covered = plan.covers([m.spec for m in members])
        self._covered = (plan, members) if covered else None
        return covered


def _cut(
    members: Sequence[Member], newest: Newest, ticks: tuple[int, int], until: int | None
) -> dict[str, Answers]:  # fmt: skip
    """By name, what is to be asked at ticks first..last-1; nothing of a member that answers again below `until`."""
    over = [] if until is None else [m for m in members if newest_at(m, until) >= ticks[1]]
    passed = {m.name: passed_over(m, *ticks) for m in over}
    return cut_all([m for m in members if m.name not in passed], newest, *ticks) | passed


def _kept(told: tuple[Answers, Said | None] | None, member: Member) -> tuple[Answers, Said | None] | None:
    """What was said before for this tick, where the member as listed now would say the same."""
    if told is None or told[0].member.spec is not member.spec:
        return None
    answers, said = told
    same = answers.member == member if said is None else said.version == member.version
    return told if same and (said is not None or answers.ask is None) else None


def speak(told: Sequence[tuple[Answers, Said | None]], newest: Newest, first: int, last: int) -> Iterator[Spoken]:
    """One row per tick first..last-1, with the members that answer at it."""
    parts = [(a, a.told(s)) for a, s in told]
    for tick in range(first, last):
        at = [(a, t, i) for a, t in parts if (i := _index(a.ticks, tick)) is not None]
        yield Spoken(
            tick=tick,
            members=tuple((a.member.name, len(a.member.spec.targets)) for a, _, _ in at),
            values=np.concatenate([np.empty(0, np.float32), *(t[0][i] for _, t, i in at)]),
            versions=np.array([t[2][i] for _, t, i in at], np.int32),
            reasons=np.array([t[1][i] for _, t, i in at], np.uint8),
            filled=np.array([a.filled[i] for a, _, i in at], np.bool_),
            hashes=np.array([a.hashes[i] for a, _, i in at], np.uint64),
            position=newest.position(tick),
        )


def _index(ticks: NDArray[np.int64], tick: int) -> int | None:
    at = int(np.searchsorted(ticks, tick))
    return at if at < len(ticks) and ticks[at] == tick else None


def _group(members: Sequence[Member]) -> int:
    per_tick = sum(4 * m.spec.length * len(m.spec.features) for m in members)
    return max(1, min(GROUP_TICKS, GROUP_BYTES // max(1, per_tick)))
