"""Which ticks of a batch view are to be computed, and by which version. Pure: plans, and computes nothing.

    view so far   [ version 1 .............. ][ version 2 ...... ] seam
    late cells          ~~                          ~~
    champion 3                                 |<--- history --->|
    due           .....11......................333333333333333333333

The last `history` of what is complete is the champion's. Older ticks keep the version that answered then; where cells
have come behind the seam since, that same version answers again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass

from penstock.data.rules import Rules
from penstock.data.views.changes import Ranges, joined
from penstock.data.views.made import Made
from penstock.data.views.spans import Span, Spans, both, clipped, covered, minus
from penstock.data.window_spec import WindowSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """What a run has to do."""

    spans: Spans
    """In order of time, none overlapping: these ticks, by these versions."""
    changed: Ranges
    """Ticks among them whose cells have changed: until they are computed, the view must say so."""


def due(made: Made | None, *, champion: int, begin: int, complete: int, changed: Ranges, stored: Set[int]) -> Due:
    """What brings a view up.

    `begin`, `complete`: the ticks begin..complete-1 are to be the `champion`'s. `changed`: ticks of which some cell
    came since `made`. `stored`: versions that there still are; a tick of another one stays as it is.
    """
    spans = () if made is None else made.spans
    fresh = minus([(begin, complete)], covered(spans, champion))
    again = both(joined([*changed, *(() if made is None else made.todo)]), _of(spans, stored))
    older: list[Span] = []
    for first, last in minus(again, fresh):
        older += clipped(spans, first, last)
    return Due(spans=tuple(sorted([*older, *((a, b, champion) for a, b in fresh)])), changed=again)


def pieces(wanted: Due, ticks: int) -> list[Spans]:
    """The work in order, in pieces of about so many ticks."""
    found: list[list[Span]] = []
    room = 0
    for first, last, version in wanted.spans:
        while first < last:
            if not room:
                found.append([])
                room = ticks
            end = min(last, first + room)
            found[-1].append((first, end, version))
            first, room = end, room - (end - first)
    return [tuple(piece) for piece in found]


def touched(spec: WindowSpec, cells: Iterable[tuple[int, int]]) -> Ranges:
    """Ticks whose answer may change with the cells in these ranges of ticks, quality's look-back and joins included."""
    before = spec.depth - 1 + Rules.of(spec.base_tags, spec.period_ns).reach
    behind = spec.look_ahead + spec.wait
    return joined((first - behind, last + before) for first, last in cells if first < last)


def _of(spans: Spans, stored: Set[int]) -> Ranges:
    return joined((a, b) for a, b, version in spans if version in stored)


def todo_of(wanted: Due, done: Sequence[Spans]) -> Ranges:
    """What of the changed ticks is left when these pieces are done."""
    return minus(wanted.changed, [(a, b) for piece in done for a, b, _ in piece])
