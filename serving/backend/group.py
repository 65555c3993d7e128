"""A group: every LSTM of one shape, stacked in blocks, executed fused.

Members stand in blocks of `BLOCK` rows. One call takes the windows of one block's members, so nothing that is
compiled depends on how many members there are: a new one writes one block anew, a full group gets another block, and
a request pays for the members that it names. Two threads take the calls of a request in turn. What executes a call
is the group's variant (`variants.py`).

A group is a value: `add` makes a new one and leaves the old one answering whoever still holds it. Runs inside
Triton, imports nothing of penstock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .forward import BLOCK, DEPTHS, Shape
from .golden import TOLERANCE
from .host import F32, Cancelled, Ints, Stopped
from .variants import Variant, standard

_second = ThreadPoolExecutor(1, "group")
"""The other of the two threads that execute."""


@dataclass(frozen=True)
class Block:
    """The stacked weights of at most BLOCK members."""

    arrays: tuple[F32, ...]
    """[BLOCK, ...] each, in the order of `Shape.arrays`."""
    ready: Any
    """The same, as the group's variant wants them."""


@dataclass(frozen=True)
class Group:
    """Stacked members of one shape."""

    shape: Shape
    variant: Variant
    """Shared by all generations of the group."""
    blocks: tuple[Block, ...]
    used: frozenset[int]
    """Rows that hold a member; row r stands in block r // BLOCK."""
    tolerance: float = TOLERANCE
    """Of the golden checks of its members, in units of each output's scale."""

    @classmethod
    def begin(cls, shape: Shape, variant: Variant | None = None, tolerance: float = TOLERANCE) -> Group:
        """An empty group; what it needs is compiled by now."""
        return cls(shape=shape, variant=variant or standard(shape), blocks=(), used=frozenset(), tolerance=tolerance)

    def add(self, arrays: Mapping[str, F32]) -> tuple[Group, int]:
        """The group with one more member, and its row."""
        row = next(r for r in range(len(self.used) + 1) if r not in self.used)
        number, place = divmod(row, BLOCK)
        sizes = self.shape.arrays()
        old = self.blocks[number].arrays if number < len(self.blocks) else None
        new = [a.copy() for a in old] if old else [np.zeros((BLOCK, *size), np.float32) for size in sizes.values()]
        for stacked, name in zip(new, sizes, strict=True):
            stacked[place] = arrays[name]
        blocks = (*self.blocks[:number], self._block(new), *self.blocks[number + 1 :])
        return replace(self, blocks=blocks, used=self.used | {row}), row

    def arrays(self, row: int) -> dict[str, F32]:
        """The weights of a member by name."""
        number, place = divmod(row, BLOCK)
        stacked = self.blocks[number].arrays
        return {name: array[place] for name, array in zip(self.shape.arrays(), stacked, strict=True)}

    def executed_by(self, variant: Variant, tolerance: float) -> Group:
        """The same members, another arithmetic."""
        group = replace(self, variant=variant, tolerance=tolerance)
        return replace(group, blocks=tuple(group._block(b.arrays) for b in self.blocks))

    def drop(self, row: int) -> Group:
        """The group with `row` free; its weights stay until they are written over."""
        return replace(self, used=self.used - {row})

    def run(self, rows: Ints, windows: F32, cancelled: Cancelled) -> F32:
        """rows [n], any of them several times, windows [n, T, F] -> [n, O]. Raises Stopped when the caller has gone."""
        return self._execute(_pieces(np.asarray(rows, np.int64), self.variant.jobs), windows, cancelled)

    def run_one(self, row: int, windows: F32, cancelled: Cancelled) -> F32:
        """Many windows of one member: windows [n, T, F] -> [n, O]."""
        return self._execute(_pieces_of_one(row, len(windows), self.variant.jobs), windows, cancelled)

    def _execute(self, pieces: Iterable[_Piece], windows: F32, cancelled: Cancelled) -> F32:
        windows = np.ascontiguousarray(windows, np.float32)
        out = np.empty((len(windows), self.shape.outputs), np.float32)
        left = deque(pieces)
        gone = False

        def work(stop: Callable[[], bool]) -> None:
            while left and not stop():
                try:
                    piece = left.popleft()
                except IndexError:  # the other thread took the last one
                    return
                self.variant.run(self.blocks[piece.block].ready, piece.index, piece.at, windows, out)

        other = _second.submit(work, lambda: gone) if len(left) > 1 else None
        try:
            work(cancelled)
            gone = bool(left)
        except BaseException:
            gone = True
            raise
        finally:
            if other is not None:
                other.result()
        if gone:
            raise Stopped
        return out

    def _block(self, arrays: Sequence[F32]) -> Block:
        return Block(arrays=tuple(arrays), ready=self.variant.ready(arrays))


@dataclass(frozen=True)
class _Piece:
    """One compiled call: jobs of one block, each some windows of one member."""

    block: int
    index: Ints
    """[jobs] the members' rows in the block."""
    at: Ints
    """[jobs, depth] which windows; -1: none."""


def _pieces(rows: Ints, most: int) -> Iterator[_Piece]:
    """The calls that answer a request, of at most so many jobs.

    Members with one window come by themselves, so that none is padded to many.
    """
    order = np.argsort(rows, kind="stable")
    members, starts, counts = np.unique(rows[order], return_index=True, return_counts=True)
    for depth, chosen in zip(DEPTHS, (counts == 1, counts > 1), strict=True):
        jobs = -(-counts[chosen] // depth)
        member = np.repeat(members[chosen], jobs)
        within = np.arange(len(member)) - np.repeat(np.cumsum(jobs) - jobs, jobs)
        offset = within[:, None] * depth + np.arange(depth)
        inside = offset < np.repeat(counts[chosen], jobs)[:, None]
        position = np.where(inside, np.repeat(starts[chosen], jobs)[:, None] + offset, 0)
        at = np.where(inside, order[position] if len(position) else position, -1)
        yield from _by_block(member, at, most)


def _pieces_of_one(row: int, count: int, most: int) -> Iterator[_Piece]:
    """The calls for so many windows of one member."""
    depth = DEPTHS[0] if count == 1 else DEPTHS[-1]
    block, place = divmod(int(row), BLOCK)
    flat = np.full(-(-count // depth) * depth, -1)
    flat[:count] = np.arange(count)
    at = flat.reshape(-1, depth)
    for begin in range(0, len(at), most):
        part = at[begin : begin + most]
        yield _Piece(block, np.full(len(part), place), part)


def _by_block(member: Ints, at: Ints, most: int) -> Iterator[_Piece]:
    """Jobs [j] of ascending members, cut where the block ends and after `most` jobs."""
    block = member // BLOCK
    for number in np.unique(block):
        mine = np.flatnonzero(block == number)
        for begin in range(0, len(mine), most):
            part = mine[begin : begin + most]
            yield _Piece(int(number), member[part] % BLOCK, at[part])
