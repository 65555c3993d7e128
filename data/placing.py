"""Long frames into cells: the maximum of each cell's readings, without sorting them.

Two ways with the same bits. In numpy, the keys of a reading (offset and value, then the rest) are compared one after
the other: the largest of each cell is found by `maximum.at`, and whoever has less is out. In machine code, one
reading after the other is laid into its cell in place; that takes a compiler and a second, so only large frames do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.data import machine_code
from penstock.data.frame import Float, Frame
from penstock.data.grid import LATE, PRESENT, STATUS, Cells, Grid, canonical, greater, quality_of

LARGE = 1 << 16
"""Readings from which a frame is laid by machine code, where there is any: 8 ms of numpy."""
NEVER = -(1 << 62)
"""As `late_before`: nothing is late."""
Key = NDArray[np.uint64] | NDArray[np.uint32] | NDArray[np.uint8]


def place(cells: Cells, frame: Frame, grid: Grid, column_of: NDArray[np.int32], late_before: int | None) -> None:
    """`Cells.put` of a long frame."""
    fits = frame.values.dtype == cells.values.dtype == np.float32 and cells.values.flags.c_contiguous
    if len(frame) >= LARGE and fits and machine_code.available():
        place_by_loop(cells, frame, grid, column_of, late_before)
    else:
        place_by_keys(cells, frame, grid, column_of, late_before)


def place_by_keys(
    cells: Cells, frame: Frame, grid: Grid, column_of: NDArray[np.int32], late_before: int | None
) -> None:
    """In numpy, any dtype."""
    ticks, columns = grid.tick(frame.times), column_of[frame.tags]
    keep = (columns >= 0) & (ticks >= cells.first) & (ticks < cells.last)
    if not keep.all():
        frame, ticks, columns = frame.only(keep), ticks[keep], columns[keep]
    if not len(ticks):
        return
    values, offset = canonical(frame.values, cells.values.dtype), grid.offset(frame.times)
    late = np.zeros(len(ticks), bool) if late_before is None else ticks < late_before
    quality = quality_of(frame.quality, late)
    cell = (ticks - cells.first) * cells.values.shape[1] + columns
    at = _largest(cell, cells.values.size, _keys(offset, values, frame.quality))
    _lay(cells, cell[at], Cells(first=0, values=values[at], quality=quality[at], offset=offset[at]))


def _keys(offset: NDArray[np.uint32], values: Float, status: NDArray[np.uint8]) -> Iterator[Key]:
    """The most significant first; readings of one cell are all late or none is."""
    if values.dtype.itemsize == 4:
        yield (offset.astype(np.uint64) << np.uint64(32)) | values.view(np.uint32)
    else:
        yield offset
        yield values.view(np.uint64)
    yield status


def _largest(cell: NDArray[np.int64], size: int, keys: Iterator[Key]) -> NDArray[np.intp]:
    """Positions of the readings whose keys are the largest in their cell; of equal ones all."""
    at = np.arange(len(cell))
    for key in keys:
        if (key[at] == key[at[0]]).all():
            continue
        most = np.zeros(size, key.dtype)  # pages that no reading touches are never given
        np.maximum.at(most, cell[at], key[at])
        at = at[key[at] == most[cell[at]]]
    return at


def _lay(cells: Cells, at: NDArray[np.int64], new: Cells) -> None:
    """Into the cells `at` (flat), where larger. Several for one cell are equal."""
    where = np.divmod(at, cells.values.shape[1])
    old = Cells(first=0, values=cells.values[where], quality=cells.quality[where], offset=cells.offset[where])
    wins = greater(new, old)
    where = (where[0][wins], where[1][wins])
    cells.values[where], cells.quality[where], cells.offset[where] = (
        new.values[wins], new.quality[wins], new.offset[wins],
    )  # fmt: skip


def place_by_loop(
    cells: Cells, frame: Frame, grid: Grid, column_of: NDArray[np.int32], late_before: int | None
) -> None:
    """In machine code; float32 alone."""
    _LAID(
        frame.times, frame.tags, frame.values.view(np.uint32), frame.quality, column_of,
        grid.origin_ns, grid.period_ns, cells.first, NEVER if late_before is None else late_before,
        cells.values.view(np.uint32), cells.quality, cells.offset,
    )  # fmt: skip


def _laid(
    times: Any,
    tags: Any,
    bits: Any,
    status: Any,
    column_of: Any,
    origin: Any,
    period: Any,
    first: Any,
    late_before: Any,
    values: Any,
    quality: Any,
    offset: Any,
) -> None:
    """numba's: one reading after the other into its cell, where it is larger."""
    ticks, width = np.uint64(period), np.uint64(16)
    order = np.uint16(LATE | STATUS)
    for i in range(len(times)):
        column = column_of[tags[i]]
        since = times[i] - origin
        tick = since // period
        row = tick - first
        if column < 0 or row < 0 or row >= values.shape[0]:
            continue
        rest = np.uint64(since - tick * period) << width  # as `Grid.offset`
        high = rest // ticks
        place = np.uint32((high << width) | (((rest - high * ticks) << width) // ticks))
        value = bits[i]
        if value & np.uint32(0x7FFFFFFF) > np.uint32(0x7F800000):
            value = np.uint32(0x7FC00000)  # as `canonical`: every NaN is one
        found = np.uint16(status[i]) | np.uint16(PRESENT)
        if tick < late_before:
            found |= np.uint16(LATE)
        before = quality[row, column]
        if before & np.uint16(PRESENT):
            if place < offset[row, column]:
                continue
            if place == offset[row, column]:
                if value < values[row, column]:
                    continue
                same = value == values[row, column]
                if same and (found ^ np.uint16(LATE)) & order <= (before ^ np.uint16(LATE)) & order:
                    continue
        values[row, column], quality[row, column], offset[row, column] = value, found, place


_LAID = machine_code.Loop(_laid)
