"""From a question to the two views and the truth, for `merge`.

Reads files and nothing else: no server has to run for a query.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from penstock.beside import with_beside
from penstock.by_version import by, said_by
from penstock.data.archive import Archive, Head
from penstock.data.block import FILLED, Block, Flag
from penstock.data.challengers import challenger_of
from penstock.data.derived import derive
from penstock.data.early import newest_of, parted
from penstock.data.grid import Cells, Grid
from penstock.data.history import at_a_head, cells_now
from penstock.data.journal import Journal
from penstock.data.layout import Layout
from penstock.data.models import ModelStore
from penstock.data.plant import LiveSpec
from penstock.data.quality import assess
from penstock.data.rules import Rules
from penstock.data.views.batch_view import BatchView
from penstock.data.views.predictions import Predictions
from penstock.data.views.speed_view import SaidRows, SpeedView
from penstock.data.windows import WindowSpec, answers_at, targets
from penstock.errors import ModelError
from penstock.merge import Truth, merged
from penstock.outputs import Outputs, OutputsOf, columns, fitted, fitted_said, of_store, spoke

NOTHING = LiveSpec()
"""Nothing beside."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Desk:
    """What a question is answered from: one site's files."""

    archive: Archive
    journal: Journal
    layout: Layout
    ids: Mapping[str, int]
    """Registry id of each tag name."""
    store: ModelStore
    views: Path
    """The site's folder of views."""

    @property
    def grid(self) -> Grid:
        """The site's time axis."""
        return self.archive.grid

    def batch(self, model: str) -> BatchView | None:
        """The model's batch view, None when there is none yet."""
        return BatchView.open(self.views / "batch" / model)

    def speed(self) -> SpeedView | None:
        """The speed view, None when nothing was ever said."""
        path = self.views / "speed.sqlite"
        return SpeedView.open(path) if path.exists() else None

    def newest(self) -> int:
        """One past the newest tick that the archive or the journal holds, of what may not be ahead of its time."""
        tail = self.journal.tail

        def newest(head: Head) -> int:
            last, ahead = head.newest, self.layout.ahead_of()
            for record in self.journal.read(head.position, tail):
                if record.readings is not None and len(record.readings):
                    last = newest_of(parted(record.readings, ahead)[0], self.grid, last)
            return last

        return at_a_head(self.archive, newest)


def query(
    desk: Desk, model: str, spec: WindowSpec, first: int, last: int, *, strict: bool, live: LiveSpec = NOTHING,
    version: int | None = None,
) -> xr.Dataset:  # fmt: skip
    """The merged answer of `model` for predicted times first..last-1 (ticks); `live`: what it asks for beside.

    `version`: only what that one said, also as a challenger; None: what the model did.

    Raises Gap with `strict` where a hole is.
    """
    made = np.arange(first - spec.horizon, last - spec.horizon)
    made = made[answers_at(spec, made)]
    outputs = len(spec.targets)
    view = desk.batch(model)
    seam = view.seam if view is not None else None
    seam = first - spec.horizon if seam is None else seam
    ends = (int(made[0]), int(made[-1]) + 1) if len(made) else (first, first)
    asked, outputs_of = (spec.targets, spec.horizon), of_store(desk.store, model)
    said, batch = _said(desk, model, *ends, asked, outputs_of), recomputed(view, *ends, asked, outputs_of)
    if version is not None:
        beside = _said(desk, challenger_of(model), *ends, asked, outputs_of)
        said, batch = said_by(said, beside, version), by(batch, version)
    answer = merged(
        model=model,
        targets=spec.targets,
        units=spec.target_units,
        grid=desk.grid,
        wanted=made,
        horizon=spec.horizon,
        seam=seam,
        batch=batch,
        speed=_live(desk, model, outputs, said),
        truth=_truth(desk, spec, first, last),
        strict=strict,
    )
    return with_beside(answer, made, said, live)


def newest_answered(desk: Desk, model: str, wait: int) -> tuple[int, int]:
    """(one past the newest tick that can have an answer, how many stored ones lie behind it).

    A tick that the stream's clock has not closed has none yet, unless it was recomputed: it is no hole. Nor is
    one that waits for joined tags: `wait` is how many ticks the plant's longest join takes.
    """
    newest, clock, view = desk.newest(), desk.journal.clock(), desk.batch(model)
    if clock is None:
        return newest - wait, wait
    closed = max(clock.closed - wait, _said_until(desk)) if wait else clock.closed
    answered = min(newest, max(closed, view.seam if view is not None else closed))
    return answered, newest - answered


def _said_until(desk: Desk) -> int:
    """One past the newest tick said; far back where nothing was."""
    view = desk.speed()
    if view is None:
        return -(2**62)
    with closing(view):
        tick = view.last_tick()
    return -(2**62) if tick is None else tick + 1


def persistence(desk: Desk, spec: WindowSpec, ends: NDArray[np.int64]) -> NDArray[np.float32]:
    """[n, targets] the newest target known at each tick of `ends`; NaN where none."""
    block = _assessed(desk, spec, int(ends.min()) - max(spec.lags), int(ends.max()) + spec.horizon + 1)[0]
    return targets(spec, block, ends).last


def truth_at(desk: Desk, spec: WindowSpec, ends: NDArray[np.int64]) -> NDArray[np.float32]:
    """[n, targets] what is measured at the times predicted for at ticks `ends`; NaN where missing or bad."""
    if not len(ends):
        return np.zeros((0, len(spec.targets)), np.float32)
    at = ends + spec.horizon
    first = int(at.min())
    return _truth(desk, spec, first, int(at.max()) + 1).values[at - first]


def _assessed(desk: Desk, spec: WindowSpec, first: int, last: int) -> tuple[Block, Cells]:
    """Ticks first..last-1 of the tags that the targets need, judged, and as stored."""
    rules = Rules.of(spec.truth_tags, spec.period_ns)
    ids = np.array([desk.ids[tag.name] for tag in spec.truth_tags], np.int32)
    begin, end = first - rules.reach, last + rules.wait
    cells = cells_now(desk.archive, desk.journal, desk.layout, desk.grid, ids, begin, end)
    return assess(cells, rules).rows(first, last), cells.rows(first, last)


def _truth(desk: Desk, spec: WindowSpec, first: int, last: int) -> Truth:
    block, cells = _assessed(desk, spec, first, last)
    judged = derive(block, spec.targets, spec.derived)
    good = (judged.flags & (Flag.BAD | FILLED)) == 0
    quality = np.zeros(good.shape, np.uint16)  # a derived target is not stored: its flags say all there is
    for column, target in enumerate(spec.targets):
        if target in spec.truth:
            quality[:, column] = cells.quality[:, spec.truth.index(target)]
    return Truth(
        first=first,
        values=np.where(good, judged.values, np.float32(np.nan)),
        quality=quality,
        flags=judged.flags,
    )


def recomputed(view: BatchView | None, first: int, last: int, asked: Outputs, outputs_of: OutputsOf) -> Predictions:
    """What the view has of `asked` at ticks first..last-1."""
    if view is None:
        return Predictions.nothing(len(asked[0]))
    targets, horizon = view.attributes.get("targets"), view.attributes.get("horizon", asked[1])
    if targets is None:  # by an older penstock
        return fitted(view.read(first, last), asked, outputs_of)
    said = tuple(targets), int(horizon)
    if columns(asked, said) is None:
        return Predictions.nothing(len(asked[0]))
    return fitted(view.read(first, last), asked, lambda version: said)


def _said(
    desk: Desk, model: str, first: int, last: int, asked: Outputs, outputs_of: OutputsOf
) -> SaidRows | None:  # fmt: skip
    """What the model said of `asked` at ticks first..last-1; None where nothing was ever said."""
    view = desk.speed()
    if view is None:
        return None
    with closing(view):
        return fitted_said(view.read(model, first, last), asked, outputs_of)


def _live(desk: Desk, model: str, outputs: int, rows: SaidRows | None) -> Predictions:
    if rows is None or not len(rows.ticks):
        return Predictions.nothing(outputs)
    return Predictions(
        ticks=rows.ticks,
        values=rows.values,
        versions=np.maximum(rows.versions, 0).astype(np.int64),
        reasons=rows.reasons,
        filled=rows.filled,
        sample=_in_sample(desk, model, rows),
    )


def _in_sample(desk: Desk, model: str, rows: SaidRows) -> NDArray[np.bool_]:
    """[n] whether each tick lies in the training span of the version that spoke."""
    inside = np.zeros(len(rows.ticks), bool)
    for version in spoke(rows.versions):
        try:
            trained = desk.store.card(model, version)["trained"]  # a ready-made model does not say on what
        except ModelError:  # nobody knows any more
            continue
        first, last = trained.get("first", 0), trained.get("last", 0)
        inside |= (rows.versions == version) & (rows.ticks >= first) & (rows.ticks < last)
    return inside
