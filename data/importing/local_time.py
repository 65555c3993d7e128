"""Local wall-clock times -> UTC, with daylight saving told apart by the order of the rows.

When clocks go back an hour of wall-clock time happens twice. Of the two, a row
gets the earlier one that lies after the row before it (of the same sequence):
so in a file that is in order both passes come out right. A row with nothing
before it, or out of order, cannot be told and is refused. Pure arithmetic.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import IntEnum
from functools import lru_cache
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

Int = NDArray[np.int64]

_NEVER = np.iinfo(np.int64).min
_DAY_S = 86_400
_NS = 1_000_000_000


class Wall(IntEnum):
    """What became of a local time."""

    OK = 0
    SKIPPED = 1
    """Never shown: clocks went forward over it."""
    AMBIGUOUS = 2
    """Shown twice, and the order of the rows does not say which."""


class LocalClock:
    """Turns rows of local times into UTC; remembers the last time of every sequence between calls."""

    def __init__(self, zone: str, sequences: int) -> None:
        """`zone` is an IANA name; rows belong to sequences 0..sequences-1 (one per tag, or one for all)."""
        self.zone = zone
        self._last = np.full(sequences, _NEVER, np.int64)

    def resolve(
        self, times: Int, local: NDArray[np.bool_], sequence: NDArray[np.int32]
    ) -> tuple[Int, NDArray[np.uint8]]:
        """UTC times [n] ns, and a `Wall` per row.

        `times` [n] is wall-clock time as if it were UTC where `local` [n], else
        UTC already. The time of a row that is not OK means nothing.
        """
        utc, wall = times.copy(), np.zeros(len(times), np.uint8)
        at = np.flatnonzero(local)
        second = utc.copy()
        if len(at):
            early, late, skipped = _candidates(self.zone, times[at])
            utc[at], second[at] = early, late
            wall[at[skipped]] = Wall.SKIPPED
        twice = np.flatnonzero((second != utc) & (wall == Wall.OK))
        if len(twice):
            self._tell(times, utc, second, sequence, wall, twice)
        good = wall == Wall.OK
        self._last[sequence[good]] = utc[good]  # of repeated indices numpy keeps the last
        return utc, wall

    def _tell(
        self, times: Int, utc: Int, second: Int, sequence: NDArray[np.int32], wall: NDArray[np.uint8], twice: Int
    ) -> None:
        """Choose for the ambiguous rows `twice`; writes into `utc` and `wall`."""
        order = np.flatnonzero(wall == Wall.OK)
        order = order[np.argsort(sequence[order], kind="stable")]
        unsure = np.zeros(len(utc), bool)
        unsure[twice] = True
        new = np.append(True, np.diff(sequence[order]) != 0)
        before = np.where(new, self._last[sequence[order]], np.append(_NEVER, utc[order][:-1]))
        doubt = unsure[order]
        # A run: ambiguous rows of one sequence, of one night, that follow each other.
        night = np.append(0, np.abs(np.diff(times[order]))) > _DAY_S // 2 * _NS
        begins = doubt & (new | ~np.append(False, doubt[:-1]) | night)
        rows, begins, before = order[doubt], begins[doubt], before[doubt]
        chosen, told = _passes(times[rows], utc[rows], second[rows], begins, before)
        utc[rows] = chosen
        wall[rows[~told]] = Wall.AMBIGUOUS


def _passes(times: Int, early: Int, late: Int, begins: NDArray[np.bool_], before: Int) -> tuple[Int, NDArray[np.bool_]]:
    """(UTC, whether it could be told) for runs of ambiguous rows laid end to end.

    `before` matters at the beginning of a run: the time of the row that came earlier.
    """
    run = np.cumsum(begins) - 1
    start = np.flatnonzero(begins)
    back = np.append(False, np.diff(times) <= 0)
    back[start] = early[start] <= before[start]
    backs = np.cumsum(back)
    is_late = backs - (backs - back)[start][run] > 0
    chosen = np.where(is_late, late, early)
    # In order within the second pass too: compare with the highest so far; a tall step keeps runs apart.
    hours_us = np.where(is_late, times - times[start][run], -_DAY_S * _NS) // 1000
    level = hours_us + run * (4 * _DAY_S * 10**6)
    in_order = ~is_late | (level >= np.maximum.accumulate(level))
    known = (before[start] != _NEVER)[run] & (late[start] >= before[start])[run]
    return chosen, known & in_order


def _candidates(zone: str, local: Int) -> tuple[Int, Int, NDArray[np.bool_]]:
    """(earlier UTC, later UTC, whether the wall clock skipped it); the two differ where it was shown twice."""
    years = local.astype("datetime64[ns]").astype("datetime64[Y]").astype(np.int64) + 1970
    first = int(years.min())
    present = np.flatnonzero(np.bincount(years - first)) + first
    near = sorted({int(year) + d for year in present for d in (-1, 0, 1)})
    changes = np.array([c for year in near for c in _changes(zone, year)], np.int64)
    at, old, new = changes[:, 0] * _NS, changes[:, 1] * _NS, changes[:, 2] * _NS
    offsets = np.append(old[:1], new)
    with_old = np.searchsorted(at + old, local, "right")
    with_new = np.searchsorted(at + new, local, "right")
    return local - offsets[with_old], local - offsets[with_new], with_old > with_new


@lru_cache(maxsize=4096)
def _changes(zone: str, year: int) -> tuple[tuple[int, int, int], ...]:
    """(UTC second, offset before, offset after) of a year's changes; its first second always stands first."""
    info = ZoneInfo(zone)
    start = int(datetime(year, 1, 1, tzinfo=UTC).timestamp())
    end = int(datetime(year + 1, 1, 1, tzinfo=UTC).timestamp())
    found = [(start, _offset(info, start), _offset(info, start))]
    for day in range(start, end, _DAY_S):
        low, high = day, min(day + _DAY_S, end - 1)
        if _offset(info, low) == _offset(info, high):
            continue
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if _offset(info, middle) == _offset(info, low) else (low, middle)
        found.append((high, _offset(info, low), _offset(info, high)))
    return tuple(found)


def _offset(info: ZoneInfo, second: int) -> int:
    offset = datetime.fromtimestamp(second, info).utcoffset()
    return 0 if offset is None else int(offset.total_seconds())
