"""The scorer that `pipeline.py` hands to the speed layer: members and answers, from one endpoint at a time.

An answer is believed only when the engine says that it came from the member
that was asked (crc32 of its name). Where it did not - the slot was freed, or the
pool went on to another endpoint whose slots differ - the members are read anew
and asked once more.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from penstock.data.scoring import Ask, Member, Said
from penstock.serving.deploy import members_of
from penstock.serving.pool import Pool


class Score:
    """Follows `data.scoring.Scoring`."""

    def __init__(self, pool: Pool) -> None:
        """The pool stays the caller's to close."""
        self._pool = pool
        self._generation: int | None = None
        self._members: tuple[Member, ...] = ()

    def members(self) -> tuple[Member, ...]:
        """The models that answer now; one small request, specs only when the generation moved."""
        told = self._pool.admin({"do": "members", "known": self._generation})
        if told["generation"] != self._generation:
            self._members = tuple(members_of(told))
            self._generation = told["generation"]
        return self._members

    def score(self, asks: Sequence[Ask]) -> Sequence[Said]:
        """One request for all asks; a member that moved meanwhile costs a second one.

        Raises ServingError when no answer came at all.
        """
        if not any(len(a.windows) for a in asks):
            return [_nothing(a) for a in asks]
        said, generation = self._ask(asks)
        if generation == self._generation and all(map(_as_listed, asks, said)):
            return said
        now = {m.name: m for m in self.members()}
        for i, ask in enumerate(asks):
            if not _as_listed(ask, said[i]) and _cut_anew(ask.member, now.get(ask.member.name)):
                said[i] = _nothing(ask)  # its slot has a version by now that wants other windows
        moved = [i for i, a in enumerate(asks) if _moved(a.member, said[i], now.get(a.member.name))]
        again = [replace(asks[i], member=now[asks[i].member.name]) for i in moved]
        if again:
            for i, answer in zip(moved, self._ask(again)[0], strict=True):
                said[i] = answer
        return said

    def _ask(self, asks: Sequence[Ask]) -> tuple[list[Said], int]:
        counts = [len(a.windows) for a in asks]
        slots = np.repeat(np.array([a.member.slot for a in asks], np.int32), counts)
        names = np.repeat([zlib.crc32(a.member.name.encode()) for a in asks], counts)
        answer = self._pool.tick(slots, [w for a in asks for w in a.windows])
        versions = np.where(answer.members == names, answer.versions, -1)
        said, at = [], 0
        for ask, count in zip(asks, counts, strict=True):
            rows, spoke = answer.values[at : at + count], versions[at : at + count]
            at += count
            if count and (spoke >= 0).all():
                said.append(Said(values=np.stack(rows), version=int(spoke[0])))
            else:
                said.append(_nothing(ask))
        return said, answer.generation


def _nothing(ask: Ask) -> Said:
    shape = (len(ask.windows), len(ask.member.spec.targets))
    return Said(values=np.full(shape, np.nan, np.float32), version=-1)


def _as_listed(ask: Ask, said: Said) -> bool:
    """Whether the version spoke that the list named; another endpoint may have another one, its generation as high."""
    return said.version == ask.member.version or not len(ask.windows)


def _cut_anew(asked: Member, now: Member | None) -> bool:
    """Whether the windows were cut for a version that answers no more."""
    return now is None or now.spec != asked.spec


def _moved(asked: Member, said: Said, now: Member | None) -> bool:
    """Whether to ask again: it lives in another slot now and its windows are cut the same way."""
    return now is not None and now.spec == asked.spec and (now.slot != asked.slot or said.version < 0)
