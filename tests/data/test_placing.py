"""Long frames into cells, by keys and by machine code: each gives the slow, obvious maximum."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading_strategies import GRID, Model, frames, model_cells, model_put, raw

from penstock.data import machine_code
from penstock.data.frame import Frame
from penstock.data.grid import Cells
from penstock.data.placing import LARGE, place_by_keys, place_by_loop

TAGS, TICKS = 3, 4
COLUMNS = np.arange(TAGS, dtype=np.int32)
Place = Callable[..., None]
compiled = pytest.mark.skipif(not machine_code.available(), reason="numba is not installed (penstock[site])")
WAYS = [pytest.param(place_by_keys, id="keys"), pytest.param(place_by_loop, id="loop", marks=compiled)]

given_frames = st.lists(st.tuples(frames(tags=TAGS, ticks=TICKS), st.none() | st.integers(0, TICKS)), max_size=5)


@pytest.mark.parametrize("place", WAYS)
@given(given=given_frames)
@settings(max_examples=150, deadline=None)
def test_each_cell_holds_the_largest_of_its_readings(place: Place, given: list[tuple[Frame, int | None]]) -> None:
    cells, model = Cells.empty(0, TICKS, TAGS), Model()
    for frame, late_before in given:
        place(cells, frame, GRID, COLUMNS, late_before)
        model_put(model, frame, late_before)
    assert raw(cells) == raw(model_cells(model, 0, TICKS, COLUMNS))


@given(frame=frames(tags=TAGS, ticks=TICKS, dtype="float64"), late_before=st.none() | st.integers(0, TICKS))
@settings(max_examples=100, deadline=None)
def test_float64_too(frame: Frame, late_before: int | None) -> None:
    cells, model = Cells.empty(0, TICKS, TAGS, "float64"), Model()
    place_by_keys(cells, frame, GRID, COLUMNS, late_before)
    model_put(model, frame, late_before)
    assert raw(cells) == raw(model_cells(model, 0, TICKS, COLUMNS, "float64"))


@compiled
@pytest.mark.parametrize("late_before", [None, 2])
def test_a_large_frame_of_the_journal_gives_the_same_bytes_both_ways(late_before: int | None) -> None:
    """Random order, doubles, tags that are not here, ticks before and after the block, a block of some columns."""
    random, n = np.random.default_rng(3), LARGE + 1
    frame = Frame(
        times=GRID.times(0, TICKS + 3)[random.integers(0, TICKS + 3, n)] + random.integers(0, 50, n),
        tags=random.integers(0, 400, n).astype(np.int32),
        values=random.integers(-3, 3, n).astype(np.float32),
        quality=random.choice(np.array([0, 0x40, 0x80], np.uint8), n),
    )
    for array in (frame.times, frame.tags, frame.values, frame.quality):
        array.setflags(write=False)  # as views of the log are
    column_of = np.where(np.arange(400) % 3 == 0, -1, np.arange(400) // 2).astype(np.int32)
    by_keys, put = Cells.empty(1, TICKS, 200), Cells.empty(1, TICKS, 200)
    place_by_keys(by_keys, frame, GRID, column_of, late_before)
    put.put(frame, GRID, column_of, late_before)
    assert raw(put) == raw(by_keys)
    assert np.count_nonzero(put.quality) > 500
