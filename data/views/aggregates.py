"""The view of aggregates: a summary per period and tag, as an icechunk repository of its own.

    <period in ticks>/<block>/{count, low, high, total, ...}     [BLOCK periods, tag ids]

Period p of n ticks is that of ticks p n .. (p + 1) n - 1. A commit is atomic and durable and says what it is of
(`Mark`), so readers see the view before it or after it, and whoever was killed goes on from the mark. The view is
derived: if it is lost, the archive gives it again. This file knows nothing of archives, journals and clocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec

from penstock.data.archive.repository import BRANCH, sync_filesystem, translated
from penstock.data.summary import Summary
from penstock.data.views import store

FORMAT = 1
BLOCK = 1024
"""Periods of an array; those not written are chunks that do not exist."""
CHUNK = (32, 2048)
FILLS: Mapping[str, tuple[str, float]] = {
    "count": ("uint32", 0), "low": ("float64", np.inf), "high": ("float64", -np.inf), "total": ("float64", 0.0),
    "total_rest": ("float64", 0.0), "squares": ("float64", 0.0), "squares_rest": ("float64", 0.0),
}  # fmt: skip
"""Dtype of each array, and what a period without readings has."""
Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What a commit of the view is of."""

    position: int
    """Journal sequence: readings below are in, but those of `todo`."""
    until: int
    """Tick: periods that end at or before it are told, later ones are not yet over."""
    todo: Ranges
    """Periods [first, last) of the shortest length that are still to be computed again."""
    periods: tuple[int, ...]
    """Lengths in ticks, ascending."""

    def attributes(self) -> dict[str, Any]:
        """As the root group has it."""
        todo = [list(each) for each in self.todo]
        return {"format": FORMAT, "position": self.position, "until": self.until, "todo": todo,
                "periods": list(self.periods)}  # fmt: skip

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Mark | None:
        """None where nothing was committed yet."""
        if said.get("format") != FORMAT:
            return None
        todo = tuple((first, last) for first, last in said["todo"])
        return cls(position=said["position"], until=said["until"], todo=todo, periods=tuple(said["periods"]))


class AggregatesView:
    """`views/aggregates/` of a site as of one commit, or as it is being written."""

    def __init__(self, folder: Path, root: zarr.Group) -> None:
        self.folder = folder
        self._root = root

    @classmethod
    def open(cls, folder: Path) -> AggregatesView | None:
        """The newest commit of the view in `folder`; None where there is none. Raises ArchiveError."""
        root = store.newest(folder)
        if root is None:
            return None
        view = cls(folder, root)
        return view if view.mark is not None else None

    @property
    def mark(self) -> Mark | None:
        """What it is of."""
        return Mark.of(self._root.attrs)

    def bounds(self) -> NDArray[np.float64]:
        """[tags, 2] range of each tag that the view was computed with; NaN for tags without aggregates."""
        return np.asarray(self._root["bounds"][:]) if "bounds" in self._root else np.empty((0, 2))  # type: ignore[index]

    def read(self, period: int, tags: NDArray[np.int32], first: int, last: int) -> Summary:
        """[last - first, m] periods first..last-1 of tag ids [m]; without readings where nothing is stored."""
        out = Summary.empty(max(0, last - first), len(tags))
        for block, rows, here in _blocks(first, last):
            path = f"{period}/{block}"
            if path not in self._root or not len(tags):
                continue
            for name, into in out.columns().items():
                with translated(self.folder):
                    array: Any = self._root[f"{path}/{name}"]
                    known = np.flatnonzero(tags < array.shape[1])
                    if len(known):
                        c0, c1 = int(tags[known].min()), int(tags[known].max()) + 1
                        into[here, known] = array[rows, c0:c1][:, tags[known] - c0]
        return out

    def put(self, period: int, tags: NDArray[np.int32], first: int, found: Summary, width: int) -> None:
        """Write periods from `first` on of ascending tag ids [m]; `width`: ids that the site has given.

        What holds no reading is not written: cells never go, so there was none before either.
        """
        if not found.count.any():
            return
        for block, rows, here in _blocks(first, first + len(found)):
            group = self._group(f"{period}/{block}", width)
            whole = len(tags) == int(tags[-1]) - int(tags[0]) + 1
            c0, c1 = int(tags[0]), int(tags[-1]) + 1
            for name, values in found.columns().items():
                with translated(self.folder):
                    array: Any = group[name]
                    part = values[here]
                    if not whole:
                        part = np.array(array[rows, c0:c1])
                        part[:, tags - c0] = values[here]
                    array[rows, c0:c1] = part

    def begin(self, bounds: NDArray[np.float64], *, anew: bool) -> None:
        """Note the tags' ranges; `anew`: all that was computed goes."""
        if anew:
            for key in list(self._root.group_keys()):
                del self._root[key]
        if "bounds" in self._root:
            del self._root["bounds"]
        self._root.create_array("bounds", data=bounds)

    def note(self, mark: Mark) -> None:
        """What the commit to come is of."""
        self._root.attrs.update(mark.attributes())

    def _group(self, path: str, width: int) -> Any:
        with translated(self.folder):
            for name, (dtype, fill) in FILLS.items():
                if f"{path}/{name}" not in self._root:
                    self._root.create_array(
                        f"{path}/{name}", shape=(BLOCK, width), chunks=CHUNK, dtype=dtype, fill_value=fill,
                        compressors=[BloscCodec(cname="zstd", clevel=1, shuffle="shuffle"), Crc32cCodec()],
                        dimension_names=["time", "tag"],
                    )  # fmt: skip
                array: Any = self._root[f"{path}/{name}"]
                if array.shape[1] < width:
                    array.resize((BLOCK, width))
            return self._root[path]


class Writing:
    """The one writer of a view; got from `writing`."""

    def __init__(self, folder: Path, repository: icechunk.Repository) -> None:
        self._folder, self._repository = folder, repository
        self._start()

    def commit(self, mark: Mark) -> None:
        """Make all that was put one durable commit."""
        self.view.note(mark)
        with translated(self._folder):
            snapshot = self._session.flush(f"position {mark.position}")
            sync_filesystem(self._folder)
            self._repository.reset_branch(BRANCH, snapshot, from_snapshot_id=self._head)
            sync_filesystem(self._folder)
        self._start()

    def expire(self, older_than_ns: int) -> None:
        """Let go of commits made before (UTC)."""
        with translated(self._folder):
            store.let_go(self._repository, older_than_ns)

    def _start(self) -> None:
        with translated(self._folder):
            self._head = self._repository.lookup_branch(BRANCH)
            self._session = self._repository.writable_session(BRANCH)
            self.view = AggregatesView(self._folder, zarr.open_group(self._session.store, mode="a"))


@contextmanager
def writing(folder: Path, *, deadline_s: float) -> Iterator[Writing]:
    """The right to write the view in `folder`, made where there is none; one process at a time.

    Raises ArchiveBusy when another one has it for longer than `deadline_s`, ArchiveError.
    """
    with store.written(folder, deadline_s=deadline_s) as repository:
        yield Writing(folder, repository)


def _blocks(first: int, last: int) -> Iterator[tuple[int, slice, slice]]:
    """(block, its rows, rows of what is read or written) of periods first..last-1."""
    for block in range(first // BLOCK, (last - 1) // BLOCK + 1):
        a, b = max(first, block * BLOCK), min(last, (block + 1) * BLOCK)
        yield block, slice(a - block * BLOCK, b - block * BLOCK), slice(a - first, b - first)
