"""The view of aggregates: a summary per period and tag, as an icechunk repository of its own.

    <period in ticks>/<block>/{count, low, high, total, ...}     [BLOCK periods, tag ids]
    <period in ticks>/<block>/{revision, changed}                how often each has changed; the commit that did it

Period p of n ticks is that of ticks p n .. (p + 1) n - 1. A commit is atomic and durable and says what it is of
(`Mark`), so readers see the view before it or after it, and whoever was killed goes on from the mark. Commits are
numbered: who has read up to one finds what changed since. The view is derived: if it is lost, the archive gives it
again. This file knows nothing of archives, journals and clocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import icechunk
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec

from penstock.data.archive.repository import BRANCH, sync_filesystem, translated
from penstock.data.summary import Summary
from penstock.data.views import store
from penstock.data.views.changes import Changes, Ranges, with_commit

FORMAT = 1
BLOCK = 1024
"""Periods of an array; those not written are chunks that do not exist."""
CHUNK = (32, 2048)
FILLS: Mapping[str, tuple[str, float]] = {
    "count": ("uint32", 0), "low": ("float64", np.inf), "high": ("float64", -np.inf), "total": ("float64", 0.0),
    "total_rest": ("float64", 0.0), "squares": ("float64", 0.0), "squares_rest": ("float64", 0.0),
}  # fmt: skip
"""Dtype of each array, and what a period without readings has."""
STAMPS: Mapping[str, tuple[str, float]] = {"revision": ("uint32", 0), "changed": ("uint32", 0)}
"""Likewise; a period that was never written is of commit 0."""


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

    @property
    def told(self) -> int:
        """Tick: periods that end at or before it are as they are meant to be."""
        return min([self.until, *(first * self.periods[0] for first, _ in self.todo)])

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
        self._touched: list[tuple[int, int]] = []
        self._most = _number(root, "most")

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

    @property
    def name(self) -> str:
        """Of this view: one that is made after it was lost has another, and counts its commits anew."""
        return str(self._root.attrs.get("name", ""))

    @property
    def commits(self) -> int:
        """Number of the newest commit."""
        return _number(self._root, "commits")

    def changes(self, after: int) -> Changes:
        """By commit, those behind `after`: periods of the shortest length that they, or longer ones with them, made."""
        return tuple(each for each in self._changes() if each[0] > after)

    def bounds(self) -> NDArray[np.float64]:
        """[tags, 2] range of each tag that the view was computed with; NaN for tags without aggregates."""
        return np.asarray(self._root["bounds"][:]) if "bounds" in self._root else np.empty((0, 2))  # type: ignore[index]

    def read(self, period: int, tags: NDArray[np.int32], first: int, last: int) -> Summary:
        """[last - first, m] periods first..last-1 of tag ids [m]; without readings where nothing is stored."""
        out = Summary.empty(max(0, last - first), len(tags))
        self._read(out.columns(), period, tags, first, last)
        return out

    def stamps(
        self, period: int, tags: NDArray[np.int32], first: int, last: int
    ) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        """[last - first, m] how often each has changed since it was first told, and the commit that did it last."""
        out = {name: np.zeros((max(0, last - first), len(tags)), np.uint32) for name in STAMPS}
        self._read(out, period, tags, first, last)
        return out["revision"], out["changed"]

    def put(self, period: int, tags: NDArray[np.int32], first: int, found: Summary, width: int) -> None:
        """Write periods from `first` on of ascending tag ids [m]; `width`: ids that the site has given."""
        for block, rows, here in _blocks(first, first + len(found)):
            path, part = f"{period}/{block}", found[here]
            if not part.count.any() and path not in self._root:
                continue
            group = self._group(path, width)
            stamps = self._stamped(period, tags, first + here.start, part)
            for name, values in {**part.columns(), **stamps}.items():
                with translated(self.folder):
                    _write(group[name], rows, tags, values)

    def touch(self, first: int, last: int) -> None:
        """Periods first..last-1 of the shortest length, and the longer ones of them, are made by the commit to come."""
        self._touched.append((first, last))

    @property
    def since(self) -> int | None:
        """Tick: of what lies before nothing was there any more when all was computed anew; None: all was."""
        since: Any = self._root.attrs.get("since")
        return None if since is None else int(since)

    def begin(self, bounds: NDArray[np.float64], *, anew: bool, since: int | None = None) -> None:
        """Note the tags' ranges; `anew`: all that was computed goes, and what comes has a higher revision.

        `since`: tick below which readings have been pruned by then.
        """
        if anew:
            self._root.attrs.update({"since": since})
            if any(self._root.group_keys()):
                self._most += 1
                self._root.attrs.update({"first": self._most, "changes": []})  # of periods of other lengths
            for key in list(self._root.group_keys()):
                del self._root[key]
        if "bounds" in self._root:
            del self._root["bounds"]
        self._root.create_array("bounds", data=bounds)

    def note(self, mark: Mark) -> None:
        """What the commit to come is of."""
        number = self.commits + 1
        made = with_commit(self._changes(), number, self._touched)
        changes = [[commit, [list(each) for each in ranges]] for commit, ranges in made]
        more: dict[str, Any] = {
            "commits": number,
            "changes": changes,
            "most": self._most,
            "name": self.name or uuid4().hex,
        }
        self._root.attrs.update({**mark.attributes(), **more})

    def _changes(self) -> Changes:
        said: Any = self._root.attrs.get("changes", [])
        return tuple((commit, tuple((first, last) for first, last in ranges)) for commit, ranges in said)

    def _read(
        self, into: Mapping[str, NDArray[Any]], period: int, tags: NDArray[np.int32], first: int, last: int
    ) -> None:  # fmt: skip
        """What is stored of these arrays; the rest of them stays."""
        for block, rows, here in _blocks(first, last):
            path = f"{period}/{block}"
            if path not in self._root or not len(tags):
                continue
            for name, out in into.items():
                with translated(self.folder):
                    if f"{path}/{name}" not in self._root:
                        continue  # of a view that had no stamps yet
                    array: Any = self._root[f"{path}/{name}"]
                    known = np.flatnonzero(tags < array.shape[1])
                    if len(known):
                        c0, c1 = int(tags[known].min()), int(tags[known].max()) + 1
                        out[here, known] = array[rows, c0:c1][:, tags[known] - c0]

    def _stamped(
        self, period: int, tags: NDArray[np.int32], first: int, found: Summary
    ) -> Mapping[str, NDArray[np.uint32]]:  # fmt: skip
        """The stamps that go with `found`: of what is not, to the bit, what is stored."""
        revision, changed = self.stamps(period, tags, first, first + len(found))
        count = {"count": np.zeros(found.count.shape, np.uint32)}
        self._read(count, period, tags, first, first + len(found))
        known = (count["count"] > 0) | (changed > 0)
        differs = found.count != count["count"]
        if (known & ~differs).any():
            before = self.read(period, tags, first, first + len(found)).columns()
            for name, values in found.columns().items():
                differs |= _bits(values) != _bits(before[name])
        revision = np.where(differs, np.where(known, revision + np.uint32(1), self._first()), revision)
        self._most = max(self._most, int(revision.max(initial=0)))
        return {"revision": revision.astype(np.uint32), "changed": np.where(differs, self.commits + 1, changed)}

    def _first(self) -> np.uint32:
        """Revision of what is told for the first time."""
        return np.uint32(_number(self._root, "first"))

    def _group(self, path: str, width: int) -> Any:
        with translated(self.folder):
            for name, (dtype, fill) in {**FILLS, **STAMPS}.items():
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


def _number(root: zarr.Group, name: str) -> int:
    said: Any = root.attrs.get(name, 0)
    return int(said)


def _write(array: Any, rows: slice, tags: NDArray[np.int32], values: NDArray[Any]) -> None:
    c0, c1 = int(tags[0]), int(tags[-1]) + 1
    if len(tags) < c1 - c0:
        part = np.array(array[rows, c0:c1])
        part[:, tags - c0] = values
        values = part
    array[rows, c0:c1] = values


def _bits(values: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(values).view(f"u{values.dtype.itemsize}")


def _blocks(first: int, last: int) -> Iterator[tuple[int, slice, slice]]:
    """(block, its rows, rows of what is read or written) of periods first..last-1."""
    for block in range(first // BLOCK, (last - 1) // BLOCK + 1):
        a, b = max(first, block * BLOCK), min(last, (block + 1) * BLOCK)
        yield block, slice(a - block * BLOCK, b - block * BLOCK), slice(a - first, b - first)
