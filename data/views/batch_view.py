"""The batch view of one model: what recomputing says, as an icechunk repository of its own.

Rows by rising tick, only those at which the model answers. One process at a
time commits; a commit is atomic, so readers see the view before it or after
it. The view is derived: if it is lost, the archive and the model store give it
again. This file knows nothing of TensorFlow or Dask.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec

from penstock.data.archive.repository import BRANCH, sync_filesystem, translated
from penstock.data.views import store
from penstock.data.views.columns import Columns
from penstock.data.views.predictions import COLUMNS, Predictions
from penstock.errors import ArchiveError

CHUNK = 65_536
"""Rows per chunk."""
LOCK_DEADLINE_S = 60.0

_opened: dict[Path, BatchView] = {}
"""Views of which chunks are kept, by folder, as long as no newer commit is there."""


class BatchView:
    """`views/batch/<model>/` of a site, as of the newest commit when it was opened."""

    def __init__(self, folder: Path, root: zarr.Group) -> None:
        self.folder = folder
        self._root = root
        self._columns = Columns(root)

    @classmethod
    def open(cls, folder: Path) -> BatchView | None:
        """The view in `folder`; None when nothing has been computed yet. Raises ArchiveError when it is damaged."""
        root = store.newest(folder)
        known = _opened.get(folder)
        if root is None or (known is not None and known._root is root):
            return None if root is None else known
        while len(_opened) >= store.OPEN:
            _opened.pop(next(iter(_opened), folder), None)
        _opened[folder] = view = BatchView(folder, root)
        return view

    @classmethod
    def write(
        cls,
        folder: Path,
        rows: Predictions,
        *,
        first: int,
        last: int,
        attributes: Mapping[str, Any],
        older_than_ns: int | None = None,
    ) -> None:
        """Put `rows` in the place of whatever the view has in ticks first..last-1, in one commit.

        `attributes` (JSON values: model, version, snapshot, horizon) replace the old ones; `start` and `seam`,
        the first tick covered and one past the last, are kept here. Former commits made before `older_than_ns`
        (UTC; None: none) are let go of afterwards, and with them views opened then. Raises ArchiveBusy when another
        process has been committing for a minute, ArchiveError when the rows do not fit.
        """
        ticks = rows.ticks
        if len(ticks) and not (first <= ticks[0] and ticks[-1] < last and (np.diff(ticks) > 0).all()):
            raise ArchiveError(f"{folder}: rows must rise inside ticks {first}..{last - 1}")
        with store.written(folder, deadline_s=LOCK_DEADLINE_S) as repository, translated(folder):
            session = repository.writable_session(BRANCH)
            root = zarr.open_group(session.store, mode="a")
            _splice(root, rows, first, last)
            span = {
                "start": min(first, _bound(root, "start", first)),
                "seam": max(last, _bound(root, "seam", last)),
            }
            root.attrs.put({**attributes, **span})
            session.commit("recomputed", metadata=span)
            sync_filesystem(folder)
            if older_than_ns is not None:
                store.let_go(repository, older_than_ns)

    @property
    def attributes(self) -> dict[str, Any]:
        """model, version, snapshot, horizon of the newest computation; start, seam."""
        return dict(self._root.attrs)

    @property
    def seam(self) -> int:
        """One past the last tick that the view covers."""
        return _bound(self._root, "seam", 0)

    def read(self, first: int, last: int) -> Predictions:
        """The rows with first <= tick < last. Raises ArchiveError when the view is damaged."""
        with translated(self.folder):
            start = self._columns.place(first)
            stop = max(start, self._columns.place(last))
            return Predictions(**{name: self._columns.read(name, start, stop) for name in COLUMNS})


def _splice(root: zarr.Group, rows: Predictions, first: int, last: int) -> None:
    """Rewrite the arrays from the first row concerned on; what stands before it is not touched."""
    if "ticks" not in root:
        for name, array in rows.columns().items():
            root.create_array(
                name,
                shape=(0, *array.shape[1:]),
                chunks=(CHUNK, *array.shape[1:]),
                dtype=array.dtype,
                compressors=[ZstdCodec(level=1), Crc32cCodec()],
            )
    have = _column(root, "ticks")
    keep = int(np.searchsorted(have, first))
    after = _rows(root, last, int(have[-1]) + 1) if len(have) and have[-1] >= last else None
    tail = rows if after is None else rows.then(after)
    for name, array in tail.columns().items():
        target: Any = root[name]
        if target.shape[1:] != array.shape[1:]:
            raise ArchiveError(
                f"{name} of the view has shape {target.shape[1:]} per row, the new rows {array.shape[1:]}: "
                "the model's targets changed; remove its batch view and compute it again"
            )
        target.resize((keep + len(array), *array.shape[1:]))
        target[keep:] = array


def _rows(root: zarr.Group, first: int, last: int) -> Predictions:
    start, stop = (int(i) for i in np.searchsorted(_column(root, "ticks"), [first, last]))
    return Predictions(**{name: _column(root, name, slice(start, max(start, stop))) for name in COLUMNS})


def _column(root: zarr.Group, name: str, cut: slice = slice(None)) -> NDArray[Any]:
    array: Any = root[name]
    return np.asarray(array[cut])


def _bound(root: zarr.Group, name: str, default: int) -> int:
    found: Any = root.attrs.get(name, default)
    return int(found)
