"""Which truth has become known at which tick: a fold over the journal beside the shards', of the targets' tags alone.

    records up to the decision that closed t ─► ring (cells) ─► assessed rows ─► truths of ticks <= t - lag, each once

A truth is known at t where a window for t could hold it as a past target: its time lies `lag` ticks back or more, it
had come when t closed, and by all that had come it is good. One that comes later is taken at the next tick, up to HOLD
ticks late; one that was taken stays as it was. So what is known at a tick follows from the log alone, and whoever reads
it again from any tick finds the same. It runs in the scorer's process: the tags are few, and nothing waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.data.adjusting import HOLD, Learned
from penstock.data.archive import Archive
from penstock.data.block import FILLED, Block, Flag
from penstock.data.derived import derive
from penstock.data.grid import Cells
from penstock.data.journal import Journal, Record
from penstock.data.layout import Layout
from penstock.data.quality import assess_last
from penstock.data.window_spec import WindowSpec
from penstock.speed.plan import Read, ReadPlan, Resolve, ShardPlan
from penstock.speed.ring import Ring
from penstock.speed.rings import spread

Index = NDArray[np.intp]
Judged = tuple[NDArray[np.float32], NDArray[np.bool_]]
"""Truths and where they are usable, both [k, outputs]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A target whose truths are asked for."""

    spec: WindowSpec
    column: int

    @property
    def lag(self) -> int:
        """Ticks from a truth's time to the earliest tick at which it is known."""
        return self.spec.lags[self.column]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Alike:
    """Outputs of one lag."""

    lag: int
    outputs: Index
    stored: tuple[tuple[Index, int, Index], ...]
    """(outputs, shard, columns of its plan) of targets that are stored."""
    derived: tuple[tuple[int, WindowSpec, str], ...]
    """(output, spec, target) of those that are computed."""
    columns: dict[int, Index]
    """Per shard: the columns of its plan that all these come from."""


@dataclass(slots=True, eq=False)
class _Shard:
    plan: ShardPlan
    ring: Ring


class Truths:
    """The fold at one position of the log."""

    def __init__(
        self, wanted: Sequence[Wanted], resolve: Resolve, layout: Layout, journal: Journal, archive: Archive, *,
        tick: int, position: int,
    ) -> None:  # fmt: skip
        """As it stands before `tick`, all records of sequences up to `position` taken in.

        Raises JournalError, ArchiveError.
        """
        tags = list(dict.fromkeys(t for w in wanted for t in w.spec.truth_tags))
        self._grid, self._journal, self._position = archive.grid, journal, position
        self._back = max((w.lag for w in wanted), default=0) + HOLD
        plan = ReadPlan.of_reads([(tag, 0) for tag in tags], self._back, resolve, layout, archive.grid)
        self._wait, self._alike = plan.wait, _alike(wanted, plan)
        self._horizon = np.array([w.spec.horizon for w in wanted], np.int64)
        self._every = np.array([w.spec.every for w in wanted], np.int64)
        self.taken = np.ones((len(wanted), HOLD), np.bool_)
        """[outputs, HOLD] by time: whether the truth was taken. What a restart does not know of is not looked for."""
        self._shards = {s.shard: self._built(s, archive, tick) for s in plan.shards if s.columns}

    def known(self, ticks: Sequence[int], positions: Sequence[int]) -> list[Learned]:
        """What has become known at each of `ticks`, which go on from those before.

        `positions`: sequence of the decision that closed each. Raises JournalError, where the log was trimmed.
        """
        told: list[Learned] = []
        quiet: list[int] = []  # ticks without a late reading: the rows that are due may be judged together
        for tick, position in zip(ticks, positions, strict=True):
            records = self._records(position)
            late = min((low for shard, r in records if (low := self._late(shard, r)) is not None), default=None)
            if late is not None:
                told += self._due(quiet)
                quiet = []
            self._take_in(records, quiet[0] if quiet else tick)
            if late is None:
                quiet.append(tick)
            else:
                told.append(self._again(tick, late))
        return told + self._due(quiet)

    def _records(self, position: int) -> list[tuple[int, Record]]:
        if position < self._position:
            return []
        start, self._position = self._position + 1, position
        return [(s, r) for s in self._shards for r in self._journal.read(start, position + 1, s)]

    def _late(self, shard: int, record: Record) -> int | None:
        return None if record.readings is None else self._shards[shard].ring.late(record.readings)

    def _take_in(self, records: Sequence[tuple[int, Record]], tick: int) -> None:
        for shard, record in records:
            mine = self._shards[shard]
            mine.ring.hold = tick - self._back - mine.plan.reach
            _fold(mine.ring, record)

    # What is due

    def _due(self, ticks: Sequence[int]) -> list[Learned]:
        """Of ticks one behind the other the truth of t - lag, which is looked at for the first time."""
        if not ticks:
            return []
        n, o = len(ticks), len(self._every)
        y, fit = np.empty((n, o), np.float32), np.zeros((n, o), np.bool_)
        at = np.array(ticks, np.int64)
        for alike in self._alike:
            mine = alike.outputs
            y[:, mine], fit[:, mine] = self._judged(alike, ticks[0] - alike.lag, ticks[-1] + 1 - alike.lag)
            for i in range(max(0, n - HOLD), n):
                self.taken[mine, (ticks[i] - alike.lag) % HOLD] = fit[i, mine]
        lags = np.empty(o, np.int64)
        for alike in self._alike:
            lags[alike.outputs] = alike.lag
        made = at[:, None] - lags - self._horizon
        fit &= made % self._every == 0
        rows = (np.flatnonzero(f) for f in fit)
        return [Learned(found, made[i, found], y[i, found]) for i, found in enumerate(rows)]

    def _again(self, tick: int, late: int) -> Learned:
        """What is due at `tick`, and what readings from tick `late` on have made good since."""
        parts = [self._looked(alike, tick, late) for alike in self._alike]
        return Learned(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def _looked(self, alike: _Alike, tick: int, late: int) -> Learned:
        last = tick - alike.lag
        first = min(last, max(late - self._wait, last - HOLD + 1))  # joined ticks before it have it too
        self.taken[alike.outputs, last % HOLD] = False
        y, fit = self._judged(alike, first, last + 1)
        slots = np.arange(first, last + 1) % HOLD
        fit &= ~self.taken[alike.outputs][:, slots].T
        rows, found = np.nonzero(fit)
        outputs = alike.outputs[found]
        self.taken[outputs, slots[rows]] = True
        made = first + rows - self._horizon[outputs]
        asked = made % self._every[outputs] == 0
        return Learned(outputs[asked], made[asked], y[rows, found][asked])

    def _judged(self, alike: _Alike, first: int, last: int) -> Judged:
        """Truths of ticks first..last-1 as known now."""
        blocks = {shard: self._block(shard, columns, first, last) for shard, columns in alike.columns.items()}
        y = np.full((last - first, len(alike.outputs)), np.nan, np.float32)
        fit = np.zeros(y.shape, np.bool_)
        for at, shard, columns in alike.stored:
            block = blocks[shard]
            y[:, at], fit[:, at] = block.values[:, columns], (block.flags[:, columns] & (Flag.BAD | FILLED)) == 0
        for i, spec, target in alike.derived:
            own = derive(self._own(spec, blocks, alike.columns), [target], spec.derived)
            y[:, i], fit[:, i] = own.values[:, 0], (own.flags[:, 0] & (Flag.BAD | FILLED)) == 0
        return y, fit

    def _block(self, shard: int, columns: Index, first: int, last: int) -> Block:
        mine = self._shards[shard]

        def look(begin: int, some: NDArray[np.intp]) -> Cells:
            rows = mine.ring.rows(begin, last + mine.plan.wait)
            return spread(rows, mine.plan.distinct, mine.plan.ids[columns[some]], mine.plan.dtype)

        return assess_last(look, mine.plan.rules.only(columns), first, last)

    def _own(self, spec: WindowSpec, blocks: dict[int, Block], columns: dict[int, Index]) -> Block:
        """The columns of a spec's own tags."""
        where = {
            self._shards[s].plan.columns[c].tag: (s, i)
            for s, part in columns.items()
            for i, c in enumerate(part.tolist())
        }
        places = [where[tag] for tag in spec.truth_tags]
        return Block(
            first=next(iter(blocks.values())).first,
            tags=spec.truth,
            values=np.stack([blocks[s].values[:, i] for s, i in places], axis=1),
            flags=np.stack([blocks[s].flags[:, i] for s, i in places], axis=1),
        )

    # Where it begins

    def _built(self, plan: ShardPlan, archive: Archive, tick: int) -> _Shard:
        """The ring as all records up to the position leave it: an archive commit, and the journal from there."""
        head, ids = archive.at(self._position + 1), plan.distinct

        def stored(first: int, last: int) -> Cells:
            return archive.read(ids, first, last, snapshot=head.snapshot)

        floor = tick - self._back - plan.reach
        ring = Ring(
            grid=self._grid, ids=ids, dtype=plan.dtype, lead=self._back + plan.reach, floor=floor, closed=head.closed,
            stored=stored, stored_last=head.span[1],
        )  # fmt: skip
        ring.hold = floor
        for record in self._journal.read(head.position, self._position + 1, plan.shard):
            _fold(ring, record)
        return _Shard(plan, ring)


def _fold(ring: Ring, record: Record) -> None:
    if record.readings is not None:
        ring.put(record.readings)
    if record.clock is not None:
        ring.close(record.clock.closed)


def _alike(wanted: Sequence[Wanted], plan: ReadPlan) -> list[_Alike]:
    place, of_lag = plan.place(), dict[int, list[int]]()
    for i, w in enumerate(wanted):
        of_lag.setdefault(w.lag, []).append(i)
    return [_of_lag(lag, outputs, wanted, place) for lag, outputs in of_lag.items()]


def _of_lag(lag: int, outputs: list[int], wanted: Sequence[Wanted], place: dict[Read, tuple[int, int]]) -> _Alike:
    needed: dict[int, list[int]] = {}
    for i in outputs:
        for tag in wanted[i].spec.truth_tags:
            shard, column = place[tag, 0]
            needed.setdefault(shard, []).append(column)
    columns = {shard: np.unique(part).astype(np.intp) for shard, part in needed.items()}
    stored: dict[int, list[tuple[int, int]]] = {}
    derived = []
    for k, i in enumerate(outputs):
        spec, target = wanted[i].spec, wanted[i].spec.targets[wanted[i].column]
        own = next((t for t in spec.truth_tags if t.name == target), None)
        if own is None:
            derived.append((k, spec, target))
        else:
            shard, column = place[own, 0]
            stored.setdefault(shard, []).append((k, int(np.searchsorted(columns[shard], column))))
    parts = tuple((np.array(p, np.intp)[:, 0], shard, np.array(p, np.intp)[:, 1]) for shard, p in stored.items())
    return _Alike(
        lag=lag, outputs=np.array(outputs, np.intp), stored=parts, derived=tuple(derived), columns=columns
    )  # fmt: skip
