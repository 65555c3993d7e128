"""The archive: every cell ever stored, in versions that never change.

Opened by anyone, at any time, while it is written: a reader works on one snapshot. It knows tags by
id only; names come from the caller. Writing is in `committer`, the way from the journal in `archiver`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numpy.typing import NDArray

from penstock.data.archive.head import Head
from penstock.data.archive.pieces import Piece, fetch, pieces, through_zarr
from penstock.data.archive.repository import (
    BRANCH,
    DTYPES,
    opened,
    repository,
    segment_ticks,
    sync_filesystem,
    translated,
)
from penstock.data.archive.view import View
from penstock.data.grid import Cells, Grid
from penstock.errors import ArchiveError

if TYPE_CHECKING:
    import xarray as xr

    from penstock.data.archive.committer import Committer
    from penstock.data.archive.kept import Kept
    from penstock.data.plant import Tag

__all__ = ["Archive", "Head", "View"]

FORMAT = 1
SNAPSHOTS_OPEN = 8


class Archive:
    """The archive in a folder. Safe to use from several threads; travels to other processes by its folder."""

    def __init__(self, folder: Path, *, create: bool = False, grid: Grid | None = None) -> None:
        self.folder = folder
        self._repository = repository(folder, create=create)
        self._views: dict[str, View] = {}
        self.flushed: str | None = None
        """The newest commit that this process knows to be on disk."""
        self._mutex = threading.Lock()
        self._head: Head | None = None
        self._kept: Kept | None = None
        with translated(folder):
            # A creation that was killed half-way has a repository, but no commit of ours.
            begun = any("position" in i.metadata for i in self._repository.ancestry(branch=BRANCH))
            if create and begun:
                raise ArchiveError(f"{folder}: already holds an archive; open it")
            if create and grid is not None:
                self._begin(grid)
            elif not begun:
                raise ArchiveError(f"{folder}: holds no archive; create the site first")
            session = self._repository.readonly_session(branch=BRANCH)
            self._opened = session.snapshot_id, opened(session.store)
            attrs: dict[str, Any] = dict(self._opened[1].attrs)
        if attrs.get("format") != FORMAT:
            raise ArchiveError(f"{folder}: archive format {attrs.get('format')!r}; this penstock reads {FORMAT}")
        self.grid = Grid(period_ns=attrs["period_ns"], origin_ns=attrs["origin_ns"])
        self.segment_ticks: int = attrs["segment_ticks"]

    @classmethod
    def create(cls, folder: Path, grid: Grid) -> Archive:
        """A new, empty archive. Raises ArchiveError when the folder holds one already."""
        folder.mkdir(parents=True, exist_ok=True)
        return cls(folder, create=True, grid=grid)

    @classmethod
    def open(cls, folder: Path) -> Archive:
        """The archive in `folder`. Raises ArchiveError when there is none."""
        return cls(folder)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.folder,)

    def head(self) -> Head:
        """The newest commit."""
        with translated(self.folder):
            snapshot, known = self._repository.lookup_branch(BRANCH), self._head
            if known is None or known.snapshot != snapshot:
                known = self._head = Head.of(snapshot, self._repository.lookup_snapshot(snapshot).metadata)
            return known

    def commit(self, snapshot: str) -> Head:
        """The commit with this id. Raises ArchiveError when it is unknown or was expired."""
        with translated(self.folder):
            return Head.of(snapshot, self._repository.lookup_snapshot(snapshot).metadata)

    def at(self, position: int) -> Head:
        """The newest commit whose position is not above `position`.

        Raises ArchiveError when that was expired.
        """
        with translated(self.folder):
            for info in self._repository.ancestry(branch=BRANCH):
                if "position" in info.metadata and info.metadata["position"] <= position:
                    return Head.of(info.id, info.metadata)
        raise ArchiveError(f"{self.folder}: no snapshot at or before journal position {position}; it was expired")

    def commits(self) -> list[Head]:
        """Every commit that has not expired, newest first."""
        with translated(self.folder):
            ancestry = self._repository.ancestry(branch=BRANCH)
            return [Head.of(i.id, i.metadata) for i in ancestry if "position" in i.metadata]

    def span(self, *, snapshot: str | None = None) -> tuple[int, int]:
        """First tick and one past the last tick that hold a reading; equal when there is none.

        What is known ahead of its time does not count: the last tick is one that has been.
        """
        head = self.head() if snapshot is None else self.commit(snapshot)
        return head.span[0], max(head.span[0], head.newest)

    def dtypes(self, *, snapshot: str | None = None) -> NDArray[np.bool_]:
        """[tags] true for float64: the tags that this snapshot has columns for."""
        return self.view(snapshot).double

    def read(
        self, tags: NDArray[np.int32], first: int, last: int, *, snapshot: str | None = None, double: bool = False
    ) -> Cells:
        """Cells of ticks first..last-1 for tag ids [m]; empty where nothing is stored.

        Values are float64 when any of the tags is, else float32. `double`: float64 in any case, for tags that the
        caller knows to be and the snapshot may not know yet.
        """
        view = self.view(snapshot)
        tags = np.asarray(tags, np.int32)
        known = view.double[tags[tags < len(view.double)]]
        cells = Cells.empty(first, max(last - first, 0), len(tags), DTYPES[int(double or bool(known.any()))])
        into = {"value": cells.values, "quality": cells.quality, "offset": cells.offset}
        with translated(self.folder):
            fetch(p for which, out in into.items() for p in self._pieces(out, which, tags, first, view))
        return cells

    def read_again(
        self, tags: NDArray[np.int32], first: int, last: int, *, snapshot: str, double: bool = False
    ) -> Cells:
        """As `read`, for questions that come again and again: chunks of a few tags are kept from one to the next."""
        from penstock.data.archive.kept import FEW, Kept  # it builds on this module

        if len(tags) > FEW:
            return self.read(tags, first, last, snapshot=snapshot, double=double)
        with self._mutex:
            kept = self._kept = self._kept or Kept(self)
        known = self.view(snapshot).double
        wide = double or bool(known[tags[tags < len(known)]].any())
        cells = Cells.empty(first, max(last - first, 0), len(tags), DTYPES[int(wide)])
        if kept.fill(cells, np.asarray(tags, np.int32), snapshot):
            return cells
        return self.read(tags, first, last, snapshot=snapshot, double=double)

    def read_into(self, out: NDArray[Any], which: str, tags: NDArray[np.int32], first: int, view: View) -> None:
        """Fill `out` [k, m] with one of "value", "quality", "offset" of ticks from `first`, where stored.

        `out` holds empty cells: what is not stored stays as it is.
        """
        with translated(self.folder):
            fetch(self._pieces(out, which, tags, first, view))

    def _pieces(
        self, out: NDArray[Any], which: str, tags: NDArray[np.int32], first: int, view: View
    ) -> Iterator[Piece]:
        """What to read for that; what only Zarr can read is read on the way."""
        last = first + len(out)
        for (dtype, index), name in view.segments.items():
            begin = index * self.segment_ticks
            t0, t1 = max(first, begin), min(last, begin + self.segment_ticks)
            inside = np.flatnonzero(tags < len(view.double))
            inside = inside[view.double[tags[inside]] == (dtype == "float64")]
            if t0 >= t1 or not len(inside):
                continue
            array, form, ticks = view.array(name, which), view.form(name, which), slice(t0 - begin, t1 - begin)
            columns, into = view.index[tags[inside]], out[t0 - first : t1 - first]
            if form is None:
                through_zarr(array, ticks, columns, into, inside)
            else:
                yield from pieces(array, form, ticks, columns, into, inside)

    def dataset(
        self,
        tags: Sequence[Tag],
        ids: NDArray[np.int32],
        *,
        start: int | None = None,
        end: int | None = None,
        snapshot: str | None = None,
    ) -> xr.Dataset:
        """`value`, `quality`, `offset` over time [ns UTC] and tag [names], read when they are used.

        `start`, `end`: times in ns UTC, half open; None: where the readings begin and end.
        """
        from penstock.data.archive.dataset import lazy_dataset  # xarray only where it is wanted

        return lazy_dataset(self, tags, np.asarray(ids, np.int32), start=start, end=end, snapshot=snapshot)

    def committer(self) -> AbstractContextManager[Committer]:
        """The right to commit, one process at a time. Raises ArchiveBusy when another has it."""
        from penstock.data.archive.committer import committing  # it builds on this module

        return committing(self)

    def view(self, snapshot: str | None = None) -> View:
        """A snapshot (None: the newest), opened."""
        with translated(self.folder):
            snapshot = snapshot or self._repository.lookup_branch(BRANCH)
            with self._mutex:
                if snapshot not in self._views:
                    while len(self._views) >= SNAPSHOTS_OPEN:
                        self._views.pop(next(iter(self._views)))
                    self._views[snapshot] = View(self._root(snapshot), self.grid)
                return self._views[snapshot]

    def _root(self, snapshot: str) -> zarr.Group:
        if snapshot == self._opened[0]:
            return self._opened[1]
        return opened(self._repository.readonly_session(snapshot_id=snapshot).store)

    @property
    def repository(self) -> Any:
        """The icechunk repository, for the committer."""
        return self._repository

    def _begin(self, grid: Grid) -> None:
        """The first commit: no readings, position 0."""
        with translated(self.folder):
            session = self._repository.writable_session(BRANCH)
            root = zarr.create_group(session.store)
            root.attrs.update(
                {
                    "format": FORMAT,
                    "period_ns": grid.period_ns,
                    "origin_ns": grid.origin_ns,
                    "segment_ticks": segment_ticks(grid.period_ns),
                }
            )
            root.create_array("double", shape=(0,), chunks=(1 << 20,), dtype="bool", fill_value=False)
            session.commit("created", metadata=Head(snapshot="", position=0, closed=None).metadata())
        sync_filesystem(self.folder)
