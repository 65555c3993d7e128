"""The live page of one browser session: pick a model, watch it.

A periodic callback takes the feed's newest snapshot and sends the browser what
is new: rows are streamed, late truths patched, words replaced only when they
changed. Bokeh waits for the browser to take one callback's messages before it
makes the next, so a stalled browser queues nothing here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import panel as pn
from bokeh.models import CustomJS, Div

from penstock.serving import banner, charts
from penstock.serving.feed import ROWS, Feed
from penstock.serving.questions import Choice, Entry, Trace

REFRESH_MS = 500
LINK = """
let seen = Date.now()
beat.properties.text.change.connect(() => { seen = Date.now() })
setInterval(() => {
  const age = (Date.now() - seen) / 1000
  const words = `&#9650; THIS PAGE IS FROZEN: no link to penstock for ${age.toFixed(0)} s`
  const text = age > 3 ? `<b style="color:#a00000">${words}</b>` : ''
  if (note.text !== text) { note.text = text }
}, 500)
"""
"""In the browser: a page that hears nothing more says so itself."""


class LivePage:
    """One session. `view()` is what the browser shows."""

    def __init__(self, feed: Feed) -> None:
        self._feed, self._face = feed, feed.questions.face
        choices = {choice.label: choice for choice in self._face.choices}
        self._choices = choices
        self._pick = pn.widgets.Select(name="model", options=list(choices), width=260)
        self._top, self._now, self._tiles, self._sheet = (
            pn.pane.HTML("", sizing_mode="stretch_width") for _ in range(4)
        )
        self._beat, self._note = Div(text="0", visible=False), Div(text="")
        self._beats = 0
        zone = self._face.zone
        self._trend = charts.trend(zone)
        self._residual = charts.residual(zone, self._trend)
        self._pick.param.watch(lambda _: self._switch(), "value")

    def view(self) -> Any:
        """The page; from here on it refreshes itself until the browser goes."""
        self._switch()
        pn.state.curdoc.js_on_event(
            "document_ready", CustomJS(args={"beat": self._beat, "note": self._note}, code=LINK)
        )
        pn.state.add_periodic_callback(self.refresh, REFRESH_MS)
        return pn.Column(
            self._top, pn.Row(self._pick, pn.pane.Bokeh(self._note), pn.pane.Bokeh(self._beat)), self._now, self._tiles,
            *(pn.pane.Bokeh(chart.figure, sizing_mode="stretch_width") for chart in (self._trend, self._residual)),
            pn.Column(self._sheet, max_height=260, scroll=True, sizing_mode="stretch_width"),
            sizing_mode="stretch_width", max_width=1600,
        )  # fmt: skip

    def refresh(self) -> None:
        """Take the newest snapshots in."""
        self._beats += 1
        self._beat.text = str(self._beats)
        moment = self._feed.moment()
        self._say(self._top, banner.top(self._face, moment, "live"))
        self._say(self._sheet, banner.sheet(self._feed.sheet()))
        choice = self._choice()
        trace = self._feed.trace(choice.model) if choice else None
        if choice is None or trace is None:
            return
        self._say(self._tiles, banner.tiles(self._face, moment, choice, self._entry(choice)))
        self._say(self._now, banner.now(self._face, moment, choice, trace))
        feed_rows(self._trend, trend_columns(trace, choice.column), trace)
        feed_rows(self._residual, residual_columns(trace, choice.column), trace)

    def _switch(self) -> None:
        """Empty the charts and name what they show from now on; the span looked at stays."""
        choice = self._choice()
        if choice is None:
            return
        charts.clear(self._trend, f"{choice.target}, {choice.unit}")
        charts.clear(self._residual, f"residual, {choice.unit}")
        self.refresh()

    def _choice(self) -> Choice | None:
        return self._choices.get(self._pick.value)

    def _entry(self, choice: Choice) -> Entry | None:
        return next((entry for entry in self._feed.sheet() if entry.choice == choice), None)

    @staticmethod
    def _say(pane: Any, text: str) -> None:
        if pane.object != text:
            pane.object = text


def trend_columns(trace: Trace, column: int) -> dict[str, Any]:
    """Columns of `charts.TREND`; a mark stands where the line that is there stands."""
    truth, said = trace.truth[:, column], trace.prediction[:, column]
    withheld = np.isnan(said) & (trace.reasons != "OK") & (trace.reasons != "NOT_RUNNING")
    return {
        "truth": truth,
        "prediction": said,
        "filled": np.where(trace.filled, said, np.nan),
        "faulty": np.where(trace.faulty[:, column], said, np.nan),
        "withheld": np.where(withheld, np.where(np.isnan(truth), trace.persistence[:, column], truth), np.nan),
    }


def residual_columns(trace: Trace, column: int) -> dict[str, Any]:
    """Truth minus prediction."""
    return {"residual": trace.truth[:, column] - trace.prediction[:, column]}


def feed_rows(chart: charts.Chart, columns: dict[str, Any], trace: Trace) -> None:
    """Bring a chart's source to what the trace says: stream what is new, patch what changed since."""
    fresh = charts.rows(columns, trace.times)
    shown = np.asarray(chart.source.data["time"], np.float64)
    common = np.flatnonzero(np.isin(fresh["time"], shown))
    if not len(common):
        chart.source.data = fresh
        return
    patches = _changes(chart, fresh, shown, common)
    if patches:
        chart.source.patch(patches)
    new = fresh["time"] > shown[-1]
    if new.any():
        chart.source.stream({name: values[new] for name, values in fresh.items()}, rollover=ROWS)


def _changes(chart: charts.Chart, fresh: dict[str, Any], shown: Any, common: Any) -> dict[str, Any]:
    """{column: [(row, value)]} where a row that is shown says something else now."""
    at = np.searchsorted(shown, fresh["time"][common])
    patches = {}
    for name in fresh:
        old, now = np.asarray(chart.source.data[name], np.float64)[at], fresh[name][common]
        differs = np.flatnonzero(~((old == now) | (np.isnan(old) & np.isnan(now))))
        if len(differs):
            patches[name] = [(int(at[i]), float(now[i])) for i in differs]
    return patches
