"""Which periods each of the newest commits of a view has made again: bounded, and never less than it was.

    (7, [0, 60))  (8, [58, 64))  (9, [64, 70))     commit, periods

Old commits are put together under the newest of their numbers, and stretches of periods that lie close to each other:
who looks there finds more than changed, and tells by each period's own stamp what did. Plain values; it knows no view.
"""

from __future__ import annotations

from collections.abc import Iterable

Ranges = tuple[tuple[int, int], ...]
"""[first, last), ascending, none touching another."""
Changes = tuple[tuple[int, Ranges], ...]
"""Ascending commits."""

COMMITS = 64
"""That are told apart."""
STRETCHES = 512
"""Of one entry."""


def joined(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Ranges [first, last) in order, none empty, none touching another."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(r for r in ranges if r[0] < r[1]):
        if found and first <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return tuple(found)


def with_commit(
    changes: Changes, commit: int, ranges: Iterable[tuple[int, int]], *, commits: int = COMMITS,
    stretches: int = STRETCHES,
) -> Changes:  # fmt: skip
    """One commit more."""
    made = joined(ranges)
    found = [*changes, (commit, _fewer(made, stretches))] if made else list(changes)
    while len(found) > commits:
        (_, old), (number, new) = found[:2]
        found[:2] = [(number, _fewer(joined([*old, *new]), stretches))]
    return tuple(found)


def _fewer(ranges: Ranges, most: int) -> Ranges:
    """At most so many: those that are closest are put together, with what lies between them."""
    if len(ranges) <= most:
        return ranges
    gaps = sorted(range(1, len(ranges)), key=lambda i: ranges[i][0] - ranges[i - 1][1])
    filled = set(gaps[: len(ranges) - most])
    return joined([*ranges, *((ranges[i - 1][1], ranges[i][0]) for i in filled)])
