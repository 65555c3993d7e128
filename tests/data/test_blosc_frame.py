"""A part of what Blosc compressed decompresses, by Blosc itself, to those bytes of the whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numcodecs import Blosc, blosc
from numpy.typing import NDArray

from penstock.data.archive.blosc_frame import HEADER, STORED, part

SIZE = 200_000
"""Bytes; no multiple of a block's."""
RANDOM = np.random.default_rng(1)
CONTENTS = {
    "rising": np.arange(SIZE // 4, dtype=np.uint32).view(np.uint8),
    "noise": RANDOM.integers(0, 256, SIZE, dtype=np.uint8),
    "words": RANDOM.integers(0, 50, SIZE // 8).astype(np.float64).view(np.uint8),
    "nothing": np.zeros(SIZE, np.uint8),
}
FRAMES = {
    (name, cname, typesize, block): np.frombuffer(
        Blosc(cname=cname, clevel=5, shuffle=1, blocksize=block, typesize=typesize).encode(content), np.uint8
    )
    for name, content in CONTENTS.items()
    for cname in ("lz4", "zstd")
    for typesize in (2, 4, 8)
    for block in (0, 1 << 12)
}


def decompressed(frame: NDArray[np.uint8]) -> bytes:
    return bytes(blosc.decompress(np.ascontiguousarray(frame)))


@given(st.sampled_from(sorted(FRAMES)), st.integers(0, SIZE - 1), st.data())
@settings(max_examples=300, deadline=None)
def test_a_part_is_those_bytes_of_the_whole(which: tuple[str, str, int, int], begin: int, data: st.DataObject) -> None:
    end = data.draw(st.integers(begin + 1, SIZE))
    made, first, last = part(FRAMES[which], begin, end)
    assert first <= begin < end <= last
    assert decompressed(made) == CONTENTS[which[0]][first:last].tobytes()


@pytest.mark.parametrize("name", ["rising", "noise"])
def test_what_is_not_wanted_is_left_out(name: str) -> None:
    frame = FRAMES[name, "lz4", 4, 1 << 12]
    made, first, last = part(frame, 100_000, 100_010)
    assert last - first <= 1 << 16
    assert len(made) < len(frame) / 2
    assert bool(frame[2] & STORED) == (name == "noise"), "both ways are tried"


def test_blocks_that_lie_in_disorder_are_left_together() -> None:
    """As several threads write them: here the first two, of equal length, change places."""
    frame = FRAMES["nothing", "zstd", 4, 1 << 12].copy()
    size, block, _ = frame[4:HEADER].view("<u4").tolist()
    places = frame[HEADER : HEADER + 4 * -(-size // block)].view("<u4")
    places[[0, 1]] = places[[1, 0]]
    made, first, last = part(frame, 0, 10)
    assert (first, last) == (0, SIZE)
    assert decompressed(made) == bytes(SIZE)


def test_a_frame_of_another_version_or_none_is_left_to_blosc() -> None:
    frame = FRAMES["rising", "lz4", 4, 1 << 12].copy()
    frame[0] = 3
    assert part(frame, 0, 10)[0] is frame
    assert part(frame[:7], 0, 10)[0].tolist() == frame[:7].tolist()
