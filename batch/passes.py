"""Passes over windows without Keras' Python between two batches.

A pass is one graph over a block of batches that fits into the processor's cache; inside it every batch is one
compiled step: the same forward pass, loss and optimiser that `keras.Model.fit` runs, in the same order. Traced once
per network and batch size (`TRACED` counts, tests hold it to that).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

BLOCK_BYTES = 4 << 20
"""Windows that are copied out and passed over at a time."""
TRACED: Counter[str] = Counter()
"""How often this process has traced a step and a forward pass: a trace costs a second or two."""


class Passes:
    """Of one network [size, T, F] -> [size, O], compiled with an optimiser whose variables are built."""

    def __init__(self, raw: Any, size: int) -> None:
        self._raw, self._size = raw, size
        self._weights = [variable.value for variable in raw.trainable_variables]
        inputs, outputs = (size, *raw.input_shape[1:]), (size, raw.output_shape[-1])
        self._step = tf.function(self._one, jit_compile=True)
        self._all = tf.function(
            self._every,
            input_signature=[tf.TensorSpec((None, *inputs)), tf.TensorSpec((None, *outputs))],
        )
        self._say = tf.function(self._said, input_signature=[tf.TensorSpec(inputs)], jit_compile=True)

    def fit(self, x: Float32, wanted: Float32, at: NDArray[np.intp], order: NDArray[np.intp]) -> None:
        """One pass over the windows x[at][order], wanted[order]; a last short batch is left out.

        x is [a, T, F] (a view will do), at [n], wanted [n, O], order [n].
        """
        for part in self._blocks(order[: len(order) // self._size * self._size], x):
            batches = x[at[part]].reshape(-1, self._size, *x.shape[1:])
            self._all(batches, wanted[part].reshape(-1, self._size, wanted.shape[1]))

    def said(self, x: Float32, at: NDArray[np.intp]) -> Float32:
        """[len(at), O] for the windows x[at]; the last batch is padded, so that one compiled shape serves all."""
        parts = [at[start : start + self._size] for start in range(0, len(at), self._size)]
        values = [self._say(x[np.resize(part, self._size)]).numpy() for part in parts]
        result: Float32 = np.concatenate(values)[: len(at)]
        return result

    def _blocks(self, order: NDArray[np.intp], x: Float32) -> Iterator[NDArray[np.intp]]:
        """Whole batches of `order`, as many at a time as BLOCK_BYTES hold, at least one."""
        per = self._size * max(1, BLOCK_BYTES // (self._size * 4 * int(np.prod(x.shape[1:]))))
        return (order[start : start + per] for start in range(0, len(order), per))

    def _every(self, x: Any, wanted: Any) -> None:
        for i in tf.range(tf.shape(x)[0]):
            self._step(x[i], wanted[i])

    def _one(self, x: Any, wanted: Any) -> None:
        TRACED["step"] += 1
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self._raw(x, training=True) - wanted))
        gradients = tape.gradient(loss, self._weights)
        self._raw.optimizer.apply(gradients, self._raw.trainable_variables)

    def _said(self, x: Any) -> Any:
        TRACED["forward"] += 1
        return self._raw(x, training=False)


@lru_cache(maxsize=8)
def passes_of(raw: Any, size: int) -> Passes:
    """One per network and batch size in this process."""
    return Passes(raw, size)
