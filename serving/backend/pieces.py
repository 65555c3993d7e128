"""A request in pieces: which windows each compiled call takes, and two threads that take the calls in turn.

Runs inside Triton, imports nothing of penstock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .forward import BLOCK, DEPTHS
from .host import Cancelled, Ints, Stopped

second_thread = ThreadPoolExecutor(1, "group")
"""The other of the two threads that execute."""


@dataclass(frozen=True)
class Piece:
    """One compiled call: jobs of one block, each some windows of one member."""

    block: int
    index: Ints
    """[jobs] the members' rows in the block."""
    at: Ints
    """[jobs, depth] which windows; -1: none."""


def pieces(rows: Ints, most: int) -> Iterator[Piece]:
    """The calls that answer a request for windows of members `rows` [n], of at most so many jobs each.

    Members with one window come by themselves, so that none is padded to many. The same rows are asked for at every
    tick, so their pieces are kept.
    """
    return iter(_pieces(np.ascontiguousarray(rows, np.int64).tobytes(), most))


@lru_cache(maxsize=64)
def _pieces(rows: bytes, most: int) -> tuple[Piece, ...]:
    return tuple(_cut(np.frombuffer(rows, np.int64), most))


def _cut(rows: Ints, most: int) -> Iterator[Piece]:
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


def pieces_of_one(row: int, count: int, most: int) -> Iterator[Piece]:
    """The calls for so many windows of one member."""
    depth = DEPTHS[0] if count == 1 else DEPTHS[-1]
    block, place = divmod(int(row), BLOCK)
    flat = np.full(-(-count // depth) * depth, -1)
    flat[:count] = np.arange(count)
    at = flat.reshape(-1, depth)
    for begin in range(0, len(at), most):
        part = at[begin : begin + most]
        yield Piece(block, np.full(len(part), place), part)


def _by_block(member: Ints, at: Ints, most: int) -> Iterator[Piece]:
    """Jobs [j] of ascending members, cut where the block ends and after `most` jobs."""
    block = member // BLOCK
    for number in np.unique(block):
        mine = np.flatnonzero(block == number)
        for begin in range(0, len(mine), most):
            part = mine[begin : begin + most]
            yield Piece(int(number), member[part] % BLOCK, at[part])


def together(parts: Iterable[Piece], call: Callable[[Piece], None], cancelled: Cancelled) -> None:
    """`call` every piece, on two threads. Raises Stopped when the caller has gone: some are not called then."""
    left = deque(parts)
    gone = False

    def work(stop: Callable[[], bool]) -> None:
        while left and not stop():
            try:
                piece = left.popleft()
            except IndexError:  # the other thread took the last one
                return
            call(piece)

    other = second_thread.submit(work, lambda: gone) if len(left) > 1 else None
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
