"""What was said beside the predictions of a query: corrected, low, high, chance. It is never recomputed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from penstock.data.plant import LiveSpec
from penstock.data.views.adjusted import Adjusted
from penstock.data.views.speed_view import SaidRows

NAMES = {
    "corrected": "prediction as it was said, with the correction of its moment",
    "low": "lower end of the interval said",
    "high": "upper end of the interval said",
    "chance": "said probability that the limit is crossed",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Beside:
    """What was said of one model; n ticks, o outputs."""

    ticks: NDArray[np.int64]
    """[n] ascending."""
    values: NDArray[np.float32]
    """[n, o] raw."""
    said: Adjusted
    """[n, o]"""


def with_beside(answer: xr.Dataset, made: NDArray[np.int64], rows: SaidRows | None, live: LiveSpec) -> xr.Dataset:
    """`answer`, made at ticks `made`, with the columns that the model asks for, or that were said of it.

    NaN where nothing was said, or too little was known. On recomputed rows too they are what was said then.
    """
    told = None
    if rows is not None and rows.adjusted is not None:
        told = Beside(ticks=rows.ticks, values=rows.values, said=rows.adjusted)
    if told is None and live == LiveSpec():
        return answer
    found = columns_of(made, answer.sizes["target"], told)
    asked = {
        "corrected": live.correct is not None, "low": live.interval is not None, "high": live.interval is not None,
        "chance": any(limit is not None for limit in live.limits),
    }  # fmt: skip
    kept = [name for name in NAMES if asked[name] or np.isfinite(found[name]).any()]
    return answer.assign({name: (("time", "target"), found[name], {"long_name": NAMES[name]}) for name in kept})


def columns_of(made: NDArray[np.int64], outputs: int, rows: Beside | None) -> dict[str, NDArray[np.float32]]:
    """[n, outputs] by the names of NAMES, for the ticks `made` [n, ascending]; NaN where `rows` have none."""
    said, raw = Adjusted.nothing(len(made), outputs), np.full((len(made), outputs), np.nan, np.float32)
    if rows is not None and rows.values.shape[1] == outputs:
        to, at = np.intersect1d(made, rows.ticks, assume_unique=True, return_indices=True)[1:]
        raw[to] = rows.values[at]
        for mine, theirs in zip(_parts(said), _parts(rows.said), strict=True):
            mine[to] = theirs[at]
    return {"corrected": raw + said.corrections, "low": said.lows, "high": said.highs, "chance": said.chances}


def _parts(said: Adjusted) -> tuple[NDArray[np.float32], ...]:
    return said.corrections, said.lows, said.highs, said.chances
