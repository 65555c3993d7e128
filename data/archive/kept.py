"""Single tags' cells as they were read last, kept chunk by chunk and carried from commit to commit.

A question about a day of one tag takes hundreds of small chunks from an open segment, and the next commit changes a few
of them: the store itself tells which. Bounded; safe to use from several threads. Knows nothing of questions.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import icechunk
import numpy as np
from numpy.typing import NDArray

from penstock.data.archive.pieces import Piece, fetch, pieces
from penstock.data.archive.repository import ARRAYS, SegmentName, translated
from penstock.data.archive.view import View
from penstock.data.grid import Cells

if TYPE_CHECKING:
    from penstock.data.archive import Archive

FEW = 8
"""Tags at a time of which anything is kept: more of them are a training's, which reads each once."""
KEPT_BYTES = 64 << 20
LONG_S = 60.0
"""After so long between two questions all is read anew: to look through every commit since would take longer."""

Key = tuple[str, int, int, int]
"""(path of the array, chunk along time, chunk along tags, column)"""
Place = tuple[SegmentName, str, NDArray[Any], NDArray[np.int64], NDArray[np.intp], slice, slice]
"""Segment, array, caller's array, columns in the segment, columns of the caller's, ticks of the segment, rows."""


class Kept:
    """Of one archive."""

    def __init__(self, archive: Archive, room: int = KEPT_BYTES) -> None:
        self._archive, self._room = archive, room
        self._lock = threading.Lock()
        self._snapshot: str | None = None
        self._asked_s = 0.0
        self._columns: dict[Key, NDArray[Any]] = {}
        self._bytes = 0

    def fill(self, cells: Cells, tags: NDArray[np.int32], snapshot: str) -> bool:
        """Fill empty `cells`, columns `tags`; False, and nothing done, where a chunk has a form only Zarr knows.

        Raises ArchiveError.
        """
        view = self._archive.view(snapshot)
        places = list(self._places(cells, tags, view))
        if any(view.form(name, which) is None for name, which, *_ in places):
            return False
        with self._lock, translated(self._archive.folder):
            self._move_to(snapshot)
            wanted = [each for place in places for each in _chunks(view, place)]
            self._read(view, {key: at for key, at, *_ in wanted if key not in self._columns})
            for key, _, into, ticks in wanted:
                column = self._columns[key] = self._columns.pop(key)  # newest last
                into[:] = column[ticks]
            self._shorten()
        return True

    def _places(self, cells: Cells, tags: NDArray[np.int32], view: View) -> Iterator[Place]:
        """Where the cells lie: a part of each segment that they touch, for each of its arrays."""
        long = self._archive.segment_ticks
        for (dtype, index), name in view.segments.items():
            begin = index * long
            t0, t1 = max(cells.first, begin), min(cells.last, begin + long)
            inside = np.flatnonzero(tags < len(view.double))
            inside = inside[view.double[tags[inside]] == (dtype == "float64")]
            if t0 < t1 and len(inside):
                ticks, rows = slice(t0 - begin, t1 - begin), slice(t0 - cells.first, t1 - cells.first)
                for which, out in (("value", cells.values), ("quality", cells.quality), ("offset", cells.offset)):
                    yield name, which, out, view.index[tags[inside]], inside, ticks, rows

    def _read(self, view: View, missing: dict[Key, tuple[SegmentName, str]]) -> None:
        wanted: list[Piece] = []
        for key, (name, which) in missing.items():
            array, form = view.array(name, which), view.form(name, which)
            assert form is not None
            begin = key[1] * form.shape[0]
            ticks = slice(begin, min(begin + form.shape[0], array.shape[0]))
            column = np.full((ticks.stop - ticks.start, 1), ARRAYS[which], array.dtype)
            self._columns[key] = column[:, 0]
            self._bytes += column.nbytes
            wanted += pieces(array, form, ticks, np.array([key[3]]), column, np.zeros(1, np.intp))
        try:
            fetch(wanted)
        except BaseException:
            self._forget()
            raise

    def _move_to(self, snapshot: str) -> None:
        """Forget what this commit has otherwise."""
        before, self._snapshot = self._snapshot, snapshot
        waited_s, self._asked_s = time.monotonic() - self._asked_s, time.monotonic()
        if snapshot == before:
            return
        if before is None or waited_s > LONG_S:
            self._forget()
            return
        try:
            changed = self._archive.repository.diff(from_snapshot_id=before, to_snapshot_id=snapshot)
        except icechunk.IcechunkError:  # that one has expired, or is newer than this one
            self._forget()
            return
        chunks = {_bare(path): {tuple(at) for at in coords} for path, coords in changed.updated_chunks.items()}
        arrays = {_bare(p) for p in (*changed.new_arrays, *changed.deleted_arrays, *changed.updated_arrays)}
        for key in list(self._columns):
            if key[0] in arrays or key[1:3] in chunks.get(key[0], ()):
                self._bytes -= self._columns.pop(key).nbytes

    def _shorten(self) -> None:
        while self._bytes > self._room:
            self._bytes -= self._columns.pop(next(iter(self._columns))).nbytes

    def _forget(self) -> None:
        self._columns.clear()
        self._bytes = 0


def _chunks(view: View, place: Place) -> Iterator[tuple[Key, tuple[SegmentName, str], NDArray[Any], slice]]:
    """Every chunk of a place: its key, where it is, the caller's cells, and the ticks of it that go there."""
    name, which, out, columns, to, ticks, rows = place
    array, form = view.array(name, which), view.form(name, which)
    assert form is not None
    (long, wide), path = form.shape, _bare(array.path)
    for column, at in zip(columns.tolist(), to.tolist(), strict=True):
        if column >= array.shape[1]:
            continue
        for begin in range(ticks.start // long * long, ticks.stop, long):
            t0, t1 = max(begin, ticks.start), min(begin + long, ticks.stop)
            into = out[rows.start + t0 - ticks.start : rows.start + t1 - ticks.start, at]
            yield (
                (path, begin // long, column // wide, column),
                (name, which),
                into,
                slice(t0 - begin, t1 - begin),
            )


def _bare(path: str) -> str:
    return path.strip("/")
