"""The windows of a tick, of any shapes, as the two arrays that travel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.errors import BadRequest

Float32 = NDArray[np.float32]
Windows = Sequence[Float32] | Float32
"""M windows: arrays [T, F] of any shapes, or one array [M, T, F]."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bundle:
    """M windows, one behind the other."""

    shapes: NDArray[np.int32]
    """[M, 2] T and F of each."""
    numbers: Float32
    """[sum T*F]"""

    def __len__(self) -> int:
        return len(self.shapes)

    @classmethod
    def of(cls, windows: Windows) -> Bundle:
        """Windows one by one. Raises BadRequest where one is not [T, F]."""
        if isinstance(windows, np.ndarray) and windows.ndim == 3:
            return cls.stacked([windows])
        if wrong := [np.shape(w) for w in windows if np.ndim(w) != 2]:
            raise BadRequest(f"a window has shape {wrong[0]}: give [T, F] each, or one array [M, T, F]")
        return cls.stacked([np.asarray(w)[None] for w in windows])

    @classmethod
    def stacked(cls, stacks: Sequence[Float32]) -> Bundle:
        """Stacks of windows [n, T, F], n being 0 where somebody has none."""
        shapes = np.array([s.shape for s in stacks], np.int32).reshape(-1, 3)
        flat = [np.asarray(s, np.float32).reshape(-1) for s in stacks]
        return cls(
            shapes=np.repeat(shapes[:, 1:], shapes[:, 0], axis=0),
            numbers=np.concatenate(flat) if len(flat) != 1 else flat[0],
        )
