"""The assessed rows that the scorer holds, shard by shard, and the blocks cut from them.

Plain arithmetic: rows come in as workers return them, and go in only when the
tick they belong to is due, so that each tick is cut from exactly the readings
that had come when it closed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from penstock.data.quality import Block
from penstock.data.scoring import Member
from penstock.data.window_form import form_of
from penstock.data.window_spec import WindowSpec
from penstock.errors import JournalError
from penstock.speed.plan import ReadPlan, read_by
from penstock.speed.shard import Rows

T = TypeVar("T", bound=np.generic)


class ShardRows:
    """One shard's newest rows, and those that wait for their tick."""

    def __init__(self, depth: int, columns: int) -> None:
        """`depth` rows stay behind the newest one needed."""
        self.first = 0
        """Tick of the oldest row."""
        self.closed: int | None = None
        """Rows applied reach up to this tick."""
        self._depth = depth
        self._values = np.empty((0, columns), np.float32)
        self._flags = np.empty((0, columns), np.uint16)
        self._waiting: deque[Rows] = deque()
        self._closes: deque[tuple[int, int]] = deque()
        self.backlog = 0
        """Values that wait."""

    def add(self, rows: Rows) -> None:
        """Keep rows, in the order of the log."""
        self._waiting.append(rows)
        self.backlog += rows.block.values.size

    def ready(self) -> int | None:
        """Ticks below can be brought up to date; None where nothing has come."""
        return self._waiting[-1].closed if self._waiting else self.closed

    def reaches(self, tick: int) -> bool:
        """Whether `tick` is among the ticks that can be brought up to date."""
        closed = self.ready()
        return closed is not None and closed > tick

    def bring_up(self, tick: int) -> int:
        """Apply rows until `tick` is closed, not one more; one past the newest tick now closed.

        A later correction of closed ticks thus waits until every tick before it has been cut.
        """
        while self._closes and self._closes[0][0] <= tick:
            self._closes.popleft()
        while self.closed is None or self.closed <= tick:
            rows = self._waiting.popleft()
            self.backlog -= rows.block.values.size
            self._apply(rows.block, keep=tick - self._depth)
            self._closes.extend(c for c in rows.closes if c[0] > tick)
            self.closed = rows.closed
        return self.closed

    def position(self, tick: int) -> int:
        """Sequence of the decision that closed `tick`, which must have been brought up."""
        return next(sequence for closed, sequence in self._closes if closed > tick)

    def part(self, first: int, last: int, columns: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.uint16]]:
        """Values and flags [last - first, columns] of ticks first..last-1."""
        rows = slice(first - self.first, last - self.first)
        return self._values[rows][:, columns], self._flags[rows][:, columns]

    def _apply(self, block: Block, keep: int) -> None:
        if len(self._values) and block.first > self.first + len(self._values):
            raise JournalError(
                f"rows begin at tick {block.first}, but {self.first + len(self._values)} was due; read the log again"
            )
        head = max(0, block.first - self.first) if len(self._values) else 0
        drop = min(max(0, keep - self.first), head)
        self._values = np.concatenate([self._values[drop:head], block.values])
        self._flags = np.concatenate([self._flags[drop:head], block.flags])
        self.first = self.first + drop if head else block.first


class Newest:
    """All shards' rows under one read plan."""

    def __init__(self, plan: ReadPlan) -> None:
        self.shards = {s.shard: ShardRows(plan.depth, len(s.columns)) for s in plan.shards}
        self._plan_place = plan.place()
        self._specs: dict[int, _Known] = {}
        self._forms: dict[Hashable, int] = {}

    def add(self, shard: int, rows: tuple[Rows, ...]) -> None:
        """Keep what a step returned."""
        for r in rows:
            self.shards[shard].add(r)

    def backlog(self) -> int:
        """Values that wait, over all shards."""
        return sum(s.backlog for s in self.shards.values())

    def closed(self) -> int:
        """Ticks below can be brought up to date in every shard, each of which must have closed one."""
        return min(closed for s in self.shards.values() if (closed := s.ready()) is not None)

    def ready(self, tick: int) -> bool:
        """Whether every shard has closed `tick`."""
        return all(s.reaches(tick) for s in self.shards.values())

    def bring_up(self, tick: int) -> int:
        """Bring every shard up to `tick`; ticks tick..returned-1 may then be cut together."""
        return min(s.bring_up(tick) for s in self.shards.values())

    def position(self, tick: int) -> int:
        """Sequence of the decision that closed `tick`."""
        return next(iter(self.shards.values())).position(tick)

    def block(self, spec: WindowSpec, first: int, last: int) -> Block:
        """The columns of a model's base tags, ticks first..last-1; begins later where rows do."""
        return self.stack([spec], max([first, *(self.shards[s].first for s in self._known(spec).shards)]), last)

    def reaches_back(self, members: Sequence[Member], first: int) -> bool:
        """Whether the rows of all that `members` read begin at tick `first` or before."""
        used = {shard for m in members for shard in self._known(m.spec).shards}
        return all(self.shards[shard].first <= first for shard in used)

    def stack(self, specs: Sequence[WindowSpec], first: int, last: int) -> Block:
        """Ticks first..last-1 of specs of one form, one spec's rows behind the other's, under the first one's names.

        The rows must reach back to `first`; what comes behind the first spec's has no tick of its own.
        """
        k, b = last - first, len(specs[0].base)
        values = np.empty((k, len(specs) * b), np.float32)
        flags = np.empty((k, len(specs) * b), np.uint16)
        shards, columns = (np.concatenate(p) for p in zip(*(self._known(s).places for s in specs), strict=True))
        for shard in np.unique(shards).tolist():
            mine = shards == shard
            values[:, mine], flags[:, mine] = self.shards[shard].part(first, last, columns[mine])
        return Block(first=first, tags=specs[0].base, values=_behind(values, b), flags=_behind(flags, b))

    def form(self, spec: WindowSpec) -> int:
        """Equal for specs whose windows are cut alike, from tags of other names."""
        return self._known(spec).form

    def _known(self, spec: WindowSpec) -> _Known:
        """Found once per spec object: hashing rules at every tick would cost more."""
        known = self._specs.get(id(spec))
        if known is None:
            places = np.array([self._plan_place[read] for read in read_by(spec)], np.int64).reshape(-1, 2).T
            form = self._forms.setdefault(form_of(spec), len(self._forms))
            shards = frozenset(places[0].tolist())
            known = self._specs[id(spec)] = _Known(spec=spec, places=(places[0], places[1]), shards=shards, form=form)
        return known


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Known:
    """What is known of a spec."""

    spec: WindowSpec
    """Kept, so that its id stays its own."""
    places: tuple[NDArray[np.int64], NDArray[np.int64]]
    """Shard and column per base tag."""
    shards: frozenset[int]
    form: int


def _behind(columns: NDArray[T], b: int) -> NDArray[T]:
    """[k, g * b] -> [g * k, b]: each b columns under those before."""
    return columns.reshape(len(columns), -1, b).transpose(1, 0, 2).reshape(-1, b)
