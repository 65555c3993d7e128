"""One snapshot of the archive, opened: its segments, its arrays, and how their chunks lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from penstock.data.archive.chunk_form import ChunkForm
from penstock.data.archive.repository import SegmentName, segments
from penstock.data.grid import Grid


class View:
    """One snapshot, opened: its arrays are found once."""

    def __init__(self, root: zarr.Group, grid: Grid) -> None:
        self.root = root
        self.grid = grid
        self.segments = segments(root, grid)
        self.double: NDArray[np.bool_] = np.asarray(root["double"][:], dtype=bool)  # type: ignore[index]
        self.index = np.where(self.double, np.cumsum(self.double), np.cumsum(~self.double)) - 1
        self._arrays: dict[tuple[SegmentName, str], Any] = {}
        self._forms: dict[tuple[SegmentName, str], ChunkForm | None] = {}

    def array(self, name: SegmentName, which: str) -> Any:
        """The Zarr array `which` of a segment."""
        key = (name, which)
        if key not in self._arrays:
            self._arrays[key] = self.root[f"{name.path(self.grid.period_ns)}/{which}"]
        return self._arrays[key]

    def form(self, name: SegmentName, which: str) -> ChunkForm | None:
        """How the chunks of that array lie; None: only Zarr knows."""
        key = (name, which)
        if key not in self._forms:
            self._forms[key] = ChunkForm.of(self.array(name, which))
        return self._forms[key]
