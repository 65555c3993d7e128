"""The live page of one browser session: pick a model, watch it.

A periodic callback looks whether the feed has something new and sends the browser that: rows are streamed,
late truths patched, words replaced where they changed. Bokeh waits for the browser to take one callback's
messages before it makes the next, so a stalled browser queues nothing here. The callback is Bokeh's own:
Panel's, and its panes, took two thirds of the page's time to say the same.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import panel as pn

from penstock.serving import charts
from penstock.serving.feed import ROWS, Feed
from penstock.serving.places import Places
from penstock.serving.questions import Choice, Trace
from penstock.serving.words import Words

REFRESH_MS = 500


class LivePage:
    """One session. `view()` is what the browser shows."""

    def __init__(self, feed: Feed, words: Words) -> None:
        """`words`: the same for all sessions."""
        self._feed, self._words, face = feed, words, feed.questions.face
        self._choices = {choice.label: choice for choice in face.choices}
        self._pick = pn.widgets.Select(name="model", options=list(self._choices), width=260)
        self._places = Places(("top", "now", "tiles", "sheet"), face.zone)
        self._trend = charts.trend(face.zone, beside=face.beside)
        self._residual = charts.residual(face.zone, self._trend)
        self._trace: Trace | None = None
        self._pick.param.watch(lambda _: self._switch(), "value")

    def view(self) -> Any:
        """The page; from here on it refreshes itself until the browser goes."""
        self._switch()
        place, document = self._places.pane, pn.state.curdoc
        self._places.begin(document)
        document.add_periodic_callback(self.refresh, REFRESH_MS)
        return pn.Column(
            place("top"), pn.Row(self._pick, self._places.note()), place("now"), place("tiles"),
            *(pn.pane.Bokeh(chart.figure, sizing_mode="stretch_width") for chart in (self._trend, self._residual)),
            self._places.scrolled("sheet", 260), sizing_mode="stretch_width", max_width=1600,
        )  # fmt: skip

    def refresh(self) -> None:
        """Show what is new."""
        choice = self._choice()
        self._places.say(self._words.live(choice), time.time())
        trace = self._feed.trace(choice.model) if choice else None
        if choice is None or trace is None or trace is self._trace:
            return
        self._trace = trace
        columns = trend_columns(trace, choice.column)
        if self._feed.questions.face.beside:
            columns |= {name: getattr(trace, name)[:, choice.column] for name in charts.BESIDE}
        feed_rows(self._trend, columns, trace)

    def _switch(self) -> None:
        """Empty the charts and name what they show from now on; the span looked at stays."""
        choice = self._choice()
        if choice is not None:
            self._trace = None
            charts.clear(self._trend, f"{choice.target}, {choice.unit}")
            charts.name_axis(self._residual, f"residual, {choice.unit}")
        self.refresh()

    def _choice(self) -> Choice | None:
        return self._choices.get(self._pick.value)


def trend_columns(trace: Trace, column: int) -> dict[str, Any]:
    """Columns of `charts.TREND` and RESIDUAL; a mark stands where the line that is there stands."""
    truth, said = trace.truth[:, column], trace.prediction[:, column]
    withheld = np.isnan(said) & (trace.reasons != "OK") & (trace.reasons != "NOT_RUNNING")
    return {
        "truth": truth,
        "prediction": said,
        "filled": np.where(trace.filled, said, np.nan),
        "faulty": np.where(trace.faulty[:, column], said, np.nan),
        "withheld": np.where(withheld, np.where(np.isnan(truth), trace.persistence[:, column], truth), np.nan),
        charts.RESIDUAL: truth - said,
    }


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
