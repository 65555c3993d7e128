"""Reading: which parts of which chunks go where, and the fetching of them.

Planned first, chunk by chunk; then all pieces - of several arrays and segments at once - are fetched beside each other
and decoded by threads straight into the caller's arrays. A chunk that is not there leaves the caller's cells as they
are, so these must be empty cells. This file knows nothing of tags and snapshots.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from penstock.data.archive.chunk_form import ChunkForm, Columns
from penstock.data.grid import spaced

AT_ONCE = 48
"""Chunks that are under way together: up to some MB each."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Piece:
    """A part of one chunk, and where it goes."""

    store: Any
    key: str
    form: ChunkForm
    ticks: slice
    """Of the chunk."""
    tags: Columns
    """Of the chunk."""
    into: NDArray[Any]
    """[ticks, m] a view of the caller's array."""
    columns: Columns
    """Of it, one for each of `tags`."""

    def take(self, raw: NDArray[np.uint8], scratch: NDArray[np.uint8]) -> None:
        """Decode and copy. `scratch`: room for a decoded chunk. Raises ValueError where the chunk was damaged."""
        try:
            self.into[:, self.columns] = self.form.decode(raw, self.ticks, self.tags, scratch)
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"{self.key}: {error}") from error


Came = tuple[Piece, NDArray[np.uint8]]
"""A piece, and its chunk as it lies in the store."""


def pieces(
    array: Any, form: ChunkForm, ticks: slice, columns: NDArray[np.int64], into: NDArray[Any], where: NDArray[np.intp]
) -> Iterator[Piece]:
    """into[:, where] = array[ticks, columns], chunk by chunk; columns that the array lacks are left out.

    into: [ticks, m]; columns, where: [n].
    """
    long, wide = form.shape
    there = columns < array.shape[1]
    columns, where = columns[there], where[there]
    numbers = columns // wide
    for number in np.unique(numbers).tolist():
        picked = np.flatnonzero(numbers == number)
        tags, to = columns[picked] - number * wide, where[picked]
        for begin in range(ticks.start // long * long, ticks.stop, long):
            t0, t1 = max(begin, ticks.start), min(begin + long, ticks.stop)
            yield Piece(
                store=array.store, key=f"{array.path}/{array.metadata.encode_chunk_key((begin // long, number))}",
                form=form, ticks=slice(t0 - begin, t1 - begin), tags=_columns(tags),
                into=into[t0 - ticks.start : t1 - ticks.start], columns=_columns(to),
            )  # fmt: skip


def fetch(wanted: Iterable[Piece]) -> None:
    """Fill the caller's arrays. Raises what the store raises, and ValueError where a chunk was damaged."""
    left = iter(wanted)
    while some := list(islice(left, AT_ONCE)):
        _fetch(some)


def read_block(array: Any, ticks: slice, column: int, into: NDArray[Any]) -> None:
    """into [k, m] = array[ticks, column:column + m], whatever form its chunks have."""
    form, where = ChunkForm.of(array), np.arange(into.shape[1])
    if form is None:
        through_zarr(array, ticks, where + column, into, where)
    else:
        fetch(pieces(array, form, ticks, where + column, into, where))


def through_zarr(
    array: Any, ticks: slice, columns: NDArray[np.int64], into: NDArray[Any], where: NDArray[np.intp]
) -> None:
    """As `pieces` and `fetch`, for an array whose chunks have a form that only Zarr knows."""
    there = columns < array.shape[1]
    if there.any():
        into[:, where[there]] = array.oindex[ticks, columns[there]]


def _fetch(wanted: list[Piece]) -> None:
    came: SimpleQueue[Came | None] = SimpleQueue()
    decoders = min(len(os.sched_getaffinity(0)), len(wanted))  # more of them would only take turns
    room = max(piece.form.size for piece in wanted)
    with ThreadPoolExecutor(decoders, thread_name_prefix="decode") as pool:
        decoding = [pool.submit(_decode, came, room) for _ in range(decoders)]
        sync(_get(wanted, came, decoders))
    for each in decoding:
        each.result()


async def _get(wanted: list[Piece], came: SimpleQueue[Came | None], decoders: int) -> None:
    """All chunks beside each other; at the end a None for every decoder."""
    buffer = default_buffer_prototype()

    async def one(piece: Piece) -> None:
        raw = await piece.store.get(piece.key, buffer)
        if raw is not None:
            came.put((piece, raw.as_numpy_array()))

    try:
        await asyncio.gather(*map(one, wanted))
    finally:
        for _ in range(decoders):
            came.put(None)


def _decode(came: SimpleQueue[Came | None], room: int) -> None:
    scratch = np.empty(room, np.uint8)  # new memory for every chunk would cost as much as decoding it
    while (one := came.get()) is not None:
        piece, raw = one
        piece.take(raw, scratch)


def _columns(at: NDArray[np.integer[Any]]) -> Columns:
    """A slice where that picks the same: it copies several times faster."""
    even = spaced(at)
    return at.astype(np.int64) if even is None else even
