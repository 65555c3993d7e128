"""Nearest and linear joins against one reading after the other, in exact fractions of a period."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.data.grid import PRESENT, Cells
from penstock.data.joining import join

WAYS = pytest.mark.parametrize("linear", [False, True], ids=["nearest", "linear"])
OFFSETS = [0, 0, 1, 1 << 30, 1 << 31, (1 << 32) - 1]


@st.composite
def cells(draw: st.DrawFn) -> Cells:
    """Two tags, most cells empty, as of a slow source."""
    k = draw(st.integers(4, 14))

    def column(of: list[int] | list[float]) -> list[float]:
        return draw(st.lists(st.sampled_from(of), min_size=2 * k, max_size=2 * k))

    return Cells(
        first=draw(st.integers(-5, 5)),
        values=np.array(column([0.0, 1.0, -3.5, 0.1, 1e6]), np.float32).reshape(k, 2),
        quality=np.array(column([0, 0, PRESENT]), np.uint16).reshape(k, 2),
        offset=np.array(column(OFFSETS), np.uint32).reshape(k, 2),
    )


def joined(block: Cells, linear: bool, bound: int) -> np.ndarray:
    good, m = block.quality == PRESENT, block.values.shape[1]
    values = np.where(good, block.values, np.float32(np.nan))
    return join(values, block.offset, good, linear=np.full(m, linear), bound=np.full(m, bound, np.int32))


def told(block: Cells, tag: int, row: int, linear: bool, bound: int) -> float:
    """The slow, obvious answer at the beginning of a row."""
    rows = range(max(0, row - bound), min(len(block.values), row + bound + 1))
    read = [
        (at + Fraction(int(block.offset[at, tag]), 1 << 32), float(block.values[at, tag]))
        for at in rows
        if block.quality[at, tag]
    ]
    before, behind = [r for r in read if r[0] <= row], [r for r in read if r[0] >= row]
    if not linear:
        near = sorted([*before[-1:], *behind[:1]], key=lambda r: (abs(r[0] - row), r[0]))
        return near[0][1] if near else np.nan
    if before and before[-1][0] == row:
        return before[-1][1]
    if not before or not behind:
        return np.nan
    (t0, low), (t1, high) = before[-1], behind[0]
    return low + (high - low) * float((row - t0) / (t1 - t0))


@WAYS
@given(block=cells(), bound=st.integers(1, 3))
@settings(max_examples=150, deadline=None)
def test_a_join_is_that_of_the_readings(linear: bool, block: Cells, bound: int) -> None:
    found = joined(block, linear, bound)
    expected = [[told(block, tag, row, linear, bound) for tag in range(2)] for row in range(len(block.values))]
    assert found.tobytes() == np.array(expected).tobytes()


@WAYS
@given(block=cells(), bound=st.integers(1, 2), begin=st.integers(0, 13), end=st.integers(0, 14))
@settings(max_examples=100, deadline=None)
def test_its_bits_do_not_depend_on_where_the_block_begins_and_ends(
    linear: bool, block: Cells, bound: int, begin: int, end: int
) -> None:
    begin, end = sorted((min(begin, len(block.values)), min(end, len(block.values))))
    part = joined(block.rows(block.first + begin, block.first + end), linear, bound)[bound : end - begin - bound]
    whole = joined(block, linear, bound)[begin + bound : end - bound]
    assert part.tobytes() == whole[: len(part)].tobytes()
