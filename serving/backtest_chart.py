"""The pictures of a backtest: errors by setting and method, and how they went over the year. Draws, judges nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from penstock.serving.comparison_chart import save_chart

WIDTH, HEIGHT = 900, 300
SMOOTH = "7D"
"""What an RMSE over time is taken over."""
MOST_POINTS = 2000


class Drawn(Protocol):
    """What is drawn of one target under one setting."""

    @property
    def times(self) -> NDArray[np.datetime64]:
        """[n] predicted for."""

    @property
    def truth(self) -> NDArray[np.float64]:
        """[n]"""

    @property
    def said(self) -> Mapping[str, NDArray[np.float64]]:
        """[n] by method."""


def backtest_charts(
    folder: Path, rows: Sequence[Mapping[str, Any]], drawn: Mapping[tuple[str, str], Drawn]
) -> list[str]:
    """One HTML file per target, that needs no server: bars of RMSE, then a line per method and setting over time.

    `rows` are those of the backtest, `drawn` by (target, setting). Returns the files' paths.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for target in dict.fromkeys(key[0] for key in drawn):
        path = folder / f"{target}.html"
        save_chart(chart_of(target, rows, {s: lane for (t, s), lane in drawn.items() if t == target}), path)
        files.append(str(path))
    return files


def chart_of(target: str, rows: Sequence[Mapping[str, Any]], lanes: Mapping[str, Drawn]) -> Any:
    """A holoviews layout, one column."""
    import holoviews as hv
    import hvplot.pandas  # noqa: F401  (gives DataFrames their .hvplot)

    bars = errors_of([row for row in rows if row["target"] == target])
    drawn: list[Any] = []
    if len(bars):
        title = f"{target}: RMSE by setting and year"
        drawn.append(
            bars.hvplot.bar(x="setting", y="rmse", by="method", title=title, width=WIDTH, height=HEIGHT, rot=20)
        )
    for setting, lane in lanes.items():
        weekly = over_time(lane)
        if len(weekly):
            title = f"{target}, {setting}: RMSE of the last {SMOOTH.removesuffix('D')} days"
            drawn.append(weekly.hvplot.line(title=title, ylabel="RMSE", width=WIDTH, height=HEIGHT))
    return hv.Layout(drawn).cols(1)


def errors_of(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Columns setting (and year), method, rmse: ours and every peer's."""
    found = [
        {"setting": f"{row['setting']} {row['year']}", "method": method, "rmse": figures["rmse"]}
        for row in rows
        if row["n"]
        for method, figures in {"penstock": row, **row["peers"]}.items()
    ]
    return pd.DataFrame(found, columns=["setting", "method", "rmse"])


def over_time(lane: Drawn) -> pd.DataFrame:
    """A column per method over time: the RMSE of the days before, on the rows that all have."""
    squares = pd.DataFrame(
        {method: (values - lane.truth) ** 2 for method, values in lane.said.items()}, index=pd.DatetimeIndex(lane.times)
    ).dropna()
    rmse = squares.rolling(SMOOTH).mean() ** 0.5
    return rmse.iloc[:: max(1, len(rmse) // MOST_POINTS)]
