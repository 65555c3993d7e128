"""Assessed readings: usable values with the flags that explain them.

What quality makes of cells, and all that windows, screens and answers see of
readings. This file knows nothing of rules or models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntFlag
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from penstock.errors import QueryError, nearest


class Flag(IntFlag):
    """Why a value is what it is; bits of a uint16. Several may stand together."""

    MISSING = 1
    """The cell has no reading."""
    SOURCE_BAD = 2
    """The source called its reading bad, or it is no finite number."""
    RANGE = 4
    """The reading lies outside the tag's range."""
    RATE = 8
    """It changed faster than the tag can."""
    FLAT = 16
    """It has been bit-equal for as long as `flat_after`."""
    STALE = 32
    """An on-change tag has been silent for longer than its heartbeat."""
    LATE = 64
    """The reading arrived behind the watermark."""
    CARRIED = 128
    """A fault was bridged: the value is the last good one, at most `max_gap` old."""
    SUBSTITUTED = 256
    """A fault was bridged with the tag's substitute."""
    BAD = 512
    """Nothing usable: the value is withheld (NaN)."""
    HELD = 1024
    """No reading because nothing changed (on-change tags, states): the last good value holds. No fault."""
    INVALID = 2048
    """What the tag's `valid` asks for did not hold, or is not known: the value says nothing then."""


FILLED = Flag.CARRIED | Flag.SUBSTITUTED
"""The value stands in for one that is not there."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Block:
    """Assessed rows [k ticks, m tags]."""

    first: int
    """Tick of row 0."""
    tags: tuple[str, ...]
    """[m] names of the columns."""
    values: NDArray[np.float32]
    """[k, m] usable values in the tags' units; NaN where flagged BAD, and only there."""
    flags: NDArray[np.uint16]
    """[k, m] bits of `Flag`."""

    @property
    def last(self) -> int:
        """One past the last tick."""
        return self.first + len(self.values)

    def rows(self, first: int, last: int) -> Block:
        """A view of ticks first..last-1. Raises IndexError when they do not lie inside."""
        if not self.first <= first <= last <= self.last:
            raise IndexError(f"ticks {first}..{last} lie outside {self.first}..{self.last}")
        cut = slice(first - self.first, last - self.first)
        return Block(first=first, tags=self.tags, values=self.values[cut], flags=self.flags[cut])

    def columns(self, names: Sequence[str]) -> Block:
        """A copy with the columns of `names`, in that order. Raises QueryError for a tag that is not here."""
        where = _positions(self.tags)
        missing = [n for n in names if n not in where]
        if missing:
            near = nearest(missing[0], self.tags)
            hint = f" Did you mean {near!r}?" if near else ""
            raise QueryError(f"these rows have no column for {', '.join(missing)}; read its tag too.{hint}")
        at = np.array([where[n] for n in names], np.intp)
        return Block(first=self.first, tags=tuple(names), values=self.values[:, at], flags=self.flags[:, at])

    def beside(self, other: Block) -> Block:
        """The columns of both; the rows must be the same ticks. Raises IndexError when they are not."""
        if (self.first, self.last) != (other.first, other.last):
            raise IndexError(f"ticks {self.first}..{self.last} cannot stand beside ticks {other.first}..{other.last}")
        return Block(
            first=self.first,
            tags=self.tags + other.tags,
            values=np.concatenate([self.values, other.values], axis=1),
            flags=np.concatenate([self.flags, other.flags], axis=1),
        )


@lru_cache(maxsize=256)
def _positions(tags: tuple[str, ...]) -> dict[str, int]:
    return {name: i for i, name in enumerate(tags)}
