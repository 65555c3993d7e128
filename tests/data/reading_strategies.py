"""Readings for property tests of grid, journal and archive, in this and other layers.

`import reading_strategies` works in every test (pytest's `pythonpath`). Times collide, values repeat,
NaNs have odd bits: every rule of a cell's maximum bites within a few readings.
"""

from __future__ import annotations

import struct

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from penstock.data.frame import BAD, GOOD, UNCERTAIN, Dense, Frame, Readings
from penstock.data.grid import LATE, PRESENT, STATUS, Cells, Grid

PERIOD_NS = 60_000_000_000
GRID = Grid(period_ns=PERIOD_NS, origin_ns=7)
ODD_NAN = float(np.array([0x7FC01234], np.uint32).view(np.float32)[0])
VALUES = [0.0, -0.0, 1.0, 1.5, -3.0, 1e9, float("inf"), float("nan"), ODD_NAN]


@st.composite
def frames(draw: st.DrawFn, *, tags: int, ticks: int, dtype: str = "float32", most: int = 12) -> Frame:
    """Up to `most` readings of tag ids below `tags` in ticks 0..ticks-1."""
    n = draw(st.integers(0, most))

    def column(values: st.SearchStrategy[float]) -> list[float]:
        return draw(st.lists(values, min_size=n, max_size=n))

    inside = st.sampled_from([0, 1, PERIOD_NS // 2, PERIOD_NS - 1])
    starts = np.array(column(st.integers(0, ticks - 1)), np.int64)
    return Frame(
        times=GRID.origin_ns + starts * PERIOD_NS + np.array(column(inside), np.int64),
        tags=np.array(column(st.integers(0, tags - 1)), np.int32),
        values=np.array(column(st.sampled_from(VALUES)), dtype),
        quality=np.array(column(st.sampled_from([GOOD, UNCERTAIN, BAD])), np.uint8),
    )


@st.composite
def blocks(draw: st.DrawFn, *, tags: int, ticks: int, dtype: str = "float32", most: int = 4) -> Dense:
    """Up to `most` rows, possibly of the same tick, of some tags."""
    ids = sorted(draw(st.sets(st.integers(0, tags - 1), min_size=1)))
    k = draw(st.integers(0, most))
    cells = k * len(ids)
    starts = np.array(draw(st.lists(st.integers(0, ticks - 1), min_size=k, max_size=k)), np.int64)
    values = draw(st.lists(st.sampled_from(VALUES), min_size=cells, max_size=cells))
    quality = draw(st.lists(st.sampled_from([GOOD, GOOD, UNCERTAIN, BAD]), min_size=cells, max_size=cells))
    return Dense(
        times=GRID.origin_ns + starts * PERIOD_NS + draw(st.sampled_from([0, 1, PERIOD_NS // 2])),
        tags=np.array(ids, np.int32),
        values=np.array(values, dtype).reshape(k, len(ids)),
        quality=np.array(quality, np.uint8).reshape(k, len(ids)),
    )


def readings(*, tags: int, ticks: int, dtype: str = "float32") -> st.SearchStrategy[Readings]:
    """Long or dense."""
    return frames(tags=tags, ticks=ticks, dtype=dtype) | blocks(tags=tags, ticks=ticks, dtype=dtype)


Model = dict[tuple[int, int], tuple[int, int, bool, int]]
"""(tick, tag) -> (offset, bits of the value, on time, status): the slow, obvious archive."""


def model_put(model: Model, given: Readings, late_before: int | None) -> None:
    """One reading after the other, the larger one stays."""
    frame = given.long() if isinstance(given, Dense) else given
    for time, tag, value, quality in zip(frame.times, frame.tags, frame.values, frame.quality, strict=True):
        tick, rest = divmod(int(time) - GRID.origin_ns, GRID.period_ns)
        form = "<fI" if frame.values.dtype.itemsize == 4 else "<dQ"
        whole = float("nan") if value != value else float(value)
        bits = struct.unpack("<" + form[2], struct.pack("<" + form[1], whole))[0]
        new = ((rest << 32) // GRID.period_ns, bits, late_before is None or tick >= late_before, int(quality))
        model[tick, int(tag)] = max(model.get((tick, int(tag)), new), new)


def model_cells(model: Model, first: int, last: int, tags: NDArray[np.int32], dtype: str = "float32") -> Cells:
    """The model as cells."""
    cells = Cells.empty(first, last - first, len(tags), dtype)
    bits = cells.values.view(np.uint32 if dtype == "float32" else np.uint64)
    for (tick, tag), (offset, value, on_time, status) in model.items():
        for column in np.flatnonzero(tags == tag):
            bits[tick - first, column] = value
            cells.quality[tick - first, column] = status | PRESENT | (0 if on_time else LATE)
            cells.offset[tick - first, column] = offset
    assert ((cells.quality & ~np.uint16(PRESENT | LATE)) <= STATUS).all()
    return cells


def raw(cells: Cells) -> tuple[bytes, bytes, bytes]:
    """A block's bytes, to compare bit for bit."""
    return cells.values.tobytes(), cells.quality.tobytes(), cells.offset.tobytes()
