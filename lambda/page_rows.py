"""The newest rows of a model for the live page, read again at every tick: only what is new is read.

What was said is appended to what is known of the speed view, truths come from the journal (`Followed`).
The rows are those of `site.query` without its Dataset: the same views, seam and quality.
"""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from penstock.answers import Desk, recomputed
from penstock.beside import Beside, columns_of
from penstock.data.block import FILLED, Block, Flag
from penstock.data.derived import derive
from penstock.data.following import Followed
from penstock.data.quality import assess
from penstock.data.rules import Rules
from penstock.data.views.adjusted import Adjusted
from penstock.data.views.predictions import Predictions
from penstock.data.views.speed_view import SaidRows, SpeedView
from penstock.data.windows import Reason, WindowSpec, answers_at, targets
from penstock.merge import NEITHER, joined
from penstock.outputs import fitted_said, of_store
from penstock.serving.questions import Trace

RECOMPUTED_S = 60.0
"""What is recomputed is looked at so often: it comes by a command, and never at the newest tick."""
REASONS = np.array([Reason(k).name if k in set(Reason) else "" for k in range(max(Reason) + 1)])
"""Name of each reason."""


class Rows:
    """One model's rows. For one thread."""

    def __init__(self, desk: Desk, model: str, spec: WindowSpec) -> None:
        self.spec, self._model = spec, model
        self._rules = Rules.of(spec.truth_tags, spec.period_ns)
        ids = np.array([desk.ids[tag.name] for tag in spec.truth_tags], np.int32)
        self._cells = Followed(desk.archive, desk.journal, ids)
        self._said, self._until = Predictions.nothing(len(spec.targets)), -1
        self._beside = Adjusted.nothing(0, len(spec.targets))
        self._outputs_of = of_store(desk.store, model)
        self._batch, self._seam, self._looked = self._said, 0, float("-inf")

    def trace(self, desk: Desk, view: SpeedView | None, rows: int) -> Trace:
        """The newest `rows` of them; none where nothing was said. `view`: the speed view, None: there is none yet."""
        spec, tick = self.spec, view.last_tick() if view is not None else None
        last = (-1 if tick is None else tick) + 1
        made = np.arange(last - rows * spec.every, last)
        made = made[answers_at(spec, made)]
        self._look(desk, view, int(made[0]), last)
        told, layer = joined(made, len(spec.targets), self._seam, self._batch, self._said)
        heard = np.flatnonzero(layer != NEITHER)
        begin = int(heard[0]) if tick is not None and len(heard) else len(made)  # before the first answer lies nothing
        beside = Beside(ticks=self._said.ticks, values=self._said.values, said=self._beside)
        return self._joined(desk, made[begin:], told.rows(slice(begin, None)), beside)

    def _look(self, desk: Desk, view: SpeedView | None, first: int, last: int) -> None:
        """Bring what was said and recomputed at ticks first..last-1 up to date."""
        asked, outputs_of = (self.spec.targets, self.spec.horizon), self._outputs_of
        if not first <= self._until <= last:
            self._said, self._until = Predictions.nothing(len(self.spec.targets)), first
            self._beside = Adjusted.nothing(0, len(self.spec.targets))
        if view is not None and self._until < last:
            new = fitted_said(view.read(self._model, self._until, last), asked, outputs_of)
            if len(new.ticks):
                self._said = self._said.then(_columns(new))
                self._beside = self._beside.then(new.adjusted or Adjusted.nothing(*new.values.shape))
        self._beside = self._beside.rows(slice(*np.searchsorted(self._said.ticks, [first, last])))
        self._said, self._until = self._said.between(first, last), last
        if time.monotonic() - self._looked > RECOMPUTED_S:
            self._looked, batch = time.monotonic(), desk.batch(self._model)
            self._seam = first if batch is None else batch.seam
            self._batch = recomputed(batch, first, last, asked, outputs_of)

    def _joined(self, desk: Desk, made: NDArray[np.int64], told: Predictions, rows: Beside) -> Trace:
        """What was said beside the truth."""
        spec, judged = self.spec, self._judged(desk, made)
        beside = columns_of(made, len(spec.targets), rows)
        truth = derive(judged, spec.targets, spec.derived)
        at = made + spec.horizon - judged.first
        flags = truth.flags[at]
        return Trace(
            times=desk.grid.origin_ns + (made + spec.horizon) * desk.grid.period_ns,
            truth=np.where((flags & (Flag.BAD | FILLED)) == 0, truth.values[at], np.float32(np.nan)),
            faulty=((flags & (Flag.BAD | FILLED)) != 0) & ((flags & Flag.MISSING) == 0),
            prediction=told.values,
            corrected=beside["corrected"],
            low=beside["low"],
            high=beside["high"],
            persistence=targets(spec, judged, made).last,
            filled=told.filled,
            versions=told.versions,
            reasons=REASONS[told.reasons],
        )

    def _judged(self, desk: Desk, made: NDArray[np.int64]) -> Block:
        """Truth and what persistence knew, for the ticks `made`; no rows where there are none."""
        if not len(made):
            return assess(self._cells.read(len(desk.layout), 0, 0), self._rules)
        first, last = int(made[0]) - max(self.spec.lags), int(made[-1]) + self.spec.horizon + 1
        cells = self._cells.read(len(desk.layout), first - self._rules.reach, last + self._rules.wait)
        return assess(cells, self._rules).rows(first, last)


def _columns(rows: SaidRows) -> Predictions:
    return Predictions(
        ticks=rows.ticks, values=rows.values, versions=np.maximum(rows.versions, 0).astype(np.int64),
        reasons=rows.reasons, filled=rows.filled, sample=np.zeros(len(rows.ticks), bool),
    )  # fmt: skip
