"""One batch view brought up: what is new, what has changed behind the seam, and the live version's part of the past.

    head of the archive ─► what has changed since the view ─► due (batch/due.py) ─► pieces on Dask ─► a commit each

A view says of itself which state of the archive it is of (`data/views/made.py`), in the same commit as its rows and the
seam. So a run that was killed costs one piece, and one that finds nothing to do is cheap. Views are never ahead of
what is complete: a tick that the clock has not closed may still get readings that nobody will call late.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock import pipeline
from penstock.batch.due import Due, due, pieces, todo_of
from penstock.data.archive import Head
from penstock.data.durable import locked
from penstock.data.models import Artifact
from penstock.data.views.batch_view import BatchView
from penstock.data.views.made import Made
from penstock.data.views.spans import Spans, length, minus, painted
from penstock.data.window_spec import WindowSpec
from penstock.errors import ArchiveBusy, ModelNotFound
from penstock.view_changes import changed, complete_until

if TYPE_CHECKING:
    from penstock.site import Site

PIECE_TICKS = 200_000
"""Of one commit: ten tasks, so that workers are not left waiting often, and a kill does not cost much."""
Progress = Callable[[int, int | None, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recomputed:
    """What a run came to for one model."""

    model: str
    version: int
    """The live one."""
    ticks: int
    """That were computed."""
    changed: int
    """Of them such that were there, and some cell of which had come since."""
    start: int
    """First tick of the view."""
    seam: int
    """One past its last tick."""


def brought_up(site: Site, name: str, progress: Progress | None = None) -> Recomputed:
    """Bring the view of one live model up to the archive's newest commit, or as far as that is complete.

    Raises ModelNotFound where it is not live, ArchiveBusy where another process is at it, ModelError, ArchiveError.
    """
    with _alone(site, name) as folder:
        head, champion = site.readings.head(), champion_of(site, name)
        spec = WindowSpec.from_json(champion.card["spec"])
        before = before_of(site, folder, spec, head)
        complete = complete_until(head, spec)
        history_ns = site.plant.models[name].view.history_ns if name in site.plant.models else None
        begin = head.span[0]
        if history_ns is not None:
            begin = max(begin, complete - history_ns // site.plant.period_ns)
        stored = set(site.models.versions(name))
        wanted = due(
            before, champion=champion.version, begin=begin, complete=complete, stored=stored,
            changed=() if before is None else changed(site, name, before, head),
        )  # fmt: skip
        base = replace(before or Made(position=0, closed=None), position=head.position, closed=head.closed)
        run = _Run(site=site, folder=folder, head=head, champion=champion, anew=before is None, whole=True)
        return run.carry_out(wanted, base, progress)


def again(site: Site, name: str, first: int, last: int, progress: Progress | None = None) -> Recomputed:
    """Compute ticks first..last-1 with the live version, whatever the view has of them. Raises as `brought_up`."""
    with _alone(site, name) as folder:
        head, champion = site.readings.head(), champion_of(site, name)
        before = before_of(site, folder, WindowSpec.from_json(champion.card["spec"]), head)
        base = before or Made(position=head.position, closed=head.closed)
        spans = ((first, last, champion.version),) if first < last else ()
        wanted = Due(spans=spans, changed=base.todo)
        run = _Run(site=site, folder=folder, head=head, champion=champion, anew=before is None, whole=False)
        return run.carry_out(wanted, base, progress)


def champion_of(site: Site, name: str) -> Artifact:
    """The live version. Raises ModelNotFound."""
    version = site.models.champion(name)
    if version is None:
        site.spec(name)  # a wrong name is told as such
        raise ModelNotFound(f"{name}: is not live; do: penstock deploy {name}")
    return site.models.load(name, version)


@contextmanager
def _alone(site: Site, name: str) -> Iterator[Path]:
    """The view's folder, for one run at a time."""
    folder = site.folder / "views" / "batch" / name
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with locked(folder / "run.lock", deadline_s=0.0):
            yield folder
    except TimeoutError:
        raise ArchiveBusy(f"{name}: is being recomputed by another process; wait for it to end") from None


def before_of(site: Site, folder: Path, spec: WindowSpec, head: Head) -> Made | None:
    """What the view is of; None where there is none, or one of other targets: its rows say something else."""
    view = BatchView.open(folder)
    if view is None or not _alike(site, folder.name, view.attributes, spec):
        return None
    if view.made is not None:
        return view.made
    start, version = view.attributes["start"], view.attributes.get("version", 0)  # by an older penstock
    spans: Spans = ((start, view.seam, version),) if start < view.seam else ()
    return Made(position=head.position, closed=head.closed, spans=spans, todo=((start, view.seam),))


def _alike(site: Site, name: str, attributes: Mapping[str, Any], spec: WindowSpec) -> bool:
    targets, version = attributes.get("targets"), attributes.get("version")
    if targets is None and version in site.models.versions(name):
        targets = WindowSpec.from_json(site.models.card(name, version)["spec"]).targets
    return targets is not None and (tuple(targets), attributes.get("horizon")) == (spec.targets, spec.horizon)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Run:
    """One model's view, and the archive's state that it is brought to."""

    site: Site
    folder: Path
    head: Head
    champion: Artifact
    anew: bool
    """Whether all that was there goes."""
    whole: bool
    """Whether the view is up to that state afterwards."""

    def carry_out(self, wanted: Due, base: Made, progress: Progress | None) -> Recomputed:
        """Piece by piece, a commit each; `base` says what the view is of when nothing is left of `wanted`."""
        work = pieces(wanted, PIECE_TICKS)
        total, done = length((a, b) for a, b, _ in wanted.spans), 0
        made = replace(base, todo=wanted.changed)
        again = length(wanted.changed) - length(minus(wanted.changed, [(a, b) for a, b, _ in wanted.spans]))
        for k, piece in enumerate(work, start=1):
            made = replace(made, spans=_painted(made.spans, piece), todo=todo_of(wanted, work[:k]))
            self._commit(piece, made, first=k == 1, last=k == len(work))
            done += length((a, b) for a, b, _ in piece)
            if progress is not None:
                progress(done, total, self.champion.name)
        if not work and not self.anew:
            self._commit((), made, first=False, last=True)
        view = BatchView.open(self.folder)
        start, seam = (0, 0) if view is None else (view.attributes["start"], view.seam)
        return Recomputed(
            model=self.champion.name, version=self.champion.version, ticks=total, changed=again, start=start,
            seam=seam,
        )  # fmt: skip

    def _commit(self, piece: Spans, made: Made, *, first: bool, last: bool) -> None:
        site, spec = self.site, WindowSpec.from_json(self.champion.card["spec"])
        parts = []
        if piece:
            versions = {version for _, _, version in piece} - {self.champion.version}
            artifacts = {v: site.models.load(self.champion.name, v) for v in versions}
            parts = pipeline.recompute(
                site.parts.client(), site.desk(), artifacts | {self.champion.version: self.champion}, piece,
                snapshot=self.head.snapshot, endpoints=site.parts.running(), hatch=site.parts.hatch(),
            )  # fmt: skip
        BatchView.put(
            self.folder, parts, made=replace(made, at=_now()) if last and self.whole else made,
            anew=self.anew and first,
            older_than_ns=time.time_ns() - site.settings.retention.snapshots_ns if last else None,
            attributes={
                "model": self.champion.name, "version": self.champion.version, "snapshot": self.head.snapshot,
                "horizon": spec.horizon, "targets": list(spec.targets),
            },
        )  # fmt: skip


def _painted(spans: Spans, piece: Spans) -> Spans:
    for first, last, version in piece:
        spans = painted(spans, first, last, version)
    return spans


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
