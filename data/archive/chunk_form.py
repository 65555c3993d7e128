"""A chunk as it lies in the store: its shape, the order of its axes, its compressor, its checksum.

The same bytes as Zarr's codecs make and read, without Zarr's pipeline around them: a chunk here is one call in one
thread. An array with other codecs has no form, and goes through Zarr. This file knows nothing of keys and stores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np
from numcodecs import Blosc, blosc
from numpy.typing import NDArray

from penstock.data.archive.blosc_frame import part

BY_TICK = ("bytes", "blosc", "crc32c")
BY_TAG = ("transpose", *BY_TICK)
SHUFFLES = {"noshuffle": Blosc.NOSHUFFLE, "shuffle": Blosc.SHUFFLE, "bitshuffle": Blosc.BITSHUFFLE}
CHECKSUM_BYTES = 4
Columns = slice | NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChunkForm:
    """How every chunk of one array lies in the store."""

    shape: tuple[int, int]
    """[ticks, tags]"""
    dtype: np.dtype[Any]
    fill: Any
    """What an empty cell holds."""
    codec: Blosc
    by_tag: bool
    """Whether a tag's cells lie together; else a tick's do."""

    @classmethod
    def of(cls, array: Any) -> ChunkForm | None:
        """Of an array with the codecs that this file knows; None for another one, and on odd machines."""
        codecs = [codec.to_dict() for codec in array.metadata.codecs]
        names = tuple(c["name"] for c in codecs)
        if names not in (BY_TICK, BY_TAG) or array.dtype.newbyteorder("<") != array.dtype:
            return None
        if names == BY_TAG and tuple(codecs[0]["configuration"]["order"]) != (1, 0):
            return None
        said = codecs[-2]["configuration"]
        codec = Blosc(
            cname=said["cname"], clevel=said["clevel"], shuffle=SHUFFLES[said["shuffle"]], blocksize=said["blocksize"],
            typesize=said["typesize"],
        )  # fmt: skip
        return cls(
            shape=tuple(array.chunks), dtype=array.dtype, fill=array.fill_value, codec=codec, by_tag=names == BY_TAG
        )

    def encode(self, cells: NDArray[Any]) -> bytes:
        """`cells` [ticks, tags], as they are stored; a chunk that is cut short is filled up."""
        if cells.shape != self.shape:
            whole = np.full(self.shape, self.fill, cells.dtype)
            whole[: cells.shape[0], : cells.shape[1]] = cells
            cells = whole
        raw: bytes = self.codec.encode(np.ascontiguousarray(cells.T if self.by_tag else cells))
        checksum: bytes = google_crc32c.value(raw).to_bytes(CHECKSUM_BYTES, "little")
        return raw + checksum

    @property
    def size(self) -> int:
        """Bytes of a decoded chunk."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    def decode(self, raw: NDArray[np.uint8], ticks: slice, tags: Columns, scratch: NDArray[np.uint8]) -> NDArray[Any]:
        """Some ticks and tags of a stored chunk: [ticks, tags], perhaps a view of `scratch` [size or more].

        Raises ValueError where it was damaged.
        """
        body, checksum = raw[:-CHECKSUM_BYTES], raw[-CHECKSUM_BYTES:].tobytes()
        if google_crc32c.value(body).to_bytes(CHECKSUM_BYTES, "little") != checksum:
            raise ValueError("stored and computed checksum of a chunk do not match")
        room = scratch[: self.size]
        frame, first, last = part(body, *self._bytes(ticks, tags))
        blosc.decompress(frame, room[first:last])
        cells = room.view(self.dtype)
        if self.by_tag:  # whole columns are picked first: they lie together
            return np.asarray(cells.reshape(self.shape[::-1])[:, ticks][tags].T)
        rows = cells.reshape(self.shape)[ticks]
        return rows[:, tags] if isinstance(tags, slice) else np.take(rows, tags, axis=1)

    def _bytes(self, ticks: slice, tags: Columns) -> tuple[int, int]:
        """First and one past the last byte of a decoded chunk that hold these cells."""
        if not self.by_tag:
            first, last = ticks.start, ticks.stop
        elif isinstance(tags, slice):
            first, last = tags.start, tags.stop
        else:
            first, last = int(tags.min()), int(tags.max()) + 1
        row = self.size // self.shape[1 if self.by_tag else 0]
        return first * row, last * row

    def is_fill(self, cells: NDArray[Any]) -> bool:
        """Whether a chunk holds nothing but empty cells."""
        if cells.dtype.kind == "f" and np.isnan(self.fill):
            return bool(np.isnan(cells[0]).all() and np.isnan(cells).all())
        return not (cells[0].any() or cells.any()) if self.fill == 0 else not (cells != self.fill).any()
