"""One answer across the seam: what was recomputed before it, what was said live after it.

Pure: arrays in, an xarray Dataset out. It knows neither files nor engines; who
calls it (`site.query`) reads the two views and the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from penstock.data.grid import Grid, spaced
from penstock.data.views.predictions import Predictions
from penstock.data.windows import Reason
from penstock.errors import Gap, QueryError

RECOMPUTED, LIVE, NEITHER = "recomputed", "live", ""
"""Values of `layer`; NEITHER marks a hole."""
_REASONS = np.array([reason.name for reason in sorted(Reason)], dtype="<U12")
"""By their numbers, which are 0, 1, 2, ..."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Truth:
    """The target as stored, one row per tick from `first`."""

    first: int
    values: NDArray[np.float32]
    """[k, targets]; NaN where it is missing or flagged bad."""
    quality: NDArray[np.uint16]
    """[k, targets] stored quality of the cell."""
    flags: NDArray[np.uint16]
    """[k, targets] `quality.Flag`"""


def merged(
    *,
    model: str,
    targets: Sequence[str],
    units: Sequence[str],
    grid: Grid,
    wanted: NDArray[np.int64],
    horizon: int,
    seam: int,
    batch: Predictions,
    speed: Predictions,
    truth: Truth,
    strict: bool = False,
) -> xr.Dataset:
    """Predictions made at `wanted` ticks [n, rising], indexed by the time they are *for*.

    Ticks below `seam` come from `batch`; the others, and those that batch does
    not have, from `speed`. A tick that neither has is a hole: layer "", reason
    NO_ANSWER, NaN; with `strict` it raises Gap.
    `truth` must cover ticks wanted[0] + horizon .. wanted[-1] + horizon.
    """
    told, layer = joined(wanted, len(targets), seam, batch, speed)
    holes = int(np.count_nonzero(layer == NEITHER))
    if strict and holes:
        when = np.datetime64(grid.time(int(wanted[np.argmax(layer == NEITHER)])), "ns")
        raise Gap(f"{model}: {holes} of {len(wanted)} ticks have no answer in either view, the first made at {when}Z")
    rows = wanted + horizon - truth.first
    return xr.Dataset(
        {
            "truth": (("time", "target"), truth.values[rows], {"long_name": "measured value, NaN where bad"}),
            "quality": (
                ("time", "target"),
                truth.quality[rows],
                {"long_name": "stored quality of the truth"},
            ),
            "flags": (
                ("time", "target"),
                truth.flags[rows],
                {"long_name": "derived quality flags of the truth"},
            ),
            "prediction": (("time", "target"), told.values, {"long_name": "predicted value, NaN where withheld"}),
            "reason": ("time", _REASONS[told.reasons]),
            "layer": ("time", layer, {"long_name": "recomputed | live | empty: a hole"}),
            "version": ("time", told.versions, {"long_name": "model version that answered, 0: none"}),
            "sample": ("time", told.sample, {"long_name": "tick lies in the training sample of that version"}),
            "filled": ("time", told.filled, {"long_name": "window holds a carried or substituted input"}),
        },
        coords={
            "time": (grid.origin_ns + (wanted + horizon) * grid.period_ns).astype("datetime64[ns]"),
            "target": list(targets),
            "unit": ("target", list(units)),
        },
        attrs={"model": model, "seam": str(np.datetime64(grid.time(seam), "ns")), "holes": holes},
    )


def joined(
    wanted: NDArray[np.int64], outputs: int, seam: int, batch: Predictions, speed: Predictions
) -> tuple[Predictions, NDArray[np.str_]]:
    """What stands at each tick of `wanted` [n, rising], by the rule of `merged`, and the layer [n] it comes from.

    Raises QueryError for rows of another number of outputs: they are of other targets (`outputs.py`).
    """
    n = len(wanted)
    told = Predictions(
        ticks=wanted,
        values=np.full((n, outputs), np.nan, np.float32),
        versions=np.zeros(n, np.int64),
        reasons=np.full(n, Reason.NO_ANSWER, np.uint8),
        filled=np.zeros(n, bool),
        sample=np.zeros(n, bool),
    )
    layer = np.full(n, NEITHER, dtype="<U10")
    for name, part in ((LIVE, speed), (RECOMPUTED, batch.between(-(2**62), seam))):
        if len(part.ticks) and part.values.shape[1] != outputs:
            raise QueryError(f"rows of {part.values.shape[1]} outputs are no answer to a question for {outputs}")
        to, at = (_slice(each) for each in _match(wanted, part.ticks))
        for column in ("values", "versions", "reasons", "filled", "sample"):
            getattr(told, column)[to] = getattr(part, column)[at]
        layer[to] = name
    return told, layer


def _match(wanted: NDArray[np.int64], ticks: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Positions in `wanted` and in `ticks` that hold the same tick; both rise."""
    if len(ticks) and ticks[-1] - ticks[0] == len(ticks) - 1:  # no gap: where one is needs no search
        at = wanted - ticks[0]
        there = np.flatnonzero((at >= 0) & (at < len(ticks)))
        return there, at[there]
    at = np.searchsorted(ticks, wanted)
    inside = at < len(ticks)
    hit = np.zeros(len(wanted), bool)
    hit[inside] = ticks[at[inside]] == wanted[inside]
    return np.flatnonzero(hit), at[hit]


def _slice(at: NDArray[np.intp]) -> NDArray[np.intp] | slice:
    """The same places, as a slice where they lie evenly: that copies faster."""
    even = spaced(at) if len(at) else None
    return at if even is None else even
