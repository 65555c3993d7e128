"""Which version answers in which ticks of a batch view: stretches of ticks with a version each.

    [100, 160) 1   [160, 400) 2        [480, 500) 3        ascending; between them nobody ever answered

Plain values; it knows no view and no model.
"""

from __future__ import annotations

from collections.abc import Iterable

from penstock.data.views.changes import Ranges, joined

Span = tuple[int, int, int]
"""[first, last) and a version."""
Spans = tuple[Span, ...]


def painted(spans: Spans, first: int, last: int, version: int) -> Spans:
    """`spans` with `version` in ticks first..last-1, whoever was there."""
    if first >= last:
        return spans
    kept = [*clipped(spans, -(2**62), first), *clipped(spans, last, 2**62), (first, last, version)]
    found: list[Span] = []
    for begin, end, who in sorted(kept):
        if found and found[-1][1] == begin and found[-1][2] == who:
            found[-1] = (found[-1][0], end, who)
        else:
            found.append((begin, end, who))
    return tuple(found)


def clipped(spans: Spans, first: int, last: int) -> Spans:
    """What of them lies in ticks first..last-1."""
    cut = ((max(a, first), min(b, last), version) for a, b, version in spans)
    return tuple(span for span in cut if span[0] < span[1])


def covered(spans: Spans, version: int | None = None) -> Ranges:
    """The ticks of all versions, or of one."""
    return joined((a, b) for a, b, who in spans if version is None or who == version)


def minus(ranges: Iterable[tuple[int, int]], others: Iterable[tuple[int, int]]) -> Ranges:
    """What of `ranges` lies in none of `others`."""
    found, gone = [], joined(others)
    for first, last in joined(ranges):
        at = first
        for begin, end in gone:
            if end <= at or begin >= last:
                continue
            found.append((at, begin))
            at = max(at, end)
        found.append((at, last))
    return joined(found)


def both(ranges: Iterable[tuple[int, int]], others: Iterable[tuple[int, int]]) -> Ranges:
    """What lies in a range of either."""
    mine, theirs = joined(ranges), joined(others)
    return joined((max(a, c), min(b, d)) for a, b in mine for c, d in theirs)


def length(ranges: Iterable[tuple[int, int]]) -> int:
    """Ticks in them."""
    return sum(last - first for first, last in ranges)
