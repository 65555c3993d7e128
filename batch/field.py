"""Whom a backtest is run against: persistence, ridge and boosting, held to the same settings, on a worker.

They know what the setting lets a model know, as numbers of one row: the inputs at t; where the target's past is known
too, also the last steps of everything, and they say the change from the newest target, as our models do. The
arithmetic (`answers`) is pure and takes any way to fit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from distributed import Client
from numpy.typing import NDArray

from penstock.batch.baselines import fit_ridge
from penstock.batch.history import Source, past
from penstock.batch.protocol import PEER_ROWS, Setting, Turn, corrected, known_before, turns
from penstock.data.window_spec import WindowSpec
from penstock.data.windows import Reason
from penstock.errors import SiteError
from penstock.room import room

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Say = Callable[[Float64], Float64]
"""[n, D] to [n]."""
Fit = Callable[[Float64, Float64], Say]
"""From rows [n, D] and what is to be said [n] to what says it."""

LENGTH = 4
"""Rows of a peer's window: its own, and three steps back."""
MOST_ROWS = 50_000
"""Rows that a peer is fitted on at most, spread evenly: more would not change it, and take minutes."""
BLOCK_TICKS = 100_000
DEADLINE_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bout:
    """One target under one setting; a value that any worker which sees the archive can run."""

    source: Source
    spec: WindowSpec
    """Of LENGTH rows, nothing prepared; of one target or several."""
    ids: tuple[int, ...]
    """Registry ids of `spec.stored`, in its order."""
    output: int
    """Which of the targets."""
    setting: Setting
    begin: int
    """Of the history."""
    first: int
    last: int
    """Ticks first..last-1 are walked."""
    every: int
    """Ticks of a turn."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rows:
    """n ticks, rising."""

    ticks: NDArray[np.int64]
    z: Float64
    """[n, D] what a peer knows; NaN where it has no window."""
    base: Float64
    """[n] what it says a change from; 0 where the past is not known."""
    truth: Float64
    """[n] at the tick's horizon; NaN where it is not good."""
    newest: Float64
    """[n] the newest target known; NaN where none is."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answers:
    """Of the n ticks walked."""

    ticks: NDArray[np.int64]
    truth: Float64
    said: Mapping[str, Float64]
    """[n] by peer; NaN where it has no window."""


def against(client: Client, bouts: Sequence[Bout], *, deadline_s: float = DEADLINE_S) -> list[Answers]:
    """Run them on the workers. Raises SiteError without scikit-learn."""
    futures = [client.submit(fought, bout, pure=False, resources=room(client, "batch")) for bout in bouts]
    try:
        return [future.result(timeout=deadline_s) for future in futures]
    finally:
        client.cancel(futures, force=True)


def fought(bout: Bout) -> Answers:
    """One bout, on a worker."""
    rows = read(bout)
    lag = bout.spec.lags[bout.output]
    walked = (rows.ticks >= bout.first) & (rows.ticks < bout.last)
    said = {"persistence": rows.newest}
    for name, fit in (("ridge", ridge), ("boosting", boosting)):
        said[name] = answers(rows, bout.setting, turns(bout.first, bout.last, bout.every), fit, bout.spec.horizon, lag)
    return Answers(
        ticks=rows.ticks[walked], truth=rows.truth[walked], said={name: v[walked] for name, v in said.items()}
    )


def read(bout: Bout) -> Rows:
    """Every row of history and walk."""
    parts = []
    spec, o = bout.spec, bout.output
    for begin in range(bout.begin, bout.last, BLOCK_TICKS):
        end = min(begin + BLOCK_TICKS, bout.last)
        block = past(bout.source, spec, bout.ids, begin, end + spec.horizon)
        fine = block.windows.reason == Reason.OK
        z = np.full((len(fine), width(spec)), np.nan)
        base = np.zeros(len(fine))
        z[fine], base[fine] = known(spec, o, block.windows.take(fine))
        truth = np.where(block.usable[:, o], block.y[:, o], np.nan)
        parts.append((block.ends, z, base, truth, block.newest[:, o]))
    ticks, z, base, truth, newest = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Rows(ticks=ticks, z=z, base=base, truth=truth.astype(np.float64), newest=newest.astype(np.float64))


def width(spec: WindowSpec) -> int:
    """D: numbers of one row."""
    return len(spec.features) * (spec.length if _past_columns(spec) else 1)


def known(spec: WindowSpec, output: int, x: Float32) -> tuple[Float64, Float64]:
    """Windows [n, T, F] as rows ([n, D], base [n]): the last row, and with a known past also every step before it."""
    wide = x.astype(np.float64)
    columns = _past_columns(spec)
    if not columns:
        return wide[:, -1], np.zeros(len(x))
    steps = np.diff(wide, axis=1).reshape(len(x), -1)
    return np.concatenate([wide[:, -1], steps], axis=1), wide[:, -1, columns[output]]


def _past_columns(spec: WindowSpec) -> list[int]:
    return [i for i, feature in enumerate(spec.features) if feature.past_target]


def answers(rows: Rows, setting: Setting, walk: Sequence[Turn], fit: Fit, horizon: int, lag: int) -> Float64:
    """[n] what a peer says at the ticks of the walk, NaN elsewhere: at t nothing depends on a truth not known then."""
    there = np.isfinite(rows.z).all(axis=1)
    good = there & np.isfinite(rows.truth)
    said = np.full(len(rows.ticks), np.nan)
    say: Say | None = None
    for turn in walk:
        if say is None or setting.refitted:
            at = known_before(rows.ticks, good, horizon, turn)
            at = at[-PEER_ROWS:] if setting.refitted else _thinned(at)
            say = fit(rows.z[at], rows.truth[at] - rows.base[at]) if len(at) else _mute
        now = np.flatnonzero(there & (rows.ticks >= turn.first) & (rows.ticks < turn.last))
        if len(now):
            said[now] = say(rows.z[now]) + rows.base[now]
    return corrected(said, rows.truth, rows.ticks, horizon + lag) if setting.corrected else said


def _thinned(at: NDArray[np.intp]) -> NDArray[np.intp]:
    if len(at) <= MOST_ROWS:
        return at
    return at[np.linspace(0, len(at) - 1, MOST_ROWS).astype(np.intp)]


def _mute(z: Float64) -> Float64:
    return np.full(len(z), np.nan)


def ridge(z: Float64, wanted: Float64) -> Say:
    """A ridge on standardised rows."""
    fitted = fit_ridge([(z[:, None, :], wanted[:, None])])
    return lambda rows: fitted(rows[:, None, :])[:, 0]


def boosting(z: Float64, wanted: Float64) -> Say:
    """Histogram gradient boosting as scikit-learn has it by default, on one thread.

    Raises SiteError where it is not installed.
    """
    try:
        from sklearn.ensemble import HistGradientBoostingRegressor
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise SiteError(f"no boosting to run against: {error}; pip install 'penstock[bench]'") from error
    model = HistGradientBoostingRegressor(early_stopping=False, random_state=1)
    with threadpool_limits(1):
        model.fit(z, wanted)

    def say(rows: Float64) -> Float64:
        with threadpool_limits(1):
            return np.asarray(model.predict(rows), np.float64)

    return say
