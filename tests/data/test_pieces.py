"""What is read past Zarr's pipeline is what Zarr reads, whatever is asked for; and segments of older versions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from reading_strategies import raw
from zarr.codecs import BloscCodec, Crc32cCodec, TransposeCodec
from zarr.storage import MemoryStore

from penstock.data.archive import Archive
from penstock.data.archive.chunk_form import ChunkForm
from penstock.data.archive.pieces import fetch, pieces, read_block, through_zarr
from penstock.data.grid import PRESENT, Cells, Grid
from penstock.data.plant import HOUR_NS

GRID = Grid(period_ns=HOUR_NS)
TICKS, TAGS, TILE = 19, 13, (8, 4)
KINDS = [("float32", np.nan, False), ("float64", np.nan, True), ("uint16", 0, True), ("uint32", 0, False)]
OLD = [BloscCodec(cname="zstd", clevel=1, shuffle="shuffle"), Crc32cCodec()]
"""Of segments that were closed before they lay tag after tag."""


def made(dtype: str, fill: Any, by_tag: bool) -> zarr.Array[Any]:
    """Random cells, one tile of which is empty, so that it has no chunk."""
    root = zarr.create_group(MemoryStore())
    turned = [TransposeCodec(order=(1, 0))] if by_tag else None
    array = root.create_array(
        "a", shape=(TICKS, TAGS), chunks=TILE, dtype=dtype, fill_value=fill, filters=turned, compressors=OLD
    )
    cells = np.random.default_rng(2).normal(50, 9, (TICKS, TAGS)).astype(dtype)
    cells[8:16, 4:8] = fill
    array[...] = cells
    return array


ARRAYS = [made(*kind) for kind in KINDS]


@given(st.sampled_from(ARRAYS), st.lists(st.integers(0, TAGS + 3), unique=True), st.data())
@settings(max_examples=150, deadline=None)
def test_pieces_are_what_zarr_reads(array: Any, columns: list[int], data: st.DataObject) -> None:
    """Any columns in any order, some of which the array lacks, into any columns of the caller's."""
    first = data.draw(st.integers(0, TICKS - 1))
    last = data.draw(st.integers(first, TICKS))
    where = np.array(data.draw(st.permutations(range(len(columns)))), np.intp)
    got = np.full((last - first, len(columns)), array.fill_value, array.dtype)
    form = ChunkForm.of(array)
    assert form is not None
    fetch(pieces(array, form, slice(first, last), np.array(columns, np.int64), got, where))

    whole = np.full((TICKS, TAGS + 4), array.fill_value, array.dtype)
    whole[:, :TAGS] = array[...]
    expected = np.empty_like(got)
    for column, place in zip(columns, where, strict=True):
        expected[:, place] = whole[first:last, column]
    assert got.tobytes() == expected.tobytes()
    by_zarr = np.full_like(got, array.fill_value)
    through_zarr(array, slice(first, last), np.array(columns, np.int64), by_zarr, where)
    assert by_zarr.tobytes() == expected.tobytes()


def test_more_chunks_than_are_fetched_together() -> None:
    array = zarr.create_group(MemoryStore()).create_array(
        "a", shape=(700, 3), chunks=(2, 2), dtype="uint32", fill_value=0, compressors=OLD
    )
    array[...] = np.arange(2100, dtype=np.uint32).reshape(700, 3)
    got = np.zeros((700, 3), np.uint32)
    read_block(array, slice(0, 700), 0, got)
    assert got.ravel().tolist() == list(range(2100))


def test_a_chunk_that_is_no_chunk_is_an_error() -> None:
    array = made("float32", np.nan, False)
    form = ChunkForm.of(array)
    assert form is not None
    body = b"nothing that was compressed"
    scratch = np.empty(form.size, np.uint8)
    with pytest.raises(ValueError, match="checksum"):
        form.decode(np.frombuffer(body, np.uint8), slice(0, 1), slice(0, 1), scratch)
    with pytest.raises(ValueError, match="checksum"):
        form.decode(np.zeros(2, np.uint8), slice(0, 1), slice(0, 1), scratch)


def full(first: int, k: int, m: int, seed: int) -> Cells:
    random = np.random.default_rng(seed)
    offset = random.integers(0, 2**32, (k, m), dtype=np.uint32)
    values = random.normal(50, 3, (k, m)).round(2).astype(np.float32)
    return Cells(first=first, values=values, quality=np.full((k, m), PRESENT, np.uint16), offset=offset)


def by_hand(folder: Path, tags: int) -> Cells:
    """An archive whose first segment was closed by an older version, written with Zarr alone; what it holds."""
    archive = Archive.create(folder, GRID)
    ticks, held = archive.segment_ticks, full(0, archive.segment_ticks, tags, 1)
    held.offset[:, 1:] = 0
    session = archive.repository.writable_session("main")
    root = zarr.open_group(session.store)
    known: Any = root["double"]
    known.resize((tags,))
    cells = {"value": (held.values, np.nan), "quality": (held.quality, 0), "offset": (held.offset, 0)}
    for name, (block, fill) in cells.items():
        array = root.create_array(
            f"{GRID.period_ns}/float32/closed.0/{name}", shape=(ticks, tags), chunks=(8192, 64), dtype=block.dtype,
            fill_value=fill, compressors=OLD, dimension_names=["time", "tag"],
        )  # fmt: skip
        array[...] = block
    said = {"position": 5, "closed": ticks, "source_offsets": {}, "totals": {}, "span": [0, ticks]}
    session.commit("by an older version", metadata=said)
    return held


def test_a_segment_that_an_older_version_closed_is_read_and_written(tmp_path: Path) -> None:
    """A late cell goes into it, and it stays as it lies; the next segment is closed in the new way beside it."""
    tags = 70
    held = by_hand(tmp_path / "archive", tags)
    archive, ids = Archive.open(tmp_path / "archive"), np.arange(tags, dtype=np.int32)
    ticks = archive.segment_ticks
    assert raw(archive.read(ids, 0, ticks)) == raw(held)
    assert raw(archive.read(ids[[69, 2]], 8000, 8300)) == raw(picked(held.rows(8000, 8300), ids[[69, 2]]))

    late, more = full(8100, 200, tags, 2), full(ticks, ticks, tags, 3)
    with archive.committer() as committer:
        tick = 8100
        while tick < 8300:
            last = min(committer.block("float32", tick)[1], 8300)
            committer.merge("float32", 0, late.rows(tick, last))
            tick = last
        for tick in range(ticks, 2 * ticks, 512):
            committer.merge("float32", 0, more.rows(tick, min(tick + 512, 2 * ticks)))
        committer.commit(6, 2 * ticks, {}, {})
        committer.close_segment("float32", 1)
    held.merge(late)
    assert raw(archive.read(ids, 0, ticks)) == raw(held)
    assert raw(archive.read(ids, ticks, 2 * ticks)) == raw(more)
    few = ids[[60, 10, 3, 69]]  # of a chunk's 64 tags, in whose blocks of four they are the first and others
    assert raw(archive.read(few, ticks, 2 * ticks)) == raw(picked(more, few))
    both = archive.read(ids[5:7], ticks - 3, ticks + 3)
    assert both.values.tolist() == np.concatenate([held.values[-3:, 5:7], more.values[:3, 5:7]]).tolist()
    view = archive.view()
    forms = [view.form(view.segments["float32", index], "value") for index in (0, 1)]
    assert [form is not None and form.by_tag for form in forms] == [False, True]


def picked(cells: Cells, tags: NDArray[np.int32]) -> Cells:
    return Cells(
        first=cells.first, values=cells.values[:, tags], quality=cells.quality[:, tags], offset=cells.offset[:, tags]
    )


def test_zarr_reads_what_was_closed(tmp_path: Path) -> None:
    """Without a line of ours: the new form is one of Zarr's own."""
    archive, held = Archive.create(tmp_path / "archive", GRID), full(0, 8784, 11, 4)
    held.offset[...] = 0
    with archive.committer() as committer:
        committer.admit(np.zeros(11, bool))
        for tick in range(0, 8784, 512):
            committer.merge("float32", 0, held.rows(tick, min(tick + 512, 8784)))
        committer.commit(1, 8784, {}, {})
        committer.close_segment("float32", 0)
    root = zarr.open_group(archive.repository.readonly_session("main").store, mode="r")
    segment: Any = root[f"{GRID.period_ns}/float32/closed.0"]
    assert np.asarray(segment["value"][...]).tobytes() == held.values.tobytes()
    assert np.asarray(segment["quality"][...]).tobytes() == held.quality.tobytes()
    assert not np.asarray(segment["offset"][...]).any()
    assert segment["value"].metadata.codecs[-1] == Crc32cCodec()
