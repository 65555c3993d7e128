"""States that are kept between ticks, so that a tick costs one row per model instead of a window.

A window's answer is an LSTM's output T rows after its zeros. A member keeps T networks, each begun one tick after the
one before: every new row advances all of them, the oldest has then seen exactly T rows and speaks, and begins anew
with the next row. That is as many steps as a window has, but all with the same weights at the same time and with the
row projected once; and only the row travels.

           rows  1 2 3 4 5 6 7
    network 0    ▪ ▪ ▪ ●              T = 4: ● speaks, and begins anew
    network 1      ▪ ▪ ▪ ●
    network 2        ▪ ▪ ▪ ●
    network 3          ▪ ▪ ▪ ●
    network 0            ▪ ▪ ▪ ●

A state belongs to a stream (one asker), a member as it was admitted, and the tick of its newest row. A row whose tick
is not the next one is not taken: the asker is told, and sends the window. One thread uses a bank. Runs inside Triton,
imports nothing of penstock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from .forward import BLOCK
from .group import Group
from .host import F32, Cancelled, Ints
from .pieces import Piece, pieces, together
from .variants import Kernel

Bools = NDArray[np.bool_]

STREAMS = 4
"""Askers whose states are kept; of more, those that asked last."""
NOTHING = -1
"""In place of a tick: no state."""


class Bank:
    """The states of one group's members for one stream."""

    def __init__(self) -> None:
        self._states: dict[int, F32] = {}
        """By block: [BLOCK, numbers of a state]."""
        self._heads = np.zeros(0, np.int64)
        """Per row of the group: which of its networks speaks next."""
        self._ticks = np.zeros(0, np.int64)
        """Of the newest row, or NOTHING."""
        self._born = np.zeros(0, np.int64)
        """The resident that the state is of."""

    def knows(self, rows: Ints, born: Ints, ticks: Ints) -> Bools:
        """Per row of the group whether `ticks` is the next one for the resident `born`."""
        self._grow(rows)
        last = self._ticks[rows]
        known: Bools = (self._born[rows] == born) & (last != NOTHING) & (last + 1 == ticks)
        return known

    def follow(self, group: Group, rows: Ints, ticks: Ints, newest: F32, cancelled: Cancelled) -> F32:
        """One more row [n, F] for members that it `knows`, each once -> [n, O]."""
        kernel = _kernel(group)
        heads = self._heads[rows]

        def call(piece: Piece, out: F32) -> None:
            at = np.ascontiguousarray(piece.at[:, 0])
            pack, states = group.blocks[piece.block].ready, self._states[piece.block]
            kernel.chains.follow(pack, kernel.units, piece.index, states, heads[at], at, newest, out)

        out = self._all(group, rows, call, cancelled)
        self._ticks[rows], self._heads[rows] = ticks, (heads + 1) % group.shape.rows
        return out

    def learn(self, group: Group, rows: Ints, born: Ints, ticks: Ints, windows: F32, cancelled: Cancelled) -> F32:
        """Windows [n, T, F] of members, each once -> [n, O]; they can be followed from the next tick on."""
        kernel = _kernel(group)
        self._grow(rows)

        def call(piece: Piece, out: F32) -> None:
            at = np.ascontiguousarray(piece.at[:, 0])
            pack, states = group.blocks[piece.block].ready, self._states[piece.block]
            kernel.chains.learn(pack, kernel.units, piece.index, states, at, windows, out)

        for block in np.unique(rows // BLOCK).tolist():
            if block not in self._states:
                size = kernel.chains.remembered(group.shape.rows, group.shape.units)
                self._states[block] = kernel.code.aligned(np.zeros((BLOCK, size)))
        out = self._all(group, rows, call, cancelled)
        self._ticks[rows], self._heads[rows], self._born[rows] = ticks, 1 % group.shape.rows, born
        return out

    def _all(self, group: Group, rows: Ints, call: Callable[[Piece, F32], None], cancelled: Cancelled) -> F32:
        """What is begun and not ended leaves no state behind."""
        out = np.empty((len(rows), group.shape.outputs), np.float32)
        self._ticks[rows] = NOTHING
        together(pieces(rows, group.variant.jobs), lambda piece: call(piece, out), cancelled)
        return out

    def _grow(self, rows: Ints) -> None:
        more = int(rows.max(initial=-1)) + 1 - len(self._ticks)
        if more > 0:
            self._heads, self._born = np.pad(self._heads, (0, more)), np.pad(self._born, (0, more))
            self._ticks = np.pad(self._ticks, (0, more), constant_values=NOTHING)


class Banks:
    """All streams' states."""

    def __init__(self) -> None:
        self._of: OrderedDict[int, dict[str, Bank]] = OrderedDict()

    def of(self, stream: int, hosts: Mapping[str, object]) -> dict[str, Bank]:
        """Of one stream, by the keys of `hosts`, empty at first; what belongs to hosts that have gone is let go of."""
        known = self._of.pop(stream, {})
        self._of[stream] = {key: known.get(key) or Bank() for key, host in hosts.items() if isinstance(host, Group)}
        while len(self._of) > STREAMS:
            self._of.popitem(last=False)
        return self._of[stream]


def followed(group: Group, rows: Ints) -> Bools:
    """Which members can have states: executed by the kernel, and with inputs that do not change with the newest row."""
    if not isinstance(group.variant, Kernel):
        return np.zeros(len(rows), np.bool_)
    steady = np.concatenate([block.steady for block in group.blocks])
    return steady[rows]


def _kernel(group: Group) -> Kernel:
    assert isinstance(group.variant, Kernel)
    return group.variant
