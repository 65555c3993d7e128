"""What a window's answer is judged by: the truth, and the newest truth known when the window was cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from penstock.data.block import FILLED, Block, Flag
from penstock.data.derived import derive
from penstock.data.window_spec import WindowSpec


class Targets(NamedTuple):
    """Of n windows with O targets, in the targets' units."""

    y: NDArray[np.float32]
    """[n, O] the target at t + horizon; NaN where not usable."""
    usable: NDArray[np.bool_]
    """[n, O] y was read, not filled in: only then may it teach or judge."""
    last: NDArray[np.float32]
    """[n, O] the newest target known at t, bridged like an input, NaN where none: what persistence predicts."""


def targets(spec: WindowSpec, block: Block, ends: NDArray[np.int64] | Sequence[int]) -> Targets:
    """The targets of the windows that end at the ticks `ends` [n].

    `block` holds the columns of `spec.truth`; a tick outside its rows has no truth. Raises QueryError when
    a column is missing.
    """
    ends = np.asarray(ends, np.int64)
    columns = derive(block, spec.targets, spec.derived)
    y, usable = _at(columns, ends + spec.horizon, range(len(spec.targets)), Flag.BAD | FILLED)
    last = np.full_like(y, np.nan)
    for column, lag in enumerate(spec.lags):
        last[:, column] = _at(columns, ends - lag, [column], Flag.BAD)[0][:, 0]
    return Targets(y, usable, last)


def _at(
    block: Block, ticks: NDArray[np.int64], columns: Sequence[int], unless: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """[n, c] values at `ticks` and where they are usable: inside the block and without a flag of `unless`."""
    inside = (ticks >= block.first) & (ticks < block.last)
    usable = np.zeros((len(ticks), len(columns)), bool)
    values = np.full(usable.shape, np.nan, np.float32)
    at = np.ix_(ticks[inside] - block.first, np.asarray(columns, np.intp))
    usable[inside] = (block.flags[at] & unless) == 0
    values[inside] = np.where(usable[inside], block.values[at], np.float32(np.nan))
    return values, usable
