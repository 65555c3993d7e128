"""The arithmetic of the engine: many LSTMs of one shape, stacked, in one compiled function.

Runs inside Triton, imports nothing of penstock. The formula is that of
docs/architecture.md, "Network"; `batch/network.py` builds the same in Keras,
and the golden check of every deploy compares the two.

Weights are arguments of the compiled function, never constants and never
variables: a deploy makes a new stack and swaps one reference, so a request
sees one set of weights from its first to its last window, without a lock.
The rows of the stack are gathered outside the XLA part, so that a growing
stack compiles nothing; XLA compiles once per bucket (members, windows).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

F32 = NDArray[np.float32]

WINDOW_BUCKETS = (1, 8, 64)
"""Compiled numbers of windows of one member; a larger request goes in pieces."""
MEMBER_BUCKETS = tuple(2**i for i in range(1, 9))
"""Compiled numbers of members with one window each (1 is the first window bucket)."""


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


def build(shape: Shape) -> Callable[..., Any]:
    """``f(index [m], windows [m, n, T, F], weights) -> [m, n, O]``, traced once, compiled per (m, n)."""
    names = list(shape.arrays())

    @tf.function(jit_compile=True, reduce_retracing=True)  # type: ignore[untyped-decorator, unused-ignore]
    def inner(x: Any, weights: list[Any]) -> Any:
        return _network(x, dict(zip(names, weights, strict=True)), shape)

    signature = [
        tf.TensorSpec([None], tf.int32),
        tf.TensorSpec([None, None, shape.rows, shape.features], tf.float32),
        [tf.TensorSpec([None, *s], tf.float32) for s in shape.arrays().values()],
    ]

    @tf.function(input_signature=signature)  # type: ignore[untyped-decorator, unused-ignore]
    def forward(index: Any, x: Any, stack: list[Any]) -> Any:
        return inner(x, [tf.gather(s, index) for s in stack])

    return forward  # type: ignore[no-any-return, unused-ignore]


def _network(x: Any, w: Mapping[str, Any], shape: Shape) -> Any:
    """x [m, n, T, F], every weight [m, ...] -> [m, n, O]."""
    newest = x[:, :, -1, :]
    relative, mean, inv = (w[k][:, None, None, :] for k in ("relative", "mean", "inv"))
    z = (x - relative * newest[:, :, None, :] - mean) * inv
    rows = tf.transpose(z, [2, 0, 1, 3])  # time first: [T, m, n, F]
    for i in range(len(shape.units)):
        last_layer = i == len(shape.units) - 1
        rows = _lstm(rows, w[f"l{i}.kernel"], w[f"l{i}.recurrent"], w[f"l{i}.bias"], last_layer)
    y = rows @ w["head.kernel"] + w["head.bias"][:, None, :] + z[:, :, -1, :] @ w["linear.kernel"]
    return y * w["out.scale"][:, None, :] + w["out.shift"][:, None, :] + newest @ w["last"]


def _lstm(rows: Any, kernel: Any, recurrent: Any, bias: Any, last_only: bool) -> Any:
    """Keras' LSTM (gates i, f, c, o) over rows [T, m, n, F] -> [T, m, n, u], or [m, n, u] of the last row."""
    projected = rows @ kernel[None] + bias[None, :, None, :]
    start = tf.zeros_like(projected[0, :, :, : recurrent.shape[1]])

    def step(state: tuple[Any, Any], row: Any) -> tuple[Any, Any]:
        h, c = state
        i, f, g, o = tf.split(row + h @ recurrent, 4, axis=-1)
        c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
        return tf.sigmoid(o) * tf.tanh(c), c

    if not last_only:
        return tf.scan(step, projected, initializer=(start, start))[0]
    count = projected.shape[0]
    _, h, _ = tf.while_loop(
        lambda t, h, c: t < count,
        lambda t, h, c: (t + 1, *step((h, c), projected[t])),
        (tf.constant(0), start, start),
        maximum_iterations=count,
    )
    return h
