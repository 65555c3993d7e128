"""What a model is compared with, computed on Dask workers: truth, persistence and ridge over a span.

The windows are the model's own. Blocks are read one after the other by one task: nothing of the readings travels, the
answers do, a few numbers per tick.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from distributed import Client
from numpy.typing import NDArray

from penstock.batch.baselines import Ridge, fit_ridge
from penstock.batch.history import Past, Source, past, touches
from penstock.data.window_spec import WindowSpec
from penstock.data.windows import Reason
from penstock.errors import DeadlineExceeded, ModelError
from penstock.room import room

Float32 = NDArray[np.float32]

BLOCK_TICKS = 20_000
"""Ticks read at a time."""
BATCH = 1024
DEADLINE_S = 3600.0
LEAST = 32
"""Windows without which a ridge says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rivals:
    """Of the n ticks at which the model answers."""

    ticks: NDArray[np.int64]
    """[n] the windows' ticks."""
    truth: Float32
    """[n, O] at the predicted time; NaN where it is not good."""
    persistence: Float32
    """[n, O] the newest target known at the tick; NaN where none."""
    ridge: Float32
    """[n, O] NaN where there is no window, and everywhere when none was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """A value that any worker which sees the archive can run."""

    source: Source
    spec: WindowSpec
    ids: tuple[int, ...]
    """Registry ids of `spec.stored`, in its order."""
    first: int
    last: int
    """Judged: ticks first..last-1, the predicted times inside."""
    fitted: tuple[int, int] | None
    """The ridge is fitted on ticks of this span; None: no ridge."""
    left_out: tuple[tuple[int, int], ...] = ()
    """It is fitted on no window that touches ticks [begin, end) of these."""


def rivals(client: Client, contest: Contest, *, deadline_s: float = DEADLINE_S) -> Rivals:
    """Run it on a worker. Raises ModelError when a ridge has too few windows to be fitted on, DeadlineExceeded."""
    future = client.submit(judged, contest, pure=False, resources=room(client, "batch"))
    try:
        found: Rivals = future.result(timeout=deadline_s)
    except TimeoutError as error:
        raise DeadlineExceeded(f"compare: not computed within {deadline_s:g} s; ask for a shorter span") from error
    finally:
        client.cancel([future], force=True)
    return found


def judged(contest: Contest) -> Rivals:
    """The span's rows, on a worker."""
    ridge = None if contest.fitted is None else _fitted(contest, *contest.fitted)
    parts = []
    for block in _blocks(contest, contest.first, contest.last):
        said = np.full_like(block.y, np.nan)
        fine = np.flatnonzero(block.windows.reason == Reason.OK)
        if ridge is not None:
            for at in np.array_split(fine, max(1, len(fine) // BATCH)):
                x, base = _relative(contest.spec, block.windows.take(at))
                said[at] = ridge(x) + base
        parts.append((block.ends, np.where(block.usable, block.y, np.nan), block.newest, said))
    ticks, truth, persistence, linear = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Rivals(ticks=ticks, truth=truth, persistence=persistence, ridge=linear)


def _blocks(contest: Contest, first: int, last: int) -> Iterator[Past]:
    """Consecutive spans; each reads `horizon` ticks of the next one, for its truth."""
    spec, stop = contest.spec, last - contest.spec.horizon
    for begin in range(first, max(stop, first + 1), BLOCK_TICKS):
        end = min(begin + BLOCK_TICKS, stop) + spec.horizon
        yield past(contest.source, spec, contest.ids, begin, end)


def _fitted(contest: Contest, first: int, last: int) -> Ridge:
    """A ridge on every good window of the span. Raises ModelError when there are too few."""
    count = 0

    def batches() -> Iterator[tuple[Float32, Float32]]:
        nonlocal count
        for block in _blocks(contest, first, last):
            fine = (block.windows.reason == Reason.OK) & block.usable.all(axis=1)
            good = np.flatnonzero(fine & ~touches(contest.spec, block.ends, contest.left_out))
            count += len(good)
            for at in np.array_split(good, max(1, len(good) // BATCH)):
                if len(at):
                    x, base = _relative(contest.spec, block.windows.take(at))
                    yield x, block.y[at] - base

    try:
        ridge = fit_ridge(batches())
    except ValueError:
        count = 0
    if count < LEAST:
        raise ModelError(
            f"ridge: only {count} good windows in the training span, at least {LEAST} are needed; leave it out"
        )
    return ridge


def _relative(spec: WindowSpec, x: Float32) -> tuple[Float32, Float32]:
    """(windows [n, T, F], base [n, O]): with a past target the ridge says a change, as the model may."""
    past_of = {feature.tag: at for at, feature in enumerate(spec.features) if feature.past_target}
    if not past_of:
        return x, np.zeros((len(x), len(spec.targets)), np.float32)
    columns: Sequence[int] = [past_of[target] for target in spec.targets]
    base = x[:, -1, columns].copy()
    relative = np.zeros(x.shape[2], np.float32)
    relative[list(columns)] = 1
    return x - relative * x[:, -1:, :], base
