"""The batch view of one model: what recomputing says, as an icechunk repository of its own.

Rows by rising tick, only those at which the model answers. One process at a
time commits; a commit is atomic, so readers see the view before it or after
it. The view is derived: if it is lost, the archive and the model store give it
again. This file knows nothing of TensorFlow or Dask.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import icechunk
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.errors import GroupNotFoundError

from penstock.data.archive.repository import BRANCH, sync_filesystem, translated
from penstock.data.durable import locked
from penstock.errors import ArchiveBusy, ArchiveError

CHUNK = 65_536
"""Rows per chunk."""
LOCK_DEADLINE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recomputed:
    """Predictions of one model, n rows by rising tick."""

    ticks: NDArray[np.int64]
    """[n] ticks at which the predictions are made."""
    values: NDArray[np.float32]
    """[n, O] in the targets' units; NaN where withheld."""
    versions: NDArray[np.int64]
    """[n] model version; 0 where withheld."""
    reasons: NDArray[np.uint8]
    """[n] `windows.Reason`"""
    filled: NDArray[np.bool_]
    """[n] the window holds a carried or substituted input."""
    sample: NDArray[np.bool_]
    """[n] the tick lies in the training span of that version."""

    @classmethod
    def nothing(cls, outputs: int) -> Self:
        """No rows of `outputs` targets."""
        return cls(
            ticks=np.zeros(0, np.int64),
            values=np.zeros((0, outputs), np.float32),
            versions=np.zeros(0, np.int64),
            reasons=np.zeros(0, np.uint8),
            filled=np.zeros(0, np.bool_),
            sample=np.zeros(0, np.bool_),
        )

    def columns(self) -> dict[str, NDArray[Any]]:
        """The arrays by field name."""
        return {name: getattr(self, name) for name in _FIELDS}

    def rows(self, cut: slice) -> Recomputed:
        """Some of the rows."""
        return Recomputed(**{name: array[cut] for name, array in self.columns().items()})

    def then(self, other: Recomputed) -> Recomputed:
        """These rows, then those of `other`."""
        mine, theirs = self.columns(), other.columns()
        return Recomputed(**{name: np.concatenate([mine[name], theirs[name]]) for name in _FIELDS})


_FIELDS = ("ticks", "values", "versions", "reasons", "filled", "sample")


class BatchView:
    """`views/batch/<model>/` of a site, as of the newest commit when it was opened."""

    def __init__(self, folder: Path, root: zarr.Group) -> None:
        self.folder = folder
        self._root = root

    @classmethod
    def open(cls, folder: Path) -> BatchView | None:
        """The view in `folder`; None when nothing has been computed yet. Raises ArchiveError when it is damaged."""
        repository = _existing(folder)
        if repository is None:
            return None
        with translated(folder):
            try:
                root = zarr.open_group(repository.readonly_session(BRANCH).store, mode="r")
            except GroupNotFoundError:  # killed between making the repository and its first commit
                return None
            return cls(folder, root)

    @classmethod
    def write(cls, folder: Path, rows: Recomputed, *, first: int, last: int, attributes: Mapping[str, Any]) -> None:
        """Put `rows` in the place of whatever the view has in ticks first..last-1, in one commit.

        `attributes` (JSON values: model, version, snapshot, horizon) replace the old ones; `start` and `seam`,
        the first tick covered and one past the last, are kept here. Raises ArchiveBusy when another
        process has been committing for a minute, ArchiveError when the rows do not fit.
        """
        ticks = rows.ticks
        if len(ticks) and not (first <= ticks[0] and ticks[-1] < last and (np.diff(ticks) > 0).all()):
            raise ArchiveError(f"{folder}: rows must rise inside ticks {first}..{last - 1}")
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with locked(folder / "lock", deadline_s=LOCK_DEADLINE_S), translated(folder):
                repository = _existing(folder) or icechunk.Repository.create(_storage(folder))
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
        except TimeoutError as error:
            raise ArchiveBusy(f"{error}; wait for the other computation to end") from error

    @property
    def attributes(self) -> dict[str, Any]:
        """model, version, snapshot, horizon of the newest computation; start, seam."""
        return dict(self._root.attrs)

    @property
    def seam(self) -> int:
        """One past the last tick that the view covers."""
        return _bound(self._root, "seam", 0)

    def read(self, first: int, last: int) -> Recomputed:
        """The rows with first <= tick < last. Raises ArchiveError when the view is damaged."""
        with translated(self.folder):
            return _rows(self._root, first, last)


def _splice(root: zarr.Group, rows: Recomputed, first: int, last: int) -> None:
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


def _rows(root: zarr.Group, first: int, last: int) -> Recomputed:
    start, stop = (int(i) for i in np.searchsorted(_column(root, "ticks"), [first, last]))
    return Recomputed(**{name: _column(root, name, slice(start, max(start, stop))) for name in _FIELDS})


def _column(root: zarr.Group, name: str, cut: slice = slice(None)) -> NDArray[Any]:
    array: Any = root[name]
    return np.asarray(array[cut])


def _bound(root: zarr.Group, name: str, default: int) -> int:
    found: Any = root.attrs.get(name, default)
    return int(found)


def _storage(folder: Path) -> icechunk.Storage:
    icechunk.set_logs_filter("error")  # it warns of two committers at once; the lock sees to that
    return icechunk.local_filesystem_storage(str(folder / "repository"))


def _existing(folder: Path) -> icechunk.Repository | None:
    with translated(folder):
        if not (folder / "repository").is_dir() or not icechunk.Repository.exists(_storage(folder)):
            return None
        return icechunk.Repository.open(_storage(folder))
