"""How good a model's settings are on the history alone: each year left out in turn, or walked in turns. On a worker.

Nothing that comes behind the history is read, so what is chosen by it can be judged there. A model that is fitted once
is fitted on the other years and says the one left out. A model that is refitted walks each year as it would have lived:
fitted on its newest rows before every turn, it says that turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
from distributed import Client, as_completed
from numpy.typing import NDArray

from penstock.batch.fleet import quiet_tensorflow
from penstock.batch.history import past
from penstock.batch.plan import Job
from penstock.batch.protocol import TURN_ROWS, figures, turns
from penstock.data.correction import Correction, Ways
from penstock.data.plant import CorrectSpec
from penstock.data.windows import Reason
from penstock.errors import ModelError
from penstock.room import room

Float32 = NDArray[np.float32]
Span = tuple[int, int]

DEADLINE_S = 6 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One model, one year; a value that any worker which sees the archive can run."""

    job: Job
    """Over the whole history."""
    year: Span
    """Ticks [first, last) of the year that judges."""
    refitted: bool
    """It walks the year in turns."""
    every: int = TURN_ROWS
    skip: int = 1
    """Of the turns every so many-th is walked, so that many settings can be tried."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Told:
    """What one model said in the year that judges it: n rows, O targets."""

    name: str
    year: Span
    ticks: NDArray[np.int64]
    truth: Float32
    said: Float32
    turns: tuple[int, ...]
    """First position of each fit's rows."""
    epochs: tuple[int, ...]
    """Best epoch of each fit."""

    def figures(self, ticks: NDArray[np.int64]) -> dict[str, float]:
        """Of the first target, at those of its ticks alone."""
        at = np.isin(self.ticks, ticks)
        return figures(self.truth[at, 0], self.said[at, 0])

    def corrected(self, ticks: NDArray[np.int64], spec: CorrectSpec, period_ns: int) -> dict[str, float]:
        """The same with each turn's answers corrected by the truths one tick old and older, as a stream corrects."""
        said, at = self.said[:, 0].astype(np.float64), np.isin(self.ticks, ticks)
        for begin, end in zip(self.turns, (*self.turns[1:], len(said)), strict=True):
            part = slice(begin, end)
            said[part] += _added(spec, period_ns, self.ticks[part], self.truth[part, 0], self.said[part, 0])
        return figures(self.truth[at, 0], said[at])


def shared(told: Iterable[Told]) -> NDArray[np.int64]:
    """The ticks at which all of them have an answer."""
    return reduce(np.intersect1d, (one.ticks for one in told))


def choose(client: Client, trials: Sequence[Trial], *, deadline_s: float = DEADLINE_S) -> Iterator[Told]:
    """Run them, one per free worker, and give each as it comes. Raises ModelError where one cannot be fitted."""
    futures = [client.submit(tried, trial, pure=False, resources=room(client, "batch")) for trial in trials]
    try:
        for future in as_completed(futures, loop=client.loop, timeout=deadline_s):
            yield future.result()
    finally:
        client.cancel(futures, force=True)


def tried(trial: Trial) -> Told:
    """One trial, on a worker. Raises ModelError."""
    quiet_tensorflow()
    parts = _walked(trial) if trial.refitted else _left_out(trial)
    if not parts:
        raise ModelError(f"model {trial.job.name!r}: the year that is to judge it has no window")
    ticks, truth, said, epochs = (list(column) for column in zip(*parts, strict=True))
    return Told(
        name=trial.job.name, year=trial.year, ticks=np.concatenate(ticks), truth=np.concatenate(truth),
        said=np.concatenate(said), epochs=tuple(epochs), turns=tuple(np.cumsum([0, *map(len, ticks[:-1])]).tolist()),
    )  # fmt: skip


_Part = tuple[NDArray[np.int64], Float32, Float32, int]


def _left_out(trial: Trial) -> list[_Part]:
    job = replace(trial.job, left_out=(*trial.job.left_out, trial.year))
    return [_said(job, trial.year)]


def _walked(trial: Trial) -> list[_Part]:
    parts = []
    for turn in turns(*trial.year, trial.every)[:: trial.skip]:
        if turn.first - trial.job.first < (trial.job.rows or 0) + trial.job.spec.depth:
            continue  # too little came before it
        parts.append(_said(replace(trial.job, last=turn.first), (turn.first, turn.last)))
    return parts


def _said(job: Job, span: Span) -> _Part:
    """What a fit of `job` says in `span`."""
    from penstock.batch import fitting, training  # TensorFlow: seconds, and only where it is needed

    _, net, _, fit = training.fitted(job)
    rows = past(job.history.source, job.spec, job.ids, *span)
    at = np.flatnonzero((rows.windows.reason == Reason.OK) & rows.usable.all(axis=1))
    return rows.ends[at], rows.y[at], fitting.predict(net.model, rows.windows.x, at), fit.best_epoch


def _added(
    spec: CorrectSpec, period_ns: int, ticks: NDArray[np.int64], truth: Float32, said: Float32
) -> NDArray[np.float64]:
    """[n] what is added to what was `said` at each tick: by the residuals of the ticks before it."""
    fold, one = Correction(Ways.of([spec], [1], period_ns)), np.zeros(1, np.intp)
    added = np.zeros(len(ticks))
    for i in range(len(ticks)):
        here = slice(i, i + 1)
        added[i] = fold.at(one, said[here])[0]
        fold.push(one, ticks[here], truth[here] - said[here], said[here])
    return added
