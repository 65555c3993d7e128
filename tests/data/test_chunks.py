"""Chunks that go past Zarr's pipeline lie in the store as Zarr would have put them, byte for byte."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, TransposeCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import MemoryStore

from penstock.data.archive.chunk_form import ChunkForm
from penstock.data.archive.chunks import ChunkWriter

SHAPE, CHUNKS = (20, 50), (8, 16)
KINDS = [("float32", np.nan, "lz4"), ("float64", np.nan, "zstd"), ("uint16", 0, "lz4"), ("uint32", 0, "zstd")]
BY_TAG = [False, True]


def made(dtype: str, fill: Any, cname: Any, by_tag: bool = False) -> zarr.Array[Any]:
    codecs = [BloscCodec(cname=cname, clevel=1, shuffle="shuffle"), Crc32cCodec()]
    turned = [TransposeCodec(order=(1, 0))] if by_tag else None
    root = zarr.create_group(MemoryStore())
    return root.create_array(
        "a/value", shape=SHAPE, chunks=CHUNKS, dtype=dtype, fill_value=fill, filters=turned, compressors=codecs
    )


def stored(array: zarr.Array[Any]) -> dict[str, bytes]:
    async def read() -> dict[str, bytes]:
        found = {}
        async for key in array.store.list():
            buffer = await array.store.get(key, default_buffer_prototype())
            assert buffer is not None
            found[key] = buffer.to_bytes()
        return found

    return sync(read())


@pytest.mark.parametrize("by_tag", BY_TAG)
@pytest.mark.parametrize(("dtype", "fill", "cname"), KINDS)
def test_the_same_bytes_as_zarr_writes(dtype: str, fill: Any, cname: str, by_tag: bool) -> None:
    """A block from a chunk's corner to both edges, whose chunks are cut short there; one of its chunks is empty."""
    block = np.random.default_rng(3).normal(50, 9, (12, 34)).astype(dtype)
    block[:8, :16] = fill
    plain, ours, writer = made(dtype, fill, cname, by_tag), made(dtype, fill, cname, by_tag), ChunkWriter()
    plain[8:20, 16:50] = block
    writer.put([ours], [block], 8, 16, new=True)
    writer.flush()
    writer.close()
    assert stored(ours) == stored(plain)
    assert np.array_equal(np.asarray(ours[8:20, 16:50]), block, equal_nan=dtype.startswith("float"))
    assert len([key for key in stored(ours) if "/c/" in key]) == 5  # six chunks without the empty one


def test_what_lay_there_is_replaced_by_nothing_too() -> None:
    array, writer = made("uint32", 0, "lz4"), ChunkWriter()
    array[:8, :16] = 7
    writer.put([array], [np.zeros((8, 16), np.uint32)], 0, 0, new=False)
    writer.flush()
    writer.close()
    assert not np.asarray(array[:]).any()


def test_an_array_with_other_codecs_is_written_by_zarr() -> None:
    root, writer = zarr.create_group(MemoryStore()), ChunkWriter()
    array = root.create_array("a", shape=SHAPE, chunks=CHUNKS, dtype="float32", fill_value=np.nan)
    assert ChunkForm.of(array) is None
    block = np.arange(8 * 16, dtype=np.float32).reshape(8, 16)
    writer.put([array], [block], 8, 16, new=True)
    writer.close()
    assert np.array_equal(np.asarray(array[8:16, 16:32]), block)
