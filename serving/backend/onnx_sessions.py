"""ONNX Runtime as a way to execute a group: a session per member, each on the thread that asks it.

Weights are constants of a session, so that the runtime lays them out once; a block made anew keeps the sessions of
the members that stay. Runs inside Triton, imports nothing of penstock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import onnxruntime

from .forward import DEPTHS, Shape
from .host import F32, Ints
from .onnx_graph import graph_of

ERRORS = 3
"""Severity from which on the runtime writes into Triton's log."""


@dataclass(frozen=True)
class Sessions:
    """A variant of a group: this runtime, for one shape."""

    shape: Shape
    name: str = "onnxruntime"
    jobs: int = 4
    known: WeakValueDictionary[bytes, Any] = field(default_factory=WeakValueDictionary)
    """Sessions by their weights, as long as a block has them. Only the thread that makes blocks uses it."""

    @classmethod
    def begin(cls, shape: Shape) -> Sessions:
        """Nothing is compiled but one member of zeros: that all of what is needed is there."""
        made = cls(shape)
        nothing = made.ready([np.zeros((1, *size), np.float32) for size in shape.arrays().values()])
        for depth in DEPTHS:
            windows = np.zeros((depth, shape.rows, shape.features), np.float32)
            out = np.empty((depth, shape.outputs), np.float32)
            made.run(nothing, np.zeros(1, np.int64), np.arange(depth)[None], windows, out)
        return made

    def ready(self, arrays: Sequence[F32]) -> Any:
        """A session per row of the block; rows that hold nobody share one."""
        names = list(self.shape.arrays())
        return [self._session(dict(zip(names, row, strict=True))) for row in zip(*arrays, strict=True)]

    def run(self, ready: Any, index: Ints, at: Ints, windows: F32, out: F32) -> None:
        """out [at] = answers to windows [at]; job j: row index [j] of the block, `at` [j, depth], -1: none."""
        for row, places in zip(index, at, strict=True):
            mine = places[places >= 0]
            x = np.ascontiguousarray(windows[mine].swapaxes(0, 1))
            (said,) = ready[row].run(["y"], {"x": x})
            said[np.isnan(x).any(axis=(0, 2))] = np.nan  # its gates make a number of what is none
            out[mine] = said

    def _session(self, arrays: Mapping[str, F32]) -> Any:
        key = blake2b(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays.values())).digest()
        found = self.known.get(key)
        if found is None:
            found = self.known[key] = session_of(graph_of(arrays, self.shape.rows))
        return found


def session_of(graph: bytes) -> Any:
    """One that computes on the thread that asks it, and on no other."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = ERRORS
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
