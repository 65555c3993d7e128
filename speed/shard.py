"""One step of one shard: a range of the journal becomes assessed rows.

A task carries references, the log carries data: `run_step` is a pure function
of the journal, the archive and the step, whether the worker reads their files
or asks for what it needs through the site's hatch. What a worker keeps between
steps is a cache of the log; wherever it is missing or stands elsewhere it is
built again, so a retry is a re-read and any worker can take any shard.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from penstock.data.archive import Archive
from penstock.data.grid import Cells
from penstock.data.hatch import FarArchive, FarJournal, Hatch, Records, Stored, outside, plan_text
from penstock.data.journal import Journal, Kind, Record
from penstock.data.quality import Block, assess_last
from penstock.errors import PenstockError
from penstock.secure import wire_to
from penstock.speed.plan import ShardPlan, load_plan, read_plan
from penstock.speed.ring import Ring

CHUNK_CELLS = 1 << 21
"""A block is sent on when it holds about this many values (13 MB)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Sequences [start, stop) of one shard."""

    site: str
    """The site's folder, as the worker sees it."""
    shard: int
    start: int
    stop: int
    want: int | None = None
    """The first rows returned begin at this tick; None: where the tick closed last left off."""
    plan: str
    """Name of the read plan under the site's ``speed/`` folder."""
    hatch: Hatch | None = None
    """Where a worker that cannot read the site gets all this; None: nowhere."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rows:
    """Assessed rows that *replace* the receiver's from `block.first` on."""

    closed: int
    """They hold ticks below; valid when tick ``closed - 1`` closes."""
    block: Block
    closes: tuple[tuple[int, int], ...]
    """(closed, sequence) of the decisions joined in here, ascending; none for a correction of closed ticks."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Result:
    """What a step came to."""

    step: Step
    rows: tuple[Rows, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A step that came to nothing, and why."""

    step: Step
    reason: str


def attempt(step: Step) -> Result | Failure:
    """`run_step` for the graph, in which nothing may raise: an exception there would end the stream silently."""
    try:
        return Result(step=step, rows=run_step(step))
    except PenstockError as error:
        return Failure(step=step, reason=str(error))
    except Exception as error:
        return Failure(step=step, reason=f"{type(error).__name__}: {error}")


def run_step(step: Step) -> tuple[Rows, ...]:
    """The rows of the ticks that close in [start, stop).

    Raises JournalError, ArchiveError, SiteError; Unavailable where the worker needs the hatch and it does not answer.
    """
    plan, journal, archive = _read(step)
    # Taken out of the cache while it changes: a step that raises leaves nothing half-folded behind.
    kept = _kept.pop((step.site, step.shard), None)
    if kept is None or not kept.serves(step, plan, journal):
        built = _build(step, plan, journal, archive)
        if built is None:
            return ()
        kept = built
    begin = _catch_up(kept, step, plan, journal)
    rows = tuple(fold(kept.ring, journal.read(step.start, step.stop, step.shard), plan, begin))
    kept.position = step.stop
    _kept[step.site, step.shard] = kept
    return rows


def fold(ring: Ring, records: Iterable[Record], plan: ShardPlan, begin: int | None) -> Iterator[Rows]:
    """Fold records in order; rows from tick `begin` on (None: from the newest closed tick on).

    Closes between which nothing late came are joined: each tick's rows are then the same as at its own
    close. Before a late reading is folded in, what was closed without it goes out.
    """
    depth, chunk = plan.depth, max(64, CHUNK_CELLS // max(1, len(plan.columns)))
    first = ring.closed if begin is None else begin
    closes: list[tuple[int, int]] = []
    corrected = False
    for record in records:
        if record.readings is not None:
            late = ring.late(record.readings)
            if late is not None and ring.closed is not None and first is not None:
                if closes:
                    yield _rows(ring, plan, first, closes)
                    first, closes = ring.closed, []
                first, corrected = min(first, max(late, ring.closed - depth)), True
            ring.put(record.readings)
        elif record.clock is not None:
            for closed in _stages(ring.closed, record.clock.closed, chunk):
                first = closed - depth if first is None else first
                ring.hold = first - plan.reach
                ring.close(closed)
                closes.append((closed, record.sequence))
                if closed - first >= chunk:
                    yield _rows(ring, plan, first, closes)
                    first, closes = closed, []
                corrected = False
    if closes or (corrected and ring.closed is not None):
        assert first is not None
        yield _rows(ring, plan, first, closes)


def _stages(start: int | None, stop: int, chunk: int) -> Iterator[int]:
    """Closing months at once goes in bounded pieces."""
    if start is not None:
        yield from range(start + chunk, stop, chunk)
    if start is None or start < stop:
        yield stop


def _rows(ring: Ring, plan: ShardPlan, first: int, closes: list[tuple[int, int]]) -> Rows:
    closed = ring.closed
    assert closed is not None

    def look(begin: int, columns: NDArray[np.intp]) -> Cells:
        return spread(ring.rows(begin, closed), plan, columns)

    return Rows(closed=closed, block=assess_last(look, plan.rules, min(first, closed), closed), closes=tuple(closes))


def spread(cells: Cells, plan: ShardPlan, columns: NDArray[np.intp]) -> Cells:
    """Cells of the distinct tags -> cells of these of the plan's columns."""
    ids = plan.ids[columns]
    if np.array_equal(plan.distinct, ids):
        return cells
    spread = Cells.empty(cells.first, len(cells.values), len(ids), plan.dtype)
    known = np.flatnonzero(ids >= 0)
    at = np.searchsorted(plan.distinct, ids[known])
    spread.values[:, known] = cells.values[:, at]
    spread.quality[:, known] = cells.quality[:, at]
    spread.offset[:, known] = cells.offset[:, at]
    return spread


def forget(site: str) -> None:
    """Let go of all that this worker keeps of a site whose stream has ended for good."""
    for key in [key for key in _kept if key[0] == site]:
        _kept.pop(key, None)


# What a worker keeps


@dataclass(slots=True)
class _Kept:
    """A shard's ring as this worker last left it."""

    ring: Ring
    position: int
    """Holds all readings of sequences below."""
    plan: str
    hatch: Hatch | None
    """Another hatch may be another site of the same path."""

    def serves(self, step: Step, plan: ShardPlan, journal: Records) -> bool:
        """Whether the step can go on from here, in the log as it is now."""
        if (self.plan, self.hatch) != (step.plan, step.hatch) or self.position > step.start:
            return False
        if step.want is not None and step.want - plan.reach < self.ring.floor:
            return False
        return self.position == step.start or journal.first <= self.position


_kept: dict[tuple[str, int], _Kept] = {}


@lru_cache(maxsize=8)
def _stores(site: str) -> tuple[Journal, Archive]:
    return Journal.open(Path(site) / "journal"), Archive.open(Path(site) / "archive")


def _read(step: Step) -> tuple[ShardPlan, Records, Stored]:
    """What the step reads: the site's files, or through its hatch."""
    hatch = outside(Path(step.site) / "archive", step.hatch)
    if hatch is None:
        return load_plan(Path(step.site) / "speed" / step.plan), *_stores(step.site)
    wire, plan = wire_to(hatch), _far_plan(hatch, step.plan)
    return plan, FarJournal(wire, plan.distinct), FarArchive(wire)


@lru_cache(maxsize=64)
def _far_plan(hatch: Hatch, name: str) -> ShardPlan:
    return read_plan(plan_text(wire_to(hatch), name), name)


def _catch_up(kept: _Kept, step: Step, plan: ShardPlan, journal: Records) -> int | None:
    """Fold in what lies between; the tick at which the step's first rows begin."""
    if step.want is not None:
        kept.ring.hold = step.want - plan.reach
    for record in journal.read(kept.position, step.start, step.shard):
        if record.readings is not None:
            kept.ring.put(record.readings)
        elif record.clock is not None:
            kept.ring.close(record.clock.closed)
    return step.want if step.want is not None else kept.ring.closed


def _build(step: Step, plan: ShardPlan, journal: Records, archive: Stored) -> _Kept | None:
    """The ring at an archive commit at or before `start`; None where no tick closes before `stop`."""
    head = archive.at(step.start)
    closed = journal.closed_before(step.start)
    anchor = closed if closed is not None else _first_close(journal, step)
    if anchor is None:
        return None
    lead = plan.depth + plan.reach
    floor = anchor - lead if step.want is None else min(anchor - lead, step.want - plan.reach)
    ids = plan.distinct

    def stored(first: int, last: int) -> Cells:
        return archive.read(ids, first, last, snapshot=head.snapshot)

    ring = Ring(
        grid=plan.grid, ids=ids, dtype=plan.dtype, lead=lead, floor=floor,
        closed=head.closed, stored=stored, stored_last=head.span[1],
    )  # fmt: skip
    return _Kept(ring=ring, position=head.position, plan=step.plan, hatch=step.hatch)


def _first_close(journal: Records, step: Step) -> int | None:
    records = journal.read(step.start, step.stop, -1)
    return next((r.clock.closed for r in records if r.kind is Kind.CLOCK and r.clock is not None), None)
