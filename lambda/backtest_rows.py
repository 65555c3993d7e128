"""From what was said to the table: every method on the same rows, by target, setting and year. Pure arithmetic.

`year` is the one predicted for. A row counts where the truth is good and every method of that target and setting has an
answer, so nobody wins by having been silent on the hard ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from penstock.backtest_course import Entry
from penstock.backtest_published import BAR_YEAR, BARS, COVERAGE, PUBLISHED, met
from penstock.batch.protocol import common, figures, quarters

Float = NDArray[np.float64]
OURS = "penstock"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lane:
    """One target under one setting, n times predicted for."""

    entry: Entry
    times: NDArray[np.datetime64]
    """[n] UTC, rising."""
    truth: Float
    """[n] NaN where missing or bad."""
    said: Mapping[str, Float]
    """[n] by method, ours first; NaN where it had no window."""
    low: Float
    high: Float
    """[n] the interval that was said; NaN where there was none."""
    version: NDArray[np.int64]
    """[n] the model version that spoke, 0: none."""

    def years(self) -> Iterator[tuple[int, Lane]]:
        """The lane of each year."""
        years = pd.DatetimeIndex(self.times).year.to_numpy()
        for year in np.unique(years).tolist():
            yield year, self.rows(years == year)

    def rows(self, at: NDArray[np.bool_]) -> Lane:
        """Those of `at` [n]."""
        return Lane(
            entry=self.entry, times=self.times[at], truth=self.truth[at],
            said={name: values[at] for name, values in self.said.items()},
            low=self.low[at], high=self.high[at], version=self.version[at],
        )  # fmt: skip


def table(lanes: list[Lane], *, published: bool) -> list[dict[str, Any]]:
    """The rows of `penstock backtest --json`."""
    return [row(year, lane, published=published) for whole in lanes for year, lane in whole.years()]


def row(year: int, lane: Lane, *, published: bool) -> dict[str, Any]:
    """One target, one setting, one year."""
    head = {"target": lane.entry.target, "setting": lane.entry.setting.name, "year": year}
    counted = lane.rows(common(lane.truth, lane.said))
    if not len(counted.truth):
        counts = ", ".join(f"{name} {int(np.isfinite(v).sum())}" for name, v in lane.said.items())
        return head | {"n": 0, "mae": None, "why": f"no row has a good truth and every method ({counts})"}
    mine, *others = (figures(counted.truth, values) for values in counted.said.values())
    peers = dict(zip(list(counted.said)[1:], others, strict=True))
    found = head | {"n": len(counted.truth), **mine, "peers": peers, "versions": len(set(counted.version.tolist()))}
    if np.isfinite(counted.low).any():
        found["coverage"] = quarters(counted.truth, counted.low, counted.high)
    return found | (_held(year, found) if published else {})


def _held(year: int, found: Mapping[str, Any]) -> dict[str, Any]:
    """What others have published, and whether the bars of 2014 are met."""
    key = found["target"], found["setting"]
    told: dict[str, Any] = {"published": {name: dict(v) for name, v in PUBLISHED.get(key, {}).items()}}
    if year != BAR_YEAR or key not in BARS:
        return told
    bar = BARS[key]
    told["goal"] = {"mae": bar.mae, "rmse": bar.rmse, "peer": bar.peer}
    told["met"] = met(bar, found["mae"], found["rmse"], found["peers"])
    if "coverage" in found:
        low, high = COVERAGE
        told["coverage_met"] = all(low <= share <= high for share in found["coverage"])
    return told
