"""A group: every LSTM of one shape, stacked in blocks, executed fused.

Members stand in blocks of `BLOCK` rows. One compiled call takes the windows of one block's members, so nothing
that is compiled depends on how many members there are: a new one writes one block anew, a full group gets another
block, and a request pays for the members that it names. Two threads take the calls of a request in turn.

A group is a value: `add` makes a new one and leaves the old one answering whoever still holds it. Runs inside
Triton, imports nothing of penstock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from .forward import Shape, build
from .host import F32, Cancelled, Stopped

BLOCK = 16
"""Members of one block, and most jobs of one call. Smaller: more calls; larger: more to copy at a deploy."""
DEPTHS = (1, 16)
"""Compiled numbers of windows per job. A member with more windows than the last makes several jobs."""

Ints = NDArray[np.int64]
Block = tuple[Any, ...]
"""Per array of `Shape.arrays`: a tensor [BLOCK, ...]."""

_second = ThreadPoolExecutor(1, "group")
"""The other of the two threads that execute."""


@dataclass(frozen=True)
class Group:
    """Stacked members of one shape."""

    shape: Shape
    forward: Callable[..., Any]
    """Of `forward.build`; shared by all generations of the group."""
    blocks: tuple[Block, ...]
    used: frozenset[int]
    """Rows that hold a member; row r stands in block r // BLOCK."""

    @classmethod
    def begin(cls, shape: Shape) -> Group:
        """An empty group, compiled: members that come later compile nothing."""
        group = cls(shape=shape, forward=build(shape), blocks=(), used=frozenset())
        group = replace(group, blocks=(group._block({}, None),))
        for depth in DEPTHS:
            group._call(_Piece(0, np.zeros(1, np.int32), np.zeros((1, depth), np.int64)), group._nothing(1))
        return group

    def add(self, arrays: Mapping[str, F32]) -> tuple[Group, int]:
        """The group with one more member, and its row."""
        row = next(r for r in range(len(self.used) + 1) if r not in self.used)
        number, place = divmod(row, BLOCK)
        old = self.blocks[number] if number < len(self.blocks) else None
        blocks = (*self.blocks[:number], self._block(arrays, old, place), *self.blocks[number + 1 :])
        return replace(self, blocks=blocks, used=self.used | {row}), row

    def drop(self, row: int) -> Group:
        """The group with `row` free; its weights stay until they are written over."""
        return replace(self, used=self.used - {row})

    def run(self, rows: Ints, windows: F32, cancelled: Cancelled) -> F32:
        """rows [n], any of them several times, windows [n, T, F] -> [n, O]. Raises Stopped when the caller has gone."""
        out = np.empty((len(rows), self.shape.outputs), np.float32)
        left = deque(_pieces(np.asarray(rows, np.int64)))
        gone = False

        def work(stop: Callable[[], bool]) -> None:
            while left and not stop():
                try:
                    piece = left.popleft()
                except IndexError:  # the other thread took the last one
                    return
                at = piece.at[piece.at >= 0]
                out[at] = self._call(piece, windows)[piece.at >= 0]

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

    def run_one(self, row: int, windows: F32, cancelled: Cancelled) -> F32:
        """Many windows of one member: windows [n, T, F] -> [n, O]."""
        return self.run(np.full(len(windows), row), windows, cancelled)

    def _call(self, piece: _Piece, windows: F32) -> F32:
        """[jobs, depth, O]"""
        jobs, depth = piece.at.shape
        x = np.zeros((BLOCK, depth, self.shape.rows, self.shape.features), np.float32)
        x[:jobs][piece.at >= 0] = windows[piece.at[piece.at >= 0]]
        index = np.zeros(BLOCK, np.int32)
        index[:jobs] = piece.index
        weights = list(self.blocks[piece.block])
        out: F32 = self.forward(tf.constant(jobs), tf.constant(index), tf.constant(x), weights).numpy()
        return out[:jobs]

    def _block(self, arrays: Mapping[str, F32], old: Block | None, place: int = 0) -> Block:
        made = []
        for number, (name, shape) in enumerate(self.shape.arrays().items()):
            new = np.zeros((BLOCK, *shape), np.float32) if old is None else old[number].numpy().copy()
            if arrays:
                new[place] = arrays[name]
            made.append(tf.constant(new))
        return tuple(made)

    def _nothing(self, count: int) -> F32:
        return np.zeros((count, self.shape.rows, self.shape.features), np.float32)


@dataclass(frozen=True)
class _Piece:
    """One compiled call: jobs of one block, each some windows of one member."""

    block: int
    index: NDArray[np.int32]
    """[jobs] the members' rows in the block."""
    at: Ints
    """[jobs, depth] which windows; -1: none."""


def _pieces(rows: Ints) -> Iterator[_Piece]:
    """The calls that answer a request: members with one window by themselves, so that none is padded to many."""
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
        yield from _by_block(member, at)


def _by_block(member: Ints, at: Ints) -> Iterator[_Piece]:
    """Jobs [j] of ascending members, cut where the block ends and after BLOCK jobs."""
    block = member // BLOCK
    for number in np.unique(block):
        mine = np.flatnonzero(block == number)
        for begin in range(0, len(mine), BLOCK):
            part = mine[begin : begin + BLOCK]
            yield _Piece(int(number), (member[part] % BLOCK).astype(np.int32), at[part])
