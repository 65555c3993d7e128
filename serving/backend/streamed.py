"""A tick of an asker whose states are kept: which of its entries is a window, and which is only the row that is new.

Runs inside Triton, imports nothing of penstock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from .bank import Bank, followed
from .group import Group
from .host import F32, Cancelled, Ints
from .view import View

WINDOW, KEPT, ROW, UNKNOWN = 0, 1, 2, 3
"""How an entry is answered: as ever; its state is kept besides; from the state; not at all, its window is wanted."""


@dataclass(frozen=True)
class Streamed:
    """What a request tells besides slots and numbers."""

    ticks: Ints
    """[M] of each entry's newest row; negative: a window whose state is not to be kept."""
    banks: Mapping[str, Bank]
    """The stream's, by host."""

    def ways(self, view: View, slots: NDArray[np.int32], shapes: Ints, table: Ints) -> Ints:
        """[M] WINDOW and so on, for entries that `table` [M, 8] has looked up in the view.

        Raises ValueError where a slot is named twice, or the ticks are not as many as the slots.
        """
        if len(self.ticks) != len(slots):
            raise ValueError(f"{len(slots)} slots and {len(self.ticks)} ticks: give one each")
        told = self.ticks >= 0
        if len(np.unique(slots[told])) != np.count_nonzero(told):
            raise ValueError("a stream's request names a slot twice: its rows come one by one")
        rows = told & (shapes[:, 0] == 1) & (table[:, 4] > 1) & (shapes[:, 1] == table[:, 5]) & (table[:, 0] >= 0)
        whole = told & (shapes == table[:, 4:6]).all(axis=1) & (table[:, 0] >= 0)
        ways = np.where(rows, UNKNOWN, WINDOW)
        for number in np.unique(table[rows | whole, 0]).tolist():
            key = view.order[number]
            host = view.hosts[key]
            if isinstance(host, Group):
                mine = np.flatnonzero((table[:, 0] == number) & (rows | whole))
                mine = mine[followed(host, table[mine, 1])]
                known = self.banks[key].knows(table[mine, 1], table[mine, 7], self.ticks[mine])
                ways[mine] = np.where(whole[mine], KEPT, np.where(known, ROW, UNKNOWN))
        return ways

    def work(self, key: str, group: Group, way: int, at: Ints, table: Ints, numbers: F32) -> Callable[[Cancelled], F32]:
        """What answers the entries `at` of that host: all KEPT, windows [n, T, F], or all ROW, rows [n, 1, F]."""
        bank, ticks = self.banks[key], self.ticks[at]
        if way == KEPT:
            return partial(bank.learn, group, table[:, 1], table[:, 7], ticks, np.ascontiguousarray(numbers))
        return partial(bank.follow, group, table[:, 1], ticks, np.ascontiguousarray(numbers[:, 0]))
