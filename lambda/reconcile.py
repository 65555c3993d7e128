"""Do both layers agree? What was said live beside what the batch layer makes of the same ticks, and why it differs.

    speed view ─► ticks to look at ─► blocks ─► Dask: archive, windows, the version that spoke ─► verdicts ─► record

A tick was said with a journal sequence: its window held all that had come until then. The archive holds more. So a
difference is explained by late readings, imports behind the stream and revisions that came with a later sequence and
touch the window, each by name, and by nothing else of that kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from penstock import pipeline
from penstock.batch.checking import check_all
from penstock.data.durable import locked
from penstock.data.views.reconciled import Reconciled, Run, Span, Standing
from penstock.data.views.speed_view import SpeedView
from penstock.errors import ModelNotFound, SiteError, nearest
from penstock.reconcile_found import Judged, Table, Told
from penstock.reconcile_looks import EVER, Past, blocks, look
from penstock.spans import Moment

if TYPE_CHECKING:
    from penstock.site import Site

LOCK_S = 600.0
"""How long another reconciliation of the site is waited for."""

Progress = Callable[[int, int | None, str], None]


def reconcile(
    site: Site,
    names: Sequence[str] = (),
    start: Moment = None,
    end: Moment = None,
    *,
    until: int | None = None,
    progress: Progress | None = None,
) -> Run:
    """`Site.reconcile`. `until`: of new ticks only those below.

    Raises ModelNotFound, QueryError, ModelError, ArchiveError, SiteError.
    """
    desk = site.desk()
    view = desk.speed()
    if view is None:
        raise SiteError(f"{site.folder}: nothing was said live yet; do: penstock stream")
    with closing(view):
        wanted = _wanted(view, names)
        span = None if start is None and end is None else _span(site, start, end)
        try:
            with locked(desk.views / "reconcile.lock", deadline_s=LOCK_S):
                pipeline.archive_all(desk, site.layout)  # what a killed stream has left
                return _recorded(site, view, wanted, span, until, progress)
        except TimeoutError as error:
            raise SiteError(f"{error}; wait for the other reconciliation to end") from error


def after_recompute(site: Site, name: str, seam: int) -> Told | None:
    """What a batch view of `name` up to `seam` is followed by: a look at its live ticks up to there.

    At those that are new, that late readings came for, or that differed. None where nothing was said live.
    """
    view = site.desk().speed()
    if view is None:
        return None
    with closing(view):
        spoke = name in view.models()
    if not spoke:
        return None
    run = reconcile(site, [name], until=seam)
    return {"ticks": sum(model["ticks"] for model in run.models), "unexplained": run.unexplained}


def summary(run: Run) -> Told:
    """A run as plain values."""
    return {
        "run": run.id,
        "at": run.at,
        "position": run.position,
        "models": [dict(model) for model in run.models],
        "unexplained": run.unexplained,
        "differences": [dict(difference) for difference in run.differences],
    }


def record_of(folder: Path) -> Reconciled:
    """The record of the site in `folder`."""
    return Reconciled(folder / "views" / "reconcile.sqlite")


def _wanted(view: SpeedView, names: Sequence[str]) -> list[str]:
    """Models that spoke. Raises ModelNotFound."""
    spoke = view.models()
    for name in names:
        if name not in spoke:
            close_by = nearest(name, spoke)
            hint = f"Did you mean {close_by!r}?" if close_by else f"Those that did: {', '.join(spoke) or 'none'}."
            raise ModelNotFound(f"{name}: never said anything live. {hint}")
    return list(dict.fromkeys(names)) or spoke


def _span(site: Site, start: Moment, end: Moment) -> Span:
    """Ticks made in [start, end)."""
    grid = site.readings.grid
    begin, stop = (-(-(at - grid.origin_ns) // grid.period_ns) for at in site.span(start, end))
    return begin, stop


def _recorded(
    site: Site, view: SpeedView, wanted: Sequence[str], span: Span | None, until: int | None, progress: Progress | None
) -> Run:
    """Look, compute, judge, write down."""
    record = record_of(site.folder)
    before = record.standing()
    stands = [before.get(name, Standing()) for name in wanted]
    least = min((-EVER if s.until is None else s.until for s in stands), default=-EVER)
    past = Past.of(site, view, -EVER if span is not None else least)
    looks = [look(past, name, stand, span, until) for name, stand in zip(wanted, stands, strict=True)]
    found: dict[str, list[Judged]] = {one.name: [] for one in looks}
    done, total = 0, sum(len(one.said.ticks) for one in looks)
    if total:
        pairs = (pair for one in looks for pair in blocks(past, one))
        for block, again in check_all(site.parts.client(), pairs):
            found[block.name].append(Judged.of(block, again, past))
            done += len(again.ticks)
            if progress is not None:
                progress(done, total, "")
    tables = [Table.of(one, found[one.name]) for one in looks]
    run = Run(
        at=pd.Timestamp.now("UTC").isoformat(timespec="seconds"),
        position=past.position,
        models=[table.counts(past) for table in tables],
        differences=[told for table in tables for told in table.differences(past)],
    )
    return replace(run, id=record.write(run, {table.look.name: table.stands() for table in tables}))
