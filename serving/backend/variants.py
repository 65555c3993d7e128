"""What can execute a group: the ways that there are, and which one a new shape begins with.

Runs inside Triton, imports nothing of penstock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np

from .forward import GRAPH, HALF, XLA, Shape, Stacked
from .host import F32, Ints

KERNEL = "kernel"
ONNX = "onnxruntime"
NAMES = (KERNEL, XLA, GRAPH, HALF, ONNX)
"""The first that this machine can execute is what a new shape begins with; `penstock optimize` measures them all."""
NEEDS = {KERNEL: ("numba",), ONNX: ("onnx", "onnxruntime")}
"""Packages that are not everywhere that penstock's engine is taken to."""


class Variant(Protocol):
    """One way to execute the members of a block."""

    @property
    def name(self) -> str:
        """One of NAMES."""

    @property
    def jobs(self) -> int:
        """Most jobs of one call: few where a call costs little, so that two threads end together."""

    def ready(self, arrays: Sequence[F32]) -> Any:
        """A block's arrays [BLOCK, ...], in the order of `Shape.arrays`, as `run` wants them."""

    def run(self, ready: Any, index: Ints, at: Ints, windows: F32, out: F32) -> None:
        """out [at] = answers to windows [at]; job j: row index [j] of the block, `at` [j, depth], -1: none."""


@dataclass(frozen=True)
class Kernel:
    """Machine code that serves every shape."""

    units: Ints
    """Per layer."""
    code: Any
    """`kernel.py`"""
    chains: Any
    """`chains.py`: the same, a row at a time."""
    name: str = KERNEL
    jobs: int = 8

    def ready(self, arrays: Sequence[F32]) -> Any:
        """See `Variant`."""
        return self.code.packed(arrays)

    def run(self, ready: Any, index: Ints, at: Ints, windows: F32, out: F32) -> None:
        """See `Variant`."""
        self.code.answer(ready, self.units, np.ascontiguousarray(index), np.ascontiguousarray(at), windows, out)


def missing(name: str) -> tuple[str, ...]:
    """Packages that this machine lacks to execute it so."""
    return tuple(package for package in NEEDS.get(name, ()) if find_spec(package) is None)


def possible(name: str) -> bool:
    """Whether this machine can execute a group so."""
    return name in NAMES and not missing(name)


def begin(name: str, shape: Shape) -> Variant:
    """Compiled for `shape`. Raises ValueError for a name that is none, ImportError where packages are missing."""
    if name not in NAMES:
        raise ValueError(f"{name} is no way to execute a group: {', '.join(NAMES)}")
    if lacks := missing(name):
        raise ImportError(f"not installed where Triton runs: pip install {' '.join(lacks)}")
    if name == KERNEL:
        from . import chains, kernel

        return Kernel(units=np.array(shape.units, np.int64), code=kernel, chains=chains)
    if name == ONNX:
        from .onnx_sessions import Sessions

        return Sessions.begin(shape)
    return Stacked.begin(name, shape)


def standard(shape: Shape) -> Variant:
    """What a shape begins with that nobody has measured."""
    return begin(next(name for name in NAMES if possible(name)), shape)
