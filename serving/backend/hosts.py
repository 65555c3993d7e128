"""Hosts: what executes a slot's model inside the engine.

`Group` holds every LSTM of one shape, stacked; `Solo` holds one SavedModel.
Both are values: adding a member makes a new `Group` and leaves the old one
answering whoever still holds it. Runs inside Triton, imports nothing of penstock.
"""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from .forward import F32, MEMBER_BUCKETS, WINDOW_BUCKETS, Shape, build

Cancelled = Callable[[], bool]


class Stopped(Exception):
    """The caller has gone; the rest is not computed."""


@dataclass(frozen=True)
class Group:
    """Stacked members of one shape."""

    shape: Shape
    forward: Callable[..., Any]
    """Of `forward.build`; shared by all generations of the group."""
    stack: tuple[Any, ...]
    """Per array of `Shape.arrays`: a tensor [room, ...]."""
    used: frozenset[int]
    """Rows that hold a member."""
    compiled: int
    """Largest bucket of members that is compiled; larger requests go in pieces."""

    @classmethod
    def begin(cls, shape: Shape) -> Group:
        """An empty group with room for one; compiles every bucket of windows."""
        stack = tuple(tf.zeros([1, *s]) for s in shape.arrays().values())
        group = cls(shape=shape, forward=build(shape), stack=stack, used=frozenset(), compiled=1)
        for n in WINDOW_BUCKETS:
            group._warm(1, n)
        return group

    def add(self, arrays: Mapping[str, F32]) -> tuple[Group, int]:
        """The group with one more member, and its row; room grows by doubling."""
        room = int(self.stack[0].shape[0])
        row = next((r for r in range(room) if r not in self.used), room)
        grown = max(room, 2 * room if row == room else room)
        stack = []
        for old, name in zip(self.stack, self.shape.arrays(), strict=True):
            new = np.zeros((grown, *old.shape[1:]), np.float32)
            new[:room] = old.numpy()
            new[row] = arrays[name]
            stack.append(tf.constant(new))
        group = Group(self.shape, self.forward, tuple(stack), self.used | {row}, self.compiled)
        return group._compile_for(len(group.used)), row

    def drop(self, row: int) -> Group:
        """The group with `row` free; its weights stay until they are written over."""
        return Group(self.shape, self.forward, self.stack, self.used - {row}, self.compiled)

    def run(self, rows: NDArray[np.int32], windows: F32, cancelled: Cancelled) -> F32:
        """One window each: rows [m], windows [m, T, F] -> [m, O]."""
        pieces = []
        for at in range(0, len(rows), self.compiled):
            if cancelled():
                raise Stopped
            index, x = rows[at : at + self.compiled], windows[at : at + self.compiled]
            room = next(b for b in (1, *MEMBER_BUCKETS) if b >= len(index))
            y = self._call(_padded(index, room), _padded(x, room)[:, None])
            pieces.append(y[: len(index), 0])
        return np.concatenate(pieces)

    def run_one(self, row: int, windows: F32, cancelled: Cancelled) -> F32:
        """Many windows of one member: windows [n, T, F] -> [n, O]."""
        pieces = []
        for at in range(0, len(windows), WINDOW_BUCKETS[-1]):
            if cancelled():
                raise Stopped
            x = windows[at : at + WINDOW_BUCKETS[-1]]
            room = next(b for b in WINDOW_BUCKETS if b >= len(x))
            y = self._call(np.array([row], np.int32), _padded(x, room)[None])
            pieces.append(y[0, : len(x)])
        return np.concatenate(pieces)

    def _call(self, index: NDArray[np.int32], x: F32) -> F32:
        out: F32 = self.forward(tf.constant(index), tf.constant(x), list(self.stack)).numpy()
        return out

    def _compile_for(self, members: int) -> Group:
        """Compiled up to the bucket that holds `members`, before anybody asks for that many."""
        wanted = [b for b in MEMBER_BUCKETS if b // 2 < members]
        for bucket in wanted:
            if bucket > self.compiled:
                self._warm(bucket, 1)
        return Group(self.shape, self.forward, self.stack, self.used, max([self.compiled, *wanted]))

    def _warm(self, m: int, n: int) -> None:
        self._call(np.zeros(m, np.int32), np.zeros((m, n, self.shape.rows, self.shape.features), np.float32))


def _padded(x: Any, room: int) -> Any:
    return x if len(x) == room else np.concatenate([x, np.zeros((room - len(x), *x.shape[1:]), x.dtype)])


@dataclass(frozen=True)
class Solo:
    """One SavedModel with a slot of its own."""

    module: Any
    """Kept alive: a signature holds its variables weakly."""
    call: Callable[[Any], Any]

    @classmethod
    def load(cls, archive: bytes, folder: Path) -> Solo:
        """A zipped SavedModel, unpacked under `folder` while it loads.

        Raises ValueError when it has no endpoint that takes one tensor.
        """
        with tempfile.TemporaryDirectory(dir=folder) as place:
            with zipfile.ZipFile(io.BytesIO(archive)) as packed:
                packed.extractall(place)
            found = sorted(Path(place).rglob("saved_model.pb"))
            if not found:
                raise ValueError("the archive holds no saved_model.pb")
            module = tf.saved_model.load(str(found[0].parent))
        if hasattr(module, "serve"):
            return cls(module=module, call=module.serve)
        if "serving_default" not in module.signatures:
            raise ValueError("the SavedModel has neither `serve` nor `serving_default`")
        signature = module.signatures["serving_default"]
        key = next(iter(signature.structured_input_signature[1]))
        return cls(module=module, call=lambda x: next(iter(signature(**{key: x}).values())))

    def run(self, rows: NDArray[np.int32], windows: F32, cancelled: Cancelled) -> F32:
        """windows [m, T, F] -> [m, O]; `rows` are all 0."""
        return self.run_one(0, windows, cancelled)

    def run_one(self, row: int, windows: F32, cancelled: Cancelled) -> F32:
        """windows [n, T, F] -> [n, O], padded to the buckets that the golden run compiled."""
        pieces = []
        for at in range(0, len(windows), WINDOW_BUCKETS[-1]):
            if cancelled():
                raise Stopped
            x = windows[at : at + WINDOW_BUCKETS[-1]]
            room = next(b for b in WINDOW_BUCKETS if b >= len(x))
            y = np.asarray(self.call(tf.constant(_padded(x, room))))
            pieces.append(y.reshape(room, -1)[: len(x)].astype(np.float32))
        return np.concatenate(pieces)

    def drop(self, row: int) -> None:
        """Nothing stays of it."""

    def warm(self, rows: int, features: int) -> None:
        """Run every bucket once, so that nothing is traced on the request path."""
        for n in WINDOW_BUCKETS:
            self.run_one(0, np.zeros((n, rows, features), np.float32), lambda: False)


Host = Group | Solo
