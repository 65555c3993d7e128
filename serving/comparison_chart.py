"""The picture of a comparison: bars of the errors, residuals over time. Draws tables, computes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

MOST_POINTS = 20_000
"""Points drawn per method; of more rows every k-th is."""
WIDTH, HEIGHT = 560, 320


def comparison_chart(table: pd.DataFrame, residuals: pd.DataFrame) -> Any:
    """A holoviews layout, a row per target: bars (columns mae, rmse by method) and residuals over time.

    `residuals` has the columns time, target, method, residual.
    """
    import holoviews as hv
    import hvplot.pandas  # noqa: F401  (gives DataFrames their .hvplot)

    drawn: list[Any] = []
    for target, figures in table.groupby("target", sort=False):
        bars = figures.hvplot.bar(x="method", y=["rmse", "mae"], title=f"{target}: error", width=WIDTH, height=HEIGHT)
        own = residuals[residuals["target"] == target]
        step = -(-len(own) // (MOST_POINTS * own["method"].nunique()))
        points = own.groupby("method", sort=False, group_keys=False).nth(slice(None, None, max(step, 1)))
        title = f"{target}: said minus truth"
        drawn += [
            bars,
            points.hvplot.scatter(
                x="time", y="residual", by="method", size=6, alpha=0.5, title=title, width=2 * WIDTH, height=HEIGHT
            ),
        ]
    return hv.Layout(drawn).cols(2)


def save_chart(chart: Any, path: Path) -> None:
    """As one HTML file with everything in it."""
    import hvplot

    hvplot.save(chart, str(path), resources="inline")
