"""A row at a time, as machine code: a member's T networks, each begun one row after the other (`bank.py`).

The same sums in the same order as `kernel.py` makes of whole windows, so the same bits. Runs inside Triton, imports
nothing of penstock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .kernel import EDGE, F1, F2, I1, INT, READ, READ1, READ2, compiled, layer, room, say, strips, up
from .tile import GATES, LANES


@compiled(F1, I1, F1, INT, INT, INT, INT, READ1, F1)
def _follow(
    weights: Any, units: Any, state: Any, length: int, count: int, new: int, done: int, x: Any, out: Any
) -> None:
    """One more row x [F] for the first `count` of a member's T networks; out [O] = what the one that is `done` says.

    The one that is `new` begins with this row. state: per layer h [T, u filled up] and c likewise, one after the other.
    """
    features = len(x)
    each = up(features, EDGE)
    z = np.empty(features, np.float32)
    for f in range(features):
        z[f] = (x[f] - weights[each + f]) * weights[2 * each + f]
    begin, at, below, stride, rows, h = 3 * each, 0, features, features, 1, z
    for u in units:
        kernel, recurrent, bias, size = layer(weights[begin:], below, u)
        wide, under = up(u, LANES), h
        h, c = state[at : at + length * wide], state[at + length * wide : at + 2 * length * wide]
        for k in range(new * wide, (new + 1) * wide):
            h[k] = c[k] = 0
        a, before = room(rows * GATES * wide), room(count * wide)
        for k in range(count * wide):
            before[k] = h[k]
        strips(bias, 0, under, stride, kernel, below, h[:0], 0, a, GATES * wide, rows, u)
        step = GATES * wide if rows > 1 else 0  # the lowest layer's row is the same for all of its networks
        strips(a, step, before, wide, recurrent, u, c, wide, h, wide, count, u)
        begin, at, below, stride, rows = begin + size, at + 2 * length * wide, u, wide, count
    say(weights[begin:], units[-1], h[done * up(units[-1], LANES) :], z, x, out)


@compiled()
def _length(size: int, units: Any) -> int:
    per = 0
    for u in units:
        per += 2 * up(u, LANES)
    return size // per


@compiled(F2, I1, I1, F2, I1, I1, READ2, F2)
def follow(pack: Any, units: Any, index: Any, states: Any, heads: Any, at: Any, rows: Any, out: Any) -> None:
    """out [at] = answers to the windows that end with rows [at] [N, F], by members whose states know the rows before.

    Job j is the member in row index[j] of pack and states [b, s]; heads [j]: which of its T networks has seen T rows
    with this one. The same bits as `answer` gives; members with `relative` inputs cannot be followed.
    """
    for j in range(len(index)):
        state = states[index[j]]
        length = _length(len(state), units)
        new, done = (heads[j] - 1) % length, heads[j]
        _follow(pack[index[j]], units, state, length, length, new, done, rows[at[j]], out[at[j]])


@compiled(F2, I1, I1, F2, I1, READ, F2)
def learn(pack: Any, units: Any, index: Any, states: Any, at: Any, windows: Any, out: Any) -> None:
    """States as they are after windows [at] [N, T, F], and out [at], the answers; the next head is 1 % T."""
    for j in range(len(index)):
        for t in range(windows.shape[1]):
            row, length = windows[at[j], t], windows.shape[1]
            _follow(pack[index[j]], units, states[index[j]], length, t + 1, t, 0, row, out[at[j]])


def remembered(length: int, units: Sequence[int]) -> int:
    """Numbers in a member's state."""
    return length * sum(2 * -(-u // LANES) * LANES for u in units)
