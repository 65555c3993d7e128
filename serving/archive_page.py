"""The archive page of one browser session: a tag over any span, pan and zoom without end.

The browser is sent at most 2 * BUCKETS points, whatever it looks at. When it
has panned or zoomed and rests, the span on screen is read and coarsened anew,
in a thread, so that a long read delays no other page.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import numpy as np
import panel as pn

from penstock.errors import PenstockError
from penstock.serving import charts
from penstock.serving.feed import Feed
from penstock.serving.places import Places
from penstock.serving.questions import Stretch
from penstock.serving.words import Words

BUCKETS = 1200
"""About one per pixel."""
REST_MS = 150
"""The view rests so long before it is read again: one drag sends dozens of ranges."""
SPANS = {"all": None, "1 year": 365.0, "30 days": 30.0, "7 days": 7.0, "1 day": 1.0}
DAY_MS = 86_400_000.0

log = logging.getLogger(__name__)


class ArchivePage:
    """One session. `view()` is what the browser shows."""

    def __init__(self, feed: Feed, words: Words) -> None:
        """`words`: the same for all sessions."""
        self._words, self._feed, self._stretch = words, feed, feed.questions.stretch
        self._face = feed.questions.face
        self._units = dict(self._face.tags)
        self._pick = pn.widgets.Select(name="tag", options=list(self._units), width=260)
        self._spans = pn.widgets.RadioButtonGroup(name="span", options=list(SPANS), value="all")
        self._note = pn.pane.HTML("", sizing_mode="stretch_width")
        self._places = Places(("top",), self._face.zone)
        self._body = pn.Column(sizing_mode="stretch_width")
        self._chart: charts.Chart | None = None
        self._waiting: Any = None
        self._pick.param.watch(lambda _: self._switch(), "value")
        self._spans.param.watch(lambda event: self._show(SPANS[event.new]), "value")

    def view(self) -> Any:
        """The page."""
        self._document = pn.state.curdoc
        self._head()
        self._draw()
        self._places.begin(self._document)
        self._document.add_periodic_callback(self._head, 1000)
        return pn.Column(
            self._places.pane("top"),
            pn.Row(self._pick, pn.Column(pn.pane.HTML("<small>span</small>"), self._spans), self._places.note()),
            self._body, self._note, sizing_mode="stretch_width", max_width=1600,
        )  # fmt: skip

    def _head(self) -> None:
        self._places.say(self._words.head("archive"), time.time())

    def _draw(self) -> None:
        """The chart, once, over all there is."""
        begin, end = (t / 1e6 for t in self._feed.questions.span())
        if begin == end or not self._units:
            self._note.object = "The archive is empty; bring readings in with: penstock import FILE"
            return
        self._chart = charts.stretch(self._face.zone, (begin, end))
        self._chart.figure.x_range.on_change("start", self._moved)
        self._chart.figure.x_range.on_change("end", self._moved)
        self._body.objects = [pn.pane.Bokeh(self._chart.figure, sizing_mode="stretch_width")]
        self._switch()

    def _switch(self) -> None:
        """Another tag over the same span."""
        if self._chart is not None:
            charts.clear(self._chart, f"{self._pick.value}, {self._units[self._pick.value]}")
            self._moved("start", None, None)

    def _show(self, days: float | None) -> None:
        """The last `days` before the right edge of the view, None: all there is."""
        if self._chart is None:
            return
        x, (begin, newest) = self._chart.figure.x_range, (t / 1e6 for t in self._feed.questions.span())
        low, high = charts.margins((begin, newest))
        x.bounds = (low, high)  # a stream may have brought more since
        end = high if days is None else min(x.end, newest)
        x.update(start=low if days is None else max(end - days * DAY_MS, low), end=end)

    def _moved(self, attr: str, old: Any, new: Any) -> None:
        """Read again once the view rests."""
        if self._waiting is not None:
            self._document.remove_timeout_callback(self._waiting)
        self._waiting = self._document.add_timeout_callback(self._read, REST_MS)

    async def _read(self) -> None:
        self._waiting = None
        chart, tag = self._chart, self._pick.value
        if chart is None:
            return
        start, end = (int(edge * 1e6) for edge in (chart.figure.x_range.start, chart.figure.x_range.end))
        try:
            found = await asyncio.to_thread(self._stretch, tag, start, end, BUCKETS)
        except PenstockError as error:
            self._note.object = f"<b>&#9650; {tag} cannot be read: {error}</b>"
            return
        if tag == self._pick.value:  # else another was picked meanwhile, and is read next
            chart.source.data = stretch_columns(found)
            self._note.object = _said(found)


def stretch_columns(found: Stretch) -> dict[str, Any]:
    """Columns of the chart: the line, and marks on its lowest value where readings are bad."""
    times = np.concatenate([found.times, found.faults])
    floor = np.nanmin(found.values) if np.isfinite(found.values).any() else 0.0
    order = np.argsort(times, kind="stable")
    line = np.concatenate([found.values, np.full(len(found.faults), np.nan)])
    marks = np.concatenate([np.full(len(found.values), np.nan), np.full(len(found.faults), floor)])
    return charts.rows({"value": line[order], "faulty": marks[order]}, times[order])


def _said(found: Stretch) -> str:
    if found.ticks_per_bucket == 1:
        return f"every reading of the span: {len(np.unique(found.times)):,} ticks"
    return f"smallest and largest of every {found.ticks_per_bucket:,} ticks; {len(found.times):,} points"
