"""The arithmetic of the engine as machine code of its own: LSTMs of any shape, compiled by numba once per site.

XLA's programs cost two thirds of a millisecond before they compute anything, and are compiled for each shape; these
loops cost microseconds, whatever the shape. The formula is that of docs/architecture.md, "Network"; the golden check
of every deploy compares the two.

All products go through the tiles of `tile.py`, so an answer has the same bits whoever else is asked in the same
request. Rows that come one by one are `chains.py`. Runs inside Triton, imports nothing of penstock.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np

from .tile import GATES, LANES, LINE, MANY, SOME, tile_of_many, tile_of_one, tile_of_some

CACHED = "NUMBA_CACHE_DIR" in os.environ
"""Numba would write beside the source otherwise, and whatever appears under a served model's folder makes Triton
load it anew."""
OPTIONS: dict[str, Any] = {"nogil": True, "cache": CACHED, "error_model": "numpy", "fastmath": {"contract"}}
"""`error_model`: a division by zero gives infinity, as in numpy; a check for it would keep loops scalar."""
FLOAT = 4
"""Bytes of a number."""
EDGE = 16
"""Arrays of a member begin at multiples of so many numbers: 64 bytes, a line of the processor's cache."""


F1, F2 = numba.float32[::1], numba.float32[:, ::1]
INT, I1, I2 = numba.int64, numba.int64[::1], numba.int64[:, ::1]
READ1, READ2, READ = (numba.types.Array(numba.float32, n, "C", readonly=True) for n in (1, 2, 3))
"""Rows and windows as Triton hands them over, not copied."""


def compiled(*signature: Any) -> Callable[[Callable[..., Any]], Any]:
    """For a function of these arguments that returns nothing; none are named: it is compiled where it is called."""
    made: Callable[[Callable[..., Any]], Any] = numba.njit(*[numba.void(*signature)] * bool(signature), **OPTIONS)
    return made


@compiled()
def up(count: int, to: int) -> int:
    """The next multiple of `to`."""
    return -(-count // to) * to


@compiled()
def room(size: int) -> Any:
    """Room for numbers, from a line of the processor's cache on: one that crosses two lines is read twice."""
    whole = np.empty(size + EDGE, np.float32)
    begin = -(whole.ctypes.data // FLOAT) % EDGE
    return whole[begin : begin + size]


@compiled(F1, INT, F1, INT, F1, INT, F1, INT, F1, INT, INT, INT)
def strips(
    start: Any, start_step: int, x: Any, x_step: int, w: Any, depth: int, c: Any, c_step: int, out: Any, out_step: int,
    rows: int, units: int,
) -> None:  # fmt: skip
    """start [rows, 4u] + x [rows, depth] @ w [depth, 4u] -> out: the sums, or, where there is a state c, h [rows, u].

    All arrays have one dimension and begin with the first row; the next one comes a step later. Columns lie as `packed`
    has them. A strip's weights stay in the processor's first cache for all rows.
    """
    gated = len(c) > 0  # the arrays stay the caller's meanwhile: an address alone keeps none of them
    from_, by, weights = start.ctypes.data, x.ctypes.data, w.ctypes.data
    state, to = c.ctypes.data if gated else 0, out.ctypes.data
    a, b, d, e = FLOAT * start_step, FLOAT * x_step, FLOAT * c_step if gated else 0, FLOAT * out_step
    for _ in range(up(units, LANES) // LANES):
        row = 0
        while row < rows:
            s, i, z, o = from_ + row * a, by + row * b, state + row * d, to + row * e
            if rows - row >= MANY:
                tile_of_many(s, a, i, b, weights, depth, z, d, o, e)
                row += MANY
            elif rows - row >= SOME:
                tile_of_some(s, a, i, b, weights, depth, z, d, o, e)
                row += SOME
            else:
                tile_of_one(s, a, i, b, weights, depth, z, d, o, e)
                row += 1
        from_ += GATES * LINE
        weights += depth * GATES * LINE
        to += LINE if gated else GATES * LINE
        state += LINE if gated else 0


@compiled(F1, INT, F1, F1, READ1, F1)
def say(weights: Any, units: int, h: Any, z: Any, x: Any, out: Any) -> None:
    """out [O] from the last layer's output h, the newest scaled row z [F] and the newest row x [F]."""
    features, outputs = len(x), len(out)
    bias = weights[up(units * outputs, EDGE) :]
    linear = bias[up(outputs, EDGE) :]
    scale = linear[up(features * outputs, EDGE) :]
    shift = scale[up(outputs, EDGE) :]
    last = shift[up(outputs, EDGE) :]
    for o in range(outputs):
        y = bias[o]
        for u in range(units):
            y += h[u] * weights[u * outputs + o]
        for f in range(features):
            y += z[f] * linear[f * outputs + o]
        y = y * scale[o] + shift[o]
        for f in range(features):
            y += x[f] * last[f * outputs + o]
        out[o] = y


@compiled()
def layer(weights: Any, below: int, units: int) -> tuple[Any, Any, Any, int]:
    """A layer's kernel, recurrent weights and bias, each to the end of `weights`, and how many numbers they take."""
    wide = GATES * up(units, LANES)
    recurrent = up(below * wide, EDGE)
    bias = recurrent + up(units * wide, EDGE)
    return weights, weights[recurrent:], weights[bias:], bias + up(wide, EDGE)


@compiled()
def _scaled(windows: Any, at: Any, relative: Any, mean: Any, inv: Any) -> Any:
    """Rows [n * T, F] of z from windows [at]."""
    length, features = windows.shape[1:]
    z = np.empty((len(at) * length, features), np.float32)
    for n in range(len(at)):
        x = windows[at[n]]
        for t in range(length):
            row = z[n * length + t]
            for f in range(features):
                row[f] = (x[t, f] - relative[f] * x[length - 1, f] - mean[f]) * inv[f]
    return z


@compiled(F1, I1, READ, I1, F2)
def _network(weights: Any, units: Any, windows: Any, at: Any, out: Any) -> None:
    """out [at] = the member's answers to windows [at], computed side by side."""
    count, length, features = len(at), windows.shape[1], windows.shape[2]
    each = up(features, EDGE)
    z = _scaled(windows, at, weights, weights[each:], weights[2 * each :])
    begin, h, stride, below = 3 * each, z.reshape(-1), features, features
    for u in units:
        kernel, recurrent, bias, size = layer(weights[begin:], below, u)
        wide = up(u, LANES)
        step = GATES * wide
        a, above = room(count * length * step), np.empty(count * length * wide, np.float32)
        strips(bias, 0, h, stride, kernel, below, h[:0], 0, a, step, count * length, u)
        c, before = np.zeros(count * wide, np.float32), np.zeros(count * wide, np.float32)
        strips(a, length * step, before, wide, recurrent, u, c, wide, above, length * wide, count, u)
        for t in range(1, length):
            start, last, now = a[t * step :], above[(t - 1) * wide :], above[t * wide :]
            strips(start, length * step, last, length * wide, recurrent, u, c, wide, now, length * wide, count, u)
        begin, h, stride, below = begin + size, above, wide, u
    for n in range(count):
        newest = (n + 1) * length - 1
        say(weights[begin:], units[-1], h[newest * stride :], z[newest], windows[at[n], length - 1], out[at[n]])


@compiled(F2, I1, I1, I2, READ, F2)
def answer(pack: Any, units: Any, index: Any, at: Any, windows: Any, out: Any) -> None:
    """out [at] = answers to windows [at], float32, without the GIL.

    pack [b, p]: a member's arrays a row, as `packed` lays them out; units: per layer. Job j runs windows [at[j]]
    [N, T, F] through row index[j]; a job's `at` ends before its first -1. out: [N, O].
    """
    for j in range(len(index)):
        jobs, k, count = at[j], 0, 0
        while count < len(jobs) and jobs[count] >= 0:
            count += 1
        while k < count:
            many = MANY if count - k >= MANY else SOME if count - k >= SOME else 1
            _network(pack[index[j]], units, windows, jobs[k : k + many], out)
            k += many


def packed(arrays: Sequence[Any]) -> Any:
    """Stacked arrays [b, ...], in the order of `Shape.arrays`, -> pack [b, p].

    Each begins at a cache line. Gates [..., 4u] become strips [u / LANES, ..., 4, LANES], with units of zeros to fill
    up the last one: these say 0 for ever.
    """
    before, after = 3, 6
    parts = []
    for number, array in enumerate(arrays):
        inside = before <= number < len(arrays) - after
        whole = (_strips(array) if inside else array).reshape(len(array), -1)
        parts.append(np.pad(whole, ((0, 0), (0, -whole.shape[1] % EDGE))))
    return aligned(np.concatenate(parts, axis=1))


def _strips(array: Any) -> Any:
    """[b, ..., 4u] -> [b, strips, ..., 4, LANES]"""
    gates = array.reshape(*array.shape[:-1], GATES, -1)
    gates = np.pad(gates, ((0, 0),) * (gates.ndim - 1) + ((0, -gates.shape[-1] % LANES),))
    return np.moveaxis(gates.reshape(*gates.shape[:-1], -1, LANES), -2, 1)


def aligned(array: Any) -> Any:
    """A float32 copy that begins at a line of the processor's cache."""
    whole = np.empty(array.size + EDGE, np.float32)
    begin = -(whole.ctypes.data // FLOAT) % EDGE
    copy = whole[begin : begin + array.size].reshape(array.shape)
    copy[...] = array
    return copy
