"""Rows of a view that lie as long arrays, by tick: chunks are read when they are needed, and kept.

One state of a view never changes, so neither does a chunk of it. Bounded; threads may share it. Knows neither what the
columns mean nor how they are written.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

KEPT_BYTES = 16 << 20
"""Of one view's chunks: some five times 65,536 rows."""


class Columns:
    """The arrays below one group, all of one length; "ticks" rises."""

    def __init__(self, root: zarr.Group) -> None:
        self._root = root
        self._lock = threading.RLock()
        self._arrays: dict[str, Any] = {}
        self._chunks: dict[tuple[str, int], NDArray[Any]] = {}
        self._begins: dict[int, int] = {}
        """First tick of those chunks that were looked at: a search needs no more of them."""

    def read(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Rows start..stop-1 of an array: a copy."""
        array = self._array(name)
        long = array.chunks[0]
        parts = []
        for number in range(start // long, -(-stop // long)):
            begin = number * long
            parts.append(self._chunk(name, number)[max(start - begin, 0) : stop - begin])
        return np.concatenate(parts) if parts else np.zeros((0, *array.shape[1:]), array.dtype)

    def place(self, tick: int) -> int:
        """How many rows have a smaller tick."""
        ticks = self._array("ticks")
        low, high = 0, -(-ticks.shape[0] // ticks.chunks[0])
        while low < high:  # the first chunk that begins at `tick` or behind it
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self._begin(middle) < tick else (low, middle)
        if low == 0:
            return 0
        return (low - 1) * int(ticks.chunks[0]) + int(np.searchsorted(self._chunk("ticks", low - 1), tick))

    def _begin(self, number: int) -> int:
        if number not in self._begins:
            self._begins[number] = int(self._chunk("ticks", number)[0])
        return self._begins[number]

    def _array(self, name: str) -> Any:
        if name not in self._arrays:
            self._arrays[name] = self._root[name]
        return self._arrays[name]

    def _chunk(self, name: str, number: int) -> NDArray[Any]:
        with self._lock:
            known = self._chunks.pop((name, number), None)
            if known is None:
                array = self._array(name)
                long = array.chunks[0]
                known = np.asarray(array[number * long : (number + 1) * long])
            self._chunks[name, number] = known  # newest last
            while len(self._chunks) > 1 and sum(each.nbytes for each in self._chunks.values()) > KEPT_BYTES:
                self._chunks.pop(next(iter(self._chunks)))
            return known
