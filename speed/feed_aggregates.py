"""A sink's feed of aggregates: what each commit of their view has changed, in the order of the commits.

    view   commit 7: minutes 0..59    commit 8: minute 60, and 31 by a late reading
    cursor commit 7                   ─► minute 60, revision 0, and minute 31, revision 1

The view holds of every period what it comes to now, how often that has changed, and the commit that changed it last. So
a message is a function of the view alone: sent again it has the same bytes, or another commit came between and
it has a higher revision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from penstock.data.archive import Archive
from penstock.data.views.aggregates import AggregatesView, Mark
from penstock.data.views.changes import Ranges
from penstock.speed.cursor import Cursor
from penstock.speed.feed import Content
from penstock.speed.formats.aggregates import Aggregates, Changed
from penstock.speed.sink import Message

POLL_S = 5.0
"""Imports commit too, in processes of their own."""
CELLS = 1 << 18
"""Periods times tags that are looked at together: some MB."""
SENDING = 1024
"""Tags of one sending, about."""
Place = tuple[int, int, int, int]
"""Of a period within its commit, ascending: stretch, length, period, stamp."""


class AggregateFeed:
    """See `Feed`."""

    content: Content = "aggregates"
    poll_s = POLL_S

    def __init__(self, site: Path, name: str, messages: Aggregates, ids: Callable[[], NDArray[np.int32]]) -> None:
        """`ids`: of the sink's tags in their order, as registered now; -1 where one is not yet."""
        self._site, self._name, self._messages, self._ids = site, name, messages, ids
        self._newest: int | None = None
        self._rung = self._looked = 0
        """Times that somebody rang, and of these such as were there when all was last sent."""
        self._sent: tuple[int, Place] | None = None
        self.skipped = 0

    def open(self) -> None:
        """See `Feed`."""
        self._cursor = Cursor(self._site / "speed" / "sinks", f"{self._name}.aggregates")
        view, mark = self._opened()
        if self._cursor.tick is None:
            since = self._stored() if mark is None else mark.until
            self._note(since - 1, 0 if view is None else view.commits, "" if view is None else view.name, since)
            self._cursor.keep()
        self._newest = None if mark is None else mark.until - 1
        self._rung = int(view is not None and self._place(view)[0] != view.commits)

    def ring(self, tick: int) -> None:
        """See `Feed`."""
        self._newest = tick
        self._rung += 1

    def behind(self) -> int:
        """See `Feed`."""
        tick, newest = self._cursor.tick, self._newest
        if newest is None or tick is None:
            return 0
        return max(newest - tick, int(self._looked < self._rung))  # a late change moves no tick

    def pieces(self) -> Iterator[Sequence[Message]]:
        """See `Feed`."""
        rung = self._rung
        view, mark = self._opened()
        if view is None or mark is None:
            return
        (after, since), tick = self._place(view), self._cursor.tick
        assert tick is not None
        for commit, ranges in view.changes(after):
            changed = self._changed(view, mark, ranges, (after, commit), since)
            for some, place in _groups(changed, self._sent_of(commit)):
                yield [message for each in some for message in self._messages.messages(each)]
                self._sent = (commit, place)
            after = commit
            self._note(tick, commit, view.name, since)
        self._note(max(mark.told - 1, tick), view.commits, view.name, since)
        self._looked = rung

    def _sent_of(self, commit: int) -> Place | None:
        """How much of this commit is acknowledged already: whatever fails in the middle does not begin it anew."""
        return self._sent[1] if self._sent is not None and self._sent[0] == commit else None

    def keep(self) -> None:
        """See `Feed`."""
        self._cursor.keep()

    def close(self) -> None:
        """See `Feed`."""

    def _opened(self) -> tuple[AggregatesView | None, Mark | None]:
        view = AggregatesView.open(self._site / "views" / "aggregates")
        return view, None if view is None else view.mark

    def _stored(self) -> int:
        """Tick up to which the archive's periods are over: what is aggregated for the first time is not all sent."""
        head = Archive.open(self._site / "archive").head()
        return head.span[1] if head.closed is None else head.closed

    def _place(self, view: AggregatesView) -> tuple[int, int]:
        """The commit up to which all is sent, and the tick that the sink began at. A view made anew is all new."""
        noted = self._cursor.more
        return (int(noted["commit"]) if noted["view"] == view.name else 0), int(noted["since"])

    def _note(self, tick: int, commit: int, view: str, since: int) -> None:
        self._cursor.move(tick, commit=commit, view=view, since=since)

    def _changed(
        self, view: AggregatesView, mark: Mark, ranges: Ranges, commits: tuple[int, int], since: int
    ) -> Iterator[tuple[Changed, Place]]:  # fmt: skip
        """What commits (first, last] changed last, of periods that end behind `since`."""
        ids = self._ids()
        registered = np.flatnonzero(ids >= 0)
        order = registered[np.argsort(ids[registered])]
        base, most = mark.periods[0], max(1, CELLS // max(1, len(order)))
        done = {length: since // length for length in self._messages.lengths if length in mark.periods}
        for first, last in ranges if len(order) else ():
            for length in done:
                begin = max(first * base // length, done[length])
                end = done[length] = max(begin, min(-(-last * base // length), mark.until // length))
                for at in range(begin, end, most):
                    for changed, stamp in _stamped(view, length, order, ids, (at, min(at + most, end)), commits):
                        yield changed, (first, length, changed.period, stamp)


def _stamped(
    view: AggregatesView, length: int, order: NDArray[np.int64], ids: NDArray[np.int32], periods: tuple[int, int],
    commits: tuple[int, int],
) -> Iterator[tuple[Changed, int]]:  # fmt: skip
    """Periods first..last-1 of the sink's tags `order`, each apart by the commit that changed it, with that."""
    revision, changed = view.stamps(length, ids[order], *periods)
    fit = (changed > commits[0]) & (changed <= commits[1])
    if not fit.any():
        return
    told = view.read(length, ids[order], *periods)
    for row in np.flatnonzero(fit.any(axis=1)).tolist():
        for stamp in np.unique(changed[row][fit[row]]).tolist():
            at = np.flatnonzero(changed[row] == stamp)
            found = Changed(
                length=length, period=periods[0] + row, tags=order[at], revisions=revision[row, at],
                told=told[row].only(at),
            )  # fmt: skip
            yield found, stamp


def _groups(
    found: Iterator[tuple[Changed, Place]], after: Place | None
) -> Iterator[tuple[Sequence[Changed], Place]]:  # fmt: skip
    """What lies behind `after`, so much at a time that a sending stays small; with the place of its last."""
    some: list[Changed] = []
    size, last = 0, after
    for changed, place in found:
        if after is not None and place <= after:
            continue
        some.append(changed)
        size, last = size + len(changed.tags), place
        if size >= SENDING:
            yield some, place
            some, size = [], 0
    if some and last is not None:
        yield some, last
