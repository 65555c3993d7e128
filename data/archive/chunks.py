"""Whole chunks of a segment's arrays, encoded as Zarr would and stored beside each other.

Zarr's own way to write an array costs several times what compressing it does: it copies every chunk, compares it with
the fill value, and goes through its event loop once per codec. Here threads encode - the same codecs, the same bytes -
while the caller goes on merging. This file knows nothing of readings and commits.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from numpy.typing import NDArray
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from penstock.data.archive.chunk_form import ChunkForm

WAITING = 24
"""Chunks that may wait for their encoding, raw: some MB each."""
Encoded = tuple[str, bytes] | None
"""Key in the store, and what lies there; None: nothing need lie there."""


class ChunkWriter:
    """Writes to one session's store; what was put is there after `flush`."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max(1, len(os.sched_getaffinity(0))), thread_name_prefix="chunks")
        self._encoding: deque[tuple[Any, Future[Encoded]]] = deque()
        self._forms: dict[str, ChunkForm | None] = {}

    def put(self, arrays: Sequence[Any], blocks: Sequence[NDArray[Any]], row: int, column: int, *, new: bool) -> None:
        """Store a block [k, m] in each of `arrays`; (row, column) is a chunk's corner, and whole chunks are filled.

        At the array's right and lower edge chunks may be cut short. `new`: nothing lies there yet, so that a chunk
        of fill values need not be written.
        """
        for array, block in zip(arrays, blocks, strict=True):
            form = self._form(array)
            if form is None:
                array[row : row + len(block), column : column + block.shape[1]] = block
                continue
            long, wide = form.shape
            for r in range(0, len(block), long):
                for c in range(0, block.shape[1], wide):
                    part = block[r : r + long, c : c + wide]
                    key = f"{array.path}/{array.metadata.encode_chunk_key(((row + r) // long, (column + c) // wide))}"
                    if len(self._encoding) >= WAITING:
                        self._store(len(self._encoding) // 2)
                    self._encoding.append((array.store, self._pool.submit(_encoded, key, part, form, new)))

    def flush(self) -> None:
        """Wait until all of it is in the store."""
        self._store(len(self._encoding))

    def close(self) -> None:
        """End the threads; what was not flushed is forgotten."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._encoding.clear()

    def _form(self, array: Any) -> ChunkForm | None:
        if array.path not in self._forms:
            self._forms[array.path] = ChunkForm.of(array)
        return self._forms[array.path]

    def _store(self, count: int) -> None:
        done = [self._encoding.popleft() for _ in range(count)]
        pairs = [(store, *encoded) for store, future in done if (encoded := future.result()) is not None]
        if pairs:
            sync(_set_all(pairs))


async def _set_all(pairs: Sequence[tuple[Any, str, bytes]]) -> None:
    buffer = default_buffer_prototype().buffer
    await asyncio.gather(*(store.set(key, buffer.from_bytes(raw)) for store, key, raw in pairs))


def _encoded(key: str, part: NDArray[Any], form: ChunkForm, new: bool) -> Encoded:
    return None if new and form.is_fill(part) else (key, form.encode(part))
