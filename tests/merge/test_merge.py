"""The seam: before it the recomputed value, from it on the live one; holes are marked, never filled."""

from __future__ import annotations

import numpy as np
import pytest

from penstock.data.grid import Grid
from penstock.data.views.predictions import Predictions
from penstock.data.windows import Reason
from penstock.errors import Gap
from penstock.merge import Truth, merged

GRID = Grid(period_ns=3_600_000_000_000)


def part(ticks: list[int], value: float, version: int) -> Predictions:
    n = len(ticks)
    return Predictions(
        ticks=np.array(ticks, np.int64),
        values=np.full((n, 1), value, np.float32),
        versions=np.full(n, version, np.int64),
        reasons=np.zeros(n, np.uint8),
        filled=np.zeros(n, bool),
        sample=np.zeros(n, bool),
    )


def ask(  # type: ignore[no-untyped-def]
    wanted: list[int], *, seam: int, batch: Predictions, speed: Predictions, horizon: int = 0, strict: bool = False
):
    first, k = wanted[0] + horizon, wanted[-1] - wanted[0] + 1
    truth = Truth(
        first=first,
        values=np.arange(first, first + k, dtype=np.float32)[:, None],
        quality=np.full((k, 1), 256, np.uint16),
        flags=np.zeros((k, 1), np.uint16),
    )
    return merged(
        model="m", targets=("Y",), units=("MW",), grid=GRID, wanted=np.array(wanted), horizon=horizon, seam=seam,
        batch=batch, speed=speed, truth=truth, strict=strict,
    )  # fmt: skip


#  tick       10    11    12    13    14
#  batch      b     b     b     .     .      seam at 12: its row at 12 does not count
#  speed      .     s     s     s     .      11 was said too, but has been recomputed
#  answer     b     b     s     s     hole
def test_each_side_of_the_seam_speaks_for_itself() -> None:
    got = ask([10, 11, 12, 13, 14], seam=12, batch=part([10, 11, 12], 1.0, 3), speed=part([11, 12, 13], 2.0, 4))
    assert got["layer"].values.tolist() == ["recomputed", "recomputed", "live", "live", ""]
    assert got["version"].values.tolist() == [3, 3, 4, 4, 0]
    assert got["prediction"].values[:4, 0].tolist() == [1.0, 1.0, 2.0, 2.0]
    assert np.isnan(got["prediction"].values[4, 0])
    assert got["reason"].values[4] == Reason.NO_ANSWER.name
    assert got.attrs["holes"] == 1


def test_what_batch_lacks_before_the_seam_is_what_was_said() -> None:
    got = ask([10, 11], seam=12, batch=part([11], 1.0, 3), speed=part([10, 11], 2.0, 4))
    assert got["layer"].values.tolist() == ["live", "recomputed"]


def test_a_prediction_stands_at_the_time_it_is_for_beside_that_times_truth() -> None:
    got = ask([10, 11], seam=0, batch=Predictions.nothing(1), speed=part([10, 11], 2.0, 4), horizon=3)
    assert got["time"].values.astype("datetime64[h]").astype(int).tolist() == [13, 14]
    assert got["truth"].values[:, 0].tolist() == [13.0, 14.0]


def test_strict_names_the_first_hole() -> None:
    with pytest.raises(Gap, match=r"1 of 2 ticks have no answer.*1970-01-01T11"):
        ask([10, 11], seam=0, batch=Predictions.nothing(1), speed=part([10], 2.0, 4), strict=True)
