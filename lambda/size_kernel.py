"""Microseconds of the engine's machine code on this machine, per window and per row that continues one.

    python -m penstock.size_kernel 60 32 64 1

A process of its own, so that its deadline can end it while numba compiles, and because numba wants to know
where it keeps what it has compiled before it is imported.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np

MEMBERS = 16
"""As many as the engine keeps in a block: their weights are in the caches as they are there."""
AT_LEAST_S, REPEATS = 0.1, 5


def kernel_us(rows: int, inputs: int, units: int, layers: int) -> tuple[float, float]:
    """CPU microseconds, one thread, through an LSTM of random weights: of a window [rows, inputs]; of one more row."""
    from penstock.serving.backend import chains, kernel  # they compile as they are imported

    random = np.random.default_rng(0)
    shapes = shapes_of(inputs, units, layers)
    pack = kernel.packed([random.normal(0, 0.1, (MEMBERS, *shape)).astype(np.float32) for shape in shapes])
    windows = random.normal(0, 1, (MEMBERS, rows, inputs)).astype(np.float32)
    index, sizes = np.arange(MEMBERS), np.full(layers, units)
    at, out = index[:, None].copy(), np.empty((MEMBERS, 1), np.float32)
    states = kernel.aligned(np.zeros((MEMBERS, chains.remembered(rows, sizes.tolist()))))
    heads, newest = np.zeros(MEMBERS, np.int64), windows[:, -1].copy()
    chains.learn(pack, sizes, index, states, index, windows, out)
    return (
        _fastest_us(lambda: kernel.answer(pack, sizes, index, at, windows, out)),
        _fastest_us(lambda: chains.follow(pack, sizes, index, states, heads, index, newest, out)),
    )


def _fastest_us(work: Callable[[], object]) -> float:
    """Per member, of the fastest of REPEATS."""
    best = np.inf
    for _ in range(REPEATS):
        begun, passes = time.thread_time(), 0
        while (used := time.thread_time() - begun) < AT_LEAST_S / REPEATS or passes < 1:
            work()
            passes += 1
        best = min(best, used / (passes * MEMBERS))
    return float(best * 1e6)


def shapes_of(inputs: int, units: int, layers: int) -> list[tuple[int, ...]]:
    """As `forward.Shape.arrays` has them, in its order; that file would import TensorFlow."""
    shapes: list[tuple[int, ...]] = [(inputs,)] * 3
    for below in (inputs, *(units,) * (layers - 1)):
        shapes += [(below, 4 * units), (units, 4 * units), (4 * units,)]
    return [*shapes, (units, 1), (1,), (inputs, 1), (1,), (1,), (inputs, 1)]


if __name__ == "__main__":
    print(*kernel_us(*(int(word) for word in sys.argv[1:5])))
