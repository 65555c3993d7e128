"""A sink's feed of predictions: the rows of the speed view, which never change once they are said."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from penstock.data.views.speed_view import SpeedView, Spoken
from penstock.speed.cursor import BEFORE, Cursor
from penstock.speed.feed import Content
from penstock.speed.sink import Message

TICKS, PREDICTIONS = 64, 4096
"""Of one sending, at most; a single tick may have more predictions."""
POLL_S = 0.5


class SaidFeed:
    """See `Feed`."""

    content: Content = "predictions"
    poll_s = POLL_S

    def __init__(
        self, site: Path, name: str, messages: Callable[[Spoken], Sequence[Message]],
        catch_up: Literal["all", "newest"] = "all",
    ) -> None:  # fmt: skip
        self._site, self._name, self._messages, self._catch_up = site, name, messages, catch_up
        self._newest: int | None = None
        self.skipped = 0

    def open(self) -> None:
        """See `Feed`."""
        self._view = SpeedView.open(self._site / "views" / "speed.sqlite")
        self._cursor = Cursor(self._site / "speed" / "sinks", self._name)
        self._newest = self._view.last_tick()
        if self._cursor.tick is None:
            self._cursor.move(BEFORE if self._newest is None else self._newest)
            self._cursor.keep()

    def ring(self, tick: int) -> None:
        """See `Feed`."""
        self._newest = tick

    def behind(self) -> int:
        """See `Feed`."""
        tick, newest = self._cursor.tick, self._newest
        return 0 if newest is None or tick is None or tick == BEFORE else max(0, newest - tick)

    def pieces(self) -> Iterator[Sequence[Message]]:
        """See `Feed`."""
        rows = self._waiting()
        before = self._cursor.tick
        assert before is not None
        for some in _groups(rows):
            yield [message for spoken in some for message in self._messages(spoken)]
            self._cursor.move(some[-1].tick)
        if rows and self._catch_up == "newest":
            self.skipped += rows[-1].tick - before - len(rows)

    def keep(self) -> None:
        """See `Feed`."""
        self._cursor.keep()

    def close(self) -> None:
        """See `Feed`."""
        self._view.close()

    def _waiting(self) -> Sequence[Spoken]:
        after = self._cursor.tick
        assert after is not None
        rows = self._view.newest_each(after) if self._catch_up == "newest" else self._view.after(after, TICKS)
        if rows and after == BEFORE:
            self._cursor.move(rows[0].tick - 1)
        return rows


def _groups(rows: Sequence[Spoken]) -> Iterator[Sequence[Spoken]]:
    """`rows` in order, so many at a time that a sending stays small."""
    first, size = 0, 0
    for at, row in enumerate(rows):
        if at > first and size + len(row.members) > PREDICTIONS:
            yield rows[first:at]
            first, size = at, 0
        size += len(row.members)
    if first < len(rows):
        yield rows[first:]
