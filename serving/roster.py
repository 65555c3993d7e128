"""Who answers at one endpoint, and in which slots: what a tick to it is made from.

A value; it goes stale with the next deploy, which the endpoint's answers tell by their generation.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.data.scoring import Member
from penstock.data.windows import WindowSpec

Ints = NDArray[np.int64]
Specs = dict[tuple[str, str], WindowSpec]
"""By (name, digest): reading hundreds of them again at each deploy would hold up a tick."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Roster:
    """The published members of one endpoint, by name."""

    endpoint: str
    generation: int
    members: tuple[Member, ...]
    slots: NDArray[np.int32]
    """[m]"""
    versions: Ints
    """[m]"""
    marks: Ints
    """[m] crc32 of the name, by which an answer says whose it is."""
    index: Mapping[str, int]
    """Name -> row."""

    def rows(self, members: Sequence[Member]) -> Ints:
        """[n] the row of each; -1 where it is not here, or wants its windows cut in another way."""
        return np.array([self._row(m) for m in members], np.int64)

    def _row(self, member: Member) -> int:
        row = self.index.get(member.name, -1)
        if row < 0:
            return -1
        spec = self.members[row].spec
        return row if spec is member.spec or spec == member.spec else -1


def published_in(told: Mapping[str, Any]) -> dict[tuple[str, str], Mapping[str, Any]]:
    """The published residents in an answer to the admin request ``members``: (name, digest) -> what is told of it."""
    return {(str(r["name"]), str(r["digest"])): r for r in told["residents"] if r["live"]}


def complete(told: Mapping[str, Any], specs: Specs) -> bool:
    """Whether every published resident came with its card or is among `specs`."""
    return all(key in specs or "card" in r for key, r in published_in(told).items())


def roster_of(endpoint: str, told: Mapping[str, Any], specs: Specs) -> Roster:
    """From an answer that is `complete`; `specs` holds those read before, and gets the new ones."""
    published = [r for _, r in sorted(published_in(told).items())]
    members = tuple(
        Member(name=r["name"], version=r["version"], slot=r["slot"], spec=_spec(r, specs)) for r in published
    )
    return Roster(
        endpoint=endpoint,
        generation=int(told["generation"]),
        members=members,
        slots=np.array([m.slot for m in members], np.int32),
        versions=np.array([m.version for m in members], np.int64),
        marks=np.array([zlib.crc32(m.name.encode()) for m in members], np.int64),
        index={m.name: row for row, m in enumerate(members)},
    )


def _spec(resident: Mapping[str, Any], specs: Specs) -> WindowSpec:
    key = (str(resident["name"]), str(resident["digest"]))
    if key not in specs:
        specs[key] = WindowSpec.from_json(resident["card"]["spec"])
    return specs[key]


def together(rosters: Sequence[Roster]) -> tuple[Member, ...]:
    """Every member of some endpoint, by name; of several with one name the first endpoint's."""
    found: dict[str, Member] = {}
    for roster in rosters:
        for member in roster.members:
            found.setdefault(member.name, member)
    return tuple(found[name] for name in sorted(found))
