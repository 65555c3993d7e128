"""The charts: drawn once with hvplot, fed by rows ever after.

A redraw costs 14 ms, a row streamed into a ColumnDataSource 0.13 ms. Light
grey ground, lines in greys told apart by width and dash; colour is kept for
what is abnormal, and each abnormal thing has a shape of its own as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import holoviews as hv
import hvplot.pandas  # noqa: F401  gives DataFrames their .hvplot
import numpy as np
import pandas as pd
from bokeh.models import (
    BoxZoomTool,
    ColumnDataSource,
    CustomJSHover,
    CustomJSTickFormatter,
    DataRange1d,
    GlyphRenderer,
    HoverTool,
    Legend,
    LegendItem,
    PanTool,
    Range1d,
    ResetTool,
    WheelZoomTool,
)

GROUND, INK, SOFT, RED, AMBER = "#ececec", "#222222", "#9a9a9a", "#c00000", "#e08a00"
TREND = ("truth", "prediction", "filled", "faulty", "withheld")
"""Columns of the trend beside `time` (ms UTC); the marks are NaN where there is nothing to mark."""
BESIDE = ("corrected", "low", "high")
"""Columns more, on a page where something is said beside predictions."""
RESIDUAL = "residual"
"""Column of truth minus prediction, in the trend's source."""
_LABEL = """
const show = (ms, options) => new Intl.DateTimeFormat('sv-SE', {timeZone: zone, ...options}).format(new Date(ms))
const day = {year: 'numeric', month: '2-digit', day: '2-digit'}
const minute = {...day, hour: '2-digit', minute: '2-digit'}
"""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chart:
    """A bokeh figure and the one source that all its lines and marks show."""

    figure: Any
    source: ColumnDataSource


def trend(zone: str, *, beside: bool = False) -> Chart:
    """Truth and prediction on one axis, with the marks of TREND; `beside`: the corrected line and the interval."""
    frame = _empty((*TREND, *BESIDE))
    plot = (
        frame.hvplot.line(x="time", y="prediction", color=SOFT, line_width=5, label="prediction")
        * frame.hvplot.line(x="time", y="truth", color=INK, line_width=1.4, label="truth")
        * _marks(frame, "filled", "diamond", AMBER, "input filled")
        * _marks(frame, "faulty", "x", RED, "bad truth")
        * _marks(frame, "withheld", "inverted_triangle", RED, "prediction withheld")
    )
    if beside:
        plot *= frame.hvplot.line(
            x="time", y="corrected", color=INK, line_width=1.4, line_dash="dashed", label="corrected"
        )
    columns = (*TREND, *(BESIDE if beside else ()), RESIDUAL)
    chart = _drawn(plot, _source(columns), TREND[0], zone, height=300)
    if beside:
        _band(chart)
    return chart


def residual(zone: str, beside: Chart) -> Chart:
    """Truth minus prediction and zero, on the time axis of `beside` and from its source: one message feeds both."""
    frame = _empty((RESIDUAL,))
    chart = _drawn(
        hv.HLine(0).opts(color=SOFT, line_width=1)
        * frame.hvplot.step(x="time", y=RESIDUAL, color=INK, line_width=1.2, where="mid"),
        beside.source, RESIDUAL, zone, height=175,
    )  # fmt: skip
    chart.figure.x_range = beside.figure.x_range
    chart.figure.toolbar_location = None  # that of `beside` moves both
    chart.figure.min_border_right = 30  # as wide as its toolbar: the same moment stands above itself
    chart.figure.xaxis.axis_label = f"time, {zone}"
    return chart


def stretch(zone: str, span_ms: tuple[float, float]) -> Chart:
    """A tag over a span: a line through each bucket's extremes, marks where readings are bad."""
    frame = _empty(("value", "faulty"))
    plot = frame.hvplot.line(x="time", y="value", color=INK, line_width=1) * _marks(
        frame, "faulty", "x", RED, "bad readings"
    )
    chart = _drawn(plot, _source(("value", "faulty")), "value", zone, height=560)
    bounds = margins(span_ms)
    chart.figure.xaxis.axis_label = f"time, {zone}"
    chart.figure.x_range = Range1d(*bounds, bounds=bounds, min_interval=1000.0)
    return chart


def margins(span_ms: tuple[float, float]) -> tuple[float, float]:
    """How far a view of the span may be moved."""
    margin = (span_ms[1] - span_ms[0]) * 0.02
    return span_ms[0] - margin, span_ms[1] + margin


def rows(columns: dict[str, Any], times_ns: Any) -> dict[str, Any]:
    """Columns for a chart's source."""
    return {"time": np.asarray(times_ns) / 1e6, **{k: np.asarray(v, np.float64) for k, v in columns.items()}}


def clear(chart: Chart, label: str) -> None:
    """Empty the chart and name its axis: from here on it shows something else."""
    chart.source.data = {name: np.zeros(0) for name in chart.source.data}
    name_axis(chart, label)


def name_axis(chart: Chart, label: str) -> None:
    """What the upright axis shows, and its unit."""
    chart.figure.yaxis.axis_label = label


def _band(chart: Chart) -> None:
    """The interval, behind the lines. hvplot's area is a polygon of its own, which no row could be streamed into."""
    figure = chart.figure
    band = figure.varea(x="time", y1="low", y2="high", source=chart.source, fill_color=SOFT, fill_alpha=0.3)
    figure.renderers = [band, *(each for each in figure.renderers if each is not band)]
    figure.select_one(Legend).items.append(LegendItem(label="interval", renderers=[band]))


def _empty(columns: Sequence[str]) -> pd.DataFrame:
    """hvplot draws nothing from nothing: one row that shows nothing."""
    return pd.DataFrame({"time": pd.to_datetime([0], unit="ms"), **{name: [np.nan] for name in columns}})


def _marks(frame: pd.DataFrame, column: str, marker: str, color: str, label: str) -> Any:
    return frame.hvplot.scatter(
        x="time",
        y=column,
        marker=marker,
        size=70,
        color=color,
        line_color=color if marker == "x" else INK,
        line_width=2.0 if marker == "x" else 0.8,
        label=label,
    )


def _source(columns: Sequence[str]) -> ColumnDataSource:
    return ColumnDataSource({name: np.zeros(0) for name in ("time", *columns)})


def _drawn(plot: Any, source: ColumnDataSource, column: str, zone: str, *, height: int) -> Chart:
    """Render, and put `source`, ranges that follow it and the plant's zone in the place of hvplot's own.

    `column`: the main line's.
    """
    figure = hv.render(plot.opts(show_grid=True), backend="bokeh")
    for drawn in figure.select(GlyphRenderer):
        drawn.data_source = source
    figure.update(
        width=None, height=height, sizing_mode="stretch_width", output_backend="canvas"
    )  # WebGL pays above 10k points
    figure.x_range, figure.y_range = DataRange1d(range_padding=0.01), DataRange1d(range_padding=0.1)
    figure.xaxis.formatter = CustomJSTickFormatter(
        args={"zone": zone},
        code=_LABEL
        + "return ticks.length > 1 && ticks[1] - ticks[0] >= 86400000 ? show(tick, day) : show(tick, minute).slice(5)",
    )
    figure.xaxis.axis_label = None
    figure.background_fill_color = figure.border_fill_color = GROUND
    figure.grid.grid_line_color = "#d8d8d8"
    figure.outline_line_color = "#b5b5b5"
    figure.axis.minor_tick_line_color = None
    _legend_above(figure)
    _tools(figure, column, zone)
    return Chart(figure=figure, source=source)


def _legend_above(figure: Any) -> None:
    """Out of the lines' way."""
    for legend in list(figure.legend):
        legend.update(orientation="horizontal", label_text_font_size="11px", padding=2, margin=2, spacing=14)
        legend.update(background_fill_alpha=0.0, border_line_color=None)
        figure.center = [each for each in figure.center if each is not legend]
        figure.add_layout(legend, "above")


def _tools(figure: Any, column: str, zone: str) -> None:
    """Pan and wheel along time, a box, back again; the values under the mouse."""
    when = CustomJSHover(args={"zone": zone}, code=_LABEL + "return Number.isFinite(value) ? show(value, minute) : ''")
    line = [r for r in figure.select(GlyphRenderer) if getattr(r.glyph, "y", None) == column]
    hover = HoverTool(
        renderers=line,
        tooltips=[("time", "@time{custom}"), *((n, f"@{n}{{0.00}}") for n in figure_columns(column))],
        formatters={"@time": when},
        mode="vline",
    )
    pan, wheel = PanTool(dimensions="width"), WheelZoomTool(dimensions="width")
    figure.tools = [pan, wheel, BoxZoomTool(dimensions="width"), ResetTool(), hover]
    figure.toolbar.active_drag, figure.toolbar.active_scroll = pan, wheel
    figure.toolbar.logo = None


def figure_columns(column: str) -> tuple[str, ...]:
    """What the mouse shows beside the time on the chart whose main line is `column`."""
    return ("truth", "prediction") if column == "truth" else (column,)
