"""Nearest and linear joins against one reading after the other, in exact fractions of a period."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.data.frame import BAD, UNCERTAIN
from penstock.data.grid import PRESENT, Cells
from penstock.data.joining import Way, join

WAYS = pytest.mark.parametrize("way", ["nearest", "linear"])
OFFSETS = [0, 0, 1, 1 << 30, 1 << 31, (1 << 32) - 1]


@st.composite
def cells(draw: st.DrawFn) -> Cells:
    """Two tags, most cells empty, as of a slow source."""
    k = draw(st.integers(4, 14))

    def column(of: list[int] | list[float]) -> list[float]:
        return draw(st.lists(st.sampled_from(of), min_size=2 * k, max_size=2 * k))

    return Cells(
        first=draw(st.integers(-5, 5)),
        values=np.array(column([0.0, 1.0, -3.5, 0.1, 1e6, float("nan")]), np.float32).reshape(k, 2),
        quality=np.array(column([0, 0, 0, PRESENT, PRESENT | UNCERTAIN, PRESENT | BAD]), np.uint16).reshape(k, 2),
        offset=np.array(column(OFFSETS), np.uint32).reshape(k, 2),
    )


def told(block: Cells, tag: int, row: int, way: Way, back: int, ahead: int) -> float:
    """The slow, obvious answer at the beginning of a row."""
    read = []
    for at in range(row - back, row + ahead + 1):
        if at < 0 or at >= len(block.values):
            continue
        quality, value = int(block.quality[at, tag]), float(block.values[at, tag])
        if quality & PRESENT and quality & 0xFF < BAD and np.isfinite(value):
            read.append((at + Fraction(int(block.offset[at, tag]), 1 << 32), value))
    before, behind = [r for r in read if r[0] <= row], [r for r in read if r[0] >= row]
    if way == "nearest":
        near = sorted([*before[-1:], *behind[:1]], key=lambda r: (abs(r[0] - row), r[0]))
        return near[0][1] if near else np.nan
    if before and before[-1][0] == row:
        return before[-1][1]
    if not before or not behind:
        return np.nan
    (t0, low), (t1, high) = before[-1], behind[0]
    return low + (high - low) * float((row - t0) / (t1 - t0))


@WAYS
@given(block=cells(), back=st.integers(1, 3), ahead=st.integers(0, 1))
@settings(max_examples=150, deadline=None)
def test_a_join_is_that_of_the_readings(way: Way, block: Cells, back: int, ahead: int) -> None:
    found = join(block, way, back=back, ahead=ahead)
    assert found.first == block.first + back
    assert len(found.values) == len(block.values) - back - ahead
    for row in range(back, len(block.values) - ahead):
        expected = [told(block, tag, row, way, back, ahead) for tag in range(2)]
        np.testing.assert_allclose(found.values[row - back], expected, rtol=1e-15)


@WAYS
@given(block=cells(), back=st.integers(1, 3), ahead=st.integers(0, 1), cut=st.integers(0, 13))
@settings(max_examples=100, deadline=None)
def test_its_bits_do_not_depend_on_where_the_block_begins(
    way: Way, block: Cells, back: int, ahead: int, cut: int
) -> None:
    whole = join(block, way, back=back, ahead=ahead)
    first = block.first + min(cut, len(block.values) - back - ahead)
    last = max(first + back + ahead, block.last - cut)
    part = join(block.rows(first, last), way, back=back, ahead=ahead)
    begin = part.first - whole.first
    assert part.values.tobytes() == whole.values[begin : begin + len(part.values)].tobytes()


def test_limits_are_told() -> None:
    with pytest.raises(ValueError, match="at least 1, 0"):
        join(Cells.empty(0, 3, 1), "linear", back=0, ahead=1)
    with pytest.raises(ValueError, match="of 3 rows"):
        join(Cells.empty(0, 3, 1), "nearest", back=2, ahead=2)
