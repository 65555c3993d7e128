"""An LSTM of two layers by the engine's machine code, for whatever processor numba is told to compile for.

`python narrow_network.py FILE` writes: lanes, answers to windows asked together, alone, and row by row.
"""

from __future__ import annotations

import sys

import numpy as np

from penstock.serving.backend import chains, kernel, tile
from penstock.size_kernel import shapes_of

ROWS, INPUTS, UNITS, LAYERS, WINDOWS = 9, 5, 11, 2, 7


def arrays() -> list[np.ndarray]:
    """Of two members, in the order of `forward.Shape.arrays`; no inputs relative to the newest row."""
    random = np.random.default_rng(3)
    made = [random.normal(0, 0.4, (2, *shape)).astype(np.float32) for shape in shapes_of(INPUTS, UNITS, LAYERS)]
    made[0][:] = 0
    return made


def windows() -> np.ndarray:
    """[n, T, F], each the one before, moved by a row."""
    past = np.random.default_rng(4).normal(0, 1, (ROWS + WINDOWS - 1, INPUTS)).astype(np.float32)
    return np.stack([past[k : k + ROWS] for k in range(WINDOWS)])


def main(file: str) -> None:
    pack, units, x = kernel.packed(arrays()), np.full(LAYERS, UNITS), windows()
    member, out = np.array([1]), {name: np.empty((WINDOWS, 1), np.float32) for name in ("together", "alone", "rows")}
    kernel.answer(pack, units, member, np.arange(WINDOWS)[None], x, out["together"])
    for k in range(WINDOWS):
        kernel.answer(pack, units, member, np.array([[k]]), x, out["alone"])
    states = kernel.aligned(np.zeros((2, chains.remembered(ROWS, units.tolist()))))
    chains.learn(pack, units, member, states, np.array([0]), x, out["rows"])
    for k in range(1, WINDOWS):
        chains.follow(pack, units, member, states, np.array([k % ROWS]), np.array([k]), x[:, -1].copy(), out["rows"])
    np.savez(file, lanes=tile.LANES, **out)


if __name__ == "__main__":
    main(sys.argv[1])
