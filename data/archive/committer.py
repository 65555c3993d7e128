"""Writing to the archive: cells merged into chunks, atomic durable commits, closing and expiring.

One process at a time, under `archive/lock`. A commit is written whole and flushed to disk before the
branch moves to it, so neither a kill nor a power cut leaves a torn archive: the head is then an
earlier commit. This file knows nothing of readings and journals.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
from numpy.typing import NDArray

from penstock.data.archive import Archive, Head, View
from penstock.data.archive.chunks import ChunkWriter
from penstock.data.archive.pieces import read_block
from penstock.data.archive.pruning import segments_before
from penstock.data.archive.regions import chunks_held, columns_of, held, runs, union
from penstock.data.archive.repository import (
    ARRAYS,
    BRANCH,
    DTYPES,
    SegmentName,
    make_segment,
    open_chunks,
    opened,
    sync_filesystem,
    translated,
)
from penstock.data.durable import locked
from penstock.data.grid import Cells
from penstock.data.journal.record import Totals
from penstock.errors import ArchiveBusy

REGION_CELLS = 1 << 24
"""Cells read, merged and written at a time."""
KEEP = "keep-"
"""Prefix of the icechunk tags that hold on to snapshots that cards name."""
COLLECT_S = 60.0
"""How long expiring waits for a copy that is being made, and the other way round."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Committer:
    """The one writer; got from `Archive.committer`. What was merged and not committed is forgotten."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.head = archive.head()
        self._chunks = ChunkWriter()
        if archive.flushed != self.head.snapshot:  # whoever committed it may have died before its flush
            sync_filesystem(archive.folder)
            archive.flushed = self.head.snapshot
        self._session: Any
        self._view: View
        self._span: tuple[int, int]
        self._start()

    def admit(self, double: NDArray[np.bool_]) -> None:
        """Give columns to all tags of the registry: [tags] true for float64. Ids known before stay."""
        known = self._view.double
        if len(double) > len(known):
            with translated(self.archive.folder):
                array: Any = self._view.root["double"]
                array.resize((len(double),))
                array[len(known) :] = double[len(known) :]
            self._view = View(self._view.root, self.archive.grid)

    def block(self, dtype: str, tick: int) -> tuple[int, int]:
        """The ticks [first, last) of the chunks that hold `tick`: what is best merged together."""
        ticks = self.archive.segment_ticks
        index = tick // ticks
        name = self._view.segments.get((dtype, index))
        width = int(np.count_nonzero(self._view.double == (dtype == "float64")))
        long = self._view.array(name, "value").chunks[0] if name else open_chunks(ticks, width)[0]
        first = index * ticks + (tick - index * ticks) // long * long
        return first, min(first + long, (index + 1) * ticks)

    def merge(self, dtype: str, column: int, stage: Cells) -> None:
        """Merge a block of cells in: columns from `column` on; ticks inside one `block`.

        Whole chunks are read and written where the block holds readings, others are left alone. What belongs into a
        segment that was pruned is passed over: a part of what was there must not stand for all of it.
        """
        rows = held(stage.quality)  # an empty cell's quality is 0
        if rows is None or (self.head.pruned is not None and stage.last <= self.head.pruned):
            return
        with translated(self.archive.folder):
            name = self._segment(dtype, stage.first // self.archive.segment_ticks)
            width = self._view.array(name, "value").chunks[1]
            chunks = chunks_held(stage.quality, column, width)
            first, last = self.block(dtype, stage.first)
            most = max(REGION_CELLS // ((last - first) * width), 1)
            for run in runs(chunks, most):
                self._merge_region(name, (first, last), (run[0] * width, (run[1] + 1) * width), column, stage)
        span = (stage.first + rows[0], stage.first + rows[1])
        self._span = span if self._span[0] == self._span[1] else union(self._span, span)

    def commit(
        self,
        position: int,
        closed: int | None,
        source_offsets: Mapping[str, int],
        totals: Mapping[str, Totals],
        newest: int | None = None,
    ) -> Head:
        """Make everything merged so far one durable commit at this journal position.

        `newest`: see `Head`; None: no tag may be ahead of its time.
        """
        return self._commit(
            replace(
                self.head, position=position, closed=closed, source_offsets=source_offsets, totals=totals,
                span=self._span, newest=self._span[1] if newest is None else newest,
            )
        )  # fmt: skip

    def close_segment(self, dtype: str, index: int) -> None:
        """Rewrite an open segment long and narrow, as training and queries read it, in one commit."""
        name = self._view.segments.get((dtype, index))
        if name is None or name.closed:
            return
        closed = replace(name, closed=True)
        with translated(self.archive.folder):
            ticks, tags = self._view.array(name, "value").shape
            make_segment(self._view.root, self.archive.grid, closed, tags, ticks)
            self._chunks.flush()
            for which, fill in ARRAYS.items():
                _copy(self._view.array(name, which), self._view.array(closed, which), fill, self._chunks)
            self._chunks.flush()
            del self._view.root[name.path(self.archive.grid.period_ns)]
        self._commit(self.head)

    def prune(self, before: int) -> list[SegmentName]:
        """Remove the segments that end at or before tick `before`, in one commit; those that there were.

        `before` is a multiple of the segments' length. Former commits still hold them until they are expired.
        """
        gone = segments_before(self._view.segments.values(), before, self.archive.segment_ticks)
        if not gone:
            return []
        with translated(self.archive.folder):
            for name in gone:
                del self._view.root[name.path(self.archive.grid.period_ns)]
        first, last = self.head.span
        span = (min(max(first, before), last), last)
        self._commit(replace(self.head, span=span, pruned=max(before, self.head.pruned or before)))
        return gone

    def open_segments(self, before: int) -> list[tuple[str, int]]:
        """Dtype and index of the open segments that end at or before tick `before`."""
        limit = before // self.archive.segment_ticks
        return sorted(key for key, name in self._view.segments.items() if not name.closed and name.index < limit)

    def expire(self, keep: set[str], before: int, *, older_than_ns: int | None = None) -> int:
        """Forget the commits that no reader from journal position `before` on needs; how many.

        The newest commit at or before `before` stays, later ones too, those made at or after `older_than_ns`
        (UTC; None: the others alone decide) and those whose ids are in `keep`; ids that are no commit of this
        archive are passed over.
        """
        repo = self.archive.repository
        oldest = self.archive.at(before).snapshot
        with uncollected(self.archive.folder), translated(self.archive.folder):
            for tag in repo.list_tags():
                if tag.startswith(KEEP) and tag.removeprefix(KEEP) not in keep:
                    repo.delete_tag(tag)
            for snapshot in keep - {t.removeprefix(KEEP) for t in repo.list_tags()}:
                if _known(repo, snapshot):
                    repo.create_tag(KEEP + snapshot, snapshot)
            limit = repo.lookup_snapshot(oldest).written_at
            if older_than_ns is not None:
                limit = min(limit, EPOCH + timedelta(microseconds=older_than_ns // 1000))
            gone = len(repo.expire_snapshots(older_than=limit) - keep)
            repo.garbage_collect(delete_object_older_than=limit)
        return gone

    def end(self) -> None:
        """Forget what was merged and not committed."""
        self._chunks.close()

    def _start(self) -> None:
        with translated(self.archive.folder):
            self._session = self.archive.repository.writable_session(BRANCH)
            self._view = View(opened(self._session.store, "r+"), self.archive.grid)
        self._span = self.head.span
        self._touched: set[tuple[SegmentName, int, int]] = set()
        """Chunk columns of blocks of ticks that were written since the head."""

    def _commit(self, head: Head) -> Head:
        with translated(self.archive.folder):
            self._chunks.flush()
            # icechunk refuses a commit without a change, and one that moves only the position is one.
            self._view.root.attrs["position"] = head.position
            snapshot = self._session.flush(f"position {head.position}", metadata=head.metadata())
            sync_filesystem(self.archive.folder)
            self.archive.repository.reset_branch(BRANCH, snapshot, from_snapshot_id=self.head.snapshot)
            sync_filesystem(self.archive.folder)
        self.head = replace(head, snapshot=snapshot)
        self.archive.flushed = snapshot
        self._start()
        return self.head

    def _segment(self, dtype: str, index: int) -> SegmentName:
        """The segment, created or widened so that it has a column for every tag."""
        tags = int(np.count_nonzero(self._view.double == (dtype == "float64")))
        name = self._view.segments.get((dtype, index))
        if name is None:
            name = SegmentName(dtype=dtype, index=index, closed=False)
            make_segment(self._view.root, self.archive.grid, name, tags, self.archive.segment_ticks)
            self._view.segments[dtype, index] = name
        for which in ARRAYS:
            array = self._view.array(name, which)
            if array.shape[1] < tags:
                array.resize((array.shape[0], tags))
        return name

    def _merge_region(
        self, name: SegmentName, ticks: tuple[int, int], columns: tuple[int, int], column: int, stage: Cells
    ) -> None:
        arrays = [self._view.array(name, which) for which in ARRAYS]
        begin = name.index * self.archive.segment_ticks
        c0, c1 = columns[0], min(columns[1], arrays[0].shape[1])
        s0, s1 = max(c0, column), min(c1, column + stage.values.shape[1])
        cells, mine = columns_of(stage, slice(s0 - column, s1 - column)), slice(s0 - c0, s1 - c0)
        new = self._is_new(name, ticks, (c0, c1))
        if not new or (stage.first, stage.last, s0, s1) != (*ticks, c0, c1):
            wide = (ticks[1] - ticks[0], c1 - c0)
            whole = Cells.empty(ticks[0], *wide, name.dtype) if new else self._stored(name, arrays, ticks, (c0, c1))
            columns_of(whole.rows(stage.first, stage.last), mine).merge(cells)
            cells = whole
        blocks = (cells.values, cells.quality, cells.offset)
        self._chunks.put(arrays, blocks, ticks[0] - begin, c0, new=new)

    def _is_new(self, name: SegmentName, ticks: tuple[int, int], columns: tuple[int, int]) -> bool:
        """Whether nothing can be stored of ticks [first, last) and these columns yet; from now on something is."""
        span, width = self.head.span, self._view.array(name, "value").chunks[1]
        chunks = {(name, ticks[0], c) for c in range(columns[0] // width, -(-columns[1] // width))}
        new = (ticks[0] >= span[1] or span[0] == span[1]) and self._touched.isdisjoint(chunks)
        self._touched |= chunks
        return new

    def _stored(self, name: SegmentName, arrays: list[Any], ticks: tuple[int, int], columns: tuple[int, int]) -> Cells:
        """Cells of ticks [first, last) and columns [first, last)."""
        self._chunks.flush()
        begin = name.index * self.archive.segment_ticks
        cells = Cells.empty(ticks[0], ticks[1] - ticks[0], columns[1] - columns[0], name.dtype)
        where = slice(ticks[0] - begin, ticks[1] - begin)
        for array, into in zip(arrays, (cells.values, cells.quality, cells.offset), strict=True):
            read_block(array, where, columns[0], into)
        return cells


def _copy(source: Any, target: Any, fill: Any, chunks: ChunkWriter) -> None:
    """All cells of one array into another of the same shape, in regions that are whole chunks of the other."""
    ticks, tags = source.shape
    long, wide = target.chunks
    wide *= max(REGION_CELLS // long // wide, 1)
    for t0 in range(0, ticks, long):
        for c0 in range(0, tags, wide):
            block = np.full((min(long, ticks - t0), min(wide, tags - c0)), fill, source.dtype)
            read_block(source, slice(t0, t0 + len(block)), c0, block)
            chunks.put([target], [block], t0, c0, new=True)


def _known(repo: icechunk.Repository, snapshot: str) -> bool:
    """A card may have come from another site."""
    try:
        repo.lookup_snapshot(snapshot)
    except (icechunk.IcechunkError, ValueError):
        return False
    return True


@contextmanager
def uncollected(folder: Path) -> Iterator[None]:
    """Nobody collects what old commits of the archive in `folder` held, but who has this. Raises ArchiveBusy."""
    try:
        with locked(folder / "collecting", deadline_s=COLLECT_S):
            yield
    except TimeoutError as error:
        raise ArchiveBusy(f"{error}; it is being copied: wait for it") from error


@contextmanager
def committing(archive: Archive) -> Iterator[Committer]:
    """Hold the committer's lock. Raises ArchiveBusy when another process has it."""
    fd = os.open(archive.folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ArchiveBusy(
                f"{archive.folder}: another process is writing to this archive; wait for it, or stop it"
            ) from None
        committer = Committer(archive)
        try:
            yield committer
        finally:
            committer.end()
    finally:
        os.close(fd)


__all__ = ["DTYPES", "Committer", "committing", "uncollected"]
