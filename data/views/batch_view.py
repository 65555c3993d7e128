"""The batch view of one model: what recomputing says, as an icechunk repository of its own.

Rows by rising tick, only those at which the model answers. One process at a
time commits; a commit is atomic, so readers see the view before it or after
it, and it says what its rows are of (`made.py`). The view is derived: if it is lost, the archive and the model store
give it again, in the versions of now. This file knows nothing of TensorFlow or Dask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec

from penstock.data.archive.repository import BRANCH, sync_filesystem, translated
from penstock.data.views import store
from penstock.data.views.columns import Columns
from penstock.data.views.made import Made
from penstock.data.views.predictions import COLUMNS, Predictions
from penstock.errors import ArchiveError

CHUNK = 65_536
"""Rows per chunk."""
LOCK_DEADLINE_S = 60.0

_opened: dict[Path, BatchView] = {}
"""Views of which chunks are kept, by folder, as long as no newer commit is there."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """What stands from now on in ticks first..last-1."""

    first: int
    last: int
    rows: Predictions
    """Inside them; ticks without a row have none afterwards."""


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
        """`put` one part, of which nothing is known but `attributes`."""
        cls.put(
            folder, [Part(first=first, last=last, rows=rows)], attributes=attributes, older_than_ns=older_than_ns
        )  # fmt: skip

    @classmethod
    def put(
        cls,
        folder: Path,
        parts: Sequence[Part],
        *,
        attributes: Mapping[str, Any],
        made: Made | None = None,
        anew: bool = False,
        older_than_ns: int | None = None,
    ) -> None:
        """Put rows in the place of whatever the view has in those ticks, all parts in one commit.

        `parts`: none overlapping, in order. `attributes` (JSON values: model, version, snapshot, horizon, targets)
        replace the old ones, and so does `made`; `start` and `seam`, the first tick covered and one past the last, are
        kept here. `anew`: what was there goes, with start and seam. Former commits made before `older_than_ns` (UTC;
        None: none) are let go of afterwards, and with them views opened then. Raises ArchiveBusy when another
        process has been committing for a minute, ArchiveError when the rows do not fit.
        """
        for part in parts:
            ticks = part.rows.ticks
            if len(ticks) and not (part.first <= ticks[0] and ticks[-1] < part.last and (np.diff(ticks) > 0).all()):
                raise ArchiveError(f"{folder}: rows must rise inside ticks {part.first}..{part.last - 1}")
        with store.written(folder, deadline_s=LOCK_DEADLINE_S) as repository, translated(folder):
            session = repository.writable_session(BRANCH)
            root = zarr.open_group(session.store, mode="w" if anew else "a")
            _splice(root, parts)
            span = _span(root, parts)
            root.attrs.put({**attributes, **span, **({} if made is None else made.attributes())})
            if session.has_uncommitted_changes:
                session.commit("recomputed", metadata=span)
                sync_filesystem(folder)
            if older_than_ns is not None:
                store.let_go(repository, older_than_ns)

    @property
    def attributes(self) -> dict[str, Any]:
        """model, version, snapshot, horizon, targets of the newest computation; start, seam, made."""
        return dict(self._root.attrs)

    @property
    def made(self) -> Made | None:
        """What its rows are of; None where an older penstock, or nobody who knew, wrote it last."""
        return Made.of(self._root.attrs)

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


def _splice(root: zarr.Group, parts: Sequence[Part]) -> None:
    """Rewrite the arrays from the first row concerned on, or only those rows where as many take their place."""
    if "ticks" not in root and parts:
        _begin(root, parts[0].rows)
    have = _column(root, "ticks") if parts else np.zeros(0, np.int64)
    at = [tuple(int(i) for i in np.searchsorted(have, [part.first, part.last])) for part in parts]
    alike = all(stop - start == len(part.rows.ticks) for part, (start, stop) in zip(parts, at, strict=True))
    for part in parts:
        _fits(root, part.rows)
    if not alike:
        parts, at = _tail(root, parts, at, len(have)), [(at[0][0], len(have))]
    for part, (start, _) in zip(parts, at, strict=True):
        for name, array in part.rows.columns().items():
            target: Any = root[name]
            if not alike:
                target.resize((start + len(array), *array.shape[1:]))
            target[start : start + len(array)] = array


def _begin(root: zarr.Group, rows: Predictions) -> None:
    for name, array in rows.columns().items():
        root.create_array(
            name,
            shape=(0, *array.shape[1:]),
            chunks=(CHUNK, *array.shape[1:]),
            dtype=array.dtype,
            compressors=[ZstdCodec(level=1), Crc32cCodec()],
        )


def _fits(root: zarr.Group, rows: Predictions) -> None:
    for name, array in rows.columns().items():
        target: Any = root[name]
        if target.shape[1:] != array.shape[1:]:
            raise ArchiveError(
                f"{name} of the view has shape {target.shape[1:]} per row, the new rows {array.shape[1:]}: "
                "the model's targets changed; remove its batch view and compute it again"
            )


def _tail(root: zarr.Group, parts: Sequence[Part], at: Sequence[tuple[int, ...]], rows: int) -> list[Part]:
    """All rows from those of the first part on, as one part."""
    ends = [start for start, _ in at[1:]] + [rows]
    between = (_cut(root, slice(stop, end)) for (_, stop), end in zip(at, ends, strict=True))
    told = [each for part, after in zip(parts, between, strict=True) for each in (part.rows, after)]
    return [Part(first=parts[0].first, last=parts[-1].last, rows=Predictions.of(told))]


def _span(root: zarr.Group, parts: Sequence[Part]) -> dict[str, int]:
    known = [_bound(root, key, -1) for key in ("start", "seam") if key in root.attrs]
    ends = [*(part.first for part in parts), *(part.last for part in parts), *known]
    return {"start": min(ends), "seam": max(ends)} if ends else {"start": 0, "seam": 0}


def _rows(root: zarr.Group, first: int, last: int) -> Predictions:
    start, stop = (int(i) for i in np.searchsorted(_column(root, "ticks"), [first, last]))
    return _cut(root, slice(start, max(start, stop)))


def _cut(root: zarr.Group, rows: slice) -> Predictions:
    return Predictions(**{name: _column(root, name, rows) for name in COLUMNS})


def _column(root: zarr.Group, name: str, cut: slice = slice(None)) -> NDArray[Any]:
    array: Any = root[name]
    return np.asarray(array[cut])


def _bound(root: zarr.Group, name: str, default: int) -> int:
    found: Any = root.attrs.get(name, default)
    return int(found)
