"""The arithmetic of the engine as machine code of its own: LSTMs of any shape, compiled by numba once per process.

XLA's programs cost two thirds of a millisecond before they compute anything, and are compiled for each shape; these
loops cost microseconds, whatever the shape. The formula is that of docs/architecture.md, "Network"; the golden check
of every deploy compares the two.

All products go through `_one` (one row times a matrix) and `_four` (four rows, which share each weight that is read).
Both add up in the same order and no sum is reordered (`contract` alone: a product and a sum in one instruction), so
an answer has the same bits whoever else is asked in the same request. Runs inside Triton, imports nothing of penstock.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np

CACHED = "NUMBA_CACHE_DIR" in os.environ
"""Numba would write beside the source otherwise, and whatever appears under a served model's folder makes Triton
load it anew."""

LIMIT = np.float32(8.32)
"""tanh is 1 in float32 beyond."""
P0, P1, P2 = np.float32(1.0), np.float32(0.1371205002), np.float32(3.908743616e-03)
P3, P4, P5 = np.float32(2.883340130e-05), np.float32(3.262302428e-08), np.float32(-1.377545734e-11)
Q0, Q1, Q2 = np.float32(1.0), np.float32(0.4704538286), np.float32(2.739336155e-02)
Q3, Q4 = np.float32(4.010240241e-04), np.float32(1.345720534e-06)
"""tanh x = x P(x^2) / Q(x^2), fitted on [-LIMIT, LIMIT] by least squares of the relative difference, with Lawson's
weights: 5e-10 in exact arithmetic, 3.3e-7 in float32."""
HALF = np.float32(0.5)
EIGHT = 8
"""Rows of a matrix that are read in one pass; filled up with zeros where it has fewer."""
_OPTIONS: dict[str, Any] = {"nogil": True, "cache": CACHED, "error_model": "numpy", "fastmath": {"contract"}}
"""`error_model`: a division by zero gives infinity, as in numpy; a check for it would keep loops scalar."""
LINE = 16
"""Arrays of a member begin at multiples of so many numbers: 64 bytes, a line of the processor's cache."""


def _compiled(function: Callable[..., Any]) -> Any:
    return numba.njit(**_OPTIONS)(function)


@_compiled
def _tanh(x: Any) -> Any:
    x = LIMIT if x > LIMIT else x  # not min and max: so a NaN stays one
    x = -LIMIT if x < -LIMIT else x
    s = x * x
    p = ((((P5 * s + P4) * s + P3) * s + P2) * s + P1) * s + P0
    q = (((Q4 * s + Q3) * s + Q2) * s + Q1) * s + Q0
    return x * p / q


@_compiled
def _sigmoid(x: Any) -> Any:
    return _tanh(x * HALF) * HALF + HALF


@_compiled
def _one(a: Any, i: int, x: Any, j: int, w: Any) -> None:
    """a [i] += x [j] @ w, of a [r, g], x [s, k], w [k, g]; k a multiple of EIGHT."""
    for k in range(0, w.shape[0], EIGHT):
        x0, x1, x2, x3 = x[j, k], x[j, k + 1], x[j, k + 2], x[j, k + 3]
        x4, x5, x6, x7 = x[j, k + 4], x[j, k + 5], x[j, k + 6], x[j, k + 7]
        for g in range(a.shape[1]):
            low = a[i, g] + x0 * w[k, g] + x1 * w[k + 1, g] + x2 * w[k + 2, g] + x3 * w[k + 3, g]
            a[i, g] = low + x4 * w[k + 4, g] + x5 * w[k + 5, g] + x6 * w[k + 6, g] + x7 * w[k + 7, g]


@_compiled
def _four(a: Any, i: int, x: Any, j: int, step: int, w: Any) -> None:
    """`_one` of rows i, i + step, ... of `a` and j, j + step, ... of `x`, four of each."""
    i1, i2, i3, j1, j2, j3 = i + step, i + 2 * step, i + 3 * step, j + step, j + 2 * step, j + 3 * step
    for k in range(0, w.shape[0], EIGHT):
        a0, a1, a2, a3 = x[j, k], x[j, k + 1], x[j, k + 2], x[j, k + 3]
        a4, a5, a6, a7 = x[j, k + 4], x[j, k + 5], x[j, k + 6], x[j, k + 7]
        b0, b1, b2, b3 = x[j1, k], x[j1, k + 1], x[j1, k + 2], x[j1, k + 3]
        b4, b5, b6, b7 = x[j1, k + 4], x[j1, k + 5], x[j1, k + 6], x[j1, k + 7]
        c0, c1, c2, c3 = x[j2, k], x[j2, k + 1], x[j2, k + 2], x[j2, k + 3]
        c4, c5, c6, c7 = x[j2, k + 4], x[j2, k + 5], x[j2, k + 6], x[j2, k + 7]
        d0, d1, d2, d3 = x[j3, k], x[j3, k + 1], x[j3, k + 2], x[j3, k + 3]
        d4, d5, d6, d7 = x[j3, k + 4], x[j3, k + 5], x[j3, k + 6], x[j3, k + 7]
        for g in range(a.shape[1]):
            w0, w1, w2, w3 = w[k, g], w[k + 1, g], w[k + 2, g], w[k + 3, g]  # once, before anything is written
            w4, w5, w6, w7 = w[k + 4, g], w[k + 5, g], w[k + 6, g], w[k + 7, g]
            na = a[i, g] + a0 * w0 + a1 * w1 + a2 * w2 + a3 * w3
            nb = a[i1, g] + b0 * w0 + b1 * w1 + b2 * w2 + b3 * w3
            nc = a[i2, g] + c0 * w0 + c1 * w1 + c2 * w2 + c3 * w3
            nd = a[i3, g] + d0 * w0 + d1 * w1 + d2 * w2 + d3 * w3
            na = na + a4 * w4 + a5 * w5 + a6 * w6 + a7 * w7
            nb = nb + b4 * w4 + b5 * w5 + b6 * w6 + b7 * w7
            nc = nc + c4 * w4 + c5 * w5 + c6 * w6 + c7 * w7
            nd = nd + d4 * w4 + d5 * w5 + d6 * w6 + d7 * w7
            a[i, g], a[i1, g], a[i2, g], a[i3, g] = na, nb, nc, nd


@_compiled
def _project(rows: Any, kernel: Any, bias: Any, out: Any) -> None:
    """out [r, g] = rows [r, k] @ kernel [k, g] + bias [g]"""
    for r in range(out.shape[0]):
        for g in range(out.shape[1]):
            out[r, g] = bias[g]
    whole = out.shape[0] - out.shape[0] % 4
    for r in range(0, whole, 4):
        _four(out, r, rows, r, 1, kernel)
    for r in range(whole, out.shape[0]):
        _one(out, r, rows, r, kernel)


@_compiled
def _gates(a: Any, c: Any, h: Any) -> None:
    """Keras' gates i, f, c, o of a [4u]: the cell's state c [u] in place, its output into h [u or more]."""
    units = len(c)
    i, f, g, o = a[:units], a[units : 2 * units], a[2 * units : 3 * units], a[3 * units :]
    for u in range(units):
        state = _sigmoid(f[u]) * c[u] + _sigmoid(i[u]) * _tanh(g[u])
        c[u] = state
        h[u] = _sigmoid(o[u]) * _tanh(state)


@_compiled
def _layer(a: Any, recurrent: Any, c: Any, h: Any, length: int) -> None:
    """a [n * T, 4u] projected inputs, overwritten; c [n, u] zeros; every step's output into h [n * T, u]; n: 1 or 4."""
    for t in range(length):
        if t and len(c) == 4:
            _four(a, t, h, t - 1, length, recurrent)
        elif t:
            _one(a, t, h, t - 1, recurrent)
        for n in range(len(c)):
            _gates(a[n * length + t], c[n], h[n * length + t])


@_compiled
def _aligned(size: int) -> Any:
    """Room for numbers, from a line of the processor's cache on: one that crosses two lines is read twice."""
    room = np.empty(size + LINE, np.float32)
    begin = -(room.ctypes.data // 4) % LINE
    return room[begin : begin + size]


@_compiled
def _up(count: int, to: int) -> int:
    return -(-count // to) * to


@_compiled
def _scaled(windows: Any, at: Any, relative: Any, mean: Any, inv: Any) -> Any:
    """Rows [n * T, F, filled up] of z from windows [at]."""
    length, features = windows.shape[1:]
    z = np.zeros((len(at) * length, _up(features, EIGHT)), np.float32)
    for n in range(len(at)):
        x = windows[at[n]]
        for t in range(length):
            row = z[n * length + t]
            for f in range(features):
                row[f] = (x[t, f] - relative[f] * x[length - 1, f] - mean[f]) * inv[f]
    return z


@_compiled
def _network(weights: Any, units: Any, windows: Any, at: Any, out: Any) -> None:
    """out [at] = the member's answers to windows [at]; `at` is one or four."""
    count, length, features = len(at), windows.shape[1], windows.shape[2]
    each = _up(features, LINE)
    z = _scaled(windows, at, weights, weights[each:], weights[2 * each :])
    begin, h = 3 * each, z
    for u in units:
        below, g = h.shape[1], 4 * u
        kernel = weights[begin : begin + below * g].reshape(below, g)
        begin += _up(below * g, LINE)
        wide = _up(u, EIGHT)
        recurrent = weights[begin : begin + wide * g].reshape(wide, g)
        begin += _up(wide * g, LINE)
        a = _aligned(count * length * g).reshape(count * length, g)
        _project(h, kernel, weights[begin:], a)
        begin += _up(g, LINE)
        h = np.zeros((count * length, wide), np.float32)
        _layer(a, recurrent, np.zeros((count, u), np.float32), h, length)
    _head(weights[begin:], units[-1], h, z, windows, at, out)


@_compiled
def _head(weights: Any, units: int, h: Any, z: Any, windows: Any, at: Any, out: Any) -> None:
    """The linear end: from the last outputs in h [n * T, u] and the newest scaled rows in z [n * T, F]."""
    length = windows.shape[1]
    for n in range(len(at)):
        newest = (n + 1) * length - 1
        _say(weights, units, h[newest], z[newest], windows[at[n], length - 1], out[at[n]])


@_compiled
def _say(weights: Any, units: int, h: Any, z: Any, x: Any, out: Any) -> None:
    """out [O] from the last layer's output h, the newest scaled row z and the newest row x [F]."""
    features, outputs = len(x), len(out)
    bias = weights[_up(_up(units, EIGHT) * outputs, LINE) :]
    linear = bias[_up(outputs, LINE) :]
    scale = linear[_up(_up(features, EIGHT) * outputs, LINE) :]
    shift = scale[_up(outputs, LINE) :]
    last = shift[_up(outputs, LINE) :]
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


@_compiled
def _follow(weights: Any, units: Any, state: Any, length: int, chains: Any, x: Any, out: Any) -> None:
    """One more row x [F] for the first chains[0] of a member's T networks; out [O] = what the chains[2]-th says now.

    Chain chains[1] begins with this row. state: per layer h [T, u, filled up], c [T, u], one behind the other.
    """
    features = len(x)
    each = _up(features, LINE)
    z = np.zeros((1, _up(features, EIGHT)), np.float32)
    for f in range(features):
        z[0, f] = (x[f] - weights[each + f]) * weights[2 * each + f]
    begin, at, h = 3 * each, 0, z
    for layer in range(len(units)):
        u = units[layer]
        below, g, wide, under = h.shape[1], 4 * u, _up(u, EIGHT), h
        kernel = weights[begin : begin + below * g].reshape(below, g)
        begin += _up(below * g, LINE)
        recurrent = weights[begin : begin + wide * g].reshape(wide, g)
        begin += _up(wide * g, LINE)
        h = state[at : at + length * wide].reshape(length, wide)
        c = state[at + length * wide : at + length * (wide + u)].reshape(length, u)
        at += length * (wide + u)
        h[chains[1]], c[chains[1]] = 0, 0
        if layer == 0:
            first = np.empty((1, g), np.float32)
            _project(z, kernel, weights[begin:], first)
            _first(first[0], recurrent, c, h, chains[0])
        else:
            _above(weights[begin : begin + g], under, kernel, recurrent, c, h, chains[0])
        begin += _up(g, LINE)
    _say(weights[begin:], units[-1], h[chains[2]], z[0], x, out)


@_compiled
def _first(row: Any, recurrent: Any, c: Any, h: Any, chains: int) -> None:
    """The lowest layer: row [4u] is the same for all of its networks."""
    a = _aligned(4 * len(row)).reshape(4, len(row))
    whole = chains - chains % 4
    for k in range(0, whole, 4):
        for i in range(4):
            a[i] = row
        _four(a, 0, h, k, 1, recurrent)
        for i in range(4):
            _gates(a[i], c[k + i], h[k + i])
    for k in range(whole, chains):
        a[0] = row
        _one(a, 0, h, k, recurrent)
        _gates(a[0], c[k], h[k])


@_compiled
def _above(bias: Any, under: Any, kernel: Any, recurrent: Any, c: Any, h: Any, chains: int) -> None:
    """Another layer, on what the one below it has just put out."""
    a = _aligned(4 * len(bias)).reshape(4, len(bias))
    whole = chains - chains % 4
    for k in range(0, whole, 4):
        for i in range(4):
            a[i] = bias
        _four(a, 0, under, k, 1, kernel)
        _four(a, 0, h, k, 1, recurrent)
        for i in range(4):
            _gates(a[i], c[k + i], h[k + i])
    for k in range(whole, chains):
        a[0] = bias
        _one(a, 0, under, k, kernel)
        _one(a, 0, h, k, recurrent)
        _gates(a[0], c[k], h[k])


@_compiled
def _length(size: int, units: Any) -> int:
    per = 0
    for u in units:
        per += _up(u, EIGHT) + u
    return size // per


_F2, _I1, _I2 = numba.float32[:, ::1], numba.int64[::1], numba.int64[:, ::1]
_READ = numba.types.Array(numba.float32, 3, "C", readonly=True)
"""Windows as Triton hands them over, not copied."""
_ROWS = numba.types.Array(numba.float32, 2, "C", readonly=True)


@numba.njit(numba.void(_F2, _I1, _I1, _I2, _READ, _F2), **_OPTIONS)  # type: ignore[untyped-decorator, unused-ignore]
def answer(pack: Any, units: Any, index: Any, at: Any, windows: Any, out: Any) -> None:
    """out [at] = answers to windows [at], float32, without the GIL.

    pack [b, p]: a member's arrays a row, as `packed` lays them out; units: per layer. Job j runs windows [at[j]]
    [N, T, F] through row index[j]; a job's `at` ends before its first -1. out: [N, O].
    """
    for j in range(len(index)):
        jobs, k = at[j], 0
        while k < len(jobs) and jobs[k] >= 0:
            many = 4 if k + 4 <= len(jobs) and jobs[k + 3] >= 0 else 1
            _network(pack[index[j]], units, windows, jobs[k : k + many], out)
            k += many


@numba.njit(numba.void(_F2, _I1, _I1, _F2, _I1, _I1, _ROWS, _F2), **_OPTIONS)  # type: ignore[untyped-decorator, unused-ignore]
def follow(pack: Any, units: Any, index: Any, states: Any, heads: Any, at: Any, rows: Any, out: Any) -> None:
    """out [at] = answers to the windows that end with rows [at] [N, F], by members whose states know the rows before.

    Job j is the member in row index[j] of pack and states [b, s]; heads [j]: which of its T networks has seen T rows
    with this one. The same bits as `answer` gives; members with `relative` inputs cannot be followed.
    """
    for j in range(len(index)):
        state = states[index[j]]
        length = _length(len(state), units)
        chains = (length, (heads[j] - 1) % length, heads[j])
        _follow(pack[index[j]], units, state, length, chains, rows[at[j]], out[at[j]])


@numba.njit(numba.void(_F2, _I1, _I1, _F2, _I1, _READ, _F2), **_OPTIONS)  # type: ignore[untyped-decorator, unused-ignore]
def learn(pack: Any, units: Any, index: Any, states: Any, at: Any, windows: Any, out: Any) -> None:
    """States as they are after windows [at] [N, T, F], and out [at], the answers; the next head is 1 % T."""
    for j in range(len(index)):
        for t in range(windows.shape[1]):
            chains = (t + 1, t, 0)
            row = windows[at[j], t]
            _follow(pack[index[j]], units, states[index[j]], windows.shape[1], chains, row, out[at[j]])


def remembered(length: int, units: Sequence[int]) -> int:
    """Numbers in a member's state."""
    return length * sum(-(-u // EIGHT) * EIGHT + u for u in units)


def packed(arrays: Sequence[Any]) -> Any:
    """Stacked arrays [b, ...], in the order of `Shape.arrays`, -> pack [b, p].

    Each begins at a cache line; matrices [b, k, g] get rows of zeros up to a multiple of EIGHT.
    """
    parts = []
    for array in arrays:
        rows = -array.shape[1] % EIGHT if array.ndim == 3 else 0
        whole = np.pad(array, ((0, 0), (0, rows), *((0, 0),) * (array.ndim - 2))).reshape(len(array), -1)
        parts.append(np.pad(whole, ((0, 0), (0, -whole.shape[1] % LINE))))
    return aligned(np.concatenate(parts, axis=1))


def aligned(array: Any) -> Any:
    """A float32 copy that begins at a line of the processor's cache."""
    room = np.empty(array.size + LINE, np.float32)
    begin = -(room.ctypes.data // 4) % LINE
    copy = room[begin : begin + array.size].reshape(array.shape)
    copy[...] = array
    return copy
