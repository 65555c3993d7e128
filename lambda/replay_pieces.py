"""What a replay of the past says: which ticks, by which versions, in pieces of bounded size.

span ─► parts: said live, or never ─► casts: where a model began to speak in another version ─► pieces
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from penstock.data.rules import Rules
from penstock.data.views.speed_view import SpeedView
from penstock.data.window_spec import WindowSpec
from penstock.errors import QueryError
from penstock.spans import Moment

if TYPE_CHECKING:
    from penstock.site import Site

MOST_CELLS = 1 << 25
"""Cells of one piece's log, roughly at most (200 MB of disk while it is said)."""
LEAST_TICKS = 1024
_MODEL = re.compile(r"([^@]+)(?:@([1-9]\d*))?")

Wanted = Mapping[str, int | None]
"""Models by name, in a version, or (None) in whichever spoke; empty: all that spoke."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Piece:
    """Ticks first..last-1, to be said by one cast from one log."""

    first: int
    last: int
    closes: NDArray[np.int64] | None
    """[last - first] journal sequences with which the ticks were said; None where no stream did."""
    cast: Mapping[str, int]
    """Version by model name."""

    def part(self, first: int, last: int) -> Piece:
        """Ticks first..last-1 of it."""
        closes = None if self.closes is None else self.closes[first - self.first : last - self.first]
        return replace(self, first=first, last=last, closes=closes)


def plan(site: Site, start: Moment, end: Moment, models: Sequence[str]) -> list[Piece]:
    """The pieces of [start, end), in order, for `models` ("nox" or "nox@3"), or for all that spoke or are live.

    Raises QueryError where there is nothing to say, ModelNotFound.
    """
    wanted = dict(_named(site, text) for text in models)
    first, last = _ticks(site, start, end)
    pieces = [piece for part in _parts(site, first, last, wanted) for piece in _bounded(site, part)]
    if not pieces:
        raise QueryError("no model spoke in this span, and none is live; name one with its version: NAME@VERSION")
    return pieces


def lead_of(specs: Sequence[WindowSpec]) -> int:
    """Ticks before the first one said that the windows of `specs` read, quality included."""
    reach = [Rules.of(spec.base_tags, spec.period_ns).reach for spec in specs]
    return max(spec.depth for spec in specs) + max(reach) + 1


def _ticks(site: Site, start: Moment, end: Moment) -> tuple[int, int]:
    """Ticks made in the span; without an end up to the newest closed one."""
    grid, newest = site.readings.grid, site.desk().newest()
    begin, stop = site.span(start, end, newest=_closed(site))
    first, last = (-(-(at - grid.origin_ns) // grid.period_ns) for at in (begin, stop))
    if first >= min(last, newest):
        raise QueryError("no tick of this span holds readings; `penstock status` says from when to when there are some")
    return first, min(last, newest)


def _closed(site: Site) -> int:
    """One past the newest tick with readings that no stream waits for."""
    clock, newest = site.journal.clock(), site.desk().newest()
    return newest if clock is None else min(newest, clock.closed)


def _named(site: Site, text: str) -> tuple[str, int | None]:
    found = _MODEL.fullmatch(text)
    if found is None:
        raise QueryError(f"{text!r} names no model; allowed: NAME or NAME@VERSION")
    name, version = found[1], int(found[2]) if found[2] else None
    site.artifact(name, version)  # one that is not there is told before anything is started
    return name, version


def _parts(site: Site, first: int, last: int, wanted: Wanted) -> Iterator[Piece]:
    """By what was said live and what never was, and by who speaks there; nothing where nobody would."""
    view = site.desk().speed()
    if view is None:
        yield from _unsaid(site, first, last, wanted)
        return
    with closing(view):
        ticks, positions = view.positions(first, last)
        cuts = [0, *(np.flatnonzero(np.diff(ticks) != 1) + 1).tolist(), len(ticks)] if len(ticks) else []
        at = first
        for begin, stop in pairwise(cuts):
            yield from _unsaid(site, at, int(ticks[begin]), wanted)
            at = int(ticks[stop - 1]) + 1
            whole = Piece(first=int(ticks[begin]), last=at, closes=positions[begin:stop], cast={})
            yield from _said(view, whole, wanted)
        yield from _unsaid(site, at, last, wanted)


def _unsaid(site: Site, first: int, last: int, wanted: Wanted) -> Iterator[Piece]:
    """By the versions named, else by those that are live now, else by the newest."""
    live = site.models.champions()
    cast = {n: v or live.get(n) or site.models.versions(n)[-1] for n, v in wanted.items()} if wanted else live
    if first < last and cast:
        yield Piece(first=first, last=last, closes=None, cast=cast)


def _said(view: SpeedView, whole: Piece, wanted: Wanted) -> Iterator[Piece]:
    """By the versions named, else by those that spoke; before its first word a model speaks as it then did."""
    spoke: dict[str, tuple[NDArray[np.int64], NDArray[np.int32]]] = {}
    for name in wanted or view.models():
        rows = view.read(name, whole.first, whole.last)
        if (version := wanted.get(name)) is not None:
            spoke[name] = np.array([whole.first]), np.array([version], np.int32)
        elif len(rows.ticks):
            spoke[name] = rows.ticks, rows.versions
    changes = {int(t) for ticks, versions in spoke.values() for t in ticks[1:][np.diff(versions) != 0]}
    for first, last in pairwise([whole.first, *sorted(changes - {whole.first}), whole.last]):
        cast = {
            name: int(versions[max(0, int(np.searchsorted(ticks, first, side="right")) - 1)])
            for name, (ticks, versions) in spoke.items()
        }
        if cast:
            yield replace(whole.part(first, last), cast=cast)


def _bounded(site: Site, piece: Piece) -> Iterator[Piece]:
    """Pieces whose logs are of bounded size, and long beside what each reads of the time before it."""
    specs = [WindowSpec.from_json(site.models.card(n, v)["spec"]) for n, v in piece.cast.items()]
    tags = {tag.name for spec in specs for tag in spec.base_tags}
    if piece.closes is None:  # of the newest ticks not all is known that is joined onto them
        known = _closed(site) - max(spec.wait for spec in specs)
        piece = piece.part(piece.first, max(piece.first, min(piece.last, known)))
    most = max(LEAST_TICKS, 4 * lead_of(specs), MOST_CELLS // max(1, len(tags)))
    for first in range(piece.first, piece.last, most):
        yield piece.part(first, min(first + most, piece.last))
