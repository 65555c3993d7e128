"""A group: every LSTM of one shape, stacked in blocks, executed fused.

Members stand in blocks of `BLOCK` rows. One call takes the windows of one block's members, so nothing that is
compiled depends on how many members there are: a new one writes one block anew, a full group gets another block, and
a request pays for the members that it names. Two threads take the calls of a request in turn. What executes a call
is the group's variant (`variants.py`).

A group is a value: `add` makes a new one and leaves the old one answering whoever still holds it. Runs inside
Triton, imports nothing of penstock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .forward import BLOCK, Shape
from .golden import TOLERANCE
from .host import F32, Cancelled, Ints
from .pieces import Piece, pieces, pieces_of_one, together
from .variants import Variant, standard


@dataclass(frozen=True)
class Block:
    """The stacked weights of at most BLOCK members."""

    arrays: tuple[F32, ...]
    """[BLOCK, ...] each, in the order of `Shape.arrays`."""
    ready: Any
    """The same, as the group's variant wants them."""
    steady: NDArray[np.bool_]
    """[BLOCK] whose inputs are the same numbers whatever the newest row is: no `relative` ones."""


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
        return self._execute(pieces(np.asarray(rows, np.int64), self.variant.jobs), windows, cancelled)

    def run_one(self, row: int, windows: F32, cancelled: Cancelled) -> F32:
        """Many windows of one member: windows [n, T, F] -> [n, O]."""
        return self._execute(pieces_of_one(row, len(windows), self.variant.jobs), windows, cancelled)

    def _execute(self, parts: Iterable[Piece], windows: F32, cancelled: Cancelled) -> F32:
        windows = np.ascontiguousarray(windows, np.float32)
        out = np.empty((len(windows), self.shape.outputs), np.float32)

        def call(piece: Piece) -> None:
            self.variant.run(self.blocks[piece.block].ready, piece.index, piece.at, windows, out)

        together(parts, call, cancelled)
        return out

    def _block(self, arrays: Sequence[F32]) -> Block:
        relative = arrays[list(self.shape.arrays()).index("relative")]
        return Block(tuple(arrays), self.variant.ready(arrays), steady=(relative == 0).all(axis=1))
