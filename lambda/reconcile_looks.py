"""What a reconciliation looks at: which ticks of which model, from one state of the archive, in blocks for Dask.

By default what is new, what late readings came for since it was looked at, and what differed then; so a site of years
costs a run no more than its newest day.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from penstock.batch.checking import Check
from penstock.batch.history import Source, answered
from penstock.data.journal.ledger import LATE as LATE_LIST
from penstock.data.journal.ledger import REVISED, LateRange, late_list
from penstock.data.models import Artifact
from penstock.data.views.reconciled import Span, Standing
from penstock.data.views.speed_view import SaidRows, SpeedView
from penstock.data.window_spec import WindowSpec
from penstock.errors import ModelError, ModelNotFound
from penstock.serving.alone import alone
from penstock.verdicts import Reach, near, rows, touched

if TYPE_CHECKING:
    from penstock.site import Site

BLOCK_TICKS = 8192
"""Ticks of one task at most."""
GAP_TICKS = 1024
"""Between two ticks that are read together though nothing between them is asked for, at least."""
EVER = 1 << 62
"""Further than any tick."""

Ticks = NDArray[np.int64]
Artifacts = Mapping[int, Artifact | None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Past:
    """One state of archive and late lists."""

    site: Site
    view: SpeedView
    snapshot: str
    position: int
    """The archive holds all below this journal sequence."""
    end: int
    """Ticks below were said with what it holds."""
    late: Sequence[LateRange]
    """Of what it holds: late readings and revisions."""
    revised: frozenset[LateRange]
    """Those of `late` that are revisions of what was known ahead."""

    @classmethod
    def of(cls, site: Site, view: SpeedView, since: int) -> Past:
        """`since`: a tick from which on it is asked how far the archive reaches."""
        head, journal = site.readings.head(), site.folder / "journal"
        ticks, closed_at = view.positions(since, EVER)
        known = int(np.searchsorted(closed_at, head.position))
        # The lists are written before the commit: of what the archive holds none is missing.
        late, revised = (
            [r for r in late_list(journal, table=table) if r.sequence < head.position] for table in (LATE_LIST, REVISED)
        )
        return cls(
            site=site, view=view, snapshot=head.snapshot, position=head.position, late=[*late, *revised],
            revised=frozenset(revised), end=int(ticks[known - 1]) + 1 if known else since,
        )  # fmt: skip

    def near(self, spec: WindowSpec, first: int, end: int) -> list[LateRange]:
        """Ranges that windows of ticks first..end-1 may touch."""
        ids, of = self.site.registry.lookup(), self.site.layout().shard_of()
        shards = {int(of[ids[tag.name]]) for tag in spec.base_tags if tag.name in ids}
        return near(self.late, shards, first, end, Reach.of(spec))

    def time(self, tick: int) -> str:
        """Its beginning, in the plant's zone."""
        at = pd.Timestamp(self.site.readings.grid.time(tick), tz="UTC").tz_convert(self.site.plant.timezone)
        return str(at.isoformat())

    def named(self, r: LateRange) -> dict[str, Any]:
        """A late range for people: `kind` is late, import (behind the stream) or revised."""
        kind = "revised" if r in self.revised else "import" if r.source.startswith("import:") else "late"
        return {
            "kind": kind, "source": r.source, "from": self.time(r.t0), "to": self.time(r.t1), "readings": r.count,
            "sequence": r.sequence,
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Look:
    """What one run looks at of one model."""

    name: str
    said: SaidRows
    """[n]"""
    said_at: Ticks
    """[n] the journal sequence with which each was said."""
    lost: Ticks
    """At which it should have a row: they lie between others that were said, and nothing was."""
    absent: Ticks
    """At which others spoke and it was no member."""
    before: Standing
    after: Standing
    """How far it has been looked at; `open` is that of before."""
    artifacts: Artifacts
    """Of the versions that spoke; None: no longer stored."""


def look(past: Past, name: str, before: Standing, span: Span | None, until: int | None) -> Look:
    """At the ticks of a span; else at what is due. `until`: of new ones only at those below. Raises ModelError."""
    reach, every = _widest(past.site, name)
    if span is None:
        begin = -EVER if before.until is None else before.until
        stop = max(begin, past.end if until is None else min(past.end, until))
        after = Standing(until=stop if stop > -EVER else None, position=past.position, open=before.open)
        came = [r for r in past.late if r.sequence >= before.position and begin > -EVER]
        fresh: list[Span] = [(begin, stop), *before.open]
        old = [(r.t0 - reach.onward, min(begin, r.t1 + reach.back + 1)) for r in came]
    else:
        fresh, old, came, after = [(span[0], min(span[1], past.end))], [], [], before
    said, ticks, closed_at = _read(past.view, name, _merged([*((a - every, b) for a, b in fresh), *old]))
    artifacts = {v: _artifact(past.site, name, v) for v in np.unique(said.versions).tolist()}
    said_at = closed_at[np.searchsorted(ticks, said.ticks)]
    picked = _inside(fresh, said.ticks) | _since(past, said, said_at, artifacts, came)
    lost, absent = _holes(said, ticks, artifacts, fresh)
    return Look(
        name=name, said=rows(said, picked), said_at=said_at[picked], lost=lost, absent=absent, before=before,
        after=after, artifacts=artifacts,
    )  # fmt: skip


def _widest(site: Site, name: str) -> tuple[Reach, int]:
    """The furthest that any stored version reads, and the most ticks between two answers."""
    specs = [WindowSpec.from_json(site.models.card(name, v)["spec"]) for v in site.models.versions(name)]
    reaches = [Reach.of(spec) for spec in specs]
    widest = Reach(back=max((r.back for r in reaches), default=0), onward=max((r.onward for r in reaches), default=0))
    return widest, max((spec.every for spec in specs), default=1)


def _artifact(site: Site, name: str, version: int) -> Artifact | None:
    with suppress(ModelNotFound):
        return site.models.load(name, version)
    return None


def _merged(spans: Sequence[Span]) -> list[Span]:
    """The same ticks, each once, ascending."""
    found: list[Span] = []
    for first, end in sorted(span for span in spans if span[0] < span[1]):
        if found and first <= found[-1][1]:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((first, end))
    return found


def _read(view: SpeedView, name: str, spans: Sequence[Span]) -> tuple[SaidRows, Ticks, Ticks]:
    """What it said there; all ticks published there, and the journal sequence that closed each."""
    parts = [view.read(name, *_bounded(span)) for span in [*spans, (0, 0)]]
    published = [view.positions(*_bounded(span)) for span in [*spans, (0, 0)]]
    width = max(part.values.shape[1] for part in parts)
    said = SaidRows(
        ticks=np.concatenate([part.ticks for part in parts]),
        values=np.concatenate([_widened(part.values, width) for part in parts]),
        versions=np.concatenate([part.versions for part in parts]),
        reasons=np.concatenate([part.reasons for part in parts]),
        filled=np.concatenate([part.filled for part in parts]),
        hashes=np.concatenate([part.hashes for part in parts]),
    )
    return said, np.concatenate([ticks for ticks, _ in published]), np.concatenate([at for _, at in published])


def _bounded(span: Span) -> Span:
    return max(span[0], -EVER), min(span[1], EVER)


def _widened(values: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    return np.pad(values, ((0, 0), (0, width - values.shape[1])), constant_values=np.nan)


def _inside(spans: Sequence[Span], ticks: Ticks) -> NDArray[np.bool_]:
    found = np.zeros(len(ticks), bool)
    for first, end in spans:
        found |= (ticks >= first) & (ticks < end)
    return found


def _since(
    past: Past, said: SaidRows, said_at: Ticks, artifacts: Artifacts, came: Sequence[LateRange]
) -> NDArray[np.bool_]:
    """[n] rows whose windows ranges touch that came since they were looked at."""
    found = np.zeros(len(said.ticks), bool)
    for version, artifact in artifacts.items():
        mine = np.flatnonzero(said.versions == version)
        if artifact is not None and came:
            found[mine] = touched(came, said.ticks[mine], Reach.of(spec_of(artifact)), said_at[mine])
    return found


def _holes(said: SaidRows, published: Ticks, artifacts: Artifacts, spans: Sequence[Span]) -> tuple[Ticks, Ticks]:
    """Ticks between its first and its last word at which it has no row: (lost with the whole tick, others spoke).

    It answers as often as the version does that spoke before.
    """
    changes = [0, *(np.flatnonzero(np.diff(said.versions)) + 1).tolist(), len(said.ticks)]
    due = [np.zeros(0, np.int64)]
    for begin, stop in pairwise(changes):
        artifact = artifacts[int(said.versions[begin])] if begin < stop else None
        if artifact is not None:
            end = int(said.ticks[stop]) if stop < len(said.ticks) else int(said.ticks[-1]) + 1
            due.append(answered(spec_of(artifact), int(said.ticks[begin]), end))
    wanted = np.concatenate(due)
    missing = np.setdiff1d(wanted[_inside(spans, wanted)], said.ticks)
    there = np.isin(missing, published)
    return missing[~there], missing[there]


def spec_of(artifact: Artifact) -> WindowSpec:
    """How its windows are cut."""
    return WindowSpec.from_json(artifact.card["spec"])


# Blocks


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Block:
    """Rows of one version, and what they are to be held against; n rows."""

    name: str
    spec: WindowSpec
    scale: NDArray[np.float32]
    """[targets] of what differences are measured in."""
    live: SaidRows
    said_at: Ticks
    """[n]"""


def blocks(past: Past, looked: Look) -> Iterator[tuple[Block, Check]]:
    """What is to be computed again. Raises ModelError where it cannot be."""
    site = past.site
    source = Source(folder=site.readings.folder, snapshot=past.snapshot, hatch=site.parts.hatch())
    for version, artifact in looked.artifacts.items():
        if artifact is None:
            continue
        spec, ids = spec_of(artifact), ids_of(site, artifact)
        mine = np.flatnonzero(looked.said.versions == version)
        for at in _runs(looked.said.ticks[mine], max(spec.depth, 2 * spec.every, GAP_TICKS)):
            live = _narrowed(rows(looked.said, mine[at]), len(spec.targets))
            scale, when = artifact.golden.scale, looked.said_at[mine[at]]
            yield (
                Block(name=looked.name, spec=spec, scale=scale, live=live, said_at=when),
                Check(source=source, artifact=artifact, ids=ids, ticks=live.ticks, alone=alone),
            )


def ids_of(site: Site, artifact: Artifact) -> tuple[int, ...]:
    """Registry ids of what its windows read. Raises ModelError for a tag that the site does not know."""
    ids, spec = site.registry.lookup(), spec_of(artifact)
    unknown = [tag.name for tag in spec.base_tags if tag.name not in ids]
    if unknown:
        name = f"{artifact.name}@{artifact.version}"
        raise ModelError(f"{name}: reads {unknown[0]!r}, which this site never had; restore its tags.sqlite")
    return tuple(ids[tag.name] for tag in spec.base_tags)


def _narrowed(live: SaidRows, outputs: int) -> SaidRows:
    """Versions of a model may have other numbers of targets; the view reads as many as the widest has."""
    return SaidRows(
        ticks=live.ticks, values=np.ascontiguousarray(live.values[:, :outputs]), versions=live.versions,
        reasons=live.reasons, filled=live.filled, hashes=live.hashes,
    )  # fmt: skip


def _runs(ticks: Ticks, gap: int) -> Iterator[slice]:
    """Pieces that are read together: of bounded length, without a longer gap."""
    begin = 0
    for at in range(1, len(ticks) + 1):
        if at == len(ticks) or ticks[at] - ticks[at - 1] > gap or ticks[at] - ticks[begin] >= BLOCK_TICKS:
            yield slice(begin, at)
            begin = at
