"""The published benchmark's settings: what a method may know at t, when it is fitted, which rows count. Pure.

    rows     | history ............ | 168 rows | 168 rows | ...        a turn is said by what was fitted before it
    static   | fitted once          ^ says all of it
    retrain  | ..... newest rows ] ^ says 168 rows, then is fitted anew on the newest rows before the next turn

It knows neither models nor engines: whoever walks asks it when to fit and on what.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.batch.baselines import errors

Float = NDArray[np.float32] | NDArray[np.float64]

TURN_ROWS = 168
"""A week of hourly rows: the rows carry no times, so a week is so many of them."""
PEER_ROWS = 720
"""Newest good rows that a peer is refitted on."""
MEAN_ROWS = 24
"""Newest residuals whose mean corrects a peer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a method may know, and when it is fitted."""

    name: str
    past_target: bool = False
    """y[t-1] and older are inputs."""
    horizon: int = 0
    """Rows ahead: it knows inputs and targets up to t and says y[t + horizon]."""
    refitted: bool = False
    """At the beginning of every turn; else once, before the first one."""
    corrected: bool = False
    """What it says is corrected by the residuals of the truths known at t: y[t-1] and older."""


SETTINGS = {
    setting.name: setting
    for setting in (
        Setting(name="static"),
        Setting(name="retrain", refitted=True),
        Setting(name="live", refitted=True, corrected=True),
        Setting(name="past-target", past_target=True),
        Setting(name="forecast-1", past_target=True, horizon=1),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Ticks first..last-1 are said by what was fitted on truths before `first`."""

    first: int
    last: int


def turns(first: int, last: int, every: int = TURN_ROWS) -> tuple[Turn, ...]:
    """Ticks first..last-1 in turns of `every`; the last one may be shorter."""
    return tuple(Turn(first=at, last=min(at + every, last)) for at in range(first, last, every))


def common(truth: Float, said: Mapping[str, Float]) -> NDArray[np.bool_]:
    """[n] rows with a good truth [n] on which every method [n] has an answer."""
    fine: NDArray[np.bool_] = np.isfinite(truth)
    for values in said.values():
        fine = fine & np.isfinite(values)
    return fine


def figures(truth: Float, said: Float) -> dict[str, float]:
    """`mae`, `rmse`, `r2` (1 - SSE/SST), `bias` (said minus truth) of [n] against [n]."""
    found = errors(truth, said)
    return {key: found[key] for key in ("mae", "rmse", "r2", "bias")}


def quarters(truth: Float, low: Float, high: Float) -> list[float]:
    """Share of the truths inside [low, high] in each quarter of the rows [n] that have an interval; NaN where none."""
    known = np.isfinite(truth) & np.isfinite(low) & np.isfinite(high)
    inside = (truth >= low) & (truth <= high)
    parts = np.array_split(np.arange(len(truth)), 4)
    return [float(inside[part][known[part]].mean()) if known[part].any() else float("nan") for part in parts]


def corrected(
    said: Float, truth: Float, ticks: NDArray[np.int64], lag: int, most: int = MEAN_ROWS
) -> NDArray[np.float64]:
    """`said` [n] plus the mean of the `most` newest residuals known at each of the rising `ticks`; none: as it is.

    At tick t the truths of ticks t - lag and before are known. `said`, `truth` are [n], NaN where missing.
    """
    residual = truth.astype(np.float64) - said.astype(np.float64)
    at = np.flatnonzero(np.isfinite(residual))
    total = np.concatenate([[0.0], np.cumsum(residual[at])])
    known = np.searchsorted(ticks[at], ticks - lag, side="right")
    first = np.maximum(known - most, 0)
    mean = (total[known] - total[first]) / np.maximum(known - first, 1)
    result: NDArray[np.float64] = said + mean
    return result


def known_before(ticks: NDArray[np.int64], good: NDArray[np.bool_], horizon: int, turn: Turn) -> NDArray[np.intp]:
    """Positions of the good rows whose truth lies before the turn: those that may be fitted on for it."""
    return np.flatnonzero(good & (ticks + horizon < turn.first))
