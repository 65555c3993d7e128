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
from penstock.speed.cursor import BEFORE, Cursor
from penstock.speed.feed import Content
from penstock.speed.formats.aggregates import Aggregates, Changed
from penstock.speed.sink import Message

POLL_S = 5.0
"""Imports commit too, in processes of their own."""
CELLS = 1 << 18
"""Periods times tags that are looked at together: some MB."""


class AggregateFeed:
    """See `Feed`."""

    content: Content = "aggregates"
    poll_s = POLL_S

    def __init__(self, site: Path, name: str, messages: Aggregates, ids: Callable[[], NDArray[np.int32]]) -> None:
        """`ids`: of the sink's tags in their order, as registered now; -1 where one is not yet."""
        self._site, self._name, self._messages, self._ids = site, name, messages, ids
        self._newest: int | None = None
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

    def ring(self, tick: int) -> None:
        """See `Feed`."""
        self._newest = tick

    def behind(self) -> int:
        """See `Feed`."""
        tick, newest = self._cursor.tick, self._newest
        return 0 if newest is None or tick is None else max(0, newest - tick)

    def pieces(self) -> Iterator[Sequence[Message]]:
        """See `Feed`."""
        view, mark = self._opened()
        if view is None or mark is None:
            return
        after, since = self._place(view)
        for commit, ranges in view.changes(after):
            for changed in self._changed(view, mark, ranges, (after, commit), since):
                yield self._messages.messages(changed)
            after = commit
            self._note(self._cursor.tick or BEFORE, commit, view.name, since)
        self._note(max(mark.told - 1, self._cursor.tick or BEFORE), view.commits, view.name, since)

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
    ) -> Iterator[Changed]:  # fmt: skip
        """What commits (first, last] changed last, of periods that end behind `since`."""
        ids = self._ids()
        registered = np.flatnonzero(ids >= 0)
        order = registered[np.argsort(ids[registered])]
        base, most = mark.periods[0], max(1, CELLS // max(1, len(order)))
        for first, last in ranges if len(order) else ():
            for length in self._messages.lengths:
                if length not in mark.periods:
                    continue
                begin = max(first * base // length, since // length)
                end = min(-(-last * base // length), mark.until // length)
                for at in range(begin, end, most):
                    yield from self._stamped(view, length, order, ids[order], (at, min(at + most, end)), commits)

    def _stamped(
        self, view: AggregatesView, length: int, order: NDArray[np.int64], ids: NDArray[np.int32],
        periods: tuple[int, int], commits: tuple[int, int],
    ) -> Iterator[Changed]:  # fmt: skip
        revision, changed = view.stamps(length, ids, *periods)
        fit = (changed > commits[0]) & (changed <= commits[1])
        if not fit.any():
            return
        told = view.read(length, ids, *periods)
        for row in np.flatnonzero(fit.any(axis=1)).tolist():
            for stamp in np.unique(changed[row][fit[row]]).tolist():
                at = np.flatnonzero(changed[row] == stamp)
                yield Changed(
                    length=length, period=periods[0] + row, tags=order[at], revisions=revision[row, at],
                    told=told[row][at],
                )  # fmt: skip
