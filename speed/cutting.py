"""The windows of a tick, for all models that answer at it.

    rows of U001's tags   [depth]  ┐
    rows of U002's tags   [depth]  ├─ one block, prepared and cut as if it were one model's history
    rows of U003's tags   [depth]  ┘

A fleet's models are cut alike and differ only in their tags: hundreds of small blocks would cost hundreds of times
numpy's overhead. Models of one form are therefore put one behind the other. A window and its preparation reach back
`depth` rows, which is where its own block begins, so nothing is read from the model before: the bits are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.data.scoring import Ask, Member, Said
from penstock.data.windows import Reason, Windows, answers_at, cut, prepare, window_hash
from penstock.speed.rows import Newest

STACKED_VALUES = 1 << 18
"""Values of one stack at most: its float64 columns stay in the processor's cache; a longer window stands alone."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answers:
    """One member over a group of ticks; n of them are answered at."""

    member: Member
    ticks: NDArray[np.int64]
    """[n] ascending."""
    ask: Ask | None
    """The windows fit to be scored; None where none is."""
    reasons: NDArray[np.uint8]
    """[n] `Reason`."""
    filled: NDArray[np.bool_]
    """[n]"""
    hashes: NDArray[np.uint64]
    """[n] 0 where there was no window."""

    def told(self, said: Said | None) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.int32]]:
        """Values [n, O], reasons [n] and versions [n] once the answer has come."""
        values = np.full((len(self.ticks), len(self.member.spec.targets)), np.nan, np.float32)
        reasons, versions = self.reasons.copy(), np.full(len(self.ticks), self.member.version, np.int32)
        asked = self.reasons == Reason.OK
        if said is not None and said.version >= 0:
            values[asked] = said.values
            versions[asked] = said.version
        reasons[asked & ~np.isfinite(values).all(axis=1)] = Reason.NO_ANSWER
        values[reasons != Reason.OK] = np.nan
        return values, reasons, versions


def cut_all(members: Sequence[Member], newest: Newest, first: int, last: int) -> dict[str, Answers]:
    """By name: each member's windows at ticks first..last-1 of those it answers at."""
    groups: dict[int, list[Member]] = {}
    for member in members:
        groups.setdefault(newest.form(member.spec), []).append(member)
    cuts = (a for alike in groups.values() for a in _cut_alike(alike, newest, first, last))
    return {answers.member.name: answers for answers in cuts}


def _cut_alike(alike: Sequence[Member], newest: Newest, first: int, last: int) -> Iterator[Answers]:
    """Members of one form."""
    spec = alike[0].spec
    candidates = np.arange(first, last, dtype=np.int64)
    ticks = candidates[answers_at(spec, candidates)]
    if not len(ticks):
        yield from (_silent(member, ticks) for member in alike)
        return
    begin, end = int(ticks[0]) - spec.depth + 1, int(ticks[-1]) + 1
    most = max(1, STACKED_VALUES // ((end - begin) * max(len(spec.features), len(spec.base))))
    for at in range(0, len(alike), most):
        members = alike[at : at + most]
        if newest.reaches_back(members, begin):
            yield from _cut_stack(members, newest, ticks, begin, end)
        else:  # a window without history is cut alone: nothing stands before it then
            yield from (_cut_one(member, newest, ticks, begin, end) for member in members)


def _cut_one(member: Member, newest: Newest, ticks: NDArray[np.int64], begin: int, end: int) -> Answers:
    block = newest.block(member.spec, begin, end)
    return next(_answers([member], ticks, cut(member.spec, prepare(member.spec, block), ticks)))


def _cut_stack(
    members: Sequence[Member], newest: Newest, ticks: NDArray[np.int64], begin: int, end: int
) -> Iterator[Answers]:
    spec, rows = members[0].spec, end - begin
    block = newest.stack([m.spec for m in members], begin, end)
    ends = ticks + rows * np.arange(len(members), dtype=np.int64)[:, None]
    yield from _answers(members, ticks, cut(spec, prepare(spec, block), ends.reshape(-1)))


def _answers(members: Sequence[Member], ticks: NDArray[np.int64], windows: Windows) -> Iterator[Answers]:
    """`windows` are those of the first member's ticks, then the second's, and so on."""
    n, fit = len(ticks), windows.reason == Reason.OK
    x = np.ascontiguousarray(windows.take(fit))
    hashes = np.zeros(len(fit), np.uint64)
    hashes[fit] = window_hash(x)
    ends = np.cumsum(fit.reshape(-1, n).sum(axis=1)).tolist()
    for i, (member, begin, end) in enumerate(zip(members, [0, *ends[:-1]], ends, strict=True)):
        mine = slice(i * n, (i + 1) * n)
        ask = Ask(member=member, windows=x[begin:end]) if end > begin else None
        reasons, filled = windows.reason[mine], windows.filled[mine]
        yield Answers(member=member, ticks=ticks, ask=ask, reasons=reasons, filled=filled, hashes=hashes[mine])


def _silent(member: Member, ticks: NDArray[np.int64]) -> Answers:
    none = np.empty(0)
    return Answers(
        member=member, ticks=ticks, ask=None, reasons=none.astype(np.uint8),
        filled=none.astype(bool), hashes=none.astype(np.uint64),
    )  # fmt: skip
