"""The arithmetic of the engine in TensorFlow: LSTMs of one shape from one block of stacked weights, in one function.

Runs inside Triton, imports nothing of penstock. The formula is that of
docs/architecture.md, "Network"; `batch/network.py` builds the same in Keras,
`kernel.py` the same as machine code, and the golden check of every deploy compares them.

Members outside, time inside: a member's recurrent weights stay in the processor's cache for all steps of its window,
where steps outside would read every member's weights again at each step. The number of jobs is a number, not a
shape: a call pays for the jobs that it has.

Weights are arguments of the compiled function, never constants and never variables: a deploy makes a new block and
swaps one reference, so a request sees one set of weights from its first to its last window, without a lock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from .host import F32, Ints

BLOCK = 16
"""Members of one block, and most jobs of one call. Smaller: more calls; larger: more to copy at a deploy."""
DEPTHS = (1, 16)
"""Numbers of windows per job. A member with more windows than the last makes several jobs."""
XLA, GRAPH, HALF = "xla", "graph", "xla-bfloat16"
"""The three ways: compiled by XLA, executed node by node, compiled with products of 8 bits of precision."""


@dataclass(frozen=True)
class Shape:
    """What members of a group have in common."""

    rows: int
    """T, rows per window."""
    features: int
    """F, columns per window."""
    units: tuple[int, ...]
    """Per LSTM layer."""
    outputs: int
    """O, targets."""

    def arrays(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every array of a member, as serving.npz holds them."""
        f, o = self.features, self.outputs
        shapes: dict[str, tuple[int, ...]] = {"relative": (f,), "mean": (f,), "inv": (f,)}
        below = f
        for i, u in enumerate(self.units):
            shapes |= {f"l{i}.kernel": (below, 4 * u), f"l{i}.recurrent": (u, 4 * u), f"l{i}.bias": (4 * u,)}
            below = u
        shapes |= {"head.kernel": (below, o), "head.bias": (o,), "linear.kernel": (f, o)}
        return shapes | {"out.scale": (o,), "out.shift": (o,), "last": (f, o)}


def shape_of(arrays: Mapping[str, F32], rows: int) -> Shape:
    """The group that a member with these arrays and T = `rows` belongs to.

    Raises ValueError when an array is missing, has another shape or holds a
    value that is not finite.
    """
    layers = sum(1 for k in arrays if k.endswith(".recurrent"))
    missing = [k for k in (*(f"l{i}.recurrent" for i in range(max(layers, 1))), "last") if k not in arrays]
    if missing:
        raise ValueError(f"arrays are missing: {', '.join(missing)}")
    units = tuple(int(arrays[f"l{i}.recurrent"].shape[0]) for i in range(layers))
    features, outputs = arrays["last"].shape
    shape = Shape(rows=rows, features=int(features), units=units, outputs=int(outputs))
    for name, want in shape.arrays().items():
        if name not in arrays or arrays[name].shape != want:
            found = arrays[name].shape if name in arrays else "nothing"
            raise ValueError(f"array {name}: found {found}, expected {want}")
        if not np.isfinite(arrays[name]).all():
            raise ValueError(f"array {name} holds values that are not finite")
    return shape


@dataclass(frozen=True)
class Stacked:
    """A variant of a group: this arithmetic, compiled or not, for one shape."""

    name: str
    """One of XLA, GRAPH, HALF."""
    shape: Shape
    function: Callable[..., Any]
    jobs: int = BLOCK

    @classmethod
    def begin(cls, name: str, shape: Shape) -> Stacked:
        """Compiled for all depths: members that come later compile nothing."""
        made = cls(name=name, shape=shape, function=_function(shape, name))
        nothing = made.ready([np.zeros((BLOCK, *size), np.float32) for size in shape.arrays().values()])
        for depth in DEPTHS:
            windows = np.zeros((depth, shape.rows, shape.features), np.float32)
            at = np.arange(depth)[None]
            made.run(nothing, np.zeros(1, np.int64), at, windows, np.empty((depth, shape.outputs), np.float32))
        return made

    def ready(self, arrays: Sequence[F32]) -> Any:
        """A block's arrays [BLOCK, ...], in the order of `Shape.arrays`, as `run` wants them."""
        return [tf.constant(array) for array in arrays]

    def run(self, ready: Any, index: Ints, at: Ints, windows: F32, out: F32) -> None:
        """out [at] = answers to windows [at]; job j: row index [j] of the block, `at` [j, depth], -1: none."""
        jobs, depth = at.shape
        x = np.zeros((BLOCK, depth, self.shape.rows, self.shape.features), np.float32)
        x[:jobs][at >= 0] = windows[at[at >= 0]]
        rows = np.zeros(BLOCK, np.int32)
        rows[:jobs] = index
        found = self.function(tf.constant(jobs), tf.constant(rows), tf.constant(x), ready).numpy()
        out[at[at >= 0]] = found[:jobs][at >= 0]


def _function(shape: Shape, name: str) -> Callable[..., Any]:
    """``f(count, index [j], windows [j, n, T, F], block) -> [j, n, O]``: the first `count` jobs are computed.

    Job i runs windows[i] through row index[i] of the block. Compiled once per (j, n).
    """
    names = list(shape.arrays())
    multiply = _multiply_half if name == HALF else tf.matmul

    @tf.function(jit_compile=name != GRAPH)  # type: ignore[untyped-decorator, unused-ignore]
    def forward(count: Any, index: Any, x: Any, block: list[Any]) -> Any:
        answers = tf.TensorArray(tf.float32, size=x.shape[0], element_shape=[x.shape[1], shape.outputs])

        def job(i: Any, answers: Any) -> tuple[Any, Any]:
            # gather, not index[i]: XLA takes where a slice begins for a constant, and compiles anew for each subset.
            row = tf.gather(index, i)
            weights = {name: tf.gather(stacked, row) for name, stacked in zip(names, block, strict=True)}
            return i + 1, answers.write(i, _network(x[i], weights, shape, multiply))

        return tf.while_loop(lambda i, _: i < count, job, (tf.constant(0), answers))[1].stack()

    return forward  # type: ignore[no-any-return, unused-ignore]


def _multiply_half(a: Any, b: Any) -> Any:
    return tf.cast(tf.matmul(tf.cast(a, tf.bfloat16), tf.cast(b, tf.bfloat16)), tf.float32)


def _network(x: Any, w: Mapping[str, Any], shape: Shape, multiply: Callable[..., Any]) -> Any:
    """x [n, T, F], one member's weights -> [n, O]."""
    newest = x[:, -1, :]
    z = (x - w["relative"] * newest[:, None, :] - w["mean"]) * w["inv"]
    h = _lstm(tf.transpose(z, [1, 0, 2]), w, shape, multiply)
    y = h @ w["head.kernel"] + w["head.bias"] + z[:, -1, :] @ w["linear.kernel"]
    return y * w["out.scale"] + w["out.shift"] + newest @ w["last"]


def _lstm(rows: Any, w: Mapping[str, Any], shape: Shape, multiply: Callable[..., Any]) -> Any:
    """Keras' LSTM layers (gates i, f, c, o) over rows [T, n, F] -> [n, u] of the last layer after the last row."""
    count, n = shape.rows, rows.shape[1]
    # All rows at once for the first layer; the layers above get theirs as they come.
    flat = multiply(tf.reshape(rows, [-1, shape.features]), w["l0.kernel"]) + w["l0.bias"]
    projected = tf.reshape(flat, [count, n, -1])

    def step(t: Any, *states: Any) -> tuple[Any, ...]:
        row = projected[t]
        after: list[Any] = []
        for k in range(len(shape.units)):
            h, c = states[2 * k : 2 * k + 2]
            if k:
                row = multiply(after[-2], w[f"l{k}.kernel"]) + w[f"l{k}.bias"]
            i, f, g, o = tf.split(row + multiply(h, w[f"l{k}.recurrent"]), 4, axis=-1)
            c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
            after += [tf.sigmoid(o) * tf.tanh(c), c]
        return t + 1, *after

    start = [tf.zeros([n, u]) for u in shape.units for _ in range(2)]
    return tf.while_loop(lambda t, *_: t < count, step, (tf.constant(0), *start), maximum_iterations=count)[-2]
