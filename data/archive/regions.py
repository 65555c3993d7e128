"""Which rows, columns and chunks of a block of cells hold readings: what the committer has to touch.

Arithmetic alone: it reads and writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from penstock.data.grid import Cells


def columns_of(cells: Cells, which: slice) -> Cells:
    """A view of some columns."""
    return Cells(
        first=cells.first,
        values=cells.values[:, which],
        quality=cells.quality[:, which],
        offset=cells.offset[:, which],
    )


def held(quality: NDArray[np.uint16]) -> tuple[int, int] | None:
    """First row and one past the last row that hold a reading; full rows are seen at once."""
    rows = range(len(quality))
    first = next((i for i in rows if quality[i].any()), None)
    return None if first is None else (first, next(i for i in reversed(rows) if quality[i].any()) + 1)


def chunks_held(quality: NDArray[np.uint16], column: int, width: int) -> NDArray[np.int64]:
    """Numbers of the chunk columns that hold a reading; `quality` begins at `column`."""
    ends = range(column // width, -(-(column + quality.shape[1]) // width))
    cuts = ((i, slice(max(i * width - column, 0), (i + 1) * width - column)) for i in ends)
    return np.array([i for i, cut in cuts if quality[0, cut].any() or quality[:, cut].any()], np.int64)


def union(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    """The span [first, last) that covers both."""
    return min(a[0], b[0]), max(a[1], b[1])


def runs(chunks: NDArray[np.int64], most: int) -> Iterator[tuple[int, int]]:
    """First and last of each run of neighbours in ascending `chunks`, none longer than `most`."""
    cuts = np.flatnonzero(np.diff(chunks) != 1) + 1
    for run in np.split(chunks, cuts):
        for at in range(0, len(run), most):
            part = run[at : at + most]
            yield int(part[0]), int(part[-1])
