"""Cells are a maximum: order, repetition and grouping of readings change no byte."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading_strategies import GRID, PERIOD_NS, Model, model_cells, model_put, raw, readings

from penstock.data.frame import Readings
from penstock.data.grid import Cells, Grid

TAGS, TICKS = 4, 5
COLUMNS = np.arange(TAGS, dtype=np.int32)
Given = list[tuple[Readings, int | None]]

given_readings = st.lists(st.tuples(readings(tags=TAGS, ticks=TICKS), st.none() | st.integers(0, TICKS)), max_size=6)


def put_all(given: Given) -> Cells:
    cells = Cells.empty(0, TICKS, TAGS)
    for block, late_before in given:
        cells.put(block, GRID, COLUMNS, late_before)
    return cells


@given(given_readings)
@settings(max_examples=150, deadline=None)
def test_put_is_the_maximum_of_the_readings(given: Given) -> None:
    model: Model = {}
    for block, late_before in given:
        model_put(model, block, late_before)
    assert raw(put_all(given)) == raw(model_cells(model, 0, TICKS, COLUMNS))


@given(given_readings, st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_order_repetition_and_grouping_change_no_byte(given: Given, random: object) -> None:
    expected = raw(put_all(given))
    shuffled = given + given[:2]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert raw(put_all(shuffled)) == expected
    left, right = put_all(shuffled[::2]), put_all(shuffled[1::2])
    left.merge(right)
    assert raw(left) == expected
    left.merge(left)
    assert raw(left) == expected


@given(readings(tags=TAGS, ticks=TICKS), st.integers(0, TICKS), st.integers(0, TAGS))
@settings(max_examples=60, deadline=None)
def test_readings_outside_the_block_are_passed_over(block: Readings, first: int, columns: int) -> None:
    whole, part = Cells.empty(0, TICKS, TAGS), Cells.empty(first, TICKS - first, columns)
    whole.put(block, GRID, COLUMNS, None)
    part.put(block, GRID, np.where(columns > COLUMNS, COLUMNS, np.int32(-1)), None)
    assert part.quality.tobytes() == whole.quality[first:, :columns].tobytes()


@given(
    st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=20),
    st.sampled_from([1, 3, 1_000_000, PERIOD_NS, 86_400_000_000_000]),
    st.integers(-5, 5),
)
@settings(max_examples=100, deadline=None)
def test_offset_is_exact(times: list[int], period: int, origin: int) -> None:
    grid = Grid(period_ns=period, origin_ns=origin)
    expected = [((t - origin) % period << 32) // period for t in times]
    assert grid.offset(np.array(times)).tolist() == expected
    assert grid.tick(np.array(times)).tolist() == [(t - origin) // period for t in times]
    assert [grid.tick_of(t) for t in times] == [(t - origin) // period for t in times]


def test_rows_outside_the_block_are_refused() -> None:
    with pytest.raises(IndexError, match="lie outside"):
        Cells.empty(10, 5, 1).rows(9, 12)
