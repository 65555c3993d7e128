"""What the pages say of one edition of the feed, made once for all sessions that show the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from penstock.serving import banner
from penstock.serving.feed import Feed
from penstock.serving.questions import Choice


class Words:
    """The newest edition's. For one thread, the web server's."""

    def __init__(self, feed: Feed) -> None:
        self._feed, self._face = feed, feed.questions.face
        self._edition = -1
        self._moment, self._sheet = feed.moment(), feed.sheet()
        self._kept: dict[tuple[str, str], str] = {}

    def head(self, page: str) -> Mapping[str, str]:
        """The line above "live" or "archive"."""
        self._turn()
        return {"top": self._once("top", page, lambda: banner.top(self._face, self._moment, page))}

    def live(self, choice: Choice | None) -> Mapping[str, str]:
        """All words of the live page that looks at `choice`; those of its figures wait for its rows."""
        said = dict(self.head("live"))
        said["sheet"] = self._once("sheet", "", lambda: banner.sheet(self._sheet))
        said["values"] = self._once("values", "", lambda: banner.values(self._sheet))
        trace = self._feed.trace(choice.model) if choice else None
        if choice is None or trace is None:
            return said
        entry = next((entry for entry in self._sheet if entry.choice == choice), None)
        said["tiles"] = self._once("tiles", choice.label, lambda: banner.tiles(self._face, self._moment, choice, entry))
        said["now"] = self._once("now", choice.label, lambda: banner.now(self._face, self._moment, choice, trace))
        return said

    def _turn(self) -> None:
        """Take the newest edition, if there is one."""
        edition = self._feed.edition
        if edition != self._edition:
            self._edition, self._moment, self._sheet = edition, self._feed.moment(), self._feed.sheet()
            self._kept.clear()

    def _once(self, what: str, of: str, make: Callable[[], str]) -> str:
        if (what, of) not in self._kept:
            self._kept[what, of] = make()
        return self._kept[what, of]
