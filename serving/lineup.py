"""Which asks go into one request, in whose slots, and what of the answer may be believed.

Arithmetic over arrays; asks nobody. Positions are those in the asks of one tick.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.data.scoring import Ask, Member, Said
from penstock.serving.bundle import Bundle
from penstock.serving.roster import Ints, Roster
from penstock.serving.wire import TickAnswer

Bools = NDArray[np.bool_]
FAILED = -3
"""In place of a version: the model itself raised (`backend/tick.py`)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lineup:
    """One request: k asks that all of its endpoints can answer."""

    at: Ints
    """[k] positions, ascending."""
    members: Sequence[Member]
    """[k]"""
    counts: Ints
    """[k] windows of each, one at least."""
    marks: Ints
    """[k] crc32 of the names."""
    slots: dict[str, NDArray[np.int32]]
    """By endpoint: the slot of each window."""
    bundle: Bundle


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Verdict:
    """Which of the k asks were answered."""

    good: Bools
    raised: Bools
    """The model was there and raised."""

    @property
    def strange(self) -> bool:
        """Whether somebody else answered, or nobody: the roster is stale."""
        return not bool((self.good | self.raised).all())


def line_up(asks: Sequence[Ask], wanted: Sequence[int], rosters: Sequence[Roster]) -> Lineup | None:
    """The largest request that one endpoint can answer, with the slots of every endpoint that can answer all of it."""
    members = [asks[i].member for i in wanted]
    rows = [r.rows(members) for r in rosters]
    best = max(rows, key=lambda found: int((found >= 0).sum()), default=None)
    if best is None or not (best >= 0).any():
        return None
    here = np.flatnonzero(best >= 0)
    at = np.asarray(wanted, np.int64)[here]
    counts = np.array([len(asks[i].windows) for i in at.tolist()], np.int64)
    able = [(r, found[here]) for r, found in zip(rosters, rows, strict=True) if (found[here] >= 0).all()]
    return Lineup(
        at=at,
        members=[asks[i].member for i in at.tolist()],
        counts=counts,
        marks=able[0][0].marks[able[0][1]],
        slots={r.endpoint: np.repeat(r.slots[found], counts) for r, found in able},
        bundle=Bundle.stacked([asks[i].windows for i in at.tolist()]),
    )


def judge(line: Lineup, answer: TickAnswer, roster: Roster) -> Verdict:
    """Whether each ask was answered by its member, in the version that `roster`, of the same endpoint, lists."""
    rows = roster.rows(line.members)
    listed = np.where(rows >= 0, roster.versions[rows] if len(roster.versions) else -1, -1)
    own = answer.members == np.repeat(line.marks, line.counts)
    right = own & (answer.versions == np.repeat(listed, line.counts)) & (answer.versions >= 0)
    begins = np.cumsum(line.counts) - line.counts
    return Verdict(
        good=np.logical_and.reduceat(right, begins),
        raised=np.logical_and.reduceat(own & (answer.versions == FAILED), begins),
    )


def sort_in(line: Lineup, answer: TickAnswer, good: Bools, said: list[Said | None]) -> None:
    """Put the good answers at their positions."""
    ends = answer.ends[np.cumsum(line.counts) - 1]
    begins = np.concatenate([[0], ends[:-1]]).tolist()
    versions = answer.versions[np.cumsum(line.counts) - 1].tolist()
    at, counts, stops = line.at.tolist(), line.counts.tolist(), ends.tolist()
    for k in np.flatnonzero(good).tolist():
        values = answer.numbers[begins[k] : stops[k]].reshape(counts[k], -1)
        said[at[k]] = Said(values=values, version=versions[k])
