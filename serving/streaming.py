"""A tick by what is new of it: one row per model where the engine knows the rows before, windows where it does not.

    windows of this tick ── each the last one, moved by a row? ──yes, and its state is kept──► its newest row alone
                                    │ no                     └─yes──► the window, and keep its state
                                    ▼
                                 the window

Whether a window continues the last one is seen in its numbers, bit for bit. So whatever changes a window's past - a
late reading, another version's preparation, a gap, a phase - needs no rule of its own here. The engine's side is
`backend/bank.py`; the answers are the same either way.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.errors import ServingError
from penstock.serving.bundle import Bundle
from penstock.serving.outcomes import final
from penstock.serving.pool import Pool
from penstock.serving.wire import Streamed, TickAnswer

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Slots = Mapping[str, NDArray[np.int32]]

WANTED = -4
"""In place of a version: a row came, and the window is wanted (`backend/tick.py`)."""
KEEP = -2
"""In place of a tick, before it is known which one."""
MOST_KEPT = 64
"""States that begin with one request: each costs some ten windows, and a whole fleet's would hold up its tick."""
MOST_PATIENCE = 256
"""Ticks without another try, for a model of which the engine keeps no state: with inputs relative to the newest row,
no LSTM of ours, or executed in another way."""


class Stream:
    """`Pool.tick` for one asker that comes at every tick; for one thread at a time.

    Its states stand at one endpoint: the one that answered last. The others are asked, with a deadline of their own,
    where that one fails or is silent, as `outcomes.py` has it.
    """

    def __init__(self, pool: Pool) -> None:
        """The pool stays the caller's to close."""
        self._pool = pool
        self._stream = secrets.randbits(63)
        self._request = 0
        self._endpoint = ""
        self._stores: dict[tuple[int, int], _Store] = {}
        self.rows = self.windows = 0
        """Entries sent as a row, and as a window."""

    def tick(self, names: Sequence[str], slots: Slots, bundle: Bundle) -> TickAnswer:
        """One window for each of M different names, in their slots by endpoint -> as `Pool.tick` answers.

        Raises what `Pool.tick` raises.
        """
        self._request += 1
        parts = [self._store(shape).see(_of(names, at), at, x) for shape, at, x in _by_shape(bundle)]
        here = slots.get(self._endpoint)
        if here is None or not any(part.follows.any() for part in parts):
            return self._whole(slots, bundle, parts)
        ticks = np.full(len(bundle), -1, np.int64)
        for part in parts:
            ticks[part.at] = part.ticks(here[part.at])
        ticks[self._kept_now(ticks == KEEP)] = self._request
        ticks[ticks == KEEP] = -1
        try:
            answer = self._ask(here, _without_what_is_known(bundle, parts), ticks, parts)
            wanted = answer.versions == WANTED
            if wanted.any():
                ticks[:] = -1
                keep = np.zeros(len(bundle), np.bool_)
                for part in parts:
                    keep[part.at] = wanted[part.at]
                    part.row[:] = False
                ticks[self._kept_now(keep)] = self._request
                answer = self._ask(here, bundle, ticks, parts)
            return answer
        except ServingError as error:
            others = {endpoint: there for endpoint, there in slots.items() if endpoint != self._endpoint}
            if final(error) or not others:
                raise
            return self._whole(others, bundle, parts)

    def _whole(self, slots: Slots, bundle: Bundle, parts: Sequence[_Part]) -> TickAnswer:
        """Windows alone, from any endpoint; states that stand at another one than answers are of no use any more."""
        for part in parts:
            part.forget()
        self.windows += len(bundle)
        answer = self._pool.tick(slots, bundle)
        if answer.endpoint != self._endpoint:
            for store in self._stores.values():
                store.kept[:] = False
            self._endpoint = answer.endpoint
        return answer

    def _ask(self, slots: NDArray[np.int32], bundle: Bundle, ticks: Ints, parts: Sequence[_Part]) -> TickAnswer:
        """Of whatever is not answered, no state is counted on."""
        streamed = Streamed(stream=self._stream, ticks=ticks) if (ticks >= 0).any() else None
        rows = sum(int(part.row.sum()) for part in parts)
        self.rows += rows
        self.windows += len(bundle) - rows
        try:
            answer = self._pool.tick({self._endpoint: slots}, bundle, streamed)
        except ServingError:
            for part in parts:
                part.forget()
            raise
        for part in parts:
            part.heard(slots[part.at], ticks[part.at], answer.kept[part.at])
        return answer

    def _kept_now(self, keep: Bools) -> Ints:
        """Positions of those whose state begins with this request: others of `keep` have their turn later."""
        return np.flatnonzero(keep)[:MOST_KEPT]

    def _store(self, shape: tuple[int, int]) -> _Store:
        return self._stores.setdefault(shape, _Store(*shape))


class _Store:
    """The last windows of all models of one shape, and what the engine is believed to know of them."""

    def __init__(self, length: int, features: int) -> None:
        self.length, self.features = length, features
        self.clear()

    def clear(self) -> None:
        """Nothing is known of any model."""
        self.index: dict[str, int] = {}
        self.windows = np.zeros((0, self.length * self.features), np.float32)
        self.kept = np.zeros(0, np.bool_)
        self._seen: tuple[list[str], Ints] = [], np.zeros(0, np.int64)
        self.ticks, self.slots, self.rest, self.patience = (np.zeros(0, np.int64) for _ in range(4))

    def see(self, names: list[str], at: Ints, x: NDArray[np.float32]) -> _Part:
        """Take the windows x [k, T*F] for the last ones, of the models `names`, at positions `at` of the request."""
        rows = self._rows(names)
        where = _run(rows)
        bits = np.uint64 if self.features % 2 == 0 else np.uint32
        new, old = x.view(bits), self.windows[where].view(bits)
        row = self.features * x.itemsize // np.dtype(bits).itemsize
        follows = (new[:, :-row] == old[:, row:]).all(axis=1) & (self.length > 1)
        self.windows[where] = x
        return _Part(store=self, rows=rows, at=at, x=x, follows=follows, row=follows & self.kept[rows])

    def _rows(self, names: list[str]) -> Ints:
        """Where they stand; mostly the same ones as at the tick before."""
        if names != self._seen[0]:
            self._seen = names, self._found(names)
        return self._seen[1]

    def _found(self, names: list[str]) -> Ints:
        rows = np.array([self.index.get(name, -1) for name in names], np.int64)
        if (rows < 0).any():
            if len(self.index) > 2 * len(names) + 64:  # most have gone, or got another shape
                self.clear()
            for name in names:
                self.index.setdefault(name, len(self.index))
            more = len(self.index) - len(self.kept)
            self.windows = np.pad(self.windows, ((0, more), (0, 0)), constant_values=np.nan)
            self.kept = np.pad(self.kept, (0, more))
            self.ticks, self.slots = np.pad(self.ticks, (0, more)), np.pad(self.slots, (0, more))
            self.rest, self.patience = np.pad(self.rest, (0, more)), np.pad(self.patience, (0, more))
            rows = np.array([self.index[name] for name in names], np.int64)
        return rows


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Part:
    """The models of one shape in one request."""

    store: _Store
    rows: Ints
    """[k] in the store."""
    at: Ints
    """[k] positions in the request."""
    x: NDArray[np.float32]
    """[k, T*F]"""
    follows: Bools
    """[k] whose window is the last one, moved by a row."""
    row: Bools
    """[k] of which only the newest row is sent."""

    def ticks(self, slots: NDArray[np.int32]) -> Ints:
        """[k] of each row, KEEP where a state is worth its cost, -1 elsewhere; settles which of them are rows."""
        store, rows = self.store, self.rows
        self.row[:] &= store.slots[rows] == slots
        store.kept[rows] = self.row
        idle = self.follows & ~self.row
        store.rest[rows[idle]] -= 1
        keep = idle & (store.rest[rows] < 0)
        return np.where(self.row, store.ticks[rows] + 1, np.where(keep, KEEP, -1))

    def heard(self, slots: NDArray[np.int32], ticks: Ints, kept: Ints) -> None:
        """What the engine knows now; what was told no tick stays as it was."""
        store, told = self.store, ticks >= 0
        fine = told & (kept == ticks)
        store.kept[self.rows[told]] = fine[told]
        store.ticks[self.rows[fine]], store.slots[self.rows[fine]] = ticks[fine], slots[fine]
        vain = self.rows[told & ~fine & ~self.row]
        store.patience[vain] = np.clip(2 * store.patience[vain], 1, MOST_PATIENCE)
        store.rest[vain] = store.patience[vain]
        store.patience[self.rows[fine]] = 0

    def forget(self) -> None:
        """Nothing is counted on."""
        self.store.kept[self.rows] = False
        self.row[:] = False


def _by_shape(bundle: Bundle) -> Iterator[tuple[tuple[int, int], Ints, NDArray[np.float32]]]:
    """(T, F), positions [k] and windows [k, T*F] of each shape; not copied where all have one."""
    sizes = bundle.shapes.astype(np.int64).prod(axis=1)
    begins = np.cumsum(sizes) - sizes
    if (bundle.shapes == bundle.shapes[:1]).all():
        length, features = bundle.shapes[0].tolist()
        yield (length, features), np.arange(len(bundle)), bundle.numbers.reshape(len(bundle), -1)
        return
    for length, features in np.unique(bundle.shapes, axis=0).tolist():
        at = np.flatnonzero((bundle.shapes == (length, features)).all(axis=1))
        yield (length, features), at, bundle.numbers[begins[at, None] + np.arange(length * features)]


def _of(names: Sequence[str], at: Ints) -> list[str]:
    return list(names) if len(at) == len(names) else [names[i] for i in at.tolist()]


def _without_what_is_known(bundle: Bundle, parts: Sequence[_Part]) -> Bundle:
    """The newest row of windows that the engine knows the rest of, the others whole, in the same order."""
    shapes = bundle.shapes.copy()
    for part in parts:
        shapes[part.at[part.row], 0] = 1
    sizes = shapes.astype(np.int64).prod(axis=1)
    begins = np.cumsum(sizes) - sizes
    numbers = np.empty(int(sizes.sum()), np.float32)
    for part in parts:
        for mine, x in ((part.row, part.x[:, -part.store.features :]), (~part.row, part.x)):
            if mine.any():
                numbers[begins[part.at[mine], None] + np.arange(x.shape[1])] = x[mine]
    return Bundle(shapes=shapes, numbers=numbers)


def _run(rows: Ints) -> slice | Ints:
    """A slice where rows ascend one by one: it is read without a copy."""
    first, n = int(rows[0]), len(rows)
    return slice(first, first + n) if (rows == np.arange(first, first + n)).all() else rows
