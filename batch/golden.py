"""The newest good windows of an archive: what a ready-made model is checked on before anybody asks it.

Walks back block by block, so that a long archive costs no more than its newest part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.batch.history import Past, Source, past
from penstock.batch.sample import Dropped
from penstock.data.window_spec import WindowSpec
from penstock.data.windows import Reason
from penstock.errors import ModelError

Float32 = NDArray[np.float32]

WINDOWS = 32
LEAST = 8
"""Fewer say nothing about a model."""
BLOCK_TICKS = 20_000
"""Read at a time."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Newest:
    """What the newest part of an archive holds for one model."""

    windows: Float32
    """[g, T, F] in order of time, g at most `WINDOWS`."""
    scale: Float32
    """[O] standard deviation of the target over the blocks that were read; 1 where it never moves or is not known."""


def newest_windows(
    name: str,
    source: Source,
    spec: WindowSpec,
    ids: Sequence[int],
    first: int,
    last: int,
    *,
    block_ticks: int = BLOCK_TICKS,
) -> Newest:
    """The newest good windows that end at ticks first..last-1; `ids` are those of `spec.stored`.

    Raises ModelError when there are fewer than `LEAST`, saying why and what to do.
    """
    found: list[Float32] = []
    truths: list[NDArray[np.float64]] = []
    reasons: Counter[int] = Counter()
    end, count = last, 0
    while end > first and count < WINDOWS:
        begin = max(first, end - block_ticks)
        block = past(source, spec, ids, begin, end + spec.horizon)
        good = np.flatnonzero(block.windows.reason == Reason.OK)[count - WINDOWS :]
        found.insert(0, block.windows.take(good))
        truths.append(_truth(block))
        reasons.update(block.windows.reason.tolist())
        end, count = begin, count + len(good)
    if count < LEAST:
        raise ModelError(f"model {name!r}: {_too_few(count, reasons)}")
    return Newest(windows=np.concatenate(found), scale=_scale(np.concatenate(truths)))


def _truth(block: Past) -> NDArray[np.float64]:
    """[n, O] good truths; NaN elsewhere."""
    return np.where(block.usable, block.y, np.nan).astype(np.float64)


def _scale(truth: NDArray[np.float64]) -> Float32:
    columns = [column[np.isfinite(column)] for column in truth.T]
    std = np.array([column.std() if len(column) > 1 else 0.0 for column in columns])
    size = np.array([np.abs(column).mean() if len(column) else 0.0 for column in columns])
    return np.where(std > 1e-6 * size + 1e-12, std, 1.0).astype(np.float32)  # as `sample.target_scale`


def _too_few(count: int, reasons: Counter[int]) -> str:
    told = Dropped(
        total=sum(reasons.values()), counts={r.name: reasons[int(r)] for r in Reason if r != Reason.OK and reasons[r]}
    )
    return (
        f"only {count} good windows in the archive to check it on, at least {LEAST} are needed ({told}); "
        "import readings of its inputs (penstock import FILE), or look at the tags' quality"
    )
